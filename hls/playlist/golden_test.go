package playlist

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The scripts in testdata are commands, "----", and what they printed. Run with
// AMPHI_REWRITE=1 to write them anew, then read the difference.
//
//	config window=N firstmsn=N firstdisc=N holdback=D
//	map URI · break · begin T · part N [gap] · finish [gap] · gap T D · hint URI · end
//	segments N        N full segments of four parts from the last time on
//	range ID T [D]    a date range
//	report URI MSN PART
//	show full|delta|v2
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			script, want, _ := strings.Cut(string(b), "----\n")
			s := scripted{t: t, at: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
			for line := range strings.Lines(script) {
				if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
					s.do(f)
				}
			}
			if os.Getenv("AMPHI_REWRITE") != "" {
				if err := os.WriteFile(f, []byte(script+"----\n"+s.out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := s.out.String(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

type scripted struct {
	t       *testing.T
	m       *Media
	at      time.Time // date of the next frame
	reports []Report
	out     strings.Builder
}

func (s *scripted) do(f []string) {
	s.t.Helper()
	var err error
	switch f[0] {
	case "config":
		err = s.config(f[1:])
	case "map":
		s.m.SetMap(f[1])
	case "break":
		s.m.Break()
	case "begin":
		err = s.m.Begin(s.at)
	case "part":
		s.part(f)
	case "finish":
		err = s.m.Finish(fmt.Sprintf("%d.m4s", s.m.OpenMSN()), len(f) > 1)
	case "gap":
		d := s.duration(f[1])
		err = s.m.FinishGap(fmt.Sprintf("%d.m4s", s.m.OpenMSN()), s.at, d)
		s.at = s.at.Add(d)
	case "lost":
		s.at = s.at.Add(s.duration(f[1]))
	case "segments":
		s.segments(s.number(f[1]))
	case "hint":
		s.m.Hint(f[1])
	case "range":
		s.dateRange(f)
	case "report":
		s.reports = append(s.reports, Report{URI: f[1], MSN: uint64(s.number(f[2])), Part: s.number(f[3])})
	case "end":
		s.m.End()
	case "show":
		sn := s.m.Render(s.reports)
		form := map[string]Skip{"full": SkipNone, "delta": SkipSegments, "v2": SkipRanges}[f[1]]
		fmt.Fprintf(&s.out, "# %s\n%s", f[1], sn.Form(form).Bytes())
	default:
		s.t.Fatalf("unknown command %q", f)
	}
	if err != nil {
		fmt.Fprintf(&s.out, "# %s: %v\n", strings.Join(f, " "), err)
	}
}

func (s *scripted) config(kv []string) error {
	cfg := Config{SegmentTarget: 2 * time.Second, PartTarget: 500 * time.Millisecond}
	for _, a := range kv {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "window":
			cfg.Window = s.number(v)
		case "firstmsn":
			cfg.FirstMSN = uint64(s.number(v))
		case "firstdisc":
			cfg.FirstDiscontinuity = uint64(s.number(v))
		case "holdback":
			cfg.PartHoldBack = s.duration(v)
		}
	}
	var err error
	s.m, err = New(cfg)
	return err
}

func (s *scripted) part(f []string) {
	gap := len(f) > 1 && f[1] == "gap"
	d := 500 * time.Millisecond
	if len(f) > 1 && !gap {
		d = s.duration(f[1])
	}
	n := s.m.OpenParts()
	p := Part{URI: fmt.Sprintf("%d.%d.m4s", s.m.OpenMSN(), n), Duration: d, Independent: n == 0, Gap: gap}
	if err := s.m.AddPart(p); err != nil {
		fmt.Fprintf(&s.out, "# part: %v\n", err)
		return
	}
	s.at = s.at.Add(d)
	s.m.Hint(fmt.Sprintf("%d.%d.m4s", s.m.OpenMSN(), n+1))
}

func (s *scripted) segments(n int) {
	for range n {
		s.do([]string{"begin"})
		for range 4 {
			s.part([]string{"part"})
		}
		s.do([]string{"finish"})
		s.m.Hint(fmt.Sprintf("%d.0.m4s", s.m.OpenMSN()))
	}
}

func (s *scripted) dateRange(f []string) {
	r := DateRange{ID: f[1], Class: "com.example.cue", Start: s.at, Attrs: map[string]string{"VALUE": "7", "A-B": "x y"}}
	if len(f) > 2 {
		r.Duration = s.duration(f[2])
	}
	if err := s.m.AddDateRange(r); err != nil {
		fmt.Fprintf(&s.out, "# range: %v\n", err)
	}
}

func (s *scripted) number(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *scripted) duration(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}
