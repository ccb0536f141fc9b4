package feed

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node answers a feed as a node does, and counts.
type node struct {
	pc      *webrtc.PeerConnection
	tasks   sync.WaitGroup
	video   atomic.Int64
	audio   atomic.Int64
	levels  atomic.Int64
	reports atomic.Int64
	address netip.AddrPort
}

func newNode(t *testing.T) *node {
	t.Helper()
	api, err := newAPI()
	if err != nil {
		t.Fatal(err)
	}
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{pc: pc}
	pc.OnTrack(func(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		n.tasks.Go(func() { n.read(track, receiver) })
		n.tasks.Go(func() {
			for {
				packets, _, err := receiver.ReadRTCP()
				if err != nil {
					return
				}
				for _, p := range packets {
					if _, ok := p.(*rtcp.SenderReport); ok {
						n.reports.Add(1)
					}
				}
			}
		})
	})
	t.Cleanup(func() {
		_ = pc.GracefulClose()
		n.tasks.Wait()
	})
	return n
}

func (n *node) read(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	id := uint8(0)
	for _, e := range receiver.GetParameters().HeaderExtensions {
		if e.URI == levelURI {
			id = uint8(e.ID)
		}
	}
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if track.Kind() == webrtc.RTPCodecTypeVideo {
			if n.video.Add(1) == 1 {
				_ = n.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())}})
			}
			continue
		}
		n.audio.Add(1)
		if v := p.GetExtension(id); len(v) == 1 && v[0] == 33 {
			n.levels.Add(1)
		}
	}
}

// answer implements Config.Publish. What it tells as its address is of no use, as a node's public one may be to itself.
func (n *node) answer(_ context.Context, offer string) (string, error) {
	if err := n.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(n.pc)
	answer, err := n.pc.CreateAnswer(nil)
	if err == nil {
		err = n.pc.SetLocalDescription(answer)
	}
	if err != nil {
		return "", err
	}
	<-gathered
	sdp := n.pc.LocalDescription().SDP
	for line := range strings.Lines(sdp) {
		if f := strings.Fields(line); strings.HasPrefix(line, "a=candidate:") {
			port, err := strconv.ParseUint(f[5], 10, 16)
			if err != nil {
				return "", err
			}
			n.address = netip.AddrPortFrom(netip.MustParseAddr(f[4]), uint16(port))
		}
	}
	return strings.ReplaceAll(sdp, "127.0.0.1", "192.0.2.1"), nil
}

func TestFeed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var asked atomic.Int64
	cfg := Config{Video: true, Audio: true, Node: func() netip.AddrPort { return n.address }, Publish: n.answer, OnKeyframeRequest: func() { asked.Add(1) }}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	key := append([]byte{0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0, 0, 1, 0x65}, make([]byte, 4000)...)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for at := time.Duration(0); n.video.Load() < 100 || n.audio.Load() < 20 || n.reports.Load() < 2 || asked.Load() == 0; at += 20 * time.Millisecond {
		if time.Now().After(deadline) {
			t.Fatalf("%d packets of pictures, %d of sound, %d reports, %d keyframe requests", n.video.Load(), n.audio.Load(), n.reports.Load(), asked.Load())
		}
		f.Video(at, key)
		f.Audio(at, 33, []byte{0xf8, 0xff, 0xfe})
		<-tick.C
	}
	if n.levels.Load() == 0 {
		t.Error("no audio levels")
	}
	_ = n.pc.Close()
	select {
	case <-f.Gone():
	case <-time.After(20 * time.Second):
		t.Error("the end is not noticed")
	}
}

func TestFeedOfNothing(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), Config{}); err == nil {
		t.Error("no error")
	}
}
