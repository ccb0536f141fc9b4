package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

// obs publishes as OBS does: one H.264 and one Opus track, SSRCs announced, no simulcast, no header extensions, all
// candidates in the offer.
func obs(t *testing.T, config webrtc.Configuration) (pc *webrtc.PeerConnection, tracks []*webrtc.TrackLocalStaticSample) {
	t.Helper()
	engine, none := &webrtc.MediaEngine{}, &interceptor.Registry{}
	for pt, codec := range map[webrtc.PayloadType]webrtc.RTPCodecCapability{
		96: {MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1",
			RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}}},
		111: {MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1"},
	} {
		kind := webrtc.RTPCodecTypeVideo
		if pt == 111 {
			kind = webrtc.RTPCodecTypeAudio
		}
		if err := engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: codec, PayloadType: pt}, kind); err != nil {
			t.Fatal(err)
		}
	}
	setting := webrtc.SettingEngine{}
	setting.SetIncludeLoopbackCandidate(true)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(none), webrtc.WithSettingEngine(setting)).NewPeerConnection(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	for _, mime := range []string{webrtc.MimeTypeOpus, webrtc.MimeTypeH264} {
		track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: mime}, mime, "obs")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			t.Fatal(err)
		}
		tracks = append(tracks, track)
	}
	return pc, tracks
}

// whip sends a request of RFC 9725.
func whip(t *testing.T, method, url, token, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/sdp")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

// offer is one with all candidates.
func offer(t *testing.T, pc *webrtc.PeerConnection) string {
	t.Helper()
	gathered := webrtc.GatheringCompletePromise(pc)
	sdp, err := pc.CreateOffer(nil)
	if err == nil {
		err = pc.SetLocalDescription(sdp)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-gathered
	return pc.LocalDescription().SDP
}

// stream sends until ctx ends: a keyframe's shape over and over, and silence.
func stream(ctx context.Context, tracks []*webrtc.TrackLocalStaticSample) {
	// SPS and PPS of 320x240 baseline, and something in an IDR slice: whoever forwards does not decode.
	frame := append([]byte{0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0x8c, 0x8d, 0x40, 0xa0, 0xf9, 0x00, 0xf0, 0x88, 0x46, 0xa0,
		0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0, 0, 1, 0x65}, make([]byte, 3000)...)
	for i := range frame[len(frame)-3000:] {
		frame[len(frame)-3000+i] = byte(i%200 + 5)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = tracks[0].WriteSample(media.Sample{Data: []byte{0xf8, 0xff, 0xfe}, Duration: 20 * time.Millisecond})
			_ = tracks[1].WriteSample(media.Sample{Data: frame, Duration: 20 * time.Millisecond})
		}
	}
}

// linkHeader is a Link header of an ICE server.
var linkHeader = regexp.MustCompile(`^<(turns?:[^>]+)>; rel="ice-server"; username="([^"]+)"; credential="([^"]+)"; credential-type="password"$`)

// TestOBSPublishesByWHIP: directly, and with nothing but the TURN servers of an earlier answer's Link headers.
func TestOBSPublishesByWHIP(t *testing.T) {
	t.Parallel()
	node := startNodeWith(t, Config{TURNAddr: "127.0.0.1:0"})
	url := node.URL() + "/v1/whip/" + devRoom
	var servers []webrtc.ICEServer
	for _, way := range []string{"direct", "relayed"} {
		config := webrtc.Configuration{}
		if way == "relayed" {
			config = webrtc.Configuration{ICEServers: servers, ICETransportPolicy: webrtc.ICETransportPolicyRelay}
		}
		pc, tracks := obs(t, config)
		res, answer := whip(t, http.MethodPost, url, appToken(t, "speaker"), offer(t, pc))
		if res.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %d %s", way, res.StatusCode, answer)
		}
		servers = nil
		for _, link := range res.Header.Values("Link") {
			m := linkHeader.FindStringSubmatch(link)
			if m == nil {
				t.Fatalf("Link: %s", link)
			}
			servers = append(servers, webrtc.ICEServer{URLs: []string{m[1]}, Username: m[2], Credential: m[3]})
		}
		if len(servers) != 2 {
			t.Fatalf("%d Link headers, want UDP and TCP", len(servers))
		}
		if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { stream(ctx, tracks) })
		arrives(t, node, way)
		if open := node.relay.Stats().Open; (open > 0) != (way == "relayed") {
			t.Errorf("%s: %d allocations", way, open)
		}
		session := node.URL() + res.Header.Get("Location")
		if res, _ := whip(t, http.MethodPatch, session, "", "a=candidate:x"); res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("PATCH answered %d", res.StatusCode)
		}
		if res, text := whip(t, http.MethodDelete, session, "", ""); res.StatusCode != http.StatusOK {
			t.Errorf("DELETE answered %d %s", res.StatusCode, text)
		}
		stop()
		wg.Wait()
		if err := pc.Close(); err != nil {
			t.Error(err)
		}
	}
}

// arrives waits until the node has both tracks and media on them.
func arrives(t *testing.T, node *Node, way string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		found := map[string]bool{}
		for _, room := range node.Status("").GetRooms() {
			for _, peer := range room.GetPeers() {
				for _, up := range peer.GetUp() {
					name, _, _ := strings.Cut(up.GetCodec(), " ")
					if e := up.GetEncodings(); len(e) == 1 && e[0].GetPackets() > 50 {
						found[name] = true
					}
				}
			}
		}
		if found["H264"] && found["opus"] {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: only %v arrives: %v", way, found, node.Status("").GetRooms())
		}
		<-time.After(50 * time.Millisecond)
	}
}
