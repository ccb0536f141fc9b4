package bwe

import (
	"math"
	"time"
)

const (
	// backoff is what is left of the acknowledged rate after congestion.
	backoff = 0.85
	// congestedRatio: when less than this share of the sent rate arrives while
	// delay grows, the acknowledged rate is the path's capacity.
	congestedRatio = 0.93
	// congestedQueue is a queue that by itself proves congestion.
	congestedQueue = 60 * time.Millisecond
	// probeQueue is a queue that no probe makes.
	probeQueue = 200 * time.Millisecond
	// standingQueue that lasts for standingTime is congestion whatever the trend.
	standingQueue = 150 * time.Millisecond
	standingTime  = 600 * time.Millisecond
	// limitedShare: sending less than this share of the estimate is being
	// limited by the application.
	limitedShare = 0.8
	// aboveEstimate: more arriving than this multiple of the estimate is no chance.
	aboveEstimate = 1.2
	// growth is the multiplicative increase per second, far from a known limit. Near
	// it the increase is growthNear times the root of the estimate, in bits per second
	// each second (45 kbit/s at 300 kbit/s, 140 at 3 Mbit/s), and growthFloor at least: the
	// less a flow has, the faster it grows in proportion, so flows on one link become equal.
	growth      = 0.08
	growthNear  = 2.6
	growthFloor = 40_000
	// lossLow allows growth; between it and Config.Loss nothing changes.
	lossLow = 0.02
	// lossPackets is how many packets make a loss figure worth acting on.
	lossPackets = 20
	// lossJudge is how long after a backoff for loss it is judged whether the
	// loss went away with it.
	lossJudge = 1200 * time.Millisecond
)

// control turns signals into the estimate: additive and multiplicative increase,
// multiplicative decrease (draft-ietf-rmcat-gcc-02 section 5.5), with two rules
// of its own for a sender whose rate comes in steps: what was not used does not
// grow, and loss that does not depend on the rate is not congestion.
type control struct {
	estimate float64
	min, max float64
	rtt      time.Duration
	updated  time.Duration
	cut      time.Duration // time of the last decrease; 0 for none
	standing time.Duration // since when there is a queue that does not drain; 0 for none
	capacity float64       // acknowledged rate when last congested; 0 when unknown
	limited  bool
	padded   bool // the last window has a probe in it
	drain    bool // the queue should be let drain, to see what the path's own delay is
	rivals   rivals
	lossHigh float64 // backs off

	inherent   float64 // loss that is there at any rate
	lossCut    time.Duration
	lossBefore float64 // loss and estimate before the backoff being judged
	rateBefore float64
}

func (c *control) update(u usage, w window, queue, now time.Duration, n *Stats) {
	dt := min(now-c.updated, time.Second)
	if c.updated == 0 {
		dt = 0
	}
	c.updated = now
	if w.span < windowMin || w.sent == 0 {
		return
	}
	c.limited = w.sent < limitedShare*c.estimate
	c.judgeLoss(w, queue, now)
	c.watchQueue(queue, now)
	c.rivals.watch(w, queue, now)
	if c.rivals.competing {
		c.compete(w, queue, now, dt, n)
		return
	}
	switch {
	case c.drain && !c.limited && !c.padded && w.peak*backoff < c.estimate:
		c.set(w.peak * backoff)
		c.cut = now
	case u == overuse, c.standing != 0 && now-c.standing > standingTime, queue > congestedQueue && w.loss-c.inherent > lossLow && w.lost > 1:
		c.delayBackoff(w, queue, now, n)
	case c.lossBackoff(w, now, n):
	case u == normal && !c.limited && w.loss-c.inherent < lossLow:
		c.grow(w, dt)
		// A stream without layers may be sent above the estimate. What arrives
		// without a queue is carried, whatever was thought.
		if !c.padded && w.acked > aboveEstimate*c.estimate && queue < congestedQueue/3 && w.span > windowSpan/2 && (c.cut == 0 || now-c.cut > 2*windowSpan+c.rtt) {
			c.raise(w.acked)
		}
	}
}

