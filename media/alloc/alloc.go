// Package alloc divides one subscriber's bandwidth among the tracks sent to it:
// which layer of each, and why not more. It is pure but for what it remembers in
// each Track against flapping: tracks, a budget and the time go in. The phases
// and their names are those of DESIGN.md.
package alloc

import (
	"errors"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/media/layer"
)

// Reason says why a track gets what it gets.
type Reason string

// Reasons. All but Full mean that more would exist or be wanted.
const (
	// Full: the highest layer of the track.
	Full Reason = "full"
	// Size: as much as the size at which it is shown needs.
	Size Reason = "size"
	// Preference: the subscriber asked for no more.
	Preference Reason = "preference"
	// Hidden: it is not shown, so it is paused.
	Hidden Reason = "hidden"
	// Unavailable: the publisher does not send the layer that would be chosen.
	Unavailable Reason = "layer not available"
	// Bandwidth: the budget does not carry the next layer.
	Bandwidth Reason = "bandwidth"
	// Settling: the budget carries the next layer, but it did so a moment ago
	// too and then did not.
	Settling Reason = "settling"
	// Paused: the budget does not carry even the lowest layer.
	Paused Reason = "paused: no bandwidth"
)

// Class orders tracks before their priorities do.
type Class uint8

// Classes, the most important first.
const (
	Audio Class = iota
	Screen
	Camera
)

// Option is one layer that a track could be sent at.
type Option struct {
	Layer layer.Layer
	// Rate is its bit rate in bits per second, lower layers that it needs
	// included; 0 when unknown.
	Rate int64
	// Width and Height are its size in pixels, 0 when unknown.
	Width, Height int
	// Live: the publisher is sending it.
	Live bool
	// Coming: it is not being sent, but the publisher was just asked for it.
	Coming bool
}

// Track is one track of the subscriber. The caller keeps it from one allocation
// to the next; the result is in Target, Max, Rate and Reason.
type Track struct {
	Class Class
	// Priority 1..5; the higher is served first within a class.
	Priority int
	// Width and Height are the size at which it is shown, in pixels; 0,0 is hidden.
	// Ignored for audio.
	Width, Height int
	// MaxSpatial caps the encoding by index; -1 does not.
	MaxSpatial int8
	// Options are the layers there are, ascending by layer.
	Options []Option

	// Target is the layer to send, layer.None for none; Max the one that would be
	// sent without any limit of bandwidth; Rate what Target costs.
	Target, Max layer.Layer
	Rate        int64
	Reason      Reason
	// Wish is the spatial layer that would be chosen if the publisher sent all there are
	// and the budget were without limit: AllSpatial when none known is enough, -1 for none.
	Wish int8

	wished int    // index of Wish in Options, -1 for none
	limit  Reason // why Max is not the highest layer
	top    int    // index of Max in Options, -1 for none
	chosen int    // index of the option chosen so far, -1 for none
	memory memory
}

// memory is what a track remembers against flapping.
type memory struct {
	known   bool
	held    layer.Layer
	raised  time.Duration // when it last went up
	dropped time.Duration // when it last went down for want of bandwidth
	hold    time.Duration // no going up so long after dropped
	starved time.Duration // since when the lowest layer does not fit; 0 when it does
}

// AllSpatial is above all spatial layers.
const AllSpatial int8 = 127

// Config of an Allocator. The zero value of a field means its default.
type Config struct {
	// Headroom is by what share the budget must exceed the cost of a layer to go
	// up to it; default 0.10. What is being sent needs none.
	Headroom float64
	// Tolerance is by what share what is being sent may exceed the budget before
	// it is reduced; default 0.05. Bit rates of encoders vary more than links do.
	Tolerance float64
	// Hold is how long a track that was reduced stays so at least; default 2 s.
	// It doubles, up to MaxHold (30 s), each time the track went up less than
	// Flap (20 s) before it was reduced again.
	Hold, MaxHold, Flap time.Duration
	// Grace is how long the lowest layer, once it is being sent, is kept although it
	// does not fit; default 3 s. A dip that long is more often a stall of some machine
	// than a link that cannot carry the least there is.
	Grace time.Duration
}

// Allocator divides budgets.
type Allocator struct {
	cfg    Config
	order  []*Track
	budget float64
	used   float64 // rates chosen so far
}

// New makes an Allocator. It may serve any number of subscribers, one after the other.
func New(cfg Config) (*Allocator, error) {
	if cfg.Headroom < 0 || cfg.Tolerance < 0 || cfg.Tolerance >= 1 || cfg.Hold < 0 || cfg.MaxHold < 0 || cfg.Flap < 0 || cfg.Grace < 0 {
		return nil, errors.New("alloc: negative value, or a tolerance of 1 or more")
	}
	if cfg.Headroom == 0 {
		cfg.Headroom = 0.10
	}
	if cfg.Tolerance == 0 {
		cfg.Tolerance = 0.05
	}
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&cfg.Hold, 2 * time.Second}, {&cfg.MaxHold, 30 * time.Second}, {&cfg.Flap, 20 * time.Second}, {&cfg.Grace, 3 * time.Second}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	return &Allocator{cfg: cfg}, nil
}

