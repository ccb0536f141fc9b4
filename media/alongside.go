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

// alongsideAfter is how long ago feedback, reports and STUN were read when they are read again
// because media has come along.
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
	read   atomic.Int64  // when it was read last
	// connecting are the transports without a path. Their checks are answered at once.
	connecting atomic.Int32
	turn       sync.Mutex // to read
}

func newPatient(r *udp.Reader) *patient { return &patient{reader: r, hurry: make(chan struct{}, 1)} }

// expect is told that a client is about to connect.
func (p *patient) expect() {
	p.connecting.Add(1)
	select {
	case p.hurry <- struct{}{}:
	default:
	}
}

// readPatient is the goroutine of the second socket. It only reads it while somebody connects;
// else what comes there wakes nobody, and is read alongside or with the clock's tick.
func (e *Engine) readPatient() {
	p := e.patient
	for {
		select {
		case <-p.hurry:
		case <-e.done:
			return
		}
		for p.connecting.Load() > 0 {
			if p.reader.Wait() != nil {
				return
			}
			e.takePatient(e.now())
			e.kickWorkers() // a report may have company in its packet that is urgent
		}
		p.reader.Ignore()
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

// takeUnread reads the second socket with the clock's tick when no media has come along.
func (e *Engine) takeUnread(now int64) {
	if p := e.patient; p.reader != nil && now-p.read.Load() >= alongsideAfter {
		e.takePatient(now)
		e.kickWorkers()
	}
}

// alongside does what is due, on the goroutine that has just read media.
func (e *Engine) alongside() {
	now := e.now()
	if p := e.patient; p.reader != nil && now-p.read.Load() >= alongsideAfter {
		e.takePatient(now)
		if e.urgent() {
			e.work()
		}
	}
	if now >= e.clock.next.Load() && e.clock.turn.TryLock() {
		e.clock.tick(now)
		e.clock.again(now)
		e.clock.turn.Unlock()
	}
	if e.inUse() > hereMost {
		return // who reads for so many has no time to send for them
	}
	for _, w := range e.workers {
		if now >= w.next.Load() && w.turn.TryLock() {
			w.tick()
			w.again()
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
