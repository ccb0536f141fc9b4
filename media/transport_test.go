package media

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// roundTrip publishes with one client and checks that another receives.
func roundTrip(t *testing.T, r *Router, opts clientOptions) (pub, sub *client) {
	t.Helper()
	pub = newClient(t, r, "publisher", opts)
	video, tr := pub.send(webrtc.MimeTypeVP8)
	pub.negotiate(map[*webrtc.RTPTransceiver]string{tr: "cam"})
	pub.connected()
	src := newVP8Source(video.WriteRTP)
	pub.source.Store(src)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	sub = newClient(t, r, "subscriber", opts)
	sub.recvOnly(0, 1)
	sub.negotiate(nil)
	subscribeAll(sub.ep, "cam")
	rec := sub.section("0")
	eventually(t, "video arrives", func() bool { return rec.count() > 200 })
	continuous(t, rec.all())
	return pub, sub
}

func TestSRTPProfiles(t *testing.T) {
	t.Parallel()
	for _, profile := range []dtls.SRTPProtectionProfile{
		dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80,
	} {
		e := startEngine(t, Config{})
		roundTrip(t, e.Router("room"), clientOptions{setting: func(s *webrtc.SettingEngine) { s.SetSRTPProtectionProfiles(profile) }})
	}
}

func TestClientThatWaitsForTheHandshake(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	c := newClient(t, r, "client", clientOptions{})
	c.recvOnly(1, 0)
	offer, err := c.pc.CreateOffer(nil)
	if err == nil {
		err = c.pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	// As a client would that only takes the DTLS server's part.
	answer, err := c.ep.Negotiate(strings.ReplaceAll(offer.SDP, "a=setup:actpass", "a=setup:passive"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	c.connected()
}

func TestForeignCertificateIsRefused(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	c := newClient(t, e.Router("room"), "client", clientOptions{})
	c.recvOnly(1, 0)
	offer, err := c.pc.CreateOffer(nil)
	if err == nil {
		err = c.pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(offer.SDP, "a=fingerprint:sha-256 ") + len("a=fingerprint:sha-256 ")
	digit := "0"
	if offer.SDP[i] == '0' {
		digit = "1"
	}
	forged := strings.ReplaceAll(offer.SDP, offer.SDP[i:i+95], digit+offer.SDP[i+1:i+95])
	answer, err := c.ep.Negotiate(forged, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the endpoint fails", func() bool { return c.ep.State() == Failed })
}

func TestICETCP(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{TCPAddr: "127.0.0.1:0"})
	_, sub := roundTrip(t, e.Router("room"), clientOptions{setting: func(s *webrtc.SettingEngine) {
		s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}})
	if s := sub.ep.Stats(); s.Transport != "tcp" || !strings.HasPrefix(s.RemoteAddr, "127.0.0.1:") {
		t.Fatalf("transport %q, address %q", s.Transport, s.RemoteAddr)
	}
}

func TestClientGoneIsNoticed(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{DisconnectedAfter: 2 * time.Second, FailedAfter: 2 * time.Second})
	r := e.Router("room")
	pub, _ := roundTrip(t, r, clientOptions{})
	if err := pub.pc.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the endpoint fails", func() bool { return pub.ep.State() == Failed })
}

func TestSectionsOfPlainOffers(t *testing.T) {
	t.Parallel()
	// What a player or encoder without mids and header extensions offers.
	const offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n" +
		"m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=sendonly\r\na=msid:obs video0\r\n" +
		"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef0123456789\r\na=setup:actpass\r\n" +
		"a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n" +
		"a=rtpmap:96 H264/90000\r\na=fmtp:96 profile-level-id=42e01f;packetization-mode=1\r\na=ssrc:5 cname:x\r\n"
	list, err := Sections(offer)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Kind != Video || !list[0].Direction.Sends() || list[0].Stream != "obs" || list[0].Mid == "" {
		t.Fatalf("%+v", list)
	}
	if _, err := Sections("nonsense"); err == nil {
		t.Fatal("nonsense is accepted")
	}
	e := startEngine(t, Config{PublicIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, TCPAddr: "127.0.0.1:0"})
	ep, err := e.Router("room").NewEndpoint(EndpointConfig{ID: "whip"})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := ep.Negotiate(offer, []Publish{{Mid: list[0].Mid, TrackID: "cam", Kind: Video}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"a=recvonly\r\n", "a=setup:passive\r\n", " udp ", " 192.0.2.7 ", " tcptype passive", "a=end-of-candidates", "a=rtpmap:96 H264/90000",
	} {
		if !strings.Contains(answer, want) {
			t.Errorf("the answer lacks %q:\n%s", want, answer)
		}
	}
	if strings.Contains(answer, "a=mid:") || strings.Contains(answer, "BUNDLE") {
		t.Errorf("the answer has a mid that was not offered:\n%s", answer)
	}
}

func TestUnannouncedSSRCIsFoundByPayloadType(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	c := newClient(t, r, "publisher", clientOptions{})
	video, vt := c.send(webrtc.MimeTypeVP8)
	audio, at := c.send(webrtc.MimeTypeOpus)
	offer, err := c.pc.CreateOffer(nil)
	if err == nil {
		err = c.pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	var plain []string
	for line := range strings.SplitSeq(offer.SDP, "\r\n") {
		if !strings.HasPrefix(line, "a=ssrc") && !strings.HasPrefix(line, "a=extmap") {
			plain = append(plain, line)
		}
	}
	answer, err := c.ep.Negotiate(strings.Join(plain, "\r\n"), []Publish{
		{Mid: vt.Mid(), TrackID: "cam", Kind: Video}, {Mid: at.Mid(), TrackID: "mic", Kind: Audio},
	})
	if err == nil {
		err = c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
	}
	if err != nil {
		t.Fatal(err)
	}
	c.connected()
	src := newVP8Source(video.WriteRTP)
	n := uint16(0)
	every(t, 20*time.Millisecond, func() {
		src.frame(t)
		n++
		if err := audio.WriteRTP(opusPacket(n)); err != nil {
			t.Errorf("writing Opus: %v", err)
		}
	})
	for _, id := range []string{"cam", "mic"} {
		eventually(t, id+" arrives", func() bool {
			s := r.UpTrack(id).Stats()
			return len(s.Encodings) == 1 && s.Encodings[0].Packets > 20
		})
	}
}

// TestSpeakers checks that audio levels become speakers.
func TestSpeakers(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	spoke := make(chan []Speaker, 100)
	r.OnSpeakers(func(s []Speaker) {
		select {
		case spoke <- s:
		default:
		}
	})
	c := newClient(t, r, "publisher", clientOptions{})
	audio, tr := c.send(webrtc.MimeTypeOpus)
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: "mic"})
	c.connected()
	var id uint8
	for _, x := range tr.Sender().GetParameters().HeaderExtensions {
		if strings.HasSuffix(x.URI, "ssrc-audio-level") {
			id = uint8(x.ID)
		}
	}
	n := uint16(0)
	every(t, 10*time.Millisecond, func() {
		n++
		p := opusPacket(n)
		level := rtp.AudioLevelExtension{Level: 20, Voice: true}
		raw, err := level.Marshal()
		if err == nil {
			err = p.SetExtension(id, raw)
		}
		if err == nil {
			err = audio.WriteRTP(p)
		}
		if err != nil {
			t.Errorf("writing Opus: %v", err)
		}
	})
	select {
	case s := <-spoke:
		if len(s) != 1 || s[0].TrackID != "mic" || s[0].LevelDBov > -10 || s[0].LevelDBov < -60 {
			t.Fatalf("speakers %+v", s)
		}
	case <-time.After(deadline):
		t.Fatal("nobody speaks")
	}
	if s := r.Stats(); len(s.Speakers) != 1 {
		t.Fatalf("stats: %+v", s.Speakers)
	}
}
