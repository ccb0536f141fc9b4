package media

import (
	"maps"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/media/speaker"
)

// runClock does what is due now and then and belongs to no worker: feedback to
// publishers, keyframe requests held back, bit rates, speakers, news for observers.
func (e *Engine) runClock(done <-chan struct{}) {
	tick := time.NewTicker(clockPeriod)
	defer tick.Stop()
	var speakersAt, qualityAt int64
	var log dropLog
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		now := e.now()
		for _, ep := range e.publishers() {
			ep.in.tick(now)
			for _, u := range ep.publishedTracks() {
				for _, enc := range u.Encodings() {
					enc.tick(now)
				}
			}
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

// Speaker is a track on which somebody speaks.
type Speaker struct {
	TrackID string
	// LevelDBov is the smoothed level in dBov, -127..0.
	LevelDBov int
}

// OnSpeakers adds a function that is called with the active speakers, loudest first,
// when they change and at most five times per second, on a goroutine of the
// engine; it must not block.
func (r *Router) OnSpeakers(f func([]Speaker)) {
	r.speakers.mu.Lock()
	defer r.speakers.mu.Unlock()
	r.speakers.calls = append(r.speakers.calls, f)
}

// observe notes the audio level of one packet.
func (r *Router) observe(track string, level uint8, now time.Duration) {
	s := &r.speakers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detector == nil {
		d, err := speaker.New(speaker.Config{})
		if err != nil {
			return
		}
		s.detector = d
	}
	s.detector.Observe(track, level, now)
}

func (r *Router) tellSpeakers(now int64) {
	s := &r.speakers
	s.mu.Lock()
	if s.detector == nil {
		s.mu.Unlock()
		return
	}
	active, _, changed := s.detector.Update(time.Duration(now))
	if !changed {
		s.mu.Unlock()
		return
	}
	list := make([]Speaker, len(active))
	for i, a := range active {
		list[i] = Speaker{TrackID: a.ID, LevelDBov: -int(a.Level)}
	}
	s.last = list
	calls := slices.Clone(s.calls)
	s.mu.Unlock()
	r.e.notify.post(func() {
		for _, f := range calls {
			f(slices.Clone(list))
		}
	})
}

// forgetSpeaker is for tracks that are gone or muted.
func (r *Router) forgetSpeaker(track string) {
	s := &r.speakers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detector != nil {
		s.detector.Remove(track)
	}
}
