package media

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media/alloc"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/udp"
)

// maxWorkers bounds the sending goroutines of a node.
const maxWorkers = 16

// flushAfter is how many packets a worker seals before it sends: enough for full
// GSO runs to many subscribers, few enough that the first ones don't wait for the last.
const flushAfter = 96

// A worker that finds the beginning of a frame whose rest is about to come, by the gaps
// between packets so far, waits for that: all packets of a frame to one subscriber are one
// GSO run. So it does for a packet of one microphone when that of another is due: two are a
// run as well. It is only worth it with some subscribers.
const (
	holdMost        = 400 * time.Microsecond
	holdGap         = 120 * time.Microsecond
	holdSubscribers = 8
)

// worker sends. It owns the sending half of the endpoints pinned to it: whoever has its
// turn may touch their DownTracks, SRTP keys and transport-wide sequence numbers, which need
// no lock of their own, and the order on the wire is that of the numbers. The turn is
// taken by the worker's goroutine or, when media has arrived, by the goroutine that read it:
// waking another one would cost more than much of what there is to do.
type worker struct {
	e      *Engine
	id     int
	sender *udp.Sender
	load   atomic.Int32
	kick   chan struct{}
	timer  *time.Timer
	next   atomic.Int64 // when a tick is due
	turn   sync.Mutex   // guards what belongs to the worker; taken before mu

	mu      sync.Mutex // guards the fields below
	queue   []item
	urgent  bool // something in the queue should not wait for the next tick
	hold    hold // what is about to come that should leave with what is in the queue
	stopped bool

	// The rest belongs to who has the turn.
	batch     []item
	endpoints map[*outbound]struct{}
	unsettled []switched // switched encodings: their lists change after the batch
	replay    []*packet.Packet
	padding   []uint8                // of the packets being forwarded
	probing   map[*outbound]struct{} // those to look at every few milliseconds
	armed     bool                   // the timer for that runs
	busy      bool                   // some endpoint is sent something, or was a moment ago
	allocator *alloc.Allocator
	now       int64  // time of the batch or tick under way
	warmth    uint64 // of warm
}

// switched is a DownTrack that goes on with another encoding than before.
type switched struct {
	dt   *DownTrack
	from *Encoding
}

// item is a packet to forward, feedback for an endpoint's outbound, or something to do.
type item struct {
	enc *Encoding
	out *outbound
	pkt *packet.Packet
	do  func()
}

func newWorker(e *Engine, id int) *worker {
	w := &worker{
		e: e, id: id, sender: e.conn.NewSender(), kick: make(chan struct{}, 1), timer: time.NewTimer(workerPeriod),
		endpoints: map[*outbound]struct{}{}, probing: map[*outbound]struct{}{},
	}
	// Without a Config to be wrong about, New cannot fail.
	w.allocator, _ = alloc.New(alloc.Config{})
	return w
}

// hold says what to wait for: the rest of a frame, another microphone's packet.
type hold struct{ frame, beat bool }

// push queues a packet, retaining it; Engine.work makes the worker look.
// more says that what should leave with it is about to come.
func (w *worker) push(enc *Encoding, p *packet.Packet, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || len(w.queue) >= workerQueue {
		w.e.drops.add(dropQueueFull)
		return
	}
	p.Retain()
	w.queue = append(w.queue, item{enc: enc, pkt: p})
	w.urgent = true
	if enc.track.kind == codec.Audio {
		w.hold.beat = more
	} else {
		w.hold.frame = more
	}
}

// post makes the worker call f, after what was queued before. It is false when
// the worker has stopped.
func (w *worker) post(f func()) bool {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return false
	}
	w.queue = append(w.queue, item{do: f})
	w.urgent = true
	w.mu.Unlock()
	w.wake()
	return true
}

// pushControl queues feedback of a client, retaining the packet. Without urgency it is handled
// with what comes next, at the latest at the next tick: hundreds of clients send feedback all
// the time, and waking up for each would cost more than handling it.
func (w *worker) pushControl(o *outbound, p *packet.Packet, urgent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || len(w.queue) >= workerQueue {
		w.e.drops.add(dropQueueFull)
		return
	}
	p.Retain()
	w.queue = append(w.queue, item{out: o, pkt: p})
	w.urgent = w.urgent || urgent
}

