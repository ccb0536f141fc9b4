package limit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const second = int64(time.Second)

func TestBucket(t *testing.T) {
	t.Parallel()
	b := NewBucket(10, 5)
	now := second
	for i := range 5 {
		if !b.Take(1, now) {
			t.Fatalf("token %d of a full bucket is missing", i)
		}
	}
	if b.Take(1, now) || b.Take(1, now+second/11) {
		t.Fatal("an empty bucket gives")
	}
	if now += second / 10; !b.Take(1, now) || b.Take(1, now) {
		t.Fatal("a tenth of a second is not one token")
	}
	b.Spend(1000, now)
	if got := b.Level(now); got != -5 {
		t.Fatalf("%d owed, want 5", got)
	}
	if got := b.Level(now + 1000*second); got != 5 {
		t.Fatalf("level %d after a long time", got)
	}
	if got := b.Level(now); got != 5 {
		t.Fatalf("level %d after the clock went back", got)
	}
	var zero Bucket
	if zero.Take(1, second) {
		t.Fatal("the zero value gives")
	}
}

// TestBucketKeepsItsRate takes at random: never more than the burst and what came since.
func TestBucketKeepsItsRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Int64Range(0, 1<<33).Draw(t, "rate")
		burst := rapid.Int64Range(0, 1<<33).Draw(t, "burst")
		b := NewBucket(rate, burst)
		rate, burst = min(rate, maxTokens), min(burst, maxTokens)
		now, taken := int64(0), int64(0)
		for range rapid.IntRange(1, 50).Draw(t, "takes") {
			now += rapid.Int64Range(0, 100*second).Draw(t, "passed")
			if n := rapid.Int64Range(0, 1<<31).Draw(t, "n"); b.Take(n, now) {
				taken += n
			}
			if most := float64(burst) + float64(rate)*float64(now)/float64(second); float64(taken) > most+1 {
				t.Fatalf("%d taken, at most %f are there", taken, most)
			}
		}
	})
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	var th Throttle
	rate := Rate{Packets: 1000, Bytes: 1_000_000}
	th.Set(rate, second)
	now := second
	send := func(packets, size int, over time.Duration) (passed int) {
		for range packets {
			now += int64(over) / int64(packets)
			if th.Open(now) {
				th.Spend(size, now)
				passed++
			}
		}
		return passed
	}
	if got := send(500, 1200, time.Millisecond); got != 500 { // a keyframe
		t.Fatalf("%d of a burst of 500 pass", got)
	}
	now += 2 * second
	if got := send(9000, 1000, 10*time.Second); got != 9000 {
		t.Fatalf("%d of 9000 below the rate pass", got)
	}
	if got := send(1_000_000, 100, 10*time.Second); got < 9000 || got > 12000 {
		t.Fatalf("%d of 100 times the packets pass in 10 s", got)
	}
	now += 2 * second
	if got := send(8000, 100_000, 10*time.Second); got > 130 {
		t.Fatalf("%d of 80 times the bytes pass in 10 s", got)
	}
	now += 2 * second
	if got := send(900, 1000, time.Second); got != 900 {
		t.Fatalf("%d of 900 pass after the flood", got)
	}
	th.Set(rate.Add(rate), now)
	now += 2 * second
	if got := send(2000, 100, time.Millisecond); got != 2000 {
		t.Fatalf("%d of a burst of 2000 pass at twice the rate", got)
	}
}

func TestThrottleAllocatesNothing(t *testing.T) {
	var th Throttle
	th.Set(Rate{1000, 1_000_000}, 1)
	now := int64(1)
	if n := testing.AllocsPerRun(1000, func() {
		now += 1000
		if th.Open(now) {
			th.Spend(1000, now)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkThrottle(b *testing.B) {
	var th Throttle
	th.Set(Rate{1000, 1_000_000}, 1)
	now := int64(1)
	for b.Loop() {
		now += 1000
		if th.Open(now) {
			th.Spend(1000, now)
		}
	}
}
