package packager_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// An overloaded compositor that leaves out the end of one segment and the start of the next,
// where the keyframe was due: it sends it as soon as it can, and both segments are whole.
func TestKeyframeIsLate(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Variants: []packager.Variant{{Name: "720p", Bitrate: 300_000}}})
	s.begin(0)
	s.video(0, 80) // parts 6 and 7 are missing
	s.video(126, 180)
	s.sound(180)
	p := s.parsed("720p")
	if len(p.Segments) != 3 || s.p.Stats().Filled != 2 || strings.Count(s.full("720p"), "INDEPENDENT=YES") != 5 {
		t.Fatalf("%+v in\n%s", s.p.Stats(), s.full("720p"))
	}
	files := [][]byte{s.object("720p", p.Map.URI)}
	for _, seg := range p.Segments {
		if seg.Duration != 2*time.Second {
			t.Errorf("%+v", seg)
		}
		files = append(files, s.object("720p", seg.URI))
	}
	cmd := exec.Command("ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames,duration_ts", "-of", "csv=p=0", "-")
	cmd.Stdin = bytes.NewReader(bytes.Join(files, nil))
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprint(80 + 2 + 54); err != nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "rror") {
		t.Errorf("%v: %s, want %s frames", err, out, want)
	}
}

// Whenever the compositor dies and whatever was ahead then: no gaps, the same segment
// numbers and discontinuities everywhere, and segments that are as long in audio as in video.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := newSource(t, packager.Config{Variants: []packager.Variant{{Name: "720p", Bitrate: 300_000}}})
		tick := int64(0)
		for range rapid.IntRange(1, 3).Draw(rt, "runs") {
			s.begin(tick)
			end := tick + int64(rapid.IntRange(0, 150).Draw(rt, "ticks"))
			s.video(tick, end)
			// Encoders are behind the clock by a few ticks, the audio before or behind them.
			s.sound(end + int64(rapid.IntRange(-12, 12).Draw(rt, "audio ahead")))
			if err := s.p.Cut(); err != nil {
				rt.Fatal(err)
			}
			tick = s.p.NextTick(start.Add(time.Duration(end)*time.Second/30), 300*time.Millisecond)
		}
		want := ""
		for _, name := range []string{"720p", "audio"} {
			if !strings.Contains(s.full(name), "#EXTINF") {
				return
			}
			p := s.parsed(name)
			got := fmt.Sprint(p.MediaSequence)
			for _, seg := range p.Segments {
				got += fmt.Sprint(" ", seg.Discontinuity)
			}
			if want == "" {
				want = got
			}
			if got != want {
				rt.Fatalf("%s has %s, not %s\n%s\n%s", name, got, want, s.full("720p"), s.full(name))
			}
			for i, seg := range p.Segments {
				if d := seg.Duration - s.parsed("720p").Segments[i].Duration; d.Abs() > 520*time.Millisecond {
					rt.Fatalf("%s: segment %d is %v longer\n%s\n%s", name, i, d, s.full("720p"), s.full(name))
				}
			}
			if strings.Contains(s.full(name), "GAP") {
				rt.Fatalf("a gap in\n%s", s.full(name))
			}
		}
	})
}

// Whenever the compositor dies, whichever variants idle then and whichever is behind: their segments are equally long.
func TestCutWhileVariantsIdle(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c"}
	rapid.Check(t, func(rt *rapid.T) {
		var cfg packager.Config
		for _, name := range names {
			cfg.Variants = append(cfg.Variants, packager.Variant{Name: name, Bitrate: 300_000})
		}
		s := newSource(t, cfg)
		s.begin(0)
		end := int64(rapid.IntRange(60, 200).Draw(rt, "ticks"))
		awake := rapid.IntRange(0, len(names)-1).Draw(rt, "awake")
		for v := range names {
			idles := v != awake && rapid.Bool().Draw(rt, "idles")
			for tick := range end - int64(rapid.IntRange(0, 2).Draw(rt, "behind")) {
				if idles && tick%15 != 0 {
					continue
				}
				if err := s.p.WriteVideo(v, tick, s.clip.Video[tick%60]); err != nil {
					rt.Fatal(err)
				}
			}
		}
		s.sound(end)
		if err := s.p.Cut(); err != nil {
			rt.Fatal(err)
		}
		want := s.parsed(names[awake])
		for _, name := range names {
			p := s.parsed(name)
			if len(p.Segments) != len(want.Segments) {
				rt.Fatalf("%s has %d segments, not %d", name, len(p.Segments), len(want.Segments))
			}
			for i, seg := range p.Segments {
				if d := seg.Duration - want.Segments[i].Duration; d.Abs() > 101*time.Millisecond { // those behind lack up to two pictures
					rt.Fatalf("%s: segment %d is %v longer\n%s\n%s", name, i, d, s.full(names[awake]), s.full(name))
				}
			}
		}
	})
}
