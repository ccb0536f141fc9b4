package packager_test

import (
	"strings"
	"testing"
	"time"

	mp4 "github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"

	"github.com/amphi-sfu/amphi/hls/packager"
)

func TestMissingTicks(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Variants: []packager.Variant{{Name: "v", Bitrate: 300_000}}})
	s.begin(0)
	skip := map[int64]bool{5: true, 14: true, 30: true}
	for tick := int64(0); tick < 120; tick++ {
		if skip[tick] || tick >= 75 && tick < 90 { // a whole part is missing
			continue
		}
		if err := s.p.WriteVideo(0, tick, s.clip.Video[tick%60]); err != nil {
			t.Fatal(err)
		}
	}
	s.sound(120)
	p := s.parsed("v")
	if len(p.Segments) != 2 || p.Segments[0].Duration != 2*time.Second || p.Segments[1].Duration != 2*time.Second {
		t.Fatalf("segments\n%s", s.full("v"))
	}
	if strings.Contains(s.full("v"), "GAP") || s.p.Stats().Filled != 1 {
		t.Errorf("%+v in\n%s", s.p.Stats(), s.full("v"))
	}
	var parts mp4.Parts
	if err := parts.Unmarshal(s.object("v", p.Segments[0].URI)); err != nil {
		t.Fatal(err)
	}
	var sum uint32
	for _, x := range parts[0].Tracks[0].Samples {
		sum += x.Duration
	}
	if sum != 45000 || len(parts[0].Tracks[0].Samples) != 13 {
		t.Errorf("first part: %d samples of %d", len(parts[0].Tracks[0].Samples), sum)
	}
}

// A part whose last picture comes before its last tick, as of an encoder at a fraction of the rate or of a variant that idles, is out as soon
// as the next part begins.
func TestSparsePictures(t *testing.T) {
	t.Parallel()
	for _, every := range []int64{2, 3, 5, 15} {
		s := newSource(t, packager.Config{})
		s.begin(0)
		for tick := int64(0); tick < 120; tick++ {
			s.sound(tick)
			if tick%15%every != 0 {
				continue
			}
			for v := range 2 {
				if err := s.p.WriteVideo(v, tick, s.clip.Video[tick%60]); err != nil {
					t.Fatal(err)
				}
				msn, part, ok := s.media([]string{"720p", "360p"}[v]).Published().LastPart()
				got := int64(msn)*4 + int64(part) + 1
				if !ok {
					got = 0
				}
				if got != tick/15 && (got != tick/15+1 || tick%15 != 14) {
					t.Fatalf("every %d: %d parts are out at tick %d of variant %d", every, got, tick, v)
				}
			}
		}
		if p := s.p.Stats(); p.Filled != 0 {
			t.Errorf("every %d: %+v", every, p)
		}
	}
}
