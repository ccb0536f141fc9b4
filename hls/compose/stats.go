package compose

import (
	"maps"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// State of the process.
type State string

// The states.
const (
	Down     State = "down"     // not running, perhaps waiting to be started
	Starting State = "starting" // running, without a picture so far
	Running  State = "running"
)

// Drop is the reason why a packet did not reach the process; a metric label.
type Drop string

// The reasons.
const (
	DropNoCompositor Drop = "no_compositor"
	DropQueueFull    Drop = "queue_full"
	DropTooLong      Drop = "too_long"
)

// Stats is about the process and the way to it.
type Stats struct {
	State State
	PID   int
	// Spawns counts starts, Exits the ends that nobody asked for.
	Spawns, Exits int64
	LastExit      string // why it ended last
	// Unprivileged says that the process does not run as root.
	Unprivileged bool
	// FirstPicture is the time from start to the first access unit of this life.
	FirstPicture time.Duration
	// Latency is the age of the newest picture when it arrived here, MaxLatency the most
	// of the last full second.
	Latency, MaxLatency time.Duration
	Pictures            int64          // access units of the first variant, of all lives
	Packets             int64          // handed to the process, of all lives
	Drops               map[Drop]int64 // packets by reason
	Malformed           int64          // frames from the process that made no sense
	Compositor          *wire.Stats    // its own, of this life; nil before the first
}

// Stats implements Composer.
func (c *Child) Stats() Stats {
	c.mu.Lock()
	s := c.stats
	c.mu.Unlock()
	s.Packets = c.packets.Load()
	s.Drops = map[Drop]int64{
		DropNoCompositor: c.dropNone.Load(), DropQueueFull: c.dropFull.Load(), DropTooLong: c.dropLong.Load(),
	}
	maps.DeleteFunc(s.Drops, func(_ Drop, n int64) bool { return n == 0 })
	return s
}

func (c *Child) countDrop(d Drop) {
	switch d {
	case DropNoCompositor:
		c.dropNone.Add(1)
	case DropQueueFull:
		c.dropFull.Add(1)
	case DropTooLong:
		c.dropLong.Add(1)
	default:
		c.packets.Add(1)
	}
}

// observe notes a picture's latency; the greatest is kept for a second at a time.
func (c *Child) observe(now time.Time, au wire.VideoAU) {
	fps := int64(c.cfg.Start.FPS)
	at := c.cfg.Epoch.Add(time.Duration(au.Tick/fps)*time.Second + time.Duration(au.Tick%fps)*time.Second/time.Duration(fps))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Pictures++
	c.stats.Latency = now.Sub(at)
	c.peak = max(c.peak, c.stats.Latency)
	if now.Sub(c.peakSince) >= time.Second {
		c.stats.MaxLatency, c.peak, c.peakSince = c.peak, 0, now
	}
}
