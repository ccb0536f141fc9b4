//go:build cgo

package main

import (
	"image"
	"testing"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/hls/wire"
)

func looks(i int) look {
	return []look{{90, 90, 200, 600}, {120, 200, 90, 900}, {150, 60, 110, 1300}, {110, 170, 170, 1900}}[i]
}

func (l look) colour() av.YUV { return av.YUV{Y: l.y, U: l.u, V: l.v} }

// TestFourPeers is the plain case: pixels of each tile, lip sync, no gap.
func TestFourPeers(t *testing.T) {
	t.Parallel()
	codecs := []string{"vp8", "h264", "vp8", "vp9"}
	clips := make([]*clip, len(codecs)) // made before the clock runs: encoding them takes all there is
	for i, codec := range codecs {
		clips[i] = makeClip(t, codec, 640, 360, looks(i))
	}
	st := startStage(t, "", newStart(2))
	tiles := make([]wire.Tile, len(clips))
	rects := make([]image.Rectangle, len(clips))
	for i := range clips {
		id := uint32(i + 1)
		tiles[i] = quarter(i, id)
		rects[i] = tileRect(tiles[i])
		st.announce(id)
		st.send(id, clips[i], 0, 0)
	}
	st.scene(tiles...)
	st.mix(1001, 1002, 1003, 1004)
	end := st.first() + 210
	st.wait(end)
	st.continuous()
	pcm, from := st.pcm()
	for v := range 2 {
		s := st.look(v, rects...)
		if v == 0 {
			report(t, st, s, end-150, end)
		}
		for i := range s {
			m := s[i].motion(end-150, end)
			if m.blank > 0 || m.longest > 6 {
				t.Errorf("variant %d, tile %d: %+v", v, i+1, m)
			}
			if g := s[i].ground[len(s[i].ground)-1]; !near(g, looks(i).colour()) {
				t.Errorf("variant %d, tile %d: colour %v, want %v", v, i+1, g, looks(i).colour())
			}
			offsets := s[i].offsets(beepStarts(pcm, from, looks(i).beep))
			if len(offsets) < 3 {
				t.Errorf("variant %d, tile %d: %d beeps", v, i+1, len(offsets))
				continue
			}
			t.Logf("variant %d, tile %d: audio − video %.1f…%.1f ms over %d beeps", v, i+1, offsets[0]*1000, offsets[len(offsets)-1]*1000, len(offsets))
			if mid := offsets[len(offsets)/2]; mid < -0.045 || mid > 0.045 {
				t.Errorf("variant %d, tile %d: audio − video %.1f ms", v, i+1, mid*1000)
			}
		}
	}
	if err := st.exit(); err != nil {
		t.Errorf("after EOF: %v", err)
	}
}