// Demand is what would be sent if there were more bandwidth, in bits per second.
type Demand struct {
	// Used is the cost of the allocation.
	Used int64
	// Next is the least budget that would improve it, Top the one that would
	// leave nothing to improve. Both are 0 when nothing is held back.
	Next, Top int64
}

// Allocate decides about all tracks of one subscriber. budget is in bits per
// second; negative means unlimited. now is on the caller's monotonic clock.
func (a *Allocator) Allocate(tracks []*Track, budget int64, now time.Duration) Demand {
	a.order, a.used, a.budget = append(a.order[:0], tracks...), 0, float64(budget)
	for _, t := range a.order {
		t.cap()
	}
	slices.SortStableFunc(a.order, compare)
	a.audio()
	a.base(now)
	a.raise(Screen, now)
	a.raise(Camera, now)
	var d Demand
	for _, t := range a.order {
		a.conclude(t, now)
		d.Used += t.Rate
	}
	a.demand(&d)
	clear(a.order)
	return d
}

// compare orders by class, then priority, then shown area.
func compare(a, b *Track) int {
	if a.Class != b.Class {
		return int(a.Class) - int(b.Class)
	}
	if a.Priority != b.Priority {
		return b.Priority - a.Priority
	}
	return b.Width*b.Height - a.Width*a.Height
}

// cap is phase 1: the layer that each track would get without a limit.
func (t *Track) cap() {
	t.chosen, t.top, t.wished, t.limit, t.Wish = -1, -1, -1, Unavailable, -1
	if t.Class == Audio {
		t.Wish = 0
		for i, o := range t.Options {
			if o.Live || t.top < 0 {
				t.top, t.limit = i, Full
			}
		}
		return
	}
	if t.Width <= 0 && t.Height <= 0 {
		t.limit = Hidden
		return
	}
	t.Wish = AllSpatial
	if t.MaxSpatial >= 0 {
		t.Wish = t.MaxSpatial
	}
	if len(t.Options) == 0 {
		return
	}
	highest := len(t.Options) - 1
	t.limit = Full
	for i, o := range t.Options {
		if t.MaxSpatial >= 0 && o.Layer.Spatial > t.MaxSpatial {
			highest, t.limit = i-1, Preference
			break
		}
		if i < highest && t.enough(o) && t.Options[i+1].Layer.Spatial != o.Layer.Spatial {
			highest, t.limit = i, Size
			break
		}
	}
	if t.wished = highest; t.limit == Size {
		t.Wish = t.Options[highest].Layer.Spatial
	}
	for i := highest; i >= 0; i-- {
		if t.Options[i].Live {
			t.top = i
			break
		}
	}
	if t.top < highest {
		t.limit = Unavailable
	}
	if t.top < 0 { // only higher ones are sent: better too much than nothing
		for i := highest + 1; i < len(t.Options); i++ {
			if t.Options[i].Live {
				t.top = i
				break
			}
		}
	}
}

// enough says that an option fills the size at which the track is shown. Sizes
// are areas: a rotated picture fills its tile as well.
func (t *Track) enough(o Option) bool {
	return o.Width > 0 && o.Width*o.Height*10 >= t.Width*t.Height*8
}

// Bit rates assumed for layers whose own is not known yet.
const (
	guessLowest = 150_000
	guessFactor = 3
)

// rate is what option i costs.
func (t *Track) rate(i int) int64 {
	if i < 0 {
		return 0
	}
	if r := t.Options[i].Rate; r > 0 {
		return r
	}
	if t.Class == Audio {
		return 40_000
	}
	if i == 0 || t.Options[i].Layer.Spatial == t.Options[i-1].Layer.Spatial {
		return max(t.rate(i-1), guessLowest)
	}
	return t.rate(i-1) * guessFactor
}

// heldIndex is the option being sent, -1 when there is none.
func (t *Track) heldIndex() int {
	if !t.memory.known {
		return -1
	}
	return slices.IndexFunc(t.Options, func(o Option) bool { return o.Layer == t.memory.held })
}

// baseTolerance is by what share the lowest layer, while it is being sent, may
// exceed what is left for it: a coarse picture that stutters now and then is
// better than one that comes and goes.
const baseTolerance = 0.3

// fits says whether a track may go from its chosen option to option i: within the
// budget with headroom when that is more than is being sent, else within the
// budget with tolerance. Rates count as they are, so that what was decided once
// is decided the same way again.
func (a *Allocator) fits(t *Track, i int) bool {
	if a.budget < 0 {
		return true
	}
	rate := float64(t.rate(i))
	used := a.used + rate - float64(t.rate(t.chosen))
	switch {
	case i > t.heldIndex():
		return used+rate*a.cfg.Headroom <= a.budget
	case i == t.lowest():
		return used-rate*baseTolerance <= a.budget*(1+a.cfg.Tolerance)
	default:
		return used <= a.budget*(1+a.cfg.Tolerance)
	}
}

