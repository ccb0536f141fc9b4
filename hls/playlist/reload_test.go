package playlist

import (
	"net/url"
	"testing"
	"time"
)

func media(t testing.TB, cfg Config) *Media {
	t.Helper()
	cfg.SegmentTarget, cfg.PartTarget = 2*time.Second, 500*time.Millisecond
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// grow adds n parts on a grid of four to a segment.
func grow(t testing.TB, m *Media, n int) {
	t.Helper()
	for range n {
		if !m.isOpen() {
			if err := m.Begin(time.Unix(int64(m.OpenMSN())*2, 0)); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.AddPart(Part{URI: "p", Duration: 500 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		if m.OpenParts() == 4 {
			if err := m.Finish("s", false); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestParseReload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		query string
		want  Reload
		bad   bool
	}{
		{"", Reload{Part: -1}, false},
		{"token=x&_HLS_skip=YES", Reload{Part: -1, Skip: SkipSegments}, false},
		{"_HLS_skip=v2&_HLS_msn=5", Reload{Blocking: true, MSN: 5, Part: -1, Skip: SkipRanges}, false},
		{"_HLS_skip=v9&_HLS_msn=5&_HLS_part=0", Reload{Blocking: true, MSN: 5}, false},
		{"_HLS_part=0", Reload{}, true},
		{"_HLS_msn=", Reload{}, true},
		{"_HLS_msn=-1", Reload{}, true},
		{"_HLS_msn=18446744073709551615", Reload{}, true},
		{"_HLS_msn=1&_HLS_msn=2", Reload{}, true},
		{"_HLS_msn=1&_HLS_part=1001", Reload{}, true},
		{"_HLS_msn=1&_HLS_part=x", Reload{}, true},
	} {
		got, err := ParseReload(c.query)
		if (err != nil) != c.bad || got != c.want {
			t.Errorf("%q: %+v, %v", c.query, got, err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	empty := media(t, Config{FirstMSN: 10}).Render(nil)
	m := media(t, Config{FirstMSN: 10})
	grow(t, m, 6) // 10 is finished, 11 has two parts
	open := m.Render(nil)
	grow(t, m, 2) // 11 is finished, 12 not begun
	between := m.Render(nil)
	m.End()
	ended := m.Render(nil)
	whole := media(t, Config{FirstMSN: 10})
	if err := whole.FinishWhole("10.vtt", time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	partless := whole.Render(nil)
	for _, c := range []struct {
		name string
		s    *Snapshot
		msn  uint64
		part int
		want Verdict
	}{
		{"empty, first", empty, 10, 0, Wait},
		{"empty, too far", empty, 12, 0, TooFar},
		{"finished", open, 10, -1, Ready},
		{"old part", open, 10, 3, Ready},
		{"part after the last of a finished one", open, 10, 4, Ready},
		{"long ago", open, 2, 9, Ready},
		{"open, whole", open, 11, -1, Wait},
		{"open, there", open, 11, 1, Ready},
		{"open, next", open, 11, 2, Wait},
		{"open, advance limit", open, 11, 7, Wait},
		{"open, beyond the limit", open, 11, 8, TooFar},
		{"next segment", open, 12, 0, Wait},
		{"next segment, far part", open, 12, 7, TooFar},
		{"two ahead", open, 13, -1, TooFar},
		{"between, rolls over", between, 11, 4, Wait},
		{"between, next", between, 12, 0, Wait},
		{"between, next whole", between, 13, -1, Wait},
		{"between, too far", between, 14, -1, TooFar},
		{"ended", ended, 99, 0, Ready},
		{"without parts, first part of a finished one", partless, 10, 0, Ready},
		{"without parts, next", partless, 11, 0, Wait},
	} {
		if got := c.s.Check(Reload{Blocking: true, MSN: c.msn, Part: c.part}); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	if empty.Check(Reload{Part: -1}) != Wait || open.Check(Reload{Part: -1}) != Ready {
		t.Error("a plain request waits for the first part only")
	}
}

// The last part of the segment to come may be asked for, however many parts a segment has: hls.js without lowLatencyMode does.
func TestCheckOfManyParts(t *testing.T) {
	t.Parallel()
	m, err := New(Config{SegmentTarget: 6 * time.Second, PartTarget: 200 * time.Millisecond, FirstMSN: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Begin(time.Unix(60, 0)); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		if err := m.AddPart(Part{URI: "p", Duration: 200 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Finish("s", false); err != nil {
		t.Fatal(err)
	}
	s := m.Render(nil)
	for part, want := range map[int]Verdict{29: Wait, 30: TooFar} {
		if got := s.Check(Reload{Blocking: true, MSN: 11, Part: part}); got != want {
			t.Errorf("part %d of the next segment: %d, want %d", part, got, want)
		}
	}
}

func TestLastPart(t *testing.T) {
	t.Parallel()
	m := media(t, Config{FirstMSN: 3})
	if _, _, ok := m.Render(nil).LastPart(); ok {
		t.Error("an empty playlist has a last part")
	}
	for i := range 9 {
		grow(t, m, 1)
		msn, part, ok := m.Render(nil).LastPart()
		if !ok || msn != 3+uint64(i/4) || part != i%4 {
			t.Errorf("after %d parts: %d.%d %v", i+1, msn, part, ok)
		}
	}
}

// What a client asked for is there as soon as the verdict is Ready, for every
// position and history.
func FuzzReload(f *testing.F) {
	f.Add("_HLS_msn=11&_HLS_part=2&_HLS_skip=v2", 6)
	f.Add("_HLS_msn=11", 7)
	f.Add("_HLS_part=2", 0)
	f.Fuzz(func(t *testing.T, query string, parts int) {
		r, err := ParseReload(query)
		if err != nil {
			return
		}
		m := media(t, Config{FirstMSN: 10})
		grow(t, m, min(max(parts, 0), 100))
		s := m.Render(nil)
		switch s.Check(r) {
		case Ready:
			if r.Blocking && !s.Has(r.MSN, r.Part) {
				t.Fatalf("ready without %d.%d", r.MSN, r.Part)
			}
			if len(s.Form(r.Skip).Bytes()) == 0 {
				t.Fatal("no playlist")
			}
		case Wait:
			grow(t, m, 12)
			if m.Render(nil).Check(r) != Ready {
				t.Fatalf("%d.%d is still waited for after 12 parts more", r.MSN, r.Part)
			}
		case TooFar:
			if r.MSN < s.OpenMSN {
				t.Fatal("the past is too far")
			}
		}
	})
}

// A parameter is what net/url finds.
func FuzzParameter(f *testing.F) {
	for _, q := range []string{"a=1&b=2&a=3", "a=%41+&%61=x", "a;b=1&a=%zz&a", "=&a==&a", ""} {
		f.Add(q, "a")
	}
	f.Fuzz(func(t *testing.T, query, name string) {
		all, _ := url.ParseQuery(query) // what cannot be read is left out
		v, n := Parameter(query, name)
		if v != all.Get(name) || n != len(all[name]) {
			t.Fatalf("%q of %q: %q, %d, want %q", name, query, v, n, all[name])
		}
	})
}
