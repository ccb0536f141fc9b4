package ingest

import (
	"math"
	"time"
)

// clock maps a stream's RTP timestamps to the wall clock of its sender, in
// nanoseconds. Without a sender report it counts from an arbitrary zero.
type clock struct {
	rate   int64
	synced bool
	set    bool
	refTS  uint32
	refNS  int64
}

// ntpNS converts a 64-bit NTP time to nanoseconds since NTP's era.
func ntpNS(ntp uint64) int64 {
	return int64(ntp>>32)*int64(time.Second) + int64((ntp&math.MaxUint32)*uint64(time.Second)>>32)
}

// report takes a sender report (RFC 3550 section 6.4.1); an NTP time of 0 means
// that the sender has no clock.
func (c *clock) report(ntp uint64, ts uint32) {
	if ntp == 0 {
		return
	}
	c.synced, c.set, c.refTS, c.refNS = true, true, ts, ntpNS(ntp)
}

// capture is when ts was sampled. It moves the reference along, so that a stream
// may go on for longer than its timestamps last.
func (c *clock) capture(ts uint32) int64 {
	if !c.set {
		c.set, c.refTS, c.refNS = true, ts, 0
	}
	d := int64(int32(ts - c.refTS))
	ns := c.refNS + d*int64(time.Second)/c.rate
	if d > 1<<28 {
		c.refTS, c.refNS = ts, ns
	}
	return ns
}

// least is the smallest of the values of the last ten seconds or so.
type least struct {
	buckets [5]int64
	from    time.Duration // start of the newest bucket
	used    int           // buckets that hold a value
}

const leastBucket = 2 * time.Second

func (l *least) add(v int64, now time.Duration) {
	switch {
	case l.used == 0 || now-l.from > 2*leastBucket:
		l.buckets[0], l.used, l.from = v, 1, now
	case now-l.from >= leastBucket:
		copy(l.buckets[1:], l.buckets[:])
		l.buckets[0] = v
		l.used = min(l.used+1, len(l.buckets))
		l.from = now
	default:
		l.buckets[0] = min(l.buckets[0], v)
	}
}

func (l *least) value() int64 {
	m := l.buckets[0]
	for _, v := range l.buckets[1:l.used] {
		m = min(m, v)
	}
	return m
}

// follower moves towards a target slowly enough not to be heard, and jumps where
// the target did (a new route, a clock that was set).
type follower struct {
	set   bool
	value int64
	first time.Duration // when it was set
	at    time.Duration // of the last move
}

const (
	followJump  = int64(200 * time.Millisecond)
	followUp    = int64(2 * time.Millisecond)  // a second
	followDown  = int64(20 * time.Millisecond) // a second
	followFresh = 2 * time.Second              // downward jumps are free in the beginning
)

// move brings the follower nearer to target and tells whether it jumped.
func (f *follower) move(target int64, now time.Duration) (jumped bool) {
	if !f.set {
		f.set, f.value, f.first, f.at = true, target, now, now
		return false
	}
	d := target - f.value
	dt := min(max(now-f.at, 0), time.Second)
	f.at = now
	switch {
	case d > followJump || d < -followJump:
		f.value = target
		return true
	case d < 0 && now-f.first < followFresh:
		f.value = target
	case d > 0:
		f.value += min(d, followUp*int64(dt)/int64(time.Second))
	default:
		f.value -= min(-d, followDown*int64(dt)/int64(time.Second))
	}
	return false
}
