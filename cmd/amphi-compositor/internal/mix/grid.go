// Package mix is the arithmetic of the program: the grid of ticks and samples,
// which frame a tile shows, where it goes on the canvas, the sum of the voices.
// It has no clock, no goroutine and no codec.
package mix

import "time"

// Audio of the program.
const (
	Rate  = 48000 // samples a second and channel
	Block = 1024  // samples of an AAC frame
)

// Grid places ticks and samples on the time line. Times are since the epoch.
type Grid struct {
	FPS, PartTicks, GOPTicks int64
}

// TickTime is when a tick is.
func (g Grid) TickTime(tick int64) time.Duration {
	return time.Duration(tick/g.FPS)*time.Second + time.Duration(tick%g.FPS)*time.Second/time.Duration(g.FPS)
}

// TickAt is the newest tick that is not after at.
func (g Grid) TickAt(at time.Duration) int64 {
	s := int64(at / time.Second)
	t := s*g.FPS + int64(at%time.Second)*g.FPS/int64(time.Second)
	if g.TickTime(t+1) <= at {
		t++
	}
	return t
}

// First is the first tick of a program that may not send ticks before first nor
// before now: it begins with a part.
func (g Grid) First(first int64, now time.Duration) int64 {
	t := max(first, g.TickAt(max(now, 0))+1)
	return (t + g.PartTicks - 1) / g.PartTicks * g.PartTicks
}

// Key tells whether a tick is an IDR.
func (g Grid) Key(tick int64) bool { return tick%g.GOPTicks == 0 }

// Spared tells whether a tick has no picture when every so-manieth has one: counted from the part's beginning, which always has one.
func (g Grid) Spared(tick, every int64) bool { return tick%g.PartTicks%every != 0 }

// FirstBlock is the first audio block that covers a tick's time: the
// number of the block, whose first sample is Block times that.
func (g Grid) FirstBlock(tick int64) int64 { return SampleAt(g.TickTime(tick)) / Block }

// SampleAt is the sample that is playing at a time.
func SampleAt(at time.Duration) int64 {
	s := at / time.Second
	return int64(s)*Rate + int64((at%time.Second)*Rate/time.Second)
}

// SampleTime is when a sample is, rounded down to the nanosecond.
func SampleTime(sample int64) time.Duration {
	s := sample / Rate
	return time.Duration(s)*time.Second + time.Duration(sample%Rate)*time.Second/Rate
}
