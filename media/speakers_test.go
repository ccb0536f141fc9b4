package media

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
)

// TestClosedTrackIsNoVoice: a packet that was under way when its track was closed or muted takes no
// place among the loudest, which nobody would free.
func TestClosedTrackIsNoVoice(t *testing.T) {
	t.Parallel()
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	r := e.Router("room")
	r.SetLoudest(2)
	for _, end := range []func(*UpTrack){(*UpTrack).close, func(u *UpTrack) { u.SetMuted(true) }} {
		u, err := r.addTrack("mic", codec.Audio, "mic", "origin")
		if err != nil {
			t.Fatal(err)
		}
		r.observe(u, 20, time.Second)
		if n := r.speakers.loudest.Placed(); n != 1 {
			t.Fatalf("%d voices have a place", n)
		}
		end(u)
		r.observe(u, 20, time.Second+20*time.Millisecond)
		if n := r.speakers.loudest.Placed(); n != 0 {
			t.Errorf("%d voices have a place after the only one ended", n)
		}
		u.close()
	}
}
