package meter

import (
	"testing"
	"time"
)

const ms = int64(time.Millisecond)

func TestRate(t *testing.T) {
	t.Parallel()
	var r Rate
	now := ms
	r.Roll(now)
	second := func(base, top int) {
		for range 10 {
			r.Add(0, base/10)
			r.Add(2, top/10)
			now += 100 * ms
			r.Roll(now)
		}
	}
	if r.UpTo(7) != 0 || r.Top() != 0 {
		t.Fatal("a rate before the first packet")
	}
	second(10_000, 5_000)
	if low, all := r.UpTo(0), r.UpTo(7); low != 80_000 || all != 120_000 || r.Top() != 2 {
		t.Fatalf("rates %d, %d, top %d", low, all, r.Top())
	}
	r.Add(9, 1) // a layer beyond those told apart
	second(10_000, 0)
	if got := r.UpTo(7); got < 80_000 || got > 91_000 {
		t.Fatalf("rate %d after the fall", got)
	}
	second(0, 0)
	second(0, 0)
	if got := r.UpTo(7); got != 80_000 {
		t.Fatalf("rate %d while it rests", got)
	}
	second(1000, 0)
	second(1000, 0)
	if got := r.UpTo(7); got != 8000 {
		t.Fatalf("rate %d of what goes on", got)
	}
}

func TestBurst(t *testing.T) {
	t.Parallel()
	frames := func(gap int64) (more int) {
		var b Burst
		now := ms
		for f := range 50 {
			for i := range 5 {
				if b.More(uint32(f+1), now, i == 4, 120*time.Microsecond) {
					more++
				}
				now += gap
			}
			now += 33 * ms
		}
		return more
	}
	if n := frames(20_000); n != 200 {
		t.Fatalf("burst: %d of 200 packets are followed at once", n)
	}
	if n := frames(ms); n > 12 {
		t.Fatalf("paced: %d packets are taken for the beginning of a burst", n)
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	g := Gate{Interval: 200 * ms}
	now := ms
	if !g.Request(now) || g.Request(now+ms) || g.Due(now+100*ms) {
		t.Fatal("requests are not merged")
	}
	if !g.Due(now+200*ms) || g.Due(now+500*ms) {
		t.Fatal("what was held back does not go out once")
	}
	if g.Request(now + 210*ms) {
		t.Fatal("too early after what was held back")
	}
	g.Arrived()
	if g.Due(now + 900*ms) {
		t.Fatal("a keyframe does not cancel what is held back")
	}
	if !g.Request(now+1000*ms) || g.Count() != 3 {
		t.Fatalf("%d requests", g.Count())
	}
}

func TestKeyframeIsNotTheRate(t *testing.T) {
	t.Parallel()
	var r Rate
	now := ms
	r.Roll(now)
	half := func(bytes int) {
		r.Add(0, bytes)
		now += 500 * ms
		r.Roll(now)
	}
	half(62_500 + 75_000) // 1 Mbit/s, begun with a keyframe
	half(62_500)
	for i := range 20 {
		if got := r.UpTo(0); got != 1_000_000 {
			t.Fatalf("%d bit/s after %d windows, want 1,000,000", got, i+2)
		}
		extra := 0
		if i%4 == 3 {
			extra = 75_000
		}
		half(62_500 + extra)
	}
	for range 3 {
		half(125_000)
	}
	if got := r.UpTo(0); got != 2_000_000 {
		t.Errorf("%d bit/s 1.5 s after the rate doubled", got)
	}
}
