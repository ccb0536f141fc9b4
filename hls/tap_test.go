package hls

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// tapLog notes what a tap was given.
type tapLog struct {
	mu     sync.Mutex // guards the fields below
	runs   []packager.Run
	ticks  []int64
	sounds []int64
	ended  int
	parts  map[string]int
	last   bool
	only   int // the variant that it takes
}

func (l *tapLog) Begin(r packager.Run) { l.note(func() { l.runs = append(l.runs, r) }) }
func (l *tapLog) Video(_ int, tick int64, _ []byte) {
	l.note(func() { l.ticks = append(l.ticks, tick) })
}
func (l *tapLog) Takes(variant int) bool { return variant == l.only }
func (l *tapLog) Audio(sample int64, _ []byte) {
	l.note(func() { l.sounds = append(l.sounds, sample) })
}
func (l *tapLog) End() { l.note(func() { l.ended++ }) }

func (l *tapLog) part(p *packager.Part) {
	l.note(func() {
		if p == nil {
			l.last = true
			return
		}
		l.parts[p.Media]++
	})
}

func (l *tapLog) note(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func TestTapsGetTheProgram(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, nil)
	if _, err := s.Tap("demo", "main", &tapLog{}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a tap on nothing: %v", err)
	}
	s.start(StartRequest{Room: "demo", Stream: "main"})
	log, gone := &tapLog{parts: map[string]int{}}, &tapLog{}
	if _, err := s.Tap("demo", "main", log); err != nil {
		t.Fatal(err)
	}
	remove, err := s.Tap("demo", "main", gone)
	if err != nil {
		t.Fatal(err)
	}
	remove()
	if _, err := s.TapParts("demo", "main", func(name string, _ int) bool { return name == "180p" }, log.part); err != nil {
		t.Fatal(err)
	}
	eventually(t, "access units and parts", func() bool {
		log.mu.Lock()
		defer log.mu.Unlock()
		return len(log.runs) == 1 && len(log.ticks) > 30 && len(log.sounds) > 30 && log.parts["180p"] > 2 && log.parts[packager.AudioName] > 2
	})
	// One that comes while a run is under way is told of it.
	late := &tapLog{}
	if _, err := s.Tap("demo", "main", late); err != nil || len(late.runs) != 1 {
		t.Fatalf("%v, %d runs", err, len(late.runs))
	}
	if err := s.Stop(t.Context(), "demo", "main"); err != nil {
		t.Fatal(err)
	}
	if log.ended != 1 || !log.last || late.ended != 1 {
		t.Errorf("ended %d, last part %v, late one ended %d", log.ended, log.last, late.ended)
	}
	if gone.ended > 0 {
		t.Error("a removed tap was called")
	}
	r := log.runs[0]
	if r.FPS == 0 || len(r.AudioConfig) == 0 || len(r.Variants) == 0 || r.Epoch.IsZero() || log.ticks[0] < r.FirstTick {
		t.Errorf("run %+v, first tick %d", r, log.ticks[0])
	}
}

// A tap keeps only what it takes from idling, and gets nothing else.
func TestVariantsThatNoTapTakesIdle(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, func(c *Config) { c.IdleAfter = time.Millisecond })
	var variants []packager.Variant
	for _, name := range []string{"high", "mid", "low"} {
		variants = append(variants, packager.Variant{Name: name, Width: 320, Height: 180, Bitrate: 900_000 - 100_000*len(variants)})
	}
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: Settings{Segment: time.Second, Part: 250 * time.Millisecond, Variants: variants}})
	idle := func(names ...string) {
		t.Helper()
		eventually(t, "those that idle", func() bool { return slices.Equal(s.Programs()[0].Idle, names) })
	}
	idle("high", "mid")
	mid := &tapLog{only: 1}
	removeMid, err := s.Tap("demo", "main", mid)
	if err != nil {
		t.Fatal(err)
	}
	idle("high")
	high := &tapLog{parts: map[string]int{}}
	removeHigh, err := s.TapParts("demo", "main", func(_ string, variant int) bool { return variant == 0 }, high.part)
	if err != nil {
		t.Fatal(err)
	}
	idle()
	eventually(t, "parts", func() bool {
		high.mu.Lock()
		defer high.mu.Unlock()
		return high.parts["high"] > 1 && high.parts[packager.AudioName] > 1
	})
	removeMid()
	removeHigh()
	if len(high.parts) != 2 {
		t.Errorf("parts of %v", high.parts)
	}
	if !slices.IsSorted(mid.ticks) || len(slices.Compact(slices.Clone(mid.ticks))) != len(mid.ticks) {
		t.Errorf("pictures of several variants: %v", mid.ticks)
	}
	idle("high", "mid")
}
