package mix_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
)

func TestGridRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := mix.Grid{FPS: rapid.SampledFrom([]int64{15, 24, 25, 30, 60}).Draw(t, "fps"), PartTicks: 15, GOPTicks: 60}
		tick := rapid.Int64Range(0, 1<<32).Draw(t, "tick") // two years at 60 a second
		at := g.TickTime(tick)
		if at < 0 || g.TickAt(at) != tick {
			t.Fatalf("tick %d is at %v, where tick %d is", tick, at, g.TickAt(at))
		}
		if next := g.TickTime(tick + 1); g.TickAt(next-1) != tick {
			t.Fatalf("just before tick %d is tick %d", tick+1, g.TickAt(next-1))
		}
		now := at + time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "later"))
		first := g.First(tick-rapid.Int64Range(0, 100).Draw(t, "earlier"), now)
		if first%15 != 0 || g.TickTime(first) <= now || g.TickTime(first-15) > now {
			t.Fatalf("first tick %d at %v", first, now)
		}
	})
}

func TestFirstWaitsForTheNode(t *testing.T) {
	t.Parallel()
	g := mix.Grid{FPS: 30, PartTicks: 15, GOPTicks: 60}
	if f := g.First(100, time.Second); f != 105 {
		t.Fatal(f)
	}
	if f := g.First(0, -time.Hour); f != 15 { // an epoch in the future
		t.Fatal(f)
	}
}

func TestSamples(t *testing.T) {
	t.Parallel()
	for _, s := range []int64{0, 1, 1024, 47999, 48000, 1 << 44} {
		at := mix.SampleTime(s)
		if got := mix.SampleAt(at + 1); got != s { // rounded down to the nanosecond
			t.Errorf("sample %d is at %v, where sample %d is", s, at, got)
		}
	}
	g := mix.Grid{FPS: 30, PartTicks: 15, GOPTicks: 60}
	if b := g.FirstBlock(60); b != 96000/1024 {
		t.Error(b)
	}
	if !g.Key(120) || g.Key(121) {
		t.Error("keyframe grid")
	}
}
