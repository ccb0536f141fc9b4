//go:build cgo

package main

import (
	"image"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// TestSoak lets peers come and go as long as AMPHI_SOAK says (such as 10m), and
// compares the memory at the end with that after a warm-up of a third.
func TestSoak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("AMPHI_SOAK"))
	if err != nil {
		t.Skip("set AMPHI_SOAK to a duration")
	}
	clips := []*clip{makeClip(t, "vp8", 640, 360, looks(0)), makeClip(t, "h264", 640, 360, looks(1)), makeClip(t, "vp9", 320, 180, looks(2))}
	st := startStage(t, "", newStart(1))
	tick := st.first()
	end := tick + int64(d.Seconds()*30)
	warm := tick + (end-tick)/3
	before := int64(0)
	for id := uint32(1); tick < end; id++ {
		st.announce(id)
		tile := quarter(int(id%4), id)
		st.scene(tile)
		st.mix(id + 1000)
		p := st.send(id, clips[id%3], 0.01, 10*time.Millisecond)
		tick += 20
		st.wait(tick)
		p.stop()
		st.remove(id)
		if id%20 == 0 {
			t.Logf("after %d peers %d MiB", id, st.figures().RSSBytes>>20)
		}
		if before == 0 && tick > warm {
			before = st.figures().RSSBytes
		}
	}
	s := st.figures()
	t.Logf("after warm-up %d MiB, at the end %d MiB, drops %v, late %d of %d", before>>20, s.RSSBytes>>20, s.Drops, s.Late, s.Ticks)
	if s.RSSBytes > before+before/4 {
		t.Errorf("grew from %d to %d MiB", before>>20, s.RSSBytes>>20)
	}
	if len(s.Inputs) > 0 {
		t.Errorf("%d inputs left", len(s.Inputs))
	}
	st.continuous()
}

// TestLipSyncForHours measures audio against video of one peer after the other, each for a minute, as long as AMPHI_SOAK says.
// Their clocks run off: by 100 millionths, or only that of the sound card by 50, which then really is later and later.
func TestLipSyncForHours(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("AMPHI_SOAK"))
	if err != nil {
		t.Skip("set AMPHI_SOAK to a duration")
	}
	const device = 50e-6
	clips := []*clip{makeClip(t, "vp8", 640, 360, looks(0)), makeClip(t, "h264", 640, 360, looks(1)), makeClip(t, "vp9", 320, 180, looks(2))}
	start := newStart(2)
	start.Variants = start.Variants[1:]
	st := startStage(t, "", start)
	peers := []*peer{{}, {clock: 100e-6}, {device: device}}
	var tiles []wire.Tile
	var rects []image.Rectangle
	for i, p := range peers {
		p.st, p.id, p.clip = st, uint32(i+1), clips[i]
		tiles = append(tiles, quarter(i, p.id))
		rects = append(rects, tileRect(tiles[i]))
		st.announce(p.id)
		st.run(p)
	}
	st.scene(tiles...)
	tick := st.first()
	end := tick + int64(d.Seconds()*30)
	ranges := make([][]float64, len(peers)) // least and greatest, of all minutes
	for minute := 1; tick < end; minute++ {
		i := minute % len(peers)
		st.mix(uint32(1001 + i)) // alone: the others' beeps would be taken for its own
		tick += 48 * 30
		st.wait(tick)
		st.forget()
		tick += 12 * 30
		st.wait(tick)
		pcm, from := st.pcm()
		offsets := st.look(0, rects[i])[0].offsets(beepStarts(pcm, from, looks(i).beep))
		figures := st.figures()
		if len(offsets) < 3 || figures.Overload > 0 {
			t.Logf("minute %d, peer %d: %d beeps, overload %d, late %d of %d: not measured", minute, i+1, len(offsets), figures.Overload, figures.Late, figures.Ticks)
			continue
		}
		later := peers[i].device * float64(tick-6*30) / 30 // in the middle of what was looked at
		offset := offsets[len(offsets)/2] - later
		all := append(ranges[i], offset)
		ranges[i] = []float64{slices.Min(all), slices.Max(all)}
		t.Logf("minute %d, peer %d: audio − video %.1f ms (%.1f…%.1f)", minute, i+1, offset*1000, (offsets[0]-later)*1000, (last(offsets)-later)*1000)
		if offset < -0.045 || offset > 0.045 {
			t.Errorf("minute %d, peer %d: audio − video %.1f ms", minute, i+1, offset*1000)
		}
	}
	for i, r := range ranges {
		if len(r) == 0 {
			t.Errorf("peer %d was never measured", i+1)
			continue
		}
		t.Logf("peer %d: audio − video %.1f…%.1f ms", i+1, r[0]*1000, r[1]*1000)
	}
}
