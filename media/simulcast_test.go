package media

import (
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// publishSimulcast makes a client that publishes three encodings.
func publishSimulcast(t testing.TB, r *Router, id string) (c *client, sources []*vp8Source) {
	t.Helper()
	c = newClient(t, r, "publisher-"+id, clientOptions{})
	capability := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	var tracks []*webrtc.TrackLocalStaticRTP
	for _, rid := range []string{"f", "h", "q"} { // the highest first, as some do
		track, err := webrtc.NewTrackLocalStaticRTP(capability, "video", "stream", webrtc.WithRTPStreamID(rid))
		if err != nil {
			t.Fatal(err)
		}
		tracks = append(tracks, track)
	}
	tr, err := c.pc.AddTransceiverFromTrack(tracks[0], webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		t.Fatal(err)
	}
	for _, track := range tracks[1:] {
		if err := tr.Sender().AddEncoding(track); err != nil {
			t.Fatal(err)
		}
	}
	c.wg.Go(func() {
		for {
			if _, _, err := tr.Sender().ReadRTCP(); err != nil {
				return
			}
		}
	})
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: id})
	c.connected()
	var midID, ridID uint8
	for _, x := range tr.Sender().GetParameters().HeaderExtensions {
		switch x.URI {
		case "urn:ietf:params:rtp-hdrext:sdes:mid":
			midID = uint8(x.ID)
		case "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id":
			ridID = uint8(x.ID)
		}
	}
	for i, track := range tracks {
		src := newVP8Source(track.WriteRTP)
		src.width = 1280 >> i
		src.seq, src.picture, src.ts = uint16(7000*i), uint16(1000*i), uint32(1_000_000*i)
		src.perFrame = 6 >> i
		src.extension = func(p *rtp.Packet) {
			for id, v := range map[uint8]string{midID: tr.Mid(), ridID: track.RID()} {
				if err := p.SetExtension(id, []byte(v)); err != nil {
					t.Errorf("setting an extension: %v", err)
				}
			}
		}
		sources = append([]*vp8Source{src}, sources...) // low to high
	}
	return c, sources
}

// sendAll sends frames of all sources, each with a keyframe now and then.
func sendAll(t testing.TB, sources []*vp8Source, interval time.Duration) {
	every(t, interval, func() {
		for _, s := range sources {
			if s.frames%25 == 0 {
				s.keyframe.Store(true)
			}
			s.frame(t)
		}
	})
}

func currentSpatial(c *client, want int8) func() bool {
	return func() bool {
		d := c.ep.Stats().DownTracks
		return len(d) == 1 && d[0].Current.Spatial == want
	}
}

func TestSimulcastFollowsTheSizeShown(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, sources := publishSimulcast(t, r, "cam")
	sendAll(t, sources, 20*time.Millisecond)
	eventually(t, "three encodings are there, with sizes", func() bool {
		encs := r.UpTrack("cam").Encodings()
		if len(encs) != 3 {
			return false
		}
		for i, enc := range encs {
			if w, _ := enc.Size(); w != 320<<i || enc.RID() != []string{"q", "h", "f"}[i] {
				return false
			}
		}
		return true
	})
	c := newClient(t, r, "subscriber", clientOptions{plain: true}) // no feedback: unlimited
	c.recvOnly(0, 1)
	c.negotiate(nil)
	rec := c.section("0")
	t.Cleanup(func() { t.Logf("%+v", r.Stats()) })
	for _, step := range []struct {
		w, h, max int
		want      int8
	}{{320, 180, -1, 0}, {1280, 720, -1, 2}, {600, 400, -1, 1}, {1920, 1080, 0, 0}, {1920, 1080, -1, 2}} {
		c.ep.Subscribe([]Subscription{{TrackID: "cam", MaxWidth: step.w, MaxHeight: step.h, MaxSpatial: step.max}})
		eventually(t, "the layer for the size is forwarded", currentSpatial(c, step.want))
		before := rec.count()
		eventually(t, "video arrives", func() bool { return rec.count() > before+60 })
	}
	continuous(t, rec.all())
	checkVP8(t, rec.all())
	eventually(t, "quality was told", func() bool {
		c.observer.mu.Lock()
		defer c.observer.mu.Unlock()
		q := c.observer.quality
		return len(q) == 1 && q[0].Current.Spatial == 2 && q[0].Reason == ReasonOK
	})
}

func TestSimulcastFallsBackWhenALayerStops(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, sources := publishSimulcast(t, r, "cam")
	n := 0
	every(t, 20*time.Millisecond, func() {
		n++
		for i, s := range sources {
			if i == 2 && n > 50 {
				continue // the publisher's link does not carry it any more
			}
			if s.frames%25 == 0 {
				s.keyframe.Store(true)
			}
			s.frame(t)
		}
	})
	c := newClient(t, r, "subscriber", clientOptions{plain: true})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "cam")
	eventually(t, "the top layer is forwarded", currentSpatial(c, 2))
	eventually(t, "the next layer is forwarded", currentSpatial(c, 1))
	rec := c.section("0")
	before := rec.count()
	eventually(t, "video goes on", func() bool { return rec.count() > before+60 })
	continuous(t, rec.all())
	checkVP8(t, rec.all())
	if d := c.ep.Stats().DownTracks[0]; d.Reason != ReasonNoLayer {
		t.Fatalf("reason %q", d.Reason)
	}
}

func TestKeyframeRequestsAreMerged(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, src := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	eventually(t, "video is there", func() bool { return len(r.UpTrack("cam").Encodings()) == 1 })
	enc := r.UpTrack("cam").Encodings()[0]
	before, began := enc.gate.Count(), time.Now()
	stop := every(t, time.Millisecond, enc.RequestKeyframe)
	eventually(t, "requests go out", func() bool { return enc.gate.Count() >= before+4 })
	stop()
	sent := enc.gate.Count() - before
	took := time.Since(began)
	if most := uint64(took/keyframeInterval) + 1; sent > most {
		t.Fatalf("%d requests in %v", sent, took)
	}
}