// choose makes option i the choice.
func (a *Allocator) choose(t *Track, i int) {
	a.used += float64(t.rate(i) - t.rate(t.chosen))
	t.chosen = i
}

// audio is phase 2: every audio track, whatever the budget says. Video without
// sound is worth less than sound without video.
func (a *Allocator) audio() {
	for _, t := range a.order {
		if t.Class == Audio && t.top >= 0 {
			a.choose(t, t.top)
		}
	}
}

// base is phase 3: the lowest layer of every video, in order of class, priority
// and size, as far as the budget goes.
func (a *Allocator) base(now time.Duration) {
	for _, t := range a.order {
		if t.Class == Audio || t.top < 0 {
			continue
		}
		first := t.lowest()
		if a.fits(t, first) {
			t.memory.starved = 0
			a.choose(t, first)
		} else if t.heldIndex() >= 0 {
			if t.memory.starved == 0 {
				t.memory.starved = max(now, 1)
			}
			if now-t.memory.starved < a.cfg.Grace {
				a.choose(t, first)
			}
		}
	}
}

// lowest is the first option that is being sent.
func (t *Track) lowest() int {
	for i := range t.top {
		if t.Options[i].Live {
			return i
		}
	}
	return t.top
}

// raise is phases 4 and 5: layer by layer, screens first, then cameras: the track
// with the highest priority first, and among equals the one with the lowest layer
// so far, then the largest.
func (a *Allocator) raise(class Class, now time.Duration) {
	for {
		var best *Track
		for _, t := range a.order {
			if t.Class != class || t.chosen < 0 || t.next() < 0 {
				continue
			}
			if t.blocked(now) || !a.fits(t, t.next()) {
				continue
			}
			// a.order is sorted, so only a lower layer beats an earlier track.
			if best == nil || (t.Priority == best.Priority && t.Options[t.chosen].Layer.Spatial < best.Options[best.chosen].Layer.Spatial) {
				best = t
			}
		}
		if best == nil {
			return
		}
		a.choose(best, best.next())
	}
}

// next is the live option above the chosen one, -1 when Max is reached.
func (t *Track) next() int {
	for i := t.chosen + 1; i <= t.top; i++ {
		if t.Options[i].Live {
			return i
		}
	}
	return -1
}

// blocked says that going up is on hold after a reduction.
func (t *Track) blocked(now time.Duration) bool {
	return t.memory.hold > 0 && now-t.memory.dropped < t.memory.hold && t.chosen >= t.heldIndex()
}

// conclude writes the result and remembers it.
func (a *Allocator) conclude(t *Track, now time.Duration) {
	t.Target, t.Max, t.Rate = layer.None(), layer.None(), t.rate(t.chosen)
	if t.top >= 0 {
		t.Max = t.Options[t.top].Layer
	}
	if t.chosen >= 0 {
		t.Target = t.Options[t.chosen].Layer
	}
	switch {
	case t.chosen == t.top:
		t.Reason = t.limit
	case t.chosen < 0:
		t.Reason = Paused
	case t.blocked(now):
		t.Reason = Settling
	default:
		t.Reason = Bandwidth
	}
	a.remember(t, now)
}

func (a *Allocator) remember(t *Track, now time.Duration) {
	m := &t.memory
	held := t.heldIndex()
	switch {
	case !m.known:
		m.known, m.raised = true, now
	case t.chosen > held:
		m.raised = now
	case t.chosen < held && (t.Reason == Bandwidth || t.Reason == Paused || t.Reason == Settling):
		if now-m.raised < a.cfg.Flap && m.hold > 0 {
			m.hold = min(2*m.hold, a.cfg.MaxHold)
		} else {
			m.hold = a.cfg.Hold
		}
		m.dropped = now
	}
	m.held = t.Target
}

// demand finds what more bandwidth would be good for.
func (a *Allocator) demand(d *Demand) {
	up := 1 + a.cfg.Headroom
	for _, t := range a.order {
		next := t.next()
		if t.chosen < 0 && t.top >= 0 {
			next = t.lowest()
		}
		top := t.top
		if t.wished > top && t.Options[t.wished].Coming {
			if top = t.wished; next < 0 { // so that there is room for it when it comes
				next = top
			}
		}
		if next < 0 {
			d.Top += t.Rate
			continue
		}
		need := d.Used + int64(float64(t.rate(next))*up) - t.Rate
		if d.Next == 0 || need < d.Next {
			d.Next = need
		}
		d.Top += int64(float64(t.rate(top)) * up)
	}
	if d.Next == 0 {
		d.Top = 0
	}
}
