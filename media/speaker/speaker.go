// Package speaker tells who speaks in a room from the audio levels that clients
// put into their packets (RFC 6464): the active speakers, loudest first, and the
// dominant one. It is a plain value: levels and the time go in, changes come out.
package speaker

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// Silence is the level of a silent or absent source, in -dBov (RFC 6464 section 3).
const Silence = 127

// Defaults of Config.
const (
	DefaultThreshold = 45
	DefaultMargin    = 6
	DefaultAttack    = 100 * time.Millisecond
	DefaultRelease   = 600 * time.Millisecond
	DefaultTakeover  = 400 * time.Millisecond
	DefaultInterval  = 200 * time.Millisecond
)

// Config of a Detector. The zero value of a field means its default.
type Config struct {
	// Threshold is the level, in -dBov, at which a voice becomes active; it stays
	// active until it is Margin dB quieter.
	Threshold, Margin int
	// Attack is how long a voice must be loud to become active, Release how long
	// quiet to stop being it.
	Attack, Release time.Duration
	// Takeover is how long another voice must be louder than the dominant one,
	// by Margin/2 dB, to replace it while both speak.
	Takeover time.Duration
	// Interval is the least time between two changes that Update reports.
	Interval time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Threshold < 0 || c.Threshold >= Silence || c.Margin < 0 {
		return c, errors.New("speaker: Threshold must be in 1..126 and Margin positive")
	}
	c.Threshold = cmp.Or(c.Threshold, DefaultThreshold)
	c.Margin = cmp.Or(c.Margin, DefaultMargin)
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&c.Attack, DefaultAttack}, {&c.Release, DefaultRelease},
		{&c.Takeover, DefaultTakeover}, {&c.Interval, DefaultInterval},
	} {
		if *f.v < 0 {
			return c, errors.New("speaker: negative duration")
		}
		*f.v = cmp.Or(*f.v, f.def)
	}
	return c, nil
}

// Speaker is an active voice.
type Speaker struct {
	ID string
	// Level is its smoothed level in -dBov: 0 is the loudest, 127 silence.
	Level uint8
}

// smoothing is the share of a new level in the smoothed one, as a shift: at 50
// packets per second the time constant is about 80 ms up and 320 ms down.
const smoothUp, smoothDown = 2, 4

// staleAfter is how old a voice's last packet may be: DTX and mute send none.
const staleAfter = 500 * time.Millisecond

type voice struct {
	id       string
	level    int // -dBov × 16, smoothed
	last     time.Duration
	active   bool
	turn     time.Duration // since when the level contradicts active; 0 when it does not
	pressing time.Duration // since when it is louder than the dominant voice; 0 when not
}

// Detector follows the voices of one room. It is not safe for concurrent use.
type Detector struct {
	cfg      Config
	voices   map[string]*voice
	dominant string

	reported    []Speaker // what Update returned last
	reportedDom string
	reportedAt  time.Duration
	scratch     []Speaker
}

// New makes a Detector.
func New(cfg Config) (*Detector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Detector{cfg: cfg, voices: map[string]*voice{}, reportedAt: -cfg.Interval}, nil
}

// Observe takes the level (-dBov, 0..127) of one packet of a voice. A level above
// 127 means that the packet had none, and is ignored.
func (d *Detector) Observe(id string, level uint8, now time.Duration) {
	if level > Silence {
		return
	}
	v := d.voices[id]
	if v == nil {
		v = &voice{id: id, level: Silence << 4, last: now}
		d.voices[id] = v
	}
	v.last = now
	target := int(level) << 4
	if target < v.level {
		v.level -= (v.level - target) >> smoothUp
	} else {
		v.level += (target - v.level + 1<<smoothDown - 1) >> smoothDown
	}
	d.turn(v, now)
}

// Remove forgets a voice, as when its track is muted or gone.
func (d *Detector) Remove(id string) {
	delete(d.voices, id)
	if d.dominant == id {
		d.dominant = ""
	}
}

// turn moves a voice between active and quiet, with hysteresis in level and time.
func (d *Detector) turn(v *voice, now time.Duration) {
	limit, wait := d.cfg.Threshold<<4, d.cfg.Attack
	contradicts := v.level <= limit
	if v.active {
		limit += d.cfg.Margin << 4
		wait = d.cfg.Release
		contradicts = v.level > limit
	}
	switch {
	case !contradicts:
		v.turn = 0
	case v.turn == 0:
		v.turn = max(now, 1)
	case now-v.turn >= wait:
		v.active = !v.active
		v.turn = 0
	}
}

// Update moves time on. It returns the active speakers, loudest first, and the
// dominant one ("" when nobody has spoken yet), and whether that differs from
// what it last returned as changed: at most one change per Interval. The slice
// is valid until the next call.
func (d *Detector) Update(now time.Duration) (active []Speaker, dominant string, changed bool) {
	d.scratch = d.scratch[:0]
	for _, v := range d.voices {
		if now-v.last > staleAfter {
			v.level = Silence << 4
			d.turn(v, now)
		}
		if v.active {
			d.scratch = append(d.scratch, Speaker{ID: v.id, Level: uint8(v.level >> 4)})
		}
	}
	d.elect(now)
	if now-d.reportedAt < d.cfg.Interval {
		return d.reported, d.reportedDom, false
	}
	slices.SortFunc(d.scratch, func(a, b Speaker) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.ID, b.ID))
	})
	if d.dominant == d.reportedDom && d.sameSpeakers() {
		return d.reported, d.reportedDom, false
	}
	d.reported = append(d.reported[:0], d.scratch...)
	d.reportedDom, d.reportedAt = d.dominant, now
	return d.reported, d.reportedDom, true
}

// sameSpeakers says that the set of speakers has not changed and no level moved
// by Margin: a new order alone is no news.
func (d *Detector) sameSpeakers() bool {
	if len(d.scratch) != len(d.reported) {
		return false
	}
	for _, s := range d.scratch {
		i := slices.IndexFunc(d.reported, func(r Speaker) bool { return r.ID == s.ID })
		if i < 0 {
			return false
		}
		if diff := int(s.Level) - int(d.reported[i].Level); diff > 2*d.cfg.Margin || -diff > 2*d.cfg.Margin {
			return false
		}
	}
	return true
}

// elect chooses the dominant voice: it stays until another is clearly louder for
// Takeover, or until it has fallen silent and another is active.
func (d *Detector) elect(now time.Duration) {
	holder := d.voices[d.dominant]
	var best *voice
	for _, v := range d.voices {
		if !v.active || v == holder {
			v.pressing = 0
			continue
		}
		if holder != nil && holder.active && v.level > holder.level-d.cfg.Margin<<3 {
			v.pressing = 0
			continue
		}
		if v.pressing == 0 {
			v.pressing = max(now, 1)
		}
		if holder != nil && holder.active && now-v.pressing < d.cfg.Takeover {
			continue
		}
		if best == nil || v.level < best.level || (v.level == best.level && v.id < best.id) {
			best = v
		}
	}
	if best != nil {
		d.dominant = best.id
		best.pressing = 0
	}
}
