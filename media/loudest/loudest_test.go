package loudest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// scene plays packets of 20 ms of voices "a", "b", …, and writes down who gets whose place.
type scene struct {
	s      *Selector[string]
	now    time.Duration
	in     map[string]bool
	events []string
	at     []time.Duration
}

func newScene(tb testing.TB, places int) *scene {
	tb.Helper()
	s, err := New[string](Config{Places: places})
	if err != nil {
		tb.Fatal(err)
	}
	return &scene{s: s, now: time.Second, in: map[string]bool{}}
}

func (s *scene) packet(id string, level uint8) {
	in, lost, replaced := s.s.Observe(id, level, s.now)
	if replaced {
		s.in[lost] = false
	}
	if in && !s.in[id] {
		s.events = append(s.events, fmt.Sprintf("%s for %q", id, lost))
		s.at = append(s.at, s.now)
	}
	s.in[id] = in
}

// play sends packets for so long; 255 is none.
func (s *scene) play(length time.Duration, levels ...uint8) {
	for end := s.now + length; s.now < end; s.now += 20 * ms {
		for i, level := range levels {
			if level != 255 {
				s.packet(string(rune('a'+i)), level)
			}
		}
	}
}

func (s *scene) forwarded() string {
	var ids []string
	for id, in := range s.in {
		if in {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, "")
}

func (s *scene) want(t *testing.T, ids string) {
	t.Helper()
	if got := s.forwarded(); got != ids {
		t.Fatalf("at %v %q is forwarded, want %q; %v", s.now, got, ids, s.events)
	}
}

func TestAllWhileThereArePlaces(t *testing.T) {
	t.Parallel()
	s := newScene(t, 3)
	s.play(5*time.Second, 127, 30, 80)
	s.want(t, "abc")
	if len(s.events) != 3 {
		t.Fatalf("%v", s.events)
	}
}

func TestWhoBeginsToSpeakIsHeardSoon(t *testing.T) {
	t.Parallel()
	s := newScene(t, 2)
	s.play(3*time.Second, 30, 90, 110, 110)
	s.want(t, "ab")
	began := s.now
	s.play(200*ms, 30, 90, 110, 35)
	s.want(t, "ad")
	if after := s.at[len(s.at)-1] - began; after > 60*ms {
		t.Fatalf("after %v", after)
	}
	// Silence alone gives no place away, and a cough does not take one from who speaks.
	s.play(5*time.Second, 110, 110, 110, 110)
	s.want(t, "ad")
}

func TestPausesBetweenWordsKeepThePlace(t *testing.T) {
	t.Parallel()
	s := newScene(t, 2)
	s.play(2*time.Second, 30, 30, 110)
	events := len(s.events)
	for range 20 {
		s.play(400*ms, 30, 127, 40)
		s.play(400*ms, 127, 30, 40)
	}
	s.want(t, "ab")
	if len(s.events) != events {
		t.Fatalf("places changed: %v", s.events[events:])
	}
	s.play(time.Second, 127, 30, 40)
	s.play(200*ms, 127, 30, 40)
	s.want(t, "bc")
}

func TestTheLouderWins(t *testing.T) {
	t.Parallel()
	s := newScene(t, 2)
	s.play(2*time.Second, 25, 40, 110)
	s.play(2*time.Second, 25, 40, 38) // no louder to speak of
	s.want(t, "ab")
	began := s.now
	s.play(600*ms, 25, 40, 20)
	s.want(t, "ac")
	if after := s.at[len(s.at)-1] - began; after < 250*ms {
		t.Fatalf("after %v", after)
	}
	s.play(5*time.Second, 25, 18, 20) // a turn each, not more than one per Stay
	for i := 3; i < len(s.at); i++ {
		if s.at[i]-s.at[i-2] < time.Second {
			t.Fatalf("%v at %v", s.events, s.at)
		}
	}
}

func TestMutedAndSilentVoices(t *testing.T) {
	t.Parallel()
	s := newScene(t, 2)
	s.play(2*time.Second, 30, 30, 110)
	s.s.Remove("a")
	s.in["a"] = false
	s.s.Remove("nobody")
	if s.s.Placed() != 1 {
		t.Fatal("the place is not free")
	}
	s.play(20*ms, 255, 30, 110)
	s.want(t, "bc")
	s.play(2*time.Second, 255, 255, 110) // b, who spoke, sends nothing any more
	s.play(100*ms, 40, 255, 110)
	s.want(t, "ab")
	s.play(100*ms, 40, 255, 40)
	s.want(t, "ac")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Places: -1}, {Places: 1, Threshold: 127}, {Places: 1, Margin: -1}, {Places: 1, Linger: -1},
		{Places: 1, Takeover: -1}, {Places: 1, Stay: -1}} {
		if _, err := New[string](cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

// TestProperties: never more than the places, all taken when there are voices enough, a place lost
// only to somebody who speaks, and not before Stay or Linger allow.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		places, voices := rapid.IntRange(1, 5).Draw(t, "places"), rapid.IntRange(1, 9).Draw(t, "voices")
		s, err := New[int](Config{Places: places})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Second
		in, since := map[int]bool{}, map[int]time.Duration{}
		for range rapid.IntRange(1, 80).Draw(t, "spells") {
			levels := rapid.SliceOfN(rapid.SampledFrom([]uint8{15, 25, 35, 45, 60, 127, 200}), voices, voices).Draw(t, "levels")
			for range rapid.IntRange(1, 40).Draw(t, "packets") {
				now += 20 * ms
				for id, level := range levels {
					got, lost, replaced := s.Observe(id, level, now)
					if replaced {
						if !in[lost] || lost == id {
							t.Fatalf("%d took the place of %d, who had none", id, lost)
						}
						if v := s.voices[lost]; now-since[lost] < s.cfg.Stay && v.spoken != 0 && now-v.spoken < s.cfg.Linger {
							t.Fatalf("%d lost its place after %v, and spoke %v ago", lost, now-since[lost], now-v.spoken)
						}
						in[lost] = false
					}
					if in[id] && !got {
						t.Fatalf("%d lost its place to nobody", id)
					}
					if got && !in[id] {
						since[id] = now
					}
					in[id] = got
				}
				n := 0
				for _, is := range in {
					if is {
						n++
					}
				}
				if n != min(places, voices) || n != s.Placed() {
					t.Fatalf("%d of %d voices on %d places", n, voices, places)
				}
			}
			if gone := rapid.IntRange(0, 3*voices).Draw(t, "gone"); gone < voices {
				s.Remove(gone)
				in[gone] = false
			}
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	s, err := New[int](Config{Places: 5})
	if err != nil {
		b.Fatal(err)
	}
	now, i := time.Second, 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		now += 200 * time.Microsecond
		s.Observe(i%100, uint8(20+i%90), now)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	s, err := New[int](Config{Places: 5})
	if err != nil {
		t.Fatal(err)
	}
	now, i := time.Second, 0
	step := func() {
		i++
		now += 200 * time.Microsecond
		s.Observe(i%100, uint8(20+i%90), now)
	}
	for range 1000 {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
