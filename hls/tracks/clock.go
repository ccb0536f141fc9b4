package tracks

import (
	"time"

	"github.com/amphi-sfu/amphi/media/packet"
)

// clock turns RTP timestamps of one track into the node's wall clock, by sender reports where there are any and by the arrival of
// the first packet until then. A plain value.
type clock struct {
	rate   int64
	begun  bool
	locked bool  // by a sender report
	last   int64 // unwrapped timestamp
	rtp    int64 // reference
	wall   int64 // its time, in Unix nanoseconds
	lag    int64 // of the newest frame's arrival behind its time
	lagged bool  // lag is known
}

const (
	// A clock that a report finds wrong by more than tolerance is set right by step with each report; beyond another it is another clock.
	tolerance = int64(5 * time.Millisecond)
	step      = int64(20 * time.Millisecond)
	another   = int64(3 * time.Second)
)

// unwrap gives a timestamp 64 bits.
func (c *clock) unwrap(ts uint32) int64 {
	return c.last + int64(int32(ts-uint32(c.last)))
}

// begin sets the clock by the first packet, unless a report did.
func (c *clock) begin(ts uint32, wall int64) {
	if c.begun {
		return
	}
	c.begun = true
	c.last, c.rtp, c.wall = int64(ts), int64(ts), wall
}

// at is the time of a timestamp, which becomes the newest; it came at arrived. A publisher whose timestamps go on somewhere else is
// followed: another SSRC, a restart.
func (c *clock) at(ts uint32, arrived int64) int64 {
	rtp := c.unwrap(ts)
	lag := arrived - c.time(rtp)
	if d := lag - c.lag; c.lagged && (d > another || d < -another) {
		c.rtp, c.wall, c.locked = rtp, arrived-c.lag, false
		lag = c.lag
	}
	c.last, c.lag, c.lagged = rtp, lag, true
	return c.time(rtp)
}

func (c *clock) time(rtp int64) int64 {
	d := rtp - c.rtp
	return c.wall + d/c.rate*int64(time.Second) + d%c.rate*int64(time.Second)/c.rate
}

// ntpEpoch is 1900-01-01 in Unix seconds.
const ntpEpoch = -2208988800

// report takes a sender report. fixed says that times have been given out: then they are only nudged.
func (c *clock) report(sr packet.SenderReport, fixed bool) {
	if sr.NTP == 0 {
		return
	}
	wall := (int64(sr.NTP>>32)+ntpEpoch)*int64(time.Second) + int64(sr.NTP&0xffffffff*uint64(time.Second)>>32)
	if !c.begun {
		c.begin(sr.RTP, wall)
		c.locked = true
		return
	}
	rtp := c.unwrap(sr.RTP)
	off := wall - c.time(rtp)
	switch {
	case !fixed || off > another || off < -another:
		c.rtp, c.wall, c.locked, c.lagged = rtp, wall, true, false
		return
	case off > tolerance:
		off = min(off, step)
	case off < -tolerance:
		off = max(off, -step)
	default:
		off = 0
	}
	c.wall = c.time(rtp) + off
	c.rtp, c.locked = rtp, true
}
