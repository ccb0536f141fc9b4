//go:build cgo

package main

import (
	"os"
	"testing"
	"time"
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