// call is post that waits until f has run. When the worker does not run any more
// f is called directly, one at a time.
func (w *worker) call(f func()) {
	done := make(chan struct{})
	if w.post(func() { f(); close(done) }) {
		<-done
		return
	}
	w.turn.Lock()
	defer w.turn.Unlock()
	f()
}

// pending says that something in the queue should not wait for the next tick.
func (w *worker) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.urgent
}

// release is pending, after a frame has been waited for long enough.
func (w *worker) release() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = hold{}
	return w.urgent
}

// processHere is process on the caller's goroutine, unless another one is at it: then
// the worker's looks again afterwards.
func (w *worker) processHere() {
	if !w.turn.TryLock() {
		w.wake()
		return
	}
	defer w.turn.Unlock()
	w.process()
	w.probeLater()
}

// probeLater lets the worker's goroutine, whose timer it is, look at pacers and probes.
func (w *worker) probeLater() {
	if len(w.probing) > 0 && !w.armed {
		w.wake()
	}
}

func (w *worker) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *worker) run(stop <-chan struct{}) {
	probe, hold := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer w.timer.Stop()
	defer probe.Stop()
	defer hold.Stop()
	fires := int64(0) // when w.timer does
	for {
		due := (*worker).process
		kicked, late := false, slack // others tick, as it seems
		select {
		case <-w.kick:
			kicked = true
			w.awaitFrame(hold)
		case <-w.timer.C:
			due, fires = (*worker).tickLate, forever
			if w.e.now() >= w.next.Load() {
				late = 0
			}
		case <-probe.C:
			due = (*worker).probe
		case <-stop:
			return
		}
		w.turn.Lock()
		due(w)
		if len(w.probing) > 0 && !w.armed {
			probe.Reset(probePeriod)
			w.armed = true
		}
		if kicked && !w.busy { // with nobody to look after, ticks were few
			w.busy = true
			w.again()
		}
		if now, next := w.e.now(), w.next.Load()+int64(late); next < fires {
			w.timer.Reset(time.Duration(next - now))
			fires = next
		}
		w.turn.Unlock()
	}
}

// again sets the time of the next tick. Who ticks in the goroutine's place leaves its timer
// alone: to set it wakes a thread.
func (w *worker) again() {
	period := workerPeriod
	if !w.busy {
		period = idlePeriod
	}
	w.next.Store(w.e.now() + int64(period))
}

// tickLate ticks unless somebody has just done so.
func (w *worker) tickLate() {
	if w.e.now() >= w.next.Load() {
		w.tick()
		w.again()
	}
}

// tick does what is due now and then.
func (w *worker) tick() {
	w.now = w.e.now()
	w.busy = false
	for o := range w.endpoints {
		o.tick(w.now)
		w.busy = w.busy || o.awake > 0
	}
	w.settle()
	w.process()
}

// drainAfterStop lets go of what was never processed, and runs what somebody waits for.
func (w *worker) drainAfterStop() {
	w.turn.Lock()
	defer w.turn.Unlock()
	w.mu.Lock()
	w.stopped = true
	left := w.queue
	w.queue = nil
	w.mu.Unlock()
	for _, it := range left {
		if it.do != nil {
			it.do()
		} else {
			it.pkt.Release()
		}
	}
}

// process takes all that is queued, until nothing is, and sends the result.
func (w *worker) process() {
	for {
		w.mu.Lock()
		w.batch, w.queue, w.urgent = w.queue, w.batch[:0], false
		w.mu.Unlock()
		if len(w.batch) == 0 {
			break
		}
		w.now = w.e.now()
		w.forward(w.batch)
		clear(w.batch)
	}
	w.sender.Flush()
}

// awaitFrame waits until the frame under way is complete, at most holdMost.
func (w *worker) awaitFrame(timer *time.Timer) {
	if !w.holding() {
		return
	}
	timer.Reset(holdMost)
	for w.holding() {
		select {
		case <-w.kick:
		case <-timer.C:
			return
		}
	}
}

func (w *worker) holding() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hold != (hold{}) && w.urgent && len(w.queue) < flushAfter
}