// watchQueue notes since when a queue has been standing: one that is full does not
// grow, so the trend does not see it.
func (c *control) watchQueue(queue, now time.Duration) {
	switch {
	case queue < standingQueue:
		c.standing = 0
	case c.standing == 0:
		c.standing = now
	}
}

// settled says that the last decrease has had time to show.
func (c *control) settled(now time.Duration) bool {
	return c.cut == 0 || now-c.cut > max(c.rtt+100*time.Millisecond, 200*time.Millisecond)
}

func (c *control) delayBackoff(w window, queue, now time.Duration, n *Stats) {
	if !c.settled(now) {
		return
	}
	if c.padded && queue < probeQueue {
		return // the queue is the probe's own, and the probe is judged by itself
	}
	congested := queue > congestedQueue || (w.acked < congestedRatio*w.sent && queue > congestedQueue/4)
	// A flicker of delay without a queue costs at most what is not being used.
	target := max(c.estimate*backoff, w.acked)
	if congested {
		target = min(c.estimate, w.peak*backoff)
		c.capacity = w.peak
	} else if c.limited {
		return // while little is sent it says nothing about the rest
	}
	c.rivals.cutAt(w.peak, queue, now)
	if target >= c.estimate {
		return
	}
	n.Overuses++
	c.set(target)
	c.cut = now
}

// lossBackoff answers loss beyond what is inherent; it says whether it did.
func (c *control) lossBackoff(w window, now time.Duration, n *Stats) bool {
	excess := w.loss - c.inherent
	if w.packets < lossPackets {
		return false
	}
	// What is inherent varies by chance, the more the fewer packets there are.
	chance := 2.5 * math.Sqrt(c.inherent*(1-c.inherent)/float64(w.packets))
	if excess <= c.lossHigh+chance {
		return false
	}
	if !c.settled(now) || c.lossCut != 0 {
		return true
	}
	c.lossCut, c.lossBefore, c.rateBefore = now, w.loss, c.estimate
	target := max(c.estimate*(1-excess), w.acked*backoff)
	if c.limited {
		target = min(target, w.acked/(1-c.inherent))
	}
	if target < c.estimate {
		n.LossBackoffs++
		c.set(target)
		c.cut = now
	}
	return true
}

// judgeLoss learns, some time after a backoff for loss, how much of the loss
// stayed: that part belongs to the path (a radio link) and not to the rate.
func (c *control) judgeLoss(w window, queue, now time.Duration) {
	if w.packets < lossPackets {
		return
	}
	if c.lossCut != 0 {
		if now-c.lossCut < lossJudge {
			return
		}
		c.lossCut = 0
		if w.loss >= 0.6*c.lossBefore && queue < congestedQueue {
			c.inherent = min(max(w.loss, c.lossBefore), 0.5)
			c.set(max(c.estimate, c.rateBefore))
		}
		return
	}
	// It follows what there is: down always, up only where no queue could be why.
	if w.loss < c.inherent || c.inherent > 0 && queue < congestedQueue/2 {
		c.inherent += (min(w.loss, 0.5) - c.inherent) * 0.02
	}
}

func (c *control) grow(w window, dt time.Duration) {
	step := max(growthFloor, growthNear*math.Pow(c.estimate, 0.75)) * dt.Seconds()
	if c.capacity == 0 || c.estimate > 1.3*c.capacity || c.estimate < 0.7*c.capacity {
		step = max(step, c.estimate*growth*dt.Seconds())
	}
	if c.capacity != 0 && c.estimate > 1.3*c.capacity {
		c.capacity = 0 // the path is wider than it was
	}
	// Never far beyond what is known to have arrived.
	if limit := max(1.5*w.acked, c.estimate); c.estimate+step <= limit {
		c.set(c.estimate + step)
	}
}

// raise takes the result of a probe.
func (c *control) raise(rate float64) {
	if rate > c.estimate {
		c.set(rate)
		if c.capacity != 0 && rate > c.capacity {
			c.capacity = 0
		}
	}
}

// silence answers the absence of feedback.
func (c *control) silence(now time.Duration) {
	c.set(c.estimate / 2)
	c.cut = now
}

func (c *control) set(v float64) { c.estimate = min(max(v, c.min), c.max) }
