package playlist

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	parser "github.com/bluenviron/gohlslib/v2/pkg/playlist"
)

// An independent parser reads what we write, and finds the numbers that we meant.
func TestMediaParses(t *testing.T) {
	t.Parallel()
	m := media(t, Config{FirstMSN: 100, Window: 10})
	m.SetMap("init.mp4")
	grow(t, m, 4) // the parser wants a whole segment
	for i := range 20 {
		grow(t, m, 3)
		p := parseMedia(t, m.Render([]Report{{URI: "../audio/index.m3u8", MSN: 7, Part: 1}}).Form(SkipNone).Bytes())
		if p.TargetDuration != 2 || p.PartInf == nil || p.PartInf.PartTarget != 500*time.Millisecond {
			t.Fatalf("round %d: targets %d %v", i, p.TargetDuration, p.PartInf)
		}
		if !p.ServerControl.CanBlockReload || *p.ServerControl.PartHoldBack != 1500*time.Millisecond || *p.ServerControl.CanSkipUntil != 12*time.Second {
			t.Fatalf("round %d: server control %+v", i, p.ServerControl)
		}
		complete := 1 + 3*(i+1)/4
		if got := p.MediaSequence + len(p.Segments); got != 100+complete || len(p.Segments) > 10 {
			t.Fatalf("round %d: sequence ends at %d, %d segments", i, got, len(p.Segments))
		}
		for _, s := range p.Segments {
			if s.Duration != 2*time.Second || s.DateTime == nil {
				t.Fatalf("round %d: segment %+v", i, s)
			}
		}
		if len(p.Parts) != 3*(i+1)%4 || len(p.RenditionReport) != 1 || p.Map == nil || p.Map.URI != "init.mp4" {
			t.Fatalf("round %d: %d trailing parts, map %v", i, len(p.Parts), p.Map)
		}
	}
}

func parseMedia(t *testing.T, b []byte) *parser.Media {
	t.Helper()
	p := new(parser.Media)
	if err := p.Unmarshal(b); err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	return p
}

// A client that applies delta updates ends up with the full playlist.
func TestDeltaEqualsFull(t *testing.T) {
	t.Parallel()
	m := media(t, Config{Window: 12})
	m.SetMap("a.mp4")
	var have []byte
	for i := range 120 {
		if i%17 == 5 {
			if m.isOpen() {
				if err := m.Finish("s", false); err != nil {
					t.Fatal(err)
				}
			}
			m.Break()
			m.SetMap(fmt.Sprintf("%d.mp4", i))
		}
		grow(t, m, 1)
		s := m.Render(nil)
		full, delta := s.Form(SkipNone).Bytes(), s.Form(SkipSegments).Bytes()
		if have != nil && !bytes.Equal(full, delta) {
			if got := applyDelta(t, have, delta); got != segmentLines(string(full)) {
				t.Fatalf("part %d: after the delta\n%s\nfull\n%s", i, got, full)
			}
		}
		have = full
	}
}

// applyDelta replaces the skip tag by the segments that the old playlist has.
func applyDelta(t *testing.T, old, delta []byte) string {
	t.Helper()
	var skipped int
	head, tail, ok := strings.Cut(string(delta), "#EXT-X-SKIP:SKIPPED-SEGMENTS=")
	if !ok {
		t.Fatal("no skip tag")
	}
	if _, err := fmt.Sscan(tail, &skipped); err != nil {
		t.Fatal(err)
	}
	_, tail, _ = strings.Cut(tail, "\n")
	from := sequence(t, head) - sequence(t, string(old))
	segs := segmentsOf(string(old))
	return strings.Join(segs[from:from+skipped], "") + segmentLines(tail)
}

