package media

import (
	"slices"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

// BenchmarkJoin measures from a client's offer to its first packet of video, a keyframe from
// the ring, in one process with the client (TARGETS P3, without signalling):
//
//	go test -run xxx -bench Join -benchtime 50x ./media
func BenchmarkJoin(b *testing.B) {
	e := startEngine(b, Config{})
	r := e.Router("room")
	pub := newClient(b, r, "publisher", clientOptions{})
	video, tr := pub.send(webrtc.MimeTypeVP8)
	pub.negotiate(map[*webrtc.RTPTransceiver]string{tr: "cam"})
	pub.connected()
	src := newVP8Source(video.WriteRTP)
	pub.source.Store(src)
	every(b, time.Second/30, func() { src.frame(b) })
	var took []time.Duration
	for b.Loop() {
		c := newClient(b, r, "subscriber", clientOptions{})
		c.recvOnly(1, 1)
		subscribeAll(c.ep, "cam")
		first := make(chan struct{})
		c.pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
			if _, _, err := track.ReadRTP(); err == nil && track.Kind() == webrtc.RTPCodecTypeVideo {
				close(first)
			}
		})
		began := time.Now()
		c.negotiate(nil)
		select {
		case <-first:
			took = append(took, time.Since(began))
		case <-time.After(deadline):
			b.Fatal("no video")
		}
		b.StopTimer()
		c.pc.Close()
		c.ep.Close()
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "ms-p95")
}
