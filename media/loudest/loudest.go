// Package loudest chooses which microphones of a room are forwarded when more of them
// are open than anybody can follow: the few that are spoken into, with hysteresis. It
// is a plain value: the audio levels of packets (RFC 6464) and the time go in, changes
// come out.
package loudest

import (
	"errors"
	"time"
)

// Silence is the level of a silent or absent voice, in -dBov.
const Silence = 127

// Config of a Selector. The zero value of a field but Places means its default.
type Config struct {
	// Places is how many voices are forwarded; at least 1.
	Places int
	// Threshold is the level, in -dBov, from which on a voice is spoken into, and may
	// take the place of one that is not; default 50.
	Threshold int
	// Linger is how long a voice keeps its place for sure after it was spoken into last;
	// default 1 s, longer than the pauses between words.
	Linger time.Duration
	// Margin is how many dB louder than a voice that is spoken into another one has to be
	// to take its place, and Takeover for how long; defaults 6 dB and 300 ms.
	Margin   int
	Takeover time.Duration
	// Stay is how long a voice keeps its place for sure when it got it; default 1 s.
	Stay time.Duration
}

// smoothing is the share of a new level in the smoothed one, as a shift: somebody is known to
// speak after two or three packets. speech is that of the level while they do.
const smoothUp, smoothDown, smoothSpeech = 1, 4, 3

// gap is how long a pause may be that does not interrupt who is louder than another.
const gap = 200 * time.Millisecond

// staleAfter is how old a voice's last packet may be: DTX and mute send none.
const staleAfter = 500 * time.Millisecond

type voice[K comparable] struct {
	key      K
	level    int // -dBov × 16, smoothed
	speech   int // the same, of packets with speech only
	last     time.Duration
	spoken   time.Duration // when it was spoken into last
	placed   time.Duration // when it got its place
	pressing time.Duration // since when it is louder than the quietest; 0 when it is not
	in       bool
}

// Selector follows the microphones of one room, named by keys. It is not safe for
// concurrent use.
type Selector[K comparable] struct {
	cfg    Config
	voices map[K]*voice[K]
	placed []*voice[K] // those that are forwarded, at most Places
}

// New makes a Selector.
func New[K comparable](cfg Config) (*Selector[K], error) {
	if cfg.Places < 1 || cfg.Threshold < 0 || cfg.Threshold >= Silence || cfg.Margin < 0 ||
		cfg.Linger < 0 || cfg.Takeover < 0 || cfg.Stay < 0 {
		return nil, errors.New("loudest: no places, or a value out of range")
	}
	if cfg.Threshold == 0 {
		cfg.Threshold = 50
	}
	if cfg.Margin == 0 {
		cfg.Margin = 6
	}
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&cfg.Linger, time.Second}, {&cfg.Takeover, 300 * time.Millisecond}, {&cfg.Stay, time.Second}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	return &Selector[K]{cfg: cfg, voices: map[K]*voice[K]{}}, nil
}

// Observe takes the level (-dBov, 0..127) of one packet of a voice and says whether the
// voice has a place, its packet included. When it took another's, lost is that one.
func (s *Selector[K]) Observe(key K, level uint8, now time.Duration) (in bool, lost K, replaced bool) {
	now = max(now, 1)
	v := s.voices[key]
	if v == nil {
		v = &voice[K]{key: key, level: Silence << 4, speech: s.cfg.Threshold << 4}
		s.voices[key] = v
	}
	s.hear(v, level, now)
	switch {
	case v.in:
		return true, lost, false
	case len(s.placed) < s.cfg.Places:
		s.placed = append(s.placed, v)
		v.in, v.placed = true, now
		return true, lost, false
	case v.spoken != now:
		return false, lost, false
	}
	i := s.weakest(v, now)
	if i < 0 {
		return false, lost, false
	}
	out := s.placed[i]
	out.in, out.pressing = false, 0
	s.placed[i] = v
	v.in, v.placed, v.pressing = true, now, 0
	return true, out.key, true
}

func (s *Selector[K]) hear(v *voice[K], level uint8, now time.Duration) {
	target := int(min(level, Silence)) << 4
	if target < v.level {
		v.level -= (v.level - target + 1<<smoothUp - 1) >> smoothUp
	} else {
		v.level += (target - v.level + 1<<smoothDown - 1) >> smoothDown
	}
	v.last = now
	if v.level > s.cfg.Threshold<<4 {
		return
	}
	if target <= s.cfg.Threshold<<4 {
		v.speech += (target - v.speech) >> smoothSpeech
	}
	if now-v.spoken > gap {
		v.pressing = 0
	}
	v.spoken = now
}

// weakest finds the place that v may take: that of the voice that has not been spoken into
// for the longest time, else the quietest one's, if v is clearly louder for a while. -1: none.
func (s *Selector[K]) weakest(v *voice[K], now time.Duration) int {
	idle, quiet := -1, -1
	for i, p := range s.placed {
		if (p.spoken == 0 || now-p.spoken >= s.cfg.Linger) && (idle < 0 || p.spoken < s.placed[idle].spoken) {
			idle = i
		}
		if now-p.placed >= s.cfg.Stay && (quiet < 0 || p.loudness(now) > s.placed[quiet].loudness(now)) {
			quiet = i
		}
	}
	if idle >= 0 {
		return idle
	}
	if quiet < 0 || v.speech > s.placed[quiet].loudness(now)-s.cfg.Margin<<4 {
		v.pressing = 0
		return -1
	}
	if v.pressing == 0 {
		v.pressing = now
	}
	if now-v.pressing < s.cfg.Takeover {
		return -1
	}
	return quiet
}

// loudness is the level of speech, silence for a voice of which nothing comes.
func (v *voice[K]) loudness(now time.Duration) int {
	if now-v.last > staleAfter {
		return Silence << 4
	}
	return v.speech
}

// Remove forgets a voice, as when its track is muted or gone. The place it had is taken by
// whoever is heard next.
func (s *Selector[K]) Remove(key K) {
	v := s.voices[key]
	if v == nil {
		return
	}
	delete(s.voices, key)
	for i, p := range s.placed {
		if p == v {
			s.placed = append(s.placed[:i], s.placed[i+1:]...)
			return
		}
	}
}

// Placed is how many voices have a place.
func (s *Selector[K]) Placed() int { return len(s.placed) }
