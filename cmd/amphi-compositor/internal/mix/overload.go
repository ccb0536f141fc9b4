package mix

import "time"

// Level is a step against overload. Steps are taken in this order.
type Level int

// The steps: nothing; a new picture on every other tick only (the ticks between
// repeat it, which costs the encoder little).
const (
	Normal Level = iota
	HalfRate
)

const (
	overloadWindow = 2 * time.Second
	overloadLate   = 0.10 // share of late ticks that counts as overload
	recoverAfter   = 30 * time.Second
	recoverMost    = 8 * time.Minute
)

// Overload decides when to take a step and when to go back. Going back in vain
// doubles the time until the next attempt. The zero value is ready.
type Overload struct {
	level       Level
	from        time.Duration
	ticks, late int
	calm        time.Duration // since when there was no overload
	wait        time.Duration
	back        time.Duration // when it last went back
}

// Tick tells of one tick, whether it was late or had no free canvas, and returns
// the level for the next.
func (o *Overload) Tick(now time.Duration, late bool) Level {
	if o.ticks == 0 {
		o.from = now
	}
	o.ticks++
	if late {
		o.late++
	}
	if now-o.from < overloadWindow {
		return o.level
	}
	busy := float64(o.late) > overloadLate*float64(o.ticks)
	o.ticks, o.late = 0, 0
	if o.wait == 0 {
		o.wait = recoverAfter
	}
	switch {
	case busy:
		if o.level < HalfRate {
			if o.back > 0 && now-o.back < o.wait {
				o.wait = min(2*o.wait, recoverMost)
			}
			o.level++
		}
		o.calm = now
	case o.level > Normal && now-o.calm >= o.wait:
		o.level--
		o.calm, o.back = now, now
	}
	return o.level
}

// Level is the present step.
func (o *Overload) Level() Level { return o.level }
