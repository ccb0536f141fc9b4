package media

import (
	"testing"
	"time"

	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
)

// publishVP8 makes a client that publishes one VP8 track and the source of its frames.
func publishVP8(t *testing.T, r *Router, id string, start uint16) (*client, *vp8Source) {
	t.Helper()
	c := newClient(t, r, "publisher-"+id, clientOptions{})
	video, tr := c.send(webrtc.MimeTypeVP8)
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: id})
	c.connected()
	src := newVP8Source(video.WriteRTP)
	c.source.Store(src)
	src.seq, src.picture, src.ts = start, start, uint32(start)<<12
	return c, src
}

func TestSlotIsReusedWithoutABreak(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	for i, id := range []string{"one", "two", "three"} {
		_, src := publishVP8(t, r, id, uint16(20000*i+100))
		n := 0
		every(t, 20*time.Millisecond, func() {
			if n++; n%20 == 0 {
				src.keyframe.Store(true)
			}
			src.frame(t)
		})
	}
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	c.connected()
	rec := c.section("0")
	for range 2 {
		for _, id := range []string{"one", "two", "three"} {
			subscribeAll(c.ep, id)
			eventually(t, "slot carries "+id, func() bool { return c.observer.carries(id) })
			before := rec.count()
			eventually(t, id+" arrives", func() bool { return rec.count() >= before+60 })
		}
		c.ep.Subscribe(nil)
		eventually(t, "slot is free", func() bool { return !c.observer.carries("three") })
	}
	continuous(t, rec.all())
	checkVP8(t, rec.all())
}

func TestSlotsNeeded(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	for _, id := range []string{"one", "two"} {
		_, src := publishVP8(t, r, id, 5)
		every(t, 20*time.Millisecond, func() { src.keyframe.Store(true); src.frame(t) })
	}
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(1, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "one", "two")
	needed := func(audio, video int) func() bool {
		return func() bool {
			c.observer.mu.Lock()
			defer c.observer.mu.Unlock()
			return c.observer.needed == [2]int{audio, video}
		}
	}
	eventually(t, "more slots are asked for", needed(1, 2))
	found := false
	for _, d := range c.ep.Stats().DownTracks {
		found = found || d.Reason == ReasonNoSlot
	}
	if !found {
		t.Fatalf("nobody is told to wait for a slot: %+v", c.ep.Stats().DownTracks)
	}
	c.recvOnly(0, 1)
	c.negotiate(nil)
	for _, mid := range []string{"1", "2"} {
		rec := c.section(mid)
		eventually(t, "video arrives", func() bool { return rec.count() > 30 })
		continuous(t, rec.all())
	}
}

func TestHiddenTrackIsPausedAndComesBack(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, src := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { src.keyframe.Store(src.frames%10 == 0); src.frame(t) })
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "cam")
	rec := c.section("0")
	eventually(t, "video arrives", func() bool { return rec.count() > 30 })
	c.ep.Subscribe([]Subscription{{TrackID: "cam", MaxSpatial: -1}})
	reason := func(want Reason) func() bool {
		return func() bool {
			d := c.ep.Stats().DownTracks
			return len(d) == 1 && d[0].Reason == want
		}
	}
	eventually(t, "it is hidden", reason(ReasonHidden))
	asked := r.UpTrack("cam").Stats().Encodings[0].KeyframeRequests
	subscribeAll(c.ep, "cam")
	before := rec.count()
	eventually(t, "video is back", func() bool { return rec.count() > before+30 })
	continuous(t, rec.all())
	checkVP8(t, rec.all())
	if again := r.UpTrack("cam").Stats().Encodings[0].KeyframeRequests; again != asked {
		t.Fatalf("%d keyframes were asked for, although one was at hand", again-asked)
	}
}

func TestServerMute(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, src := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { src.keyframe.Store(src.frames%10 == 0); src.frame(t) })
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "cam")
	rec := c.section("0")
	eventually(t, "video arrives", func() bool { return rec.count() > 30 })
	u := r.UpTrack("cam")
	u.SetMuted(true)
	eventually(t, "packets are dropped", func() bool { return e.Stats().Drops["muted"] > 20 })
	sent := u.Stats().Encodings[0].Packets
	if again := u.Stats().Encodings[0].Packets; again != sent {
		t.Fatalf("packets pass although muted: %d, then %d", sent, again)
	}
	before := rec.count()
	u.SetMuted(false)
	eventually(t, "video is back", func() bool { return rec.count() > before+30 })
	var v codecs.VP8Packet
	payload, err := v.Unmarshal(rec.all()[before].Payload)
	if err != nil || payload[0]&1 != 0 {
		t.Fatalf("it does not go on with a keyframe: %v", err)
	}
	continuous(t, rec.all())
	checkVP8(t, rec.all())
}
