package media

import (
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/media/loudest"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/speaker"
)

// speakerWatch finds the active speakers of a room, and the loudest ones.
type speakerWatch struct {
	mu       sync.Mutex // guards the fields below
	detector *speaker.Detector
	calls    []func([]Speaker)
	last     []Speaker
	places   int
	loudest  *loudest.Selector[*UpTrack] // nil: all microphones are forwarded
}

// Speaker is a track on which somebody speaks.
type Speaker struct {
	TrackID string
	// LevelDBov is the smoothed level in dBov, -127..0.
	LevelDBov int
}

// OnSpeakers adds a function that is called with the active speakers, the dominant one
// first and then by loudness, when they change and at most five times per second, on a goroutine of the
// engine; it must not block.
func (r *Router) OnSpeakers(f func([]Speaker)) {
	r.speakers.mu.Lock()
	defer r.speakers.mu.Unlock()
	r.speakers.calls = append(r.speakers.calls, f)
}

// SetLoudest bounds how many microphones are forwarded at the same time: the n that are
// spoken into, loudest first; 0 is all, as at first. Sinks get them all.
func (r *Router) SetLoudest(n int) {
	s := &r.speakers
	s.mu.Lock()
	if n == s.places {
		s.mu.Unlock()
		return
	}
	s.places, s.loudest = n, nil
	if n > 0 {
		// Without a Config to be wrong about, New cannot fail.
		s.loudest, _ = loudest.New[*UpTrack](loudest.Config{Places: n})
	}
	s.mu.Unlock()
	for _, u := range r.UpTracks() {
		u.setQuiet(false)
	}
}

// observe notes the audio level of one packet.
func (r *Router) observe(u *UpTrack, level uint8, now time.Duration) {
	s := &r.speakers
	s.mu.Lock()
	if u.closed.Load() || u.muted.Load() { // it was forgotten, or is about to be; nobody would do so again
		s.mu.Unlock()
		return
	}
	if s.detector == nil {
		d, err := speaker.New(speaker.Config{})
		if err != nil {
			s.mu.Unlock()
			return
		}
		s.detector = d
	}
	s.detector.Observe(u.id, level, now)
	in, replaced := true, false
	var lost *UpTrack
	if s.loudest != nil && u.source == "mic" {
		in, lost, replaced = s.loudest.Observe(u, level, now)
	}
	s.mu.Unlock()
	if replaced {
		lost.setQuiet(true)
	}
	u.setQuiet(!in)
}

// catchUpPackets is how many packets somebody who begins to speak had said before it was
// noticed, and a little more, at 20 ms each.
const catchUpPackets = 5

// setQuiet says whether subscribers are kept from the track. One that they get again begins
// with its last packets, so that the first syllable is there.
func (u *UpTrack) setQuiet(quiet bool) {
	if u.quiet.Load() == quiet || u.quiet.Swap(quiet) == quiet || quiet {
		return
	}
	enc := u.at(0)
	if enc == nil {
		return
	}
	for i, w := range u.router.e.workers {
		if enc.subs[i].n.Load() == 0 {
			continue
		}
		w.post(func() {
			w.replay = enc.ring.Newest(w.replay[:0], catchUpPackets)
			for _, dt := range enc.subs[w.id].list {
				dt.catchUp(enc, w.replay)
			}
			for _, p := range w.replay {
				p.Release()
			}
			clear(w.replay)
		})
	}
}

// catchUp goes on with the recent packets of a microphone that was left out for a while: its
// numbers go on without a gap, its time passed.
func (dt *DownTrack) catchUp(enc *Encoding, recent []*packet.Packet) {
	if !dt.out.ready() || dt.source != nil && dt.source != enc {
		return
	}
	if dt.source == enc {
		sent, meta, ok := dt.seqs.Lookup(uint16(dt.seqs.Next() - 1))
		if !ok || meta.Source != enc.id {
			return
		}
		for len(recent) > 0 && recent[0].ExtSeq <= sent {
			recent = recent[1:]
		}
		if len(recent) > 0 {
			dt.seqs.Switch(recent[0].ExtSeq, meta)
		}
	}
	for _, p := range recent {
		dt.write(enc, p, 0)
		dt.skip = replayed{enc, p.ExtSeq}
	}
}

func (r *Router) tellSpeakers(now int64) {
	s := &r.speakers
	s.mu.Lock()
	if s.detector == nil {
		s.mu.Unlock()
		return
	}
	active, dominant, changed := s.detector.Update(time.Duration(now))
	if !changed {
		s.mu.Unlock()
		return
	}
	list := make([]Speaker, len(active))
	for i, a := range active {
		list[i] = Speaker{TrackID: a.ID, LevelDBov: -int(a.Level)}
	}
	if i := slices.IndexFunc(list, func(s Speaker) bool { return s.TrackID == dominant }); i > 0 {
		first := list[i]
		copy(list[1:], list[:i])
		list[0] = first
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
func (r *Router) forgetSpeaker(u *UpTrack) {
	s := &r.speakers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detector != nil {
		s.detector.Remove(u.id)
	}
	if s.loudest != nil {
		s.loudest.Remove(u)
	}
}
