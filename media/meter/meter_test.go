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
			r.Add(Cell(0, 0)|Cell(0, 1)|Cell(0, 2), base/10)
			r.Add(Cell(0, 2)|Cell(0, 3), top/10)
			now += 100 * ms
			r.Roll(now)
		}
	}
	if r.UpTo(0, 7) != 0 || r.Top(0) != 0 || r.Total() != 0 {
		t.Fatal("a rate before the first packet")
	}
	second(10_000, 5_000)
	if low, all := r.UpTo(0, 0), r.UpTo(0, 2); low != 80_000 || all != 120_000 || r.Total() != 120_000 {
		t.Fatalf("rates %d, %d of %d", low, all, r.Total())
	}
	r.Add(Cell(9, 9), 1) // a layer beyond those told apart
	second(10_000, 0)
	if got := r.UpTo(0, 2); got < 80_000 || got > 91_000 {
		t.Fatalf("rate %d after the fall", got)
	}
	second(0, 0)
	second(0, 0)
	if got := r.UpTo(0, 2); got != 80_000 {
		t.Fatalf("rate %d while it rests", got)
	}
	second(1000, 0)
	second(1000, 0)
	if got := r.UpTo(0, 2); got != 8000 {
		t.Fatalf("rate %d of what goes on", got)
	}
}

// TestRateOfLayers: a layer costs what its receivers get, which is not always all that
// is below it.
func TestRateOfLayers(t *testing.T) {
	t.Parallel()
	var r Rate
	now := ms
	r.Roll(now)
	for range 30 {
		r.Add(Cell(0, 0)|Cell(0, 1), 1000)
		r.Add(Cell(0, 1), 500)
		r.Add(Cell(1, 0)|Cell(1, 1), 4000) // needs nothing of the lower one
		now += 100 * ms
		r.Roll(now)
	}
	for _, c := range []struct {
		s, t int8
		want uint64
	}{{0, 0, 80_000}, {0, 1, 120_000}, {0, 7, 120_000}, {1, 0, 320_000}, {1, 7, 320_000}, {2, 7, 0}} {
		if got := r.UpTo(c.s, c.t); got != c.want {
			t.Errorf("layer %d, %d: %d, want %d", c.s, c.t, got, c.want)
		}
	}
	if r.Top(0) != 1 || r.Top(1) != 0 || r.Total() != 440_000 {
		t.Errorf("tops %d, %d, total %d", r.Top(0), r.Top(1), r.Total())
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
		r.Add(Cell(0, 0), bytes)
		now += 500 * ms
		r.Roll(now)
	}
	half(62_500 + 75_000) // 1 Mbit/s, begun with a keyframe
	half(62_500)
	for i := range 20 {
		if got := r.UpTo(0, 0); got != 1_000_000 {
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
	if got := r.UpTo(0, 0); got != 2_000_000 {
		t.Errorf("%d bit/s 1.5 s after the rate doubled", got)
	}
}

func TestBeats(t *testing.T) {
	t.Parallel()
	// soon tells for how many packets of a stream another one was foreseen within 400 µs,
	// when the second comes so long after the first, and both every 20 ms.
	soon := func(apart int64) (first, second int) {
		var b Beats
		for i := range int64(50) {
			if b.Soon(1, uint32(i*960), 48000, i*20*ms+ms, 400*time.Microsecond) {
				first++
			}
			if b.Soon(2, uint32(7+i*960), 48000, i*20*ms+ms+apart, 400*time.Microsecond) {
				second++
			}
		}
		return first, second
	}
	if first, second := soon(ms / 4); first != 48 || second != 0 {
		t.Fatalf("together: foreseen %d and %d times of 50", first, second)
	}
	if first, second := soon(3 * ms); first != 0 || second != 0 {
		t.Fatalf("apart: foreseen %d and %d times", first, second)
	}
}

func TestBeatsForgetsStreamsThatEnd(t *testing.T) {
	t.Parallel()
	var b Beats
	for i := range int64(1000) { // each sends three packets
		for j := range int64(3) {
			b.Soon(uint32(i), uint32(j*960), 48000, (i*3+j)*20*ms+ms, time.Millisecond)
		}
	}
	if len(b.list) > 10 {
		t.Fatalf("%d streams are remembered", len(b.list))
	}
}

func TestBeatsAllocatesNothing(t *testing.T) {
	var b Beats
	n := int64(0)
	step := func() {
		for s := range uint32(10) {
			b.Soon(s, uint32(n)*960, 48000, n*20*ms+1, time.Millisecond)
		}
		n++
	}
	step()
	if allocs := testing.AllocsPerRun(100, step); allocs != 0 {
		t.Fatalf("%v allocations", allocs)
	}
}
