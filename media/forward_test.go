package media

import (
	"fmt"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/codec"
)

// subscribeAll wants the given tracks at full size.
func subscribeAll(ep *Endpoint, ids ...string) {
	var subs []Subscription
	for _, id := range ids {
		subs = append(subs, Subscription{TrackID: id, MaxWidth: 1920, MaxHeight: 1080, Priority: 3, MaxSpatial: -1})
	}
	ep.Subscribe(subs)
}

func opusPacket(seq uint16) *rtp.Packet {
	return &rtp.Packet{
		Header:  rtp.Header{Version: 2, PayloadType: 111, SequenceNumber: seq, Timestamp: uint32(seq) * 960},
		Payload: []byte{0xf8, byte(seq), byte(seq >> 8)},
	}
}

func TestPublishToSubscribers(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	pub := newClient(t, r, "publisher", clientOptions{})
	video, vt := pub.send(webrtc.MimeTypeVP8)
	audio, at := pub.send(webrtc.MimeTypeOpus)
	pub.negotiate(map[*webrtc.RTPTransceiver]string{vt: "cam", at: "mic"})
	pub.connected()
	src := newVP8Source(video.WriteRTP)
	pub.source.Store(src)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	number := uint16(65000)
	every(t, 20*time.Millisecond, func() {
		if err := audio.WriteRTP(opusPacket(number)); err != nil {
			t.Errorf("writing Opus: %v", err)
		}
		number++
	})
	var subs []*client
	for i := range 3 {
		c := newClient(t, r, fmt.Sprintf("subscriber-%d", i), clientOptions{})
		c.recvOnly(1, 1)
		subscribeAll(c.ep, "cam", "mic") // before negotiating: it waits
		c.negotiate(nil)
		subs = append(subs, c)
	}
	for _, c := range subs {
		c.connected()
		for mid, want := range map[string]string{"0": "audio", "1": "video"} {
			rec := c.section(mid)
			eventually(t, want+" arrives", func() bool { return rec.count() >= 100 })
			packets := rec.all()
			continuous(t, packets)
			if want == "video" {
				checkVP8(t, packets)
			}
		}
		if !c.observer.carries("cam") || !c.observer.carries("mic") {
			t.Fatalf("slots told: %+v", c.observer.slots)
		}
	}
	if w, h := r.UpTrack("cam").Encodings()[0].Size(); w != 640 || h != 480 {
		t.Fatalf("size %dx%d", w, h)
	}
	eventually(t, "stats say ok", func() bool {
		s := subs[0].ep.Stats()
		return len(s.DownTracks) == 2 && s.DownTracks[0].Reason == ReasonOK && s.DownTracks[0].Bitrate > 0 && s.PacketsOut > 100
	})
}

// checkVP8 checks that a stream begins with a keyframe and that its picture ids go up by
// one from frame to frame.
func checkVP8(t testing.TB, packets []*rtp.Packet) {
	t.Helper()
	last := -1
	for i, p := range packets {
		var v codecs.VP8Packet
		payload, err := v.Unmarshal(p.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && payload[0]&1 != 0 {
			t.Fatal("it does not begin with a keyframe")
		}
		id := int(v.PictureID)
		if last >= 0 && id != last && id != (last+1)&0x7fff {
			t.Fatalf("packet %d: picture id %d after %d", i, id, last)
		}
		last = id
	}
}

func TestLateJoinerStartsFromTheCachedKeyframe(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	pub := newClient(t, r, "publisher", clientOptions{})
	video, vt := pub.send(webrtc.MimeTypeVP8)
	pub.negotiate(map[*webrtc.RTPTransceiver]string{vt: "cam"})
	pub.connected()
	src := newVP8Source(video.WriteRTP)
	for range 5 { // and then nothing more: whatever arrives later comes from the ring
		src.frame(t)
	}
	eventually(t, "frames are there", func() bool {
		u := r.UpTrack("cam")
		encs := u.Encodings()
		return len(encs) == 1 && encs[0].ring.Highest() == 1<<16+uint64(65500)+14
	})
	c := newClient(t, r, "late", clientOptions{})
	c.recvOnly(0, 1)
	subscribeAll(c.ep, "cam")
	c.negotiate(nil)
	rec := c.section("0")
	eventually(t, "the cached frames arrive", func() bool { return rec.count() == 15 })
	continuous(t, rec.all())
	checkVP8(t, rec.all())
}

func TestH264ReachesClientsThatDecodeIt(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	pub := newClient(t, r, "publisher", clientOptions{})
	video, vt := pub.send(webrtc.MimeTypeH264)
	pub.negotiate(map[*webrtc.RTPTransceiver]string{vt: "cam"})
	pub.connected()
	seq, ts := uint16(1), uint32(0)
	every(t, 20*time.Millisecond, func() {
		for i, payload := range [][]byte{{0x67, 0x42, 0xc0, 0x1f}, {0x68, 1, 2}, {0x65, 1, 2, 3}} {
			err := video.WriteRTP(&rtp.Packet{
				Header:  rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: ts, Marker: i == 2},
				Payload: payload,
			})
			if err != nil {
				t.Errorf("writing H.264: %v", err)
			}
			seq++
		}
		ts += 900
	})
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(0, 1)
	subscribeAll(c.ep, "cam")
	c.negotiate(nil)
	rec := c.section("0")
	eventually(t, "H.264 arrives", func() bool { return rec.count() >= 60 })
	continuous(t, rec.all())
	if nal := rec.all()[0].Payload[0] & 0x1f; nal != 7 {
		t.Fatalf("it begins with a NAL unit of type %d", nal)
	}
	if got := r.UpTrack("cam").Encodings()[0].Codec(); got.Name != codec.H264 || got.Profile != codec.ConstrainedBaseline {
		t.Fatalf("codec %v", got)
	}
	only := newClient(t, r, "vp8-only", clientOptions{codecs: func(m *webrtc.MediaEngine) error {
		return m.RegisterCodec(webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, PayloadType: 96,
		}, webrtc.RTPCodecTypeVideo)
	}})
	only.recvOnly(0, 1)
	subscribeAll(only.ep, "cam")
	only.negotiate(nil)
	eventually(t, "the reason is told", func() bool {
		s := only.ep.Stats()
		return len(s.DownTracks) == 1 && s.DownTracks[0].Reason == ReasonCodec
	})
}
