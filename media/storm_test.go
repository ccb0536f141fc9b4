package media

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// keyframeCounter is a publisher that notes when it is asked for keyframes.
type keyframeCounter struct {
	mu sync.Mutex // guards at
	at []time.Time
}

func (k *keyframeCounter) requestKeyframe(*Encoding) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = append(k.at, time.Now())
}

// TestStormOfViewersAsksOnce is the first half of target Q5: 200 viewers join at once, no
// keyframe is at hand, and all go on asking until it comes.
func TestStormOfViewersAsksOnce(t *testing.T) {
	const viewers = 200
	publisher := &keyframeCounter{}
	f := newPath(t, viewers)
	f.enc.upstream = publisher
	for range 2 * replayLimit { // the keyframe is too long ago to begin with
		f.frame(t)
	}
	w := f.e.workers[0]
	start := time.Now()
	each := func(do func(dt *DownTrack)) {
		w.post(func() {
			for o := range w.endpoints {
				for _, dt := range o.tracks {
					do(dt)
				}
			}
		})
		w.process()
	}
	each(func(dt *DownTrack) { // as if each had just joined
		dt.sel.Reset()
		dt.setFollowed(nil, nil)
		dt.follow(w.now)
	})
	eventually(t, "a second of asking", func() bool {
		each(func(dt *DownTrack) {
			dt.follow(f.e.now())
			dt.keyframeWanted()
		})
		f.enc.retryKeyframe(f.e.now())
		return time.Since(start) > time.Second
	})
	publisher.mu.Lock()
	at := slices.Clone(publisher.at)
	publisher.mu.Unlock()
	for i := 1; i < len(at); i++ {
		if d := at[i].Sub(at[i-1]); d < keyframeInterval-time.Millisecond {
			t.Errorf("asked again after %v", d)
		}
	}
	if len(at) == 0 {
		t.Fatal("nobody asked")
	}
	sent := f.e.Stats().Socket.SendDatagrams
	f.src.keyframe.Store(true)
	f.frame(t)
	if n := f.e.Stats().Socket.SendDatagrams - sent; n < viewers*loadPackets {
		t.Errorf("%d packets left for a keyframe of %d to %d viewers", n, loadPackets, viewers)
	}
	t.Logf("%d requests in %v", len(at), time.Since(start))
}

// BenchmarkStorm is target Q5: viewers that join at once, each a whole client in this
// process, whose work it is mostly; from the first offer to each one's first packet of video.
//
//	go test -run xxx -bench Storm -benchtime 1x ./media
func BenchmarkStorm(b *testing.B) {
	for _, viewers := range []int{20, 200} {
		b.Run(fmt.Sprint(viewers), func(b *testing.B) { storm(b, viewers) })
	}
}

func storm(b *testing.B, viewers int) {
	r := startEngine(b, Config{}).Router("room")
	pub := newClient(b, r, "publisher", clientOptions{})
	video, tr := pub.send(webrtc.MimeTypeVP8)
	pub.negotiate(map[*webrtc.RTPTransceiver]string{tr: "cam"})
	pub.connected()
	src := newVP8Source(video.WriteRTP)
	requests := &keyframeCounter{}
	pub.wg.Go(func() {
		for {
			pkts, _, err := tr.Sender().ReadRTCP()
			if err != nil {
				return
			}
			for _, p := range pkts {
				if _, ok := p.(*rtcp.PictureLossIndication); ok {
					requests.requestKeyframe(nil)
					src.keyframe.Store(true)
				}
			}
		}
	})
	every(b, time.Second/30, func() { src.frame(b) })
	for b.Loop() {
		var clients []*client
		for range viewers {
			c := newClient(b, r, "viewer", clientOptions{})
			c.recvOnly(0, 1)
			subscribeAll(c.ep, "cam")
			clients = append(clients, c)
		}
		took := make([]time.Duration, viewers)
		var wg sync.WaitGroup
		began := time.Now()
		for i, c := range clients {
			wg.Add(1)
			c.pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
				if _, _, err := track.ReadRTP(); err == nil {
					took[i] = time.Since(began)
				}
				wg.Done()
			})
			wg.Go(func() {
				if err := c.tryNegotiate(nil, nil); err != nil {
					b.Errorf("negotiating: %v", err)
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		b.ReportMetric(float64(took[viewers/2].Milliseconds()), "ms-p50")
		b.ReportMetric(float64(took[viewers*95/100].Milliseconds()), "ms-p95")
		requests.mu.Lock()
		asked := len(requests.at)
		requests.mu.Unlock()
		b.ReportMetric(float64(asked)/(time.Since(began).Seconds()*5), "requests/200ms")
	}
}
