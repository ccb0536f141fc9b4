// Package interest decides up to which layer the publisher of a track should send:
// more at once when somebody wants more, less only when nobody has for a while. It
// is a plain value: what is wanted and the time go in, a decision comes out.
package interest

import (
	"errors"
	"time"
)

// Levels of interest are indexes of simulcast layers, low to high.
const (
	// None: nobody wants anything of the track.
	None int8 = -1
	// Top is the highest; what is above it counts as it.
	Top int8 = 3
)

// Config of a Tracker. The zero value of a field means its default.
type Config struct {
	// Hold is how long a layer is still sent after somebody wanted it last;
	// default 2 s.
	Hold time.Duration
	// A layer that is wanted again less than Flap (10 s) after it was let go, more than three
	// times in a row, is held twice as long each time from then on, up to MaxHold (16 s).
	Flap, MaxHold time.Duration
}

// returnsAllowed is how often in a row a layer may come back soon before it is held longer.
const returnsAllowed = 3

// layer is what is remembered of one level.
type layer struct {
	wanted  time.Duration // when it, or a higher one, was wanted last
	letGo   time.Duration // when it was let go last; 0: never
	returns int           // how often in a row it came back soon
}

// Tracker follows one track. It is not safe for concurrent use.
type Tracker struct {
	cfg    Config
	told   int8
	layers [Top + 1]layer
}

// New makes a Tracker of a track that appears now: all of it counts as wanted just
// now, so that what it consists of is seen before anything of it stops.
func New(cfg Config, now time.Duration) (*Tracker, error) {
	if cfg.Hold < 0 || cfg.Flap < 0 || cfg.MaxHold < 0 {
		return nil, errors.New("interest: negative duration")
	}
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&cfg.Hold, 2 * time.Second}, {&cfg.Flap, 10 * time.Second}, {&cfg.MaxHold, 16 * time.Second}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	t := &Tracker{cfg: cfg, told: Top}
	for i := range t.layers {
		t.layers[i].wanted = now
	}
	return t, nil
}

// Forget makes nothing count as wanted: for a track of which all is known before it is sent.
func (t *Tracker) Forget() { t.told, t.layers = None, [Top + 1]layer{} }

// Told is the last decision; Top at first.
func (t *Tracker) Told() int8 { return t.told }

// Update takes the highest layer that anybody wants now, None for nobody, and returns
// up to which one the publisher should send. now must not go backwards.
func (t *Tracker) Update(wanted int8, now time.Duration) int8 {
	wanted = min(max(wanted, None), Top)
	for i := range wanted + 1 {
		l := &t.layers[i]
		if i > t.told {
			l.back(now, t.cfg.Flap)
		}
		l.wanted = now
	}
	t.told = max(t.told, wanted)
	for t.told > wanted && now-t.layers[t.told].wanted >= t.hold(t.told) {
		t.layers[t.told].letGo = max(now, 1)
		t.told--
	}
	return t.told
}

// back notes that a layer is wanted again.
func (l *layer) back(now, flap time.Duration) {
	if l.letGo != 0 && now-l.letGo < flap {
		l.returns++
	} else {
		l.returns = 0
	}
}

// hold is how long layer i is kept unwanted: the longer, the more often it came back.
func (t *Tracker) hold(i int8) time.Duration {
	d := t.cfg.Hold
	for range max(t.layers[i].returns-returnsAllowed, 0) {
		if d *= 2; d >= t.cfg.MaxHold {
			return max(t.cfg.MaxHold, t.cfg.Hold)
		}
	}
	return d
}