func sequence(t *testing.T, s string) (n int) {
	t.Helper()
	_, s, _ = strings.Cut(s, "#EXT-X-MEDIA-SEQUENCE:")
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// segmentLines keeps the lines that say something about segments and stay the same
// while they are listed; the map may be written out anew at the head of a window.
func segmentLines(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "#EXTINF") || strings.HasPrefix(line, "#EXT-X-PROGRAM") ||
			strings.HasPrefix(line, "#EXT-X-DISCONTINUITY\n") || !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func segmentsOf(s string) []string {
	var out []string
	var b strings.Builder
	for line := range strings.Lines(segmentLines(s)) {
		b.WriteString(line)
		if !strings.HasPrefix(line, "#") {
			out = append(out, b.String())
			b.Reset()
		}
	}
	return out
}

func TestMultivariant(t *testing.T) {
	t.Parallel()
	variants := []Variant{
		{URI: "720p/index.m3u8", Codecs: "avc1.64001f", Width: 1280, Height: 720, FrameRate: 30, Bitrate: 2_500_000, Peak: 3_000_000},
		{URI: "360p/index.m3u8", Codecs: "avc1.64001e", Width: 640, Height: 360, FrameRate: 30, Bitrate: 600_000, Peak: 700_000},
	}
	audio := &Audio{URI: "audio/index.m3u8", Codecs: "mp4a.40.2", Channels: 2, Bitrate: 128_000, Peak: 128_000}
	b := WithQuery(Multivariant(variants, audio, []Text{{URI: "captions-en/index.m3u8", Language: "en"}}), "token=abc")
	p, err := parser.Unmarshal(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	mv := p.(*parser.Multivariant)
	if len(mv.Variants) != 2 || len(mv.Renditions) != 2 {
		t.Fatalf("got %d variants, %d renditions", len(mv.Variants), len(mv.Renditions))
	}
	v := mv.Variants[0]
	if v.Bandwidth != 3_128_000 || *v.AverageBandwidth != 2_628_000 || v.Resolution != "1280x720" ||
		v.URI != "720p/index.m3u8?token=abc" || v.Audio != mv.Renditions[0].GroupID || len(v.Codecs) != 2 {
		t.Errorf("variant %+v", v)
	}
	if *mv.Renditions[0].URI != "audio/index.m3u8?token=abc" || *mv.Renditions[1].URI != "captions-en/index.m3u8?token=abc" {
		t.Errorf("renditions %+v %+v", mv.Renditions[0], mv.Renditions[1])
	}
}

func TestDateRangeRefused(t *testing.T) {
	t.Parallel()
	m := media(t, Config{})
	now := time.Unix(1, 0)
	for _, r := range []DateRange{
		{Start: now},
		{ID: "a"},
		{ID: "a\nb", Start: now},
		{ID: "a", Class: `"`, Start: now},
		{ID: "a", Start: now, Duration: -1},
		{ID: "a", Start: now, Attrs: map[string]string{"lower": ""}},
		{ID: "a", Start: now, Attrs: map[string]string{"V": "x\ry"}},
		{ID: "a", Start: now, Attrs: map[string]string{"V": strings.Repeat("x", 3000)}},
	} {
		if err := m.AddDateRange(r); err == nil {
			t.Errorf("accepted %+v", r)
		}
	}
	for i := range maxRanges + 1 {
		if err := m.AddDateRange(DateRange{ID: fmt.Sprint("n", i), Start: now}); err != nil {
			t.Errorf("range %d: %v", i, err)
		}
	}
	if len(m.ranges) > maxRanges || m.ranges[0].id != "n1" || len(m.removed) == 0 {
		t.Errorf("%d ranges, the first %s", len(m.ranges), m.ranges[0].id)
	}
	for i := range 100 {
		if err := m.AddDateRange(DateRange{ID: fmt.Sprint("long", i), Start: now, Attrs: map[string]string{"V": strings.Repeat("x", 1900)}}); err != nil {
			t.Fatal(err)
		}
	}
	if m.rangeBytes > maxAllRanges || m.ranges[len(m.ranges)-1].id != "long99" {
		t.Errorf("%d bytes of ranges", m.rangeBytes)
	}
}

// However long the window is, deltas name only what was removed lately.
func TestRemovedRangesAreForgotten(t *testing.T) {
	t.Parallel()
	m := media(t, Config{Window: 1000})
	n := 0
	for range 50 {
		grow(t, m, 4)
		for range 100 {
			n++
			if err := m.AddDateRange(DateRange{ID: fmt.Sprint("n", n), Start: time.Unix(1, 0)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(m.removed) == 0 || len(m.removed) > 8*100 { // the skip boundary is 6 segments from the end
		t.Errorf("%d removed ranges are named", len(m.removed))
	}
}

func BenchmarkRender(b *testing.B) {
	for _, window := range []int{15, 1800} {
		b.Run(fmt.Sprint(window), func(b *testing.B) {
			m := media(b, Config{Window: window})
			m.SetMap("init.mp4")
			grow(b, m, 4*window+2)
			b.ReportAllocs()
			for b.Loop() {
				m.Render(nil)
			}
		})
	}
}
