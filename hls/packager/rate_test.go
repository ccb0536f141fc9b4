package packager_test

import (
	"testing"

	parser "github.com/bluenviron/gohlslib/v2/pkg/playlist"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// What a variant gives while it idles says nothing of what players who want it get.
func TestIdlingDoesNotLowerTheAverage(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{})
	s.begin(0)
	average := func(v int) int {
		b, ok := s.p.Multivariant()
		if !ok {
			t.Fatal("no multivariant playlist")
		}
		var p parser.Multivariant
		if err := p.Unmarshal(b); err != nil || p.Variants[v].AverageBandwidth == nil {
			t.Fatal(err)
		}
		return *p.Variants[v].AverageBandwidth
	}
	s.play(0, 900)
	before := average(0)
	for tick := int64(900); tick < 1800; tick++ {
		for v := range 2 {
			if v == 0 && tick%15 != 0 {
				continue
			}
			if err := s.p.WriteVideo(v, tick, s.clip.Video[tick%60]); err != nil {
				t.Fatal(err)
			}
		}
		s.sound(tick + 1)
	}
	if now := average(0); now < before*9/10 {
		t.Errorf("an average of %d bit/s after it idled, %d before", now, before)
	}
	if now := average(1); now < before*9/10 || now > before*11/10 {
		t.Errorf("the other one has %d bit/s after %d", now, before)
	}
}
