package packager_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/validate"
)

// Each cue is a date range of its time everywhere, and an emsg of the same time in the one part of each variant that has
// its frame, or in the next one when that part was out.
func TestCues(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Window: 30})
	s.begin(0)
	s.play(0, 65)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	text := "She said \"50%\"\nand – more"
	for i, ms := range []int{2100, 1000, 3700} { // now, too late, later
		c := packager.Cue{ID: fmt.Sprint("c", i), Type: "chat", Text: text, Sender: "Ada", At: at(ms)}
		if err := s.p.AddCue(c, at(2180)); err != nil {
			t.Fatal(err)
		}
	}
	s.play(65, 240)
	want := map[string]int{"100.0": 2100, "100.0b": 1000, "100.3": 3700} // ms by MSN less 0 and part
	for _, name := range []string{"720p", "360p"} {
		init, err := validate.ParseInit(s.object(name, "42-init0.mp4"))
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]int{}
		for msn := range 3 {
			for part := range 4 {
				b := s.object(name, fmt.Sprintf("42-%d.%d.m4s", msn, part))
				list, err := validate.ParseFragments(b, init)
				if err != nil {
					t.Fatal(err)
				}
				for i, e := range list[0].Events {
					key := fmt.Sprintf("%d.%d", 99+msn, part) + []string{"", "b"}[i]
					found[key] = int(e.Time * 1000 / uint64(e.Timescale))
					if e.Scheme != fmp4.ID3Scheme || !strings.HasPrefix(string(e.Data), "ID3\x04") {
						t.Errorf("%+v", e)
					}
					var v struct{ Text, Type, Sender string }
					if err := json.Unmarshal(e.Data[strings.IndexByte(string(e.Data), '{'):], &v); err != nil || v.Text != text || v.Type != "chat" || v.Sender != "Ada" {
						t.Errorf("%v %q", err, e.Data)
					}
				}
			}
		}
		for k, v := range want {
			if found[k] != v {
				t.Errorf("%s: %v, want %v", name, found, want)
				break
			}
		}
	}
	for _, name := range names {
		if l := `#EXT-X-DATERANGE:ID="c0",CLASS="chat",START-DATE="2026-11-20T12:00:02.100Z",X-SENDER="Ada",X-TEXT="She said %2250%25%22%0Aand – more"`; !strings.Contains(s.full(name), l) {
			t.Errorf("%s has not %s\n%s", name, l, s.full(name))
		}
	}
}

func TestCuesRefused(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{})
	good := packager.Cue{ID: "a", Type: "x", Text: "y", At: start.Add(time.Second)}
	for name, change := range map[string]func(*packager.Cue){
		"no id": func(c *packager.Cue) { c.ID = "" }, "no type": func(c *packager.Cue) { c.Type = "" },
		"long":         func(c *packager.Cue) { c.Text = strings.Repeat("x", packager.MaxCueText+1) },
		"not UTF-8":    func(c *packager.Cue) { c.Text = "\xff" },
		"before":       func(c *packager.Cue) { c.At = start.Add(-time.Second) },
		"far ahead":    func(c *packager.Cue) { c.At = start.Add(time.Hour) },
		"quote in id":  func(c *packager.Cue) { c.ID = `"` },
		"escapes long": func(c *packager.Cue) { c.Text = strings.Repeat("%", packager.MaxCueText) },
	} {
		c := good
		change(&c)
		if err := s.p.AddCue(c, start.Add(2*time.Second)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for i := range 1000 {
		c := good
		c.ID = fmt.Sprint(i)
		if err := s.p.AddCue(c, start.Add(2*time.Second)); err != nil {
			return
		}
	}
	t.Error("cues without bound")
}

// A variant without pictures neither keeps cues without bound nor has them refused for the others.
func TestCuesOfAVariantWithoutPictures(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Window: 60})
	s.begin(0)
	s.video(0, 1)
	for tick := range int64(60 * 20) {
		if tick > 0 {
			if err := s.p.WriteVideo(0, tick, s.clip.Video[tick%60]); err != nil {
				t.Fatal(err)
			}
		}
		if tick%5 == 4 {
			at := start.Add(time.Duration(tick) * time.Second / 30)
			if err := s.p.AddCue(packager.Cue{ID: fmt.Sprint(tick), Type: "x", At: at}, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.p.WriteVideo(1, 60*20, s.clip.Video[0]); err != nil {
		t.Fatal(err)
	}
	count := func(name string) (n int) {
		init, err := validate.ParseInit(s.object(name, "42-init0.mp4"))
		if err != nil {
			t.Fatal(err)
		}
		for msn := range 20 {
			list, err := validate.ParseFragments(s.object(name, fmt.Sprintf("42-%d.m4s", msn)), init)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range list {
				n += len(f.Events)
			}
		}
		return n
	}
	if first, second := count("720p"), count("360p"); first < 200 || second != 128 {
		t.Errorf("%d and %d events", first, second)
	}
}

// What the multivariant playlist says about bit rates bounds what was made.
func TestBandwidthIsMeasured(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Variants: []packager.Variant{{Name: "720p", Bitrate: 50_000}, {Name: "360p", Bitrate: 5_000_000}}})
	s.begin(0)
	s.play(0, 60*8)
	b, _ := s.p.Multivariant()
	p, faults := validate.Parse("", b)
	if len(faults) > 0 || len(p.Variants) != 2 || !slices.ContainsFunc(p.Renditions, func(r validate.Rendition) bool { return r.Type == "AUDIO" }) {
		t.Fatalf("%v %+v", faults, p)
	}
	low, high := p.Variants[0], p.Variants[1]
	// The clip has about 310 kbit/s, its audio 64: more than the first variant should have, less than the second.
	if low.Bandwidth < 400_000 || low.Average < 300_000 || high.Average > 900_000 || high.Bandwidth < 6_000_000 {
		t.Errorf("%+v", p.Variants)
	}
}