// probe sends what pacers held back, and padding for the estimators that probe.
func (w *worker) probe() {
	w.now, w.armed = w.e.now(), false
	for o := range w.probing {
		waiting := o.pace(w.now)
		if !o.probe(w.now) && !waiting {
			delete(w.probing, o)
		}
	}
	w.sender.Flush()
}

// forward goes through a batch. Packets of one encoding that follow each other go to
// one subscriber after the other, not one packet after the other: they are one burst on
// the wire, and the subscriber's state is touched once.
func (w *worker) forward(batch []item) {
	for i := 0; i < len(batch); {
		if batch[i].do != nil {
			batch[i].do()
			w.settle()
			i++
			continue
		}
		if it := batch[i]; it.out != nil {
			it.out.control(it.pkt.Payload, it.pkt.ArrivalNS)
			it.pkt.Release()
			w.settle()
			i++
			continue
		}
		j := i + 1
		for j < len(batch) && batch[j].enc == batch[i].enc {
			j++
		}
		enc := batch[i].enc
		w.level(enc, batch[i:j])
		for list := enc.subs[w.id].list; len(list) > 0; {
			near := list[:min(warmed, len(list))]
			list = list[len(near):]
			w.warm(near)
			for _, dt := range near {
				for k, it := range batch[i:j] {
					dt.write(enc, it.pkt, w.padding[k])
				}
				if w.sender.Queued() >= flushAfter {
					w.sender.Flush()
				}
			}
		}
		for _, it := range batch[i:j] {
			it.pkt.Release()
		}
		w.settle()
		i = j
	}
}

// padMost is the most padding with which a packet gets the size of others of its frame.
const padMost = 8

// level finds the padding with which packets of one frame have one size. Encoders split frames
// into packets that differ by a byte or a few, and only equal ones leave in one run.
func (w *worker) level(enc *Encoding, run []item) {
	w.padding = append(w.padding[:0], make([]uint8, len(run))...)
	if enc.track.kind != codec.Video {
		return
	}
	for i := 0; i < len(run); {
		most, j := 0, i
		for ; j < len(run) && run[j].pkt.Timestamp == run[i].pkt.Timestamp; j++ {
			most = max(most, sizeOf(run[j].pkt))
		}
		for k := i; k < j-1; k++ { // the last may be shorter
			if n := sizeOf(run[k].pkt); n > 0 && most-n <= padMost {
				w.padding[k] = uint8(most - n)
			}
		}
		i = j
	}
}

// sizeOf is what of a packet's size differs between those of a frame.
func sizeOf(p *packet.Packet) int { return len(p.Payload) + len(p.Descriptor) }

// settle lets DownTracks that switched leave the lists they do not need any more,
// which must not happen while a list is being gone through.
func (w *worker) settle() {
	if len(w.unsettled) == 0 {
		return
	}
	for i := 0; i < len(w.unsettled); i++ { // following may begin with a replay, and so grow it
		x := w.unsettled[i]
		if x.from != nil && x.from != x.dt.source && x.from != x.dt.target {
			x.from.subs[w.id].remove(x.dt)
		}
		x.dt.follow(w.now)
	}
	clear(w.unsettled)
	w.unsettled = w.unsettled[:0]
}

// hereMost is up to how many workers in use the one that reads also sends: with more of
// them, what the others wait for has to be read meanwhile.
const hereMost = 2

// kickWorkers makes the workers look at what has been pushed, when its frame is complete.
func (e *Engine) kickWorkers() {
	for _, w := range e.workers {
		if w.pending() {
			w.wake()
		}
	}
}

// inUse is how many workers have endpoints.
func (e *Engine) inUse() (n int) {
	for _, w := range e.workers {
		if w.load.Load() > 0 {
			n++
		}
	}
	return n
}

// work makes the workers look at once: one of them on the caller's goroutine.
func (e *Engine) work() {
	var here *worker
	for _, w := range e.workers {
		switch {
		case !w.release():
		case here == nil:
			here = w
		default:
			w.wake()
		}
	}
	switch {
	case here == nil:
	case e.inUse() > hereMost:
		here.wake()
	default:
		here.processHere()
	}
}

// holding says that a worker would wait for the rest of a frame.
func (e *Engine) holding() bool {
	for _, w := range e.workers {
		if w.holding() {
			return true
		}
	}
	return false
}
