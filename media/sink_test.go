package media

import (
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/reception"
)

// testSink keeps what it gets.
type testSink struct {
	mu      sync.Mutex
	packets []*packet.Packet
	reports []packet.SenderReport
}

func (s *testSink) WriteRTP(p *packet.Packet) {
	p.Retain()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets = append(s.packets, p)
}

func (s *testSink) WriteSenderReport(sr packet.SenderReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, sr)
}

func (s *testSink) counts() (packets, reports int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.packets), len(s.reports)
}

func (s *testSink) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packets {
		p.Release()
	}
	s.packets = nil
}

func TestSinkGetsPacketsAndReports(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	told := make(chan struct{}, 100)
	r.OnTracks(func() { told <- struct{}{} })
	c := newClient(t, r, "publisher", clientOptions{})
	video, tr := c.send(webrtc.MimeTypeVP8)
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: "cam"})
	c.connected()
	src := newVP8Source(video.WriteRTP)
	c.source.Store(src)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	var u *UpTrack
	for u == nil || len(u.Encodings()) == 0 { // each change is told
		select {
		case <-told:
			u = r.UpTrack("cam")
		case <-time.After(deadline):
			t.Fatal("nobody tells of the track and its encoding")
		}
	}
	enc := u.Encodings()[0]
	sink := &testSink{}
	enc.Attach(sink)
	enc.Attach(sink) // has no effect
	enc.RequestKeyframe()
	eventually(t, "packets and reports arrive", func() bool {
		packets, reports := sink.counts()
		return packets > 100 && reports > 0
	})
	enc.Detach(sink)
	packets, _ := sink.counts()
	before := enc.ring.Highest()
	eventually(t, "more is forwarded", func() bool { return enc.ring.Highest() > before+30 })
	if now, _ := sink.counts(); now != packets {
		t.Fatalf("%d packets after Detach", now-packets)
	}
	keyframes := 0
	for i, p := range sink.packets {
		if i > 0 && p.ExtSeq != sink.packets[i-1].ExtSeq+1 {
			t.Fatalf("packet %d: number %d after %d", i, p.ExtSeq, sink.packets[i-1].ExtSeq)
		}
		if p.Keyframe {
			keyframes++
		}
		p.Release()
	}
	if keyframes == 0 {
		t.Fatal("no keyframe although one was asked for")
	}
	sr := sink.reports[0]
	if off := reception.Between(sr.NTP, reception.NTP(time.Now())); off > 0 || off < -int64(deadline) {
		t.Fatalf("the report is of %v from now", time.Duration(off))
	}
	if enc.ClockRate() != 90000 || enc.SenderReport().NTP == 0 || enc.Track() != u || u.Source() != "test" || u.Origin() != "publisher" {
		t.Fatalf("encoding of %+v", u.Stats())
	}
}
