package media

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// clock does what is due now and then and belongs to no worker: feedback to publishers,
// keyframe requests held back, bit rates, speakers, news for observers.
type clock struct {
	e     *Engine
	timer *time.Timer
	next  atomic.Int64 // when a tick is due
	turn  sync.Mutex   // to tick; guards the fields below

	period                time.Duration
	speakersAt, qualityAt int64
	log                   dropLog
}

func newClock(e *Engine) *clock {
	return &clock{e: e, timer: time.NewTimer(clockPeriod), period: clockPeriod}
}

// runClock is the clock's goroutine. Whoever has read media ticks in its place.
func (e *Engine) runClock(done <-chan struct{}) {
	c := e.clock
	defer c.timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-c.timer.C:
		case <-e.sooner:
			c.next.Store(0)
		}
		c.turn.Lock()
		now := e.now()
		late := slack // others do it, as it seems
		if now >= c.next.Load() {
			c.tick(now)
			c.again(now)
			e.takeUnread(now)
			late = 0
		}
		c.timer.Reset(time.Duration(c.next.Load()-now) + late)
		c.turn.Unlock()
	}
}

// again sets the time of the next tick. Who ticks in the goroutine's place leaves its timer
// alone: to set it wakes a thread.
func (c *clock) again(now int64) { c.next.Store(now + int64(c.period)) }

// tick is called with the turn.
func (c *clock) tick(now int64) {
	e := c.e
	e.connector.tick(now)
	publishers := e.publishers()
	for _, ep := range publishers {
		ep.in.tick(now)
		for _, u := range ep.publishedTracks() {
			for _, enc := range u.Encodings() {
				enc.tick(now)
			}
			ep.tellInterest(u, now)
		}
	}
	remotes := e.remotes.list()
	for _, m := range remotes {
		m.tick(now)
	}
	c.period = clockPeriod
	if len(publishers)+len(remotes) == 0 && e.patient.connecting.Load() == 0 { // what is left is not urgent, and wake-ups are what idling costs
		c.period = idleClockPeriod
	}
	if now-c.speakersAt >= int64(speakersPeriod) {
		c.speakersAt = now
		for _, r := range e.allRouters() {
			r.tellSpeakers(now)
		}
	}
	if now-c.qualityAt >= int64(qualityPeriod) {
		c.qualityAt = now
		for _, ep := range e.allEndpoints() {
			ep.tellQuality()
			ep.in.tellDrops()
		}
		attrs, total := c.log.since(func(d drop) uint64 { return e.drops[d].Load() })
		tellDrops(e.log, "dropping packets", attrs, total)
	}
}

// kickClock makes the clock look at once: something is wanted that was not.
func (e *Engine) kickClock() {
	select {
	case e.sooner <- struct{}{}:
	default:
	}
}

func (e *Encoding) tick(now int64) {
	if e.lostTooMuch.Swap(false) {
		e.RequestKeyframe()
	}
	e.retryKeyframe(now)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rates.Roll(now)
}

func (e *Engine) publishers() []*Endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.publishing))
}

func (e *Engine) setPublishing(ep *Endpoint, on bool) {
	e.mu.Lock()
	first := on && len(e.publishing) == 0
	if on {
		e.publishing[ep] = struct{}{}
	} else {
		delete(e.publishing, ep)
	}
	e.mu.Unlock()
	if first {
		e.kickClock()
	}
}

func (e *Engine) allRouters() []*Router {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.routers))
}

func (e *Engine) allEndpoints() []*Endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.endpoints))
}
