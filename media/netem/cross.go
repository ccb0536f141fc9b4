package netem

import (
	"math"
	"time"
)

// Growth is how a Cross flow widens its window.
type Growth uint8

// Growths: those of TCP Reno (RFC 5681) and of CUBIC (RFC 9438).
const (
	Reno Growth = iota
	Cubic
)

const (
	crossReorder = 3 // packets after which an unacknowledged one is lost (RFC 5681 section 3.2)
	crossStart   = 10
	crossTimeout = time.Second
	cubicBeta    = 0.7
	cubicScale   = 0.4
)

// Cross is the sender of a download that shares a link with what is tested: as much as
// a TCP with selective acknowledgements would send, and no data. It is a plain value:
// acknowledgements and the time go in, packets come out. It is not safe for concurrent use.
type Cross struct {
	growth    Growth
	window    float64 // packets
	threshold float64 // end of slow start
	next      uint64  // number of the next packet
	out       []crossPacket
	recover   uint64 // no second reduction for losses before this number
	rtt       time.Duration
	acked     time.Duration // last acknowledgement
	// CUBIC's curve: window at the last reduction and when that was.
	highest float64
	reduced time.Duration
	stats   CrossStats
}

type crossPacket struct {
	n    uint64
	sent time.Duration
}

// CrossStats counts packets and events.
type CrossStats struct {
	Sent, Acked, Lost   uint64
	Reductions, Timeout uint64
	Window              float64 // packets
	RTT                 time.Duration
}

// NewCross makes a flow that begins at its first Send.
func NewCross(g Growth) *Cross {
	return &Cross{growth: g, window: crossStart, threshold: math.Inf(1)}
}

// Send returns the number of the next packet when the window allows one; call it until
// it does not.
func (c *Cross) Send(now time.Duration) (n uint64, ok bool) {
	if len(c.out) > 0 && now-max(c.acked, c.out[0].sent) > max(crossTimeout, 3*c.rtt) {
		c.stats.Lost += uint64(len(c.out))
		c.stats.Timeout++
		c.out = c.out[:0]
		c.threshold, c.highest, c.reduced = max(c.window/2, 2), c.window, now
		c.window, c.recover, c.acked = 1, c.next, now
	}
	if float64(len(c.out)) >= c.window {
		return 0, false
	}
	c.out = append(c.out, crossPacket{c.next, now})
	c.next++
	c.stats.Sent++
	return c.next - 1, true
}

// Ack takes the acknowledgement of packet n.
func (c *Cross) Ack(n uint64, now time.Duration) {
	lost, found := 0, false
	for i, p := range c.out {
		if p.n >= n {
			if p.n == n {
				found = true
				c.measure(now - p.sent)
				c.out = append(c.out[:i], c.out[i+1:]...)
			}
			break
		}
	}
	if !found {
		return
	}
	c.acked = now
	c.stats.Acked++
	for lost < len(c.out) && c.out[lost].n+crossReorder <= n {
		lost++
	}
	if lost > 0 {
		c.stats.Lost += uint64(lost)
		newest := c.out[lost-1].n
		c.out = append(c.out[:0], c.out[lost:]...)
		if newest >= c.recover {
			c.reduce(now)
			return
		}
	}
	if n >= c.recover {
		c.grow(now)
	}
}

func (c *Cross) measure(rtt time.Duration) {
	if c.rtt == 0 {
		c.rtt = rtt
	}
	c.rtt += (rtt - c.rtt) / 8
}

func (c *Cross) reduce(now time.Duration) {
	c.stats.Reductions++
	c.recover = c.next
	c.highest, c.reduced = c.window, now
	if c.growth == Cubic {
		c.window = max(c.window*cubicBeta, 2)
	} else {
		c.window = max(c.window/2, 2)
	}
	c.threshold = c.window
}

func (c *Cross) grow(now time.Duration) {
	switch {
	case c.window < c.threshold:
		c.window++
	case c.growth == Reno || c.reduced == 0:
		c.window += 1 / c.window
	default:
		// RFC 9438 sections 4.2 and 4.3: the cubic curve, and no less than Reno.
		t := (now - c.reduced).Seconds()
		k := math.Cbrt(c.highest * (1 - cubicBeta) / cubicScale)
		target := cubicScale*math.Pow(t+c.rtt.Seconds()-k, 3) + c.highest
		friendly := c.highest*cubicBeta + 3*(1-cubicBeta)/(1+cubicBeta)*t/c.rtt.Seconds()
		target = min(max(target, friendly), 1.5*c.window)
		c.window += max(target-c.window, 0) / c.window
	}
}

// Stats returns the counters.
func (c *Cross) Stats() CrossStats {
	s := c.stats
	s.Window, s.RTT = c.window, c.rtt
	return s
}
