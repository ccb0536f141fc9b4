package media

import (
	"maps"
	"slices"
	"time"
)

// runClock does what is due now and then and belongs to no worker: feedback to
// publishers, keyframe requests held back, bit rates, speakers, news for observers.
func (e *Engine) runClock(done <-chan struct{}) {
	tick := time.NewTicker(clockPeriod)
	defer tick.Stop()
	var speakersAt, qualityAt int64
	var log dropLog
	period := clockPeriod
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		case <-e.sooner:
		}
		now := e.now()
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
		wanted := clockPeriod
		if len(publishers)+len(remotes) == 0 { // what is left is not urgent, and wake-ups are what idling costs
			wanted = idleClockPeriod
		}
		if wanted != period {
			period = wanted
			tick.Reset(period)
		}
		if now-speakersAt >= int64(speakersPeriod) {
			speakersAt = now
			for _, r := range e.allRouters() {
				r.tellSpeakers(now)
			}
		}
		if now-qualityAt >= int64(qualityPeriod) {
			qualityAt = now
			for _, ep := range e.allEndpoints() {
				ep.tellQuality()
				ep.in.tellDrops()
			}
			attrs, total := log.since(func(d drop) uint64 { return e.drops[d].Load() })
			tellDrops(e.log, "dropping packets", attrs, total)
		}
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
	defer e.mu.Unlock()
	if on {
		e.publishing[ep] = struct{}{}
	} else {
		delete(e.publishing, ep)
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
