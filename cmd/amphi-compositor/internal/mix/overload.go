package mix

import "time"

// Level is a step against overload. Steps are taken in this order.
type Level int

// Normal has a picture on every tick. The levels beyond make fewer.
const Normal Level = 0

// sparing is how many ticks there are to a picture, by level.
var sparing = [...]int64{1, 2, 3, 5}

// Every is how many ticks there are to a picture.
func (l Level) Every() int64 { return sparing[l] }

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
	busy        int           // windows in a row
	calm        time.Duration // since when there was no overload
	wait        time.Duration
	back        time.Duration // when it last went back, until that was in vain
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
	busy, mostly := float64(o.late) > overloadLate*float64(o.ticks), 2*o.late > o.ticks
	o.ticks, o.late = 0, 0
	if o.busy++; !busy {
		o.busy = 0
	}
	if o.wait == 0 {
		o.wait = recoverAfter
	}
	switch {
	case busy:
		// One window alone may be another program's start, or a machine that stood still for a moment.
		if (o.level > Normal || o.busy > 1 || mostly) && o.level < Level(len(sparing)-1) {
			if o.back > 0 && now-o.back < o.wait {
				o.wait, o.back = min(2*o.wait, recoverMost), 0
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
