package ingest

import (
	"math"
	"testing"
	"time"
)

func ntpOf(at time.Duration) uint64 {
	return uint64(at/time.Second+3_000_000_000)<<32 | uint64(at%time.Second)<<32/uint64(time.Second)
}

func TestClock(t *testing.T) {
	t.Parallel()
	c := clock{rate: 90000}
	if c.capture(5) != 0 || c.capture(90005) != int64(time.Second) {
		t.Fatal("without a report it counts from its first timestamp")
	}
	c.report(0, 1)
	if c.synced {
		t.Fatal("an NTP time of 0 is none")
	}
	c.report(ntpOf(10*time.Second), math.MaxUint32-44999)
	before, after := c.capture(math.MaxUint32-89999), c.capture(45000)
	if d := after - before; d != int64(1500*ms) {
		t.Fatalf("over the wrap: %v", time.Duration(d))
	}
	// A stream may go on for longer than its timestamps last: 14 hours at 90 kHz.
	ts, from := uint32(0), c.capture(0)
	for range 20 * 60 {
		ts += 60 * 90000
		if got := c.capture(ts); got < from {
			t.Fatalf("back in time by %v", time.Duration(from-got))
		} else {
			from = got
		}
	}
	if got := time.Duration(from - c.refNS); got > 2*time.Hour {
		t.Fatalf("the reference is %v behind", got)
	}
}

func TestNTP(t *testing.T) {
	t.Parallel()
	if d := ntpNS(1<<63|1<<31) - ntpNS(1<<63); d != int64(500*ms) {
		t.Fatalf("half a second is %v", time.Duration(d))
	}
	if ntpNS(math.MaxUint64) < 0 {
		t.Fatal("overflow at the end of the era")
	}
}

func TestLeast(t *testing.T) {
	t.Parallel()
	var l least
	l.add(5, 0)
	l.add(3, ms)
	l.add(9, 2*ms)
	if l.value() != 3 {
		t.Fatal(l.value())
	}
	for at := time.Duration(0); at < 12*time.Second; at += 100 * ms {
		l.add(7, at)
	}
	if l.value() != 7 {
		t.Fatalf("old values are forgotten: %d", l.value())
	}
	l.add(2, time.Minute)
	l.add(20, time.Hour)
	if l.value() != 20 {
		t.Fatalf("after a long pause: %d", l.value())
	}
}

func TestFollower(t *testing.T) {
	t.Parallel()
	var f follower
	f.move(int64(50*ms), 0)
	f.move(int64(20*ms), time.Second)
	if f.value != int64(20*ms) {
		t.Fatal("free to fall in the beginning")
	}
	f.move(int64(30*ms), 2*time.Second)
	if f.value != int64(22*ms) {
		t.Fatalf("rises by 2 ms a second, not to %v", time.Duration(f.value))
	}
	f.move(0, 10*time.Second) // a long silence counts as one second
	if f.value != int64(2*ms) {
		t.Fatalf("falls by 20 ms a second, not to %v", time.Duration(f.value))
	}
	if !f.move(int64(10*time.Second), 10*time.Second) || f.value != int64(10*time.Second) {
		t.Fatal("follows a jump")
	}
}
