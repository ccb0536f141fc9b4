package client

import (
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// answerer is the far end of a Media: it counts what comes by RID and sends on the slots.
type answerer struct {
	t    *testing.T
	pc   *webrtc.PeerConnection
	mu   sync.Mutex
	rids map[string]int
	out  *webrtc.TrackLocalStaticRTP
	wg   sync.WaitGroup
	got  chan struct{}
}

func newAnswerer(t *testing.T) *answerer {
	t.Helper()
	api, err := NewAPI(TransportConfig{Loopback: true, Respond: true, NACK: true, Feedback: true})
	if err != nil {
		t.Fatal(err)
	}
	a := &answerer{t: t, rids: make(map[string]int), got: make(chan struct{}, 1000)}
	if a.pc, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Fatal(err)
	}
	a.pc.OnTrack(func(r *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		a.wg.Add(1)
		defer a.wg.Done()
		_ = a.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(r.SSRC())}})
		for {
			if _, _, err := r.ReadRTP(); err != nil {
				return
			}
			a.mu.Lock()
			a.rids[r.Kind().String()+r.RID()]++
			a.mu.Unlock()
			select {
			case a.got <- struct{}{}:
			default:
			}
		}
	})
	t.Cleanup(func() { _ = a.pc.GracefulClose(); a.wg.Wait() })
	return a
}

func (a *answerer) answer(offer string) string {
	if err := a.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		a.t.Error(err)
	}
	a.out, _ = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, "v", "s")
	if _, err := a.pc.AddTrack(a.out); err != nil {
		a.t.Error(err)
	}
	answer, err := a.pc.CreateAnswer(nil)
	if err != nil {
		a.t.Error(err)
		return ""
	}
	gathered := webrtc.GatheringCompletePromise(a.pc)
	if err := a.pc.SetLocalDescription(answer); err != nil {
		a.t.Error(err)
	}
	<-gathered
	return a.pc.LocalDescription().SDP
}

func TestMediaSendsSimulcastAndReceivesInSlots(t *testing.T) {
	t.Parallel()
	far := newAnswerer(t)
	url := newFake(t, func(s *fakeConn, msg *amphiv1.ClientMessage) {
		switch {
		case s.polite(msg):
		case msg.GetNegotiate() != nil:
			if p := msg.GetNegotiate().GetPublish(); len(p) != 2 || p[0].GetTrackId() != "tr_v" {
				t.Errorf("published sections %v", p)
			}
			s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Answer{Answer: &amphiv1.Answer{
				RequestId: msg.GetId(),
				Body:      &amphiv1.Answer_Negotiated{Negotiated: &amphiv1.Negotiated{Sdp: far.answer(msg.GetNegotiate().GetSdp())}},
			}}})
		}
	})
	ctx := testContext(t)
	c, err := Dial(ctx, Config{URL: url, Token: "good", Join: &amphiv1.Join{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	api, err := NewAPI(TransportConfig{Loopback: true, Respond: true, NACK: true, Feedback: true})
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 1)
	m, err := NewMedia(c, MediaConfig{API: api, OnTrack: func(mid string, r *webrtc.TrackRemote) { received <- mid }})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	asked := make(chan int, 100)
	video, err := m.AddSender(SenderConfig{
		TrackID: "tr_v", Codec: "vp8", RIDs: []string{"q", "h", "f"},
		OnKeyframeRequest: func(layer int) {
			select {
			case asked <- layer:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	audio, err := m.AddSender(SenderConfig{TrackID: "tr_a", Codec: "opus"})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddSlots(1, 1); err != nil {
		t.Fatal(err)
	}
	if err := m.Negotiate(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Connected():
	case <-ctx.Done():
		t.Fatal("not connected")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var mid string
	gotKeyframeRequest := false
	for seq := uint16(1); ; seq++ {
		<-tick.C
		for layer := range 3 {
			if err := video.Send(layer, &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: uint32(seq) * 900}, Payload: make([]byte, 30)}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := audio.Send(0, &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq}, Payload: make([]byte, 30)}, 20); err != nil {
			t.Fatal(err)
		}
		_ = far.out.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq}, Payload: make([]byte, 30)})
		select {
		case mid = <-received:
		case <-asked:
			gotKeyframeRequest = true
		default:
		}
		far.mu.Lock()
		rids := len(far.rids)
		far.mu.Unlock()
		if rids == 4 && mid != "" && gotKeyframeRequest {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("arrived by RID: %v; received on section %q; keyframe request %v", far.rids, mid, gotKeyframeRequest)
		}
	}
	m.Handle(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Slots{Slots: &amphiv1.Slots{Slots: []*amphiv1.Slot{{Mid: mid, TrackId: "tr_z"}}}}})
	if m.TrackOf(mid) != "tr_z" || m.TrackOf("nope") != "" {
		t.Errorf("slot %q carries %q", mid, m.TrackOf(mid))
	}
}
