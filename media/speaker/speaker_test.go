package speaker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// scene plays packets of 20 ms: level(id, t) is a voice's level, 255 for none.
type scene struct {
	d       *Detector
	now     time.Duration
	ids     []string
	changes []string
	at      []time.Duration
}

func newScene(tb testing.TB, ids ...string) *scene {
	tb.Helper()
	d, err := New(Config{})
	if err != nil {
		tb.Fatal(err)
	}
	return &scene{d: d, ids: ids, now: time.Second}
}

func (s *scene) play(length time.Duration, levels ...uint8) {
	for end := s.now + length; s.now < end; s.now += 20 * ms {
		for i, id := range s.ids {
			s.d.Observe(id, levels[i], s.now)
		}
		if active, dom, changed := s.d.Update(s.now); changed {
			line := dom + ":"
			for _, a := range active {
				line += " " + a.ID
			}
			s.changes = append(s.changes, line)
			s.at = append(s.at, s.now)
		}
	}
}

func TestScenes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		play func(*scene)
		want []string
	}{
		{"silence", func(s *scene) { s.play(5*time.Second, 127, 90, 60) }, nil},
		{"one speaks and stops, and stays dominant", func(s *scene) {
			s.play(2*time.Second, 25, 127, 127)
			s.play(3*time.Second, 127, 127, 127)
		}, []string{"a: a", "a:"}},
		{"a click is not speech", func(s *scene) {
			s.play(60*ms, 20, 127, 127)
			s.play(2*time.Second, 127, 127, 127)
		}, nil},
		{"a pause between words is not the end", func(s *scene) {
			for range 5 {
				s.play(800*ms, 25, 127, 127)
				s.play(300*ms, 127, 127, 127)
			}
		}, []string{"a: a"}},
		{"the next speaker takes over", func(s *scene) {
			s.play(2*time.Second, 25, 127, 127)
			s.play(3*time.Second, 127, 30, 127)
		}, []string{"a: a", "a: a b", "b: a b", "b: b"}},
		{"an equally loud one does not", func(s *scene) {
			s.play(2*time.Second, 25, 127, 127)
			s.play(3*time.Second, 25, 24, 127)
		}, []string{"a: a", "a: b a"}},
		{"a clearly louder one does", func(s *scene) {
			s.play(2*time.Second, 35, 127, 127)
			s.play(3*time.Second, 35, 20, 127)
		}, []string{"a: a", "a: a b", "b: b a"}},
		{"just below the threshold stays once active", func(s *scene) {
			s.play(2*time.Second, 44, 127, 127)
			s.play(2*time.Second, 49, 127, 127)
		}, []string{"a: a"}},
		{"no packets is silence", func(s *scene) {
			s.play(2*time.Second, 25, 127, 127)
			s.play(2*time.Second, 255, 255, 255)
		}, []string{"a: a", "a:"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, "a", "b", "c")
			tc.play(s)
			// Levels that settle may be reported again: only who and in what
			// order is compared, repeated lines once.
			if got := slices.Compact(s.changes); !sameWho(got, tc.want) {
				t.Fatalf("changes %q at %v, want %q", got, s.at, tc.want)
			}
		})
	}
}

func sameWho(got, want []string) bool {
	sorted := func(in []string) []string {
		var out []string
		for _, l := range in {
			r := []rune(l)
			dom, rest := string(r[:2]), r[2:]
			slices.Sort(rest)
			out = append(out, dom+string(rest))
		}
		return slices.Compact(out)
	}
	return slices.Equal(sorted(got), sorted(want))
}

func TestRemoveForgets(t *testing.T) {
	t.Parallel()
	s := newScene(t, "a", "b")
	s.play(2*time.Second, 20, 127)
	s.d.Remove("a")
	s.ids = []string{"b"}
	s.play(time.Second, 127)
	active, dom, _ := s.d.Update(s.now)
	if len(active) != 0 || dom != "" {
		t.Fatalf("active %v, dominant %q after the only speaker went", active, dom)
	}
}

func TestReactionTime(t *testing.T) {
	t.Parallel()
	s := newScene(t, "a")
	s.play(time.Second, 127)
	began := s.now
	s.play(time.Second, 25)
	if len(s.at) == 0 || s.at[0]-began > 400*ms {
		t.Fatalf("speech was reported at %v, began at %v", s.at, began)
	}
}

// TestAtMostFiveChangesPerSecond holds for any noise.
func TestAtMostFiveChangesPerSecond(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		voices := rapid.IntRange(1, 20).Draw(t, "voices")
		var times []time.Duration
		now := time.Duration(0)
		levels := make([]uint8, voices)
		ids := make([]string, voices)
		for i := range ids {
			ids[i] = fmt.Sprint(i)
		}
		for range 500 {
			now += time.Duration(rng.IntN(30)) * ms
			for i := range levels {
				if rng.IntN(10) == 0 {
					levels[i] = uint8(rng.IntN(256))
				}
				d.Observe(ids[i], levels[i], now)
			}
			active, _, changed := d.Update(now)
			for i := 1; i < len(active); i++ {
				if changed && active[i-1].Level > active[i].Level {
					t.Fatalf("not loudest first: %v", active)
				}
			}
			if changed {
				times = append(times, now)
				if n := len(times); n > 5 && now-times[n-6] < time.Second {
					t.Fatalf("six changes within %v", now-times[n-6])
				}
			}
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{Threshold: -1}, {Threshold: 127}, {Margin: -1}, {Attack: -1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.play(time.Second, 20, 30, 127)
	if n := testing.AllocsPerRun(200, func() {
		s.now += 20 * ms
		for i, id := range s.ids {
			s.d.Observe(id, uint8(20+i), s.now)
		}
		s.d.Update(s.now)
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	s := newScene(b, "a")
	b.ReportAllocs()
	for b.Loop() {
		s.now += 20 * ms
		s.d.Observe("a", 30, s.now)
	}
}
