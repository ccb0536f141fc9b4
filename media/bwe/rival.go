package bwe

import "time"

const (
	// rivalQueue is a queue that would be gone if it were only this flow's.
	rivalQueue = 40 * time.Millisecond
	// rivalDrain is how much queue, by what this flow left unused since its last
	// decrease, should have drained before it is judged who holds it.
	rivalDrain = 120 * time.Millisecond
	// rivalPatience is after how long it is judged at the latest.
	rivalPatience = 1500 * time.Millisecond
	// A queue that shrinks by rivalDrop within rivalDropTime, more than what this flow left
	// unused, is the work of somebody else: a TCP that met loss.
	rivalDrop     = 80 * time.Millisecond
	rivalDropTime = 400 * time.Millisecond
	// rivalEvidence is how much of it makes rivals certain: a decrease that drained
	// nothing is 1, a drop that was not this flow's is 2.
	rivalEvidence = 4
	// rivalGone is a queue that no flow stands in, rivalGoneTime how long there must be none.
	rivalGone     = 20 * time.Millisecond
	rivalGoneTime = 1500 * time.Millisecond
	// rivalPacket is what a TCP grows by in a round trip, in bits, and rivalGrowth the
	// most that this flow grows by, in bits per second each second.
	rivalPacket = 1200 * 8
	rivalGrowth = 300_000
	rivalLeast  = 100_000
	// rivalBackoff is what is left of the acknowledged rate after loss.
	rivalBackoff = 0.8
	// rivalMostQueue is answered like loss: no deeper queue is worth competing for.
	rivalMostQueue = 700 * time.Millisecond
)

// rivals finds out whether somebody else fills the queue of the path, who answers loss
// and not delay: then a decrease of this flow shortens no queue, and yielding to delay
// would starve it. While it competes, loss is what counts; a queue that drains ends it.
type rivals struct {
	competing bool
	judging   bool
	queue     time.Duration // at the decrease being judged
	since     time.Duration
	capacity  float64       // what arrived then
	drain     time.Duration // what should have drained since
	evidence  int
	empty     time.Duration // since when there is no queue; 0 when there is one
	counted   time.Duration
	// peak is the longest queue of late, and when that was; left what could have drained
	// of it by this flow's doing, of the rate peakRate that arrived then.
	peak, peakAt, left time.Duration
	peakRate           float64
	// falling: since a decrease while competing the queue has been falling, to least.
	falling bool
	least   time.Duration
}

// cutAt notes a decrease for delay, when capacity arrived.
func (r *rivals) cutAt(capacity float64, queue, now time.Duration) {
	if !r.judging && !r.competing && queue > rivalQueue {
		r.judging, r.queue, r.capacity, r.since, r.drain = true, queue, capacity, now, 0
	}
}

// watch takes each window.
func (r *rivals) watch(w window, queue, now time.Duration) {
	dt := min(now-r.counted, 500*time.Millisecond)
	r.counted = now
	switch {
	case queue > rivalQueue:
		r.empty = 0
	case r.empty == 0 && queue < rivalGone:
		r.empty = now
	case r.empty == 0:
	case now-r.empty > rivalGoneTime:
		r.judging, r.evidence, r.competing = false, 0, false
	}
	if r.dropped(w, queue, now, dt) {
		r.evidence += 2
	}
	r.judge(w, queue, now, dt)
	if r.evidence >= rivalEvidence {
		r.competing, r.judging, r.evidence = true, false, 0
	}
}

// dropped says that somebody else let go of the queue.
func (r *rivals) dropped(w window, queue, now, dt time.Duration) bool {
	if queue >= r.peak || now-r.peakAt > rivalDropTime {
		r.peak, r.peakAt, r.left, r.peakRate = queue, now, 0, w.acked
		return false
	}
	r.left += time.Duration(max(1-w.sent/r.peakRate, 0) * float64(dt))
	if r.peak-queue < rivalDrop+2*r.left {
		return false
	}
	r.peak, r.peakAt, r.left = queue, now, 0
	return true
}

// judge tells whether a decrease of this flow shortened the queue.
func (r *rivals) judge(w window, queue, now, dt time.Duration) {
	if !r.judging {
		return
	}
	if queue < rivalQueue {
		r.judging = false
		return
	}
	r.drain += time.Duration(max(1-w.sent/r.capacity, 0) * float64(dt))
	if r.drain < rivalDrain && now-r.since < rivalPatience {
		return
	}
	r.judging = false
	if r.queue-queue > max(r.drain/2, r.queue/5) {
		r.evidence = 0
		return
	}
	r.evidence++
}

// compete is the control while there are rivals: more like TCP, by the round trip with
// its queue, and less after loss.
func (c *control) compete(w window, queue, now, dt time.Duration, n *Stats) {
	rtt := (c.rtt + queue).Seconds()
	lost := w.loss > c.inherent && w.lost > 1
	if lost || queue > rivalMostQueue {
		// The window has to be past the decrease, or the same loss would count twice.
		if now-c.cut < c.rtt+queue+windowSpan {
			return
		}
		if target := w.acked * rivalBackoff; target < c.estimate {
			n.Overuses++
			c.capacity = w.acked
			c.set(target)
			c.cut = now
			c.rivals.falling, c.rivals.least = true, queue
		}
		return
	}
	// Growing again before the queue has drained would hide that there are no rivals any more.
	r := &c.rivals
	if r.least = min(r.least, queue); r.falling && queue > r.least+congestedQueue {
		r.falling = false
	}
	if c.limited || r.falling && queue > rivalGone {
		return
	}
	step := min(max(rivalPacket/(rtt*rtt), rivalLeast), rivalGrowth) * dt.Seconds()
	if queue < rivalQueue { // slow enough to see it stay away
		step = min(step, c.estimate*growth*dt.Seconds())
	}
	if limit := max(1.5*w.acked, c.estimate); c.estimate+step <= limit {
		c.set(c.estimate + step)
	}
}
