package media

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media/udp"
)

// To wake a goroutine costs as much as sending ten packets. So what is due now and then is
// done by the goroutine that has just read media, which is awake anyway; the goroutines
// whose task it is only wake up when that has not happened for a while.

// patience is for how long feedback, reports and STUN lie unread at most: long against
// neither the period of reports (50 to 250 ms) nor the worker's, which acts on them.
const patience = 10 * time.Millisecond

// idlePatience is patience while no media comes, mediaAfter how long that must be so: then there
// are but signs of life to answer, and to wake up for them is what idling costs.
const (
	idlePatience = 100 * time.Millisecond
	mediaAfter   = int64(100 * time.Millisecond)
)

// alongsideAfter is how long ago they were read when media comes along.
const alongsideAfter = int64(5 * time.Millisecond)

// slack is how much later than by a goroutine that read media something is done by the
// goroutine whose task it is.
const slack = 12 * time.Millisecond

// patientBatches is how many batches are read in one go.
const patientBatches = 4

// patient reads the second socket.
type patient struct {
	reader *udp.Reader   // nil without
	hurry  chan struct{} // somebody begins to connect
	rest   *time.Timer   // the pause of the goroutine
	read   atomic.Int64  // when it was read last
	media  atomic.Int64  // when media was read last
	// connecting are the transports without a path. Their checks are answered at once.
	connecting atomic.Int32
	turn       sync.Mutex // to read
}

func newPatient(r *udp.Reader) *patient {
	return &patient{reader: r, hurry: make(chan struct{}, 1), rest: time.NewTimer(patience)}
}

// expect is told that a client is about to connect.
func (p *patient) expect() {
	p.connecting.Add(1)
	select {
	case p.hurry <- struct{}{}:
	default:
	}
}

// readPatient is the goroutine of the second socket.
func (e *Engine) readPatient() {
	p := e.patient
	for p.reader.Wait() == nil {
		e.takePatient(e.now())
		e.kickWorkers() // a report may have company in its packet that is urgent
		if p.connecting.Load() > 0 {
			continue
		}
		if e.now()-p.media.Load() > mediaAfter {
			p.rest.Reset(idlePatience)
		} else {
			p.rest.Reset(patience)
		}
		select {
		case <-p.rest.C:
		case <-p.hurry:
		}
	}
}

// takePatient takes what is there, unless somebody is at it.
func (e *Engine) takePatient(now int64) {
	p := e.patient
	if !p.turn.TryLock() {
		return
	}
	defer p.turn.Unlock()
	p.read.Store(now)
	for range patientBatches {
		batch := p.reader.ReadNow()
		if len(batch) == 0 {
			return
		}
		e.take(batch, now)
	}
}

// takeIdle reads the second socket with the clock's tick while no media comes.
func (e *Engine) takeIdle(now int64) {
	if p := e.patient; p.reader != nil && now-p.media.Load() > mediaAfter && now-p.read.Load() > int64(idlePatience/2) {
		p.rest.Reset(idlePatience + slack)
		e.takePatient(now)
		e.kickWorkers()
	}
}

// alongside does what is due, on the goroutine that has just read media.
func (e *Engine) alongside() {
	now := e.now()
	e.patient.media.Store(now)
	if p := e.patient; p.reader != nil && now-p.read.Load() >= alongsideAfter {
		p.rest.Reset(patience + slack)
		e.takePatient(now)
		if e.urgent() {
			e.work()
		}
	}
	if now >= e.clock.next.Load() && e.clock.turn.TryLock() {
		e.clock.tick(now)
		e.clock.again(now, slack)
		e.clock.turn.Unlock()
	}
	if e.inUse() > hereMost {
		return // who reads for so many has no time to send for them
	}
	for _, w := range e.workers {
		if now >= w.next.Load() && w.turn.TryLock() {
			w.tick()
			w.again(slack)
			w.probeLater()
			w.turn.Unlock()
		}
	}
}

// urgent says that a worker has something to do at once.
func (e *Engine) urgent() bool {
	for _, w := range e.workers {
		if w.pending() {
			return true
		}
	}
	return false
}
