package hls

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
)

func ladder() Settings {
	return Settings{Width: 1280, Height: 720, Variants: []packager.Variant{
		{Bitrate: 2_500_000}, {Width: 854, Height: 480, Bitrate: 1_000_000}, {Width: 640, Height: 360, Bitrate: 600_000},
	}}
}

// The table is within 15 % of what was measured on the machine that it is from.
func TestCostIsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	full := Settings{Width: 1920, Height: 1080, Preset: "superfast", Variants: append([]packager.Variant{{Bitrate: 4_500_000}}, ladder().Variants...)}
	full.Variants[1].Width, full.Variants[1].Height = 1280, 720
	fine := ladder()
	fine.Preset = "veryfast"
	for name, c := range map[string]struct {
		s     Settings
		peers int
		want  float64
	}{
		"4 to 720p":                      {Settings{Width: 1280, Height: 720, Preset: "veryfast"}, 4, 0.29},
		"9 to 720p":                      {Settings{Width: 1280, Height: 720, Preset: "veryfast"}, 9, 0.36},
		"9 to 720+480+360p":              {fine, 9, 0.51},
		"4 to 1080+720+480+360 superfst": {full, 4, 0.63},
	} {
		s, err := c.s.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		if got := s.cost(c.peers, nil); math.Abs(got-c.want) > 0.15*c.want {
			t.Errorf("%s: %.3f, measured %.2f", name, got, c.want)
		}
	}
	s, _ := ladder().withDefaults()
	if all, one := s.cost(4, nil), s.cost(4, func(v int) bool { return v < 2 }); one > 0.6*all {
		t.Errorf("%.3f with two that idle, %.3f without", one, all)
	}
}

func TestBudgetLearns(t *testing.T) {
	t.Parallel()
	var b budget
	if got := b.expect(0.4); got != 0.4 {
		t.Error(got)
	}
	for range 200 {
		b.learned(0.8, 0.4)
	}
	if got := b.expect(0.4); math.Abs(got-0.8) > 0.01 {
		t.Errorf("expects %.3f after twice as much", got)
	}
	for range 200 {
		b.learned(100, 0.1)
		b.learned(0, 0.1)
	}
	if got := b.expect(1); got > mostFactor {
		t.Error(got)
	}
}

// A node takes programs until its cores are used up; then the refusal has the numbers, and what ends makes room.
func TestNoRoomForOneMore(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, func(c *Config) { c.Cores = 1 })
	start := func(stream string) error {
		r := StartRequest{Room: "demo", Stream: stream, Settings: ladder()}
		_, err := s.Start(context.Background(), r)
		return err
	}
	for _, stream := range []string{"a", "b"} {
		if err := s.Admit(ladder()); err != nil {
			t.Fatal(err)
		}
		if err := start(stream); err != nil {
			t.Fatal(err)
		}
	}
	var full *NoRoomError
	if err := s.Admit(ladder()); !errors.As(err, &full) || full.Programs != 2 || full.Cores != 1 || full.Needs < 0.35 || full.Taken < 0.7 {
		t.Errorf("%v", err)
	}
	if err := start("c"); !errors.As(err, &full) {
		t.Error(err)
	}
	if err := s.Stop(context.Background(), "demo", "a"); err != nil {
		t.Fatal(err)
	}
	if err := start("c"); err != nil {
		t.Error(err)
	}
	if st := s.Programs()[0]; st.Expected < 0.35 || st.Status().GetExpectedCores() != st.Expected {
		t.Errorf("expected %v", st.Expected)
	}
	if err := s.Admit(Settings{Layout: "cinema"}); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
}

// A stream whose compositor lacks CPU says so; another one is let in as the table says.
func TestOverloadedSaysSo(t *testing.T) {
	t.Parallel()
	log := &lines{}
	s := runOrigin(t, &room{}, func(c *Config) {
		c.Cores, c.Logger = 64, slog.New(slog.NewTextHandler(log, nil))
		c.CompositorEnv = []string{(&hlstest.Compositor{Overload: 3}).Env()}
	})
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: ladder()})
	eventually(t, "overload", func() bool { return s.Programs()[0].Overloaded() })
	if rate := s.Programs()[0].Status().GetFramerate(); rate != 10 {
		t.Errorf("%v pictures a second", rate)
	}
	if err := s.Admit(ladder()); err != nil {
		t.Error(err)
	}
	full := &NoRoomError{Needs: 1, Taken: 1, Cores: 1, Programs: 2, Overloaded: 1}
	if !strings.Contains(full.Error(), "1 of them lack CPU already") {
		t.Error(full)
	}
	eventually(t, "a line of the log", func() bool { return strings.Contains(log.String(), "too little CPU") })
	if got := strings.Count(log.String(), "too little CPU"); got > 1 {
		t.Errorf("%d lines of %s", got, log)
	}
}

// lines is a log that a test reads.
type lines struct {
	mu sync.Mutex // guards the field below
	b  strings.Builder
}

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// String is what was logged so far.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
