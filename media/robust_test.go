package media

import (
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	piontransport "github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/negotiate"
)

// lossyNet loses incoming media packets of a client.
type lossyNet struct {
	*stdnet.Net
	lose    func(b []byte) bool
	loseOut func(b []byte) bool
}

func (n lossyNet) ListenUDP(network string, addr *net.UDPAddr) (piontransport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, addr)
	return lossyConn{c, n.lose, n.loseOut}, err
}

type lossyConn struct {
	piontransport.UDPConn
	lose, loseOut func(b []byte) bool
}

func (c lossyConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := c.UDPConn.ReadFrom(b)
		if err != nil || c.lose == nil || !c.lose(b[:n]) {
			return n, addr, err
		}
	}
}

func (c lossyConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	if c.loseOut != nil && c.loseOut(b) {
		return len(b), nil
	}
	return c.UDPConn.WriteTo(b, addr)
}

func isRTP(b []byte) bool { return len(b) > 12 && isMedia(b) && (b[1] < 192 || b[1] > 223) }

// isMedia says that b is RTP or RTCP (RFC 7983).
func isMedia(b []byte) bool { return len(b) > 0 && b[0] >= 128 && b[0] < 192 }

// oneInTen chooses media packets to lose.
func oneInTen(seed uint64) func([]byte) bool {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, seed))
	return func(b []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		return isRTP(b) && rng.IntN(10) == 0
	}
}

// TestLostPacketsAreSentAgain loses a tenth of the media that a client receives.
func TestLostPacketsAreSentAgain(t *testing.T) {
	t.Parallel()
	for name, codecs := range map[string]func(*webrtc.MediaEngine) error{
		"rtx": nil,
		"without rtx": func(m *webrtc.MediaEngine) error {
			return m.RegisterCodec(webrtc.RTPCodecParameters{
				RTPCodecCapability: webrtc.RTPCodecCapability{
					MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}},
				}, PayloadType: 96,
			}, webrtc.RTPCodecTypeVideo)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			std, err := stdnet.NewNet()
			if err != nil {
				t.Fatal(err)
			}
			lossy := lossyNet{Net: std, lose: oneInTen(1)}
			e := startEngine(t, Config{})
			r := e.Router("room")
			_, src := publishVP8(t, r, "cam", 5)
			every(t, 20*time.Millisecond, func() { src.frame(t) })
			c := newClient(t, r, "subscriber", clientOptions{codecs: codecs, setting: func(s *webrtc.SettingEngine) { s.SetNet(lossy) }})
			c.recvOnly(0, 1)
			c.negotiate(nil)
			subscribeAll(c.ep, "cam")
			rec := c.section("0")
			eventually(t, "packets are sent again", func() bool {
				return rec.count() > 600 && c.ep.Stats().Retransmitted > 20
			})
			// What is still missing after the time of a few round trips was lost for good.
			packets := rec.all()
			first, seen, newest := packets[0].SequenceNumber, map[uint16]int{}, uint16(0)
			for _, p := range packets {
				seen[p.SequenceNumber-first]++
				newest = max(newest, p.SequenceNumber-first)
			}
			missing := 0
			for i := range newest - 200 {
				if seen[i] == 0 {
					missing++
				}
			}
			if missing > int(newest)/50 {
				t.Fatalf("%d of %d packets are missing", missing, newest)
			}
		})
	}
}

// TestEngineAsksForLostPackets loses packets on the way to the engine.
func TestEngineAsksForLostPackets(t *testing.T) {
	t.Parallel()
	std, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	e := startEngine(t, Config{})
	r := e.Router("room")
	lossy := lossyNet{Net: std, loseOut: oneInTen(2)}
	c := newClient(t, r, "publisher", clientOptions{setting: func(s *webrtc.SettingEngine) { s.SetNet(lossy) }})
	video, tr := c.send(webrtc.MimeTypeVP8)
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: "cam"})
	c.connected()
	src := newVP8Source(video.WriteRTP)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	eventually(t, "lost packets were recovered", func() bool {
		s := r.UpTrack("cam").Stats()
		return len(s.Encodings) == 1 && s.Encodings[0].Recovered > 20
	})
}

func TestICERestart(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	_, src := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "cam")
	rec := c.section("0")
	eventually(t, "video arrives", func() bool { return rec.count() > 100 })
	old := c.ep.path.Load().addr
	if err := c.tryNegotiate(nil, &webrtc.OfferOptions{ICERestart: true}); err != nil {
		t.Fatal(err)
	}
	before := rec.count()
	eventually(t, "another pair is selected", func() bool { return c.ep.path.Load().addr != old })
	eventually(t, "video goes on", func() bool { return rec.count() > before+300 })
	if e.connector.at(old) != nil {
		t.Fatal("the old address still belongs to the endpoint")
	}
}

func TestGarbageOnTheMediaPortChangesNothing(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	pub, src := publishVP8(t, r, "cam", 5)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(0, 1)
	c.negotiate(nil)
	subscribeAll(c.ep, "cam")
	rec := c.section("0")
	eventually(t, "video arrives", func() bool { return rec.count() > 50 })
	stranger, err := net.Dial("udp", e.UDPAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	rng := rand.New(rand.NewPCG(3, 4))
	now, strangers := e.now(), e.Stats().Drops["unknown_source"]
	for i := range 3000 {
		b := make([]byte, rng.IntN(1600))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		if len(b) > 2 && i%2 == 0 {
			b[0] = 0x80 | b[0]&0x1f
		}
		if _, err := stranger.Write(b); err != nil {
			t.Fatal(err)
		}
		// As if somebody forged the publisher's address:
		pub.ep.in.datagram(b, now)
		p := rtp.Packet{Header: rtp.Header{Version: 2, SSRC: src.ssrc, SequenceNumber: uint16(i), PayloadType: 96}, Payload: b[:len(b)/2]}
		if raw, err := p.Marshal(); err == nil {
			pub.ep.in.datagram(raw, now)
		}
	}
	eventually(t, "what comes from strangers is counted", func() bool { return e.Stats().Drops["unknown_source"] > strangers+100 })
	before := rec.count()
	eventually(t, "video goes on", func() bool { return rec.count() > before+100 })
	continuous(t, rec.all())
	d := e.Stats().Drops
	if d["srtp_auth"] == 0 || d["malformed_rtp"]+d["oversize"] == 0 {
		t.Fatalf("drops are not counted: %v", d)
	}
	if len(r.UpTrack("cam").Encodings()) != 1 {
		t.Fatal("garbage made an encoding")
	}
}

func TestOffersThatAreRefused(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	c := newClient(t, r, "client", clientOptions{})
	c.recvOnly(1, 1)
	offer, err := c.pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	section := offer.SDP[strings.Index(offer.SDP, "m=video"):]
	many := offer.SDP
	for range 500 {
		many += section[:200] + "\r\n"
	}
	for name, sdp := range map[string]struct {
		offer string
		want  negotiate.Reason
	}{
		"empty":             {"", negotiate.Malformed},
		"junk":              {"v=0\r\nthis is junk\r\n", negotiate.Malformed},
		"too large":         {offer.SDP + strings.Repeat("a=x\r\n", 20000), negotiate.TooLarge},
		"500 sections":      {"v=0\r\n" + strings.Repeat("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", 500), negotiate.TooManySections},
		"large 500":         {many, negotiate.TooLarge},
		"no media":          {"v=0\r\ns=-\r\n", negotiate.NoMedia},
		"no fingerprint":    {strings.ReplaceAll(offer.SDP, "a=fingerprint", "a=x-fingerprint"), negotiate.NoFingerprint},
		"no ice":            {strings.ReplaceAll(offer.SDP, "a=ice-pwd", "a=x-pwd"), negotiate.NoICE},
		"no bundle":         {strings.ReplaceAll(offer.SDP, "a=group:BUNDLE", "a=group:X"), negotiate.NoBundle},
		"no mux":            {strings.ReplaceAll(offer.SDP, "a=rtcp-mux", "a=x"), negotiate.NoRTCPMux},
		"same mid twice":    {strings.ReplaceAll(offer.SDP, "a=mid:1", "a=mid:0"), negotiate.Malformed},
		"unknown published": {offer.SDP, negotiate.UnknownSection},
	} {
		var publish []Publish
		if name == "unknown published" {
			publish = []Publish{{Mid: "1", TrackID: "x", Kind: Video}} // it only receives
		}
		_, err := c.ep.Negotiate(sdp.offer, publish)
		var refused *NegotiationError
		if !errors.As(err, &refused) || refused.Reason != sdp.want {
			t.Errorf("%s: %v, want %s", name, err, sdp.want)
		}
	}
	if len(r.UpTracks()) != 0 {
		t.Fatal("a refused offer made tracks")
	}
	c.negotiate(nil) // and the endpoint can still be used
	c.connected()
	if _, err := c.ep.Negotiate(strings.ReplaceAll(c.pc.LocalDescription().SDP, "sha-256 ", "sha-256 00:"), nil); err == nil {
		t.Error("another certificate is accepted")
	}
}

func TestUnpublishedSectionIsInactive(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	c := newClient(t, r, "client", clientOptions{})
	video, tr := c.send(webrtc.MimeTypeVP8)
	_, extra := c.send(webrtc.MimeTypeOpus)
	if _, err := c.pc.CreateDataChannel("x", nil); err != nil {
		t.Fatal(err)
	}
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: "cam"})
	c.connected()
	src := newVP8Source(video.WriteRTP)
	every(t, 20*time.Millisecond, func() { src.frame(t) })
	eventually(t, "the published track arrives", func() bool { return len(r.UpTrack("cam").Encodings()) == 1 })
	answer := c.pc.RemoteDescription().SDP
	if !strings.Contains(answer, "a=inactive") || !strings.Contains(answer, "m=application 0") {
		t.Fatalf("answer:\n%s", answer)
	}
	if i := strings.Index(answer, "a=mid:"+extra.Mid()+"\r\n"); i < 0 || !strings.HasPrefix(answer[i:], "a=mid:"+extra.Mid()+"\r\na=inactive") {
		t.Fatalf("the other section is not inactive:\n%s", answer)
	}
	// The track ends when it is not published any more.
	c.negotiate(nil)
	if r.UpTrack("cam") != nil {
		t.Fatal("the track is still there")
	}
}

func TestDuplicateTrackIDIsRefused(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	r := e.Router("room")
	publishVP8(t, r, "cam", 5)
	c := newClient(t, r, "thief", clientOptions{})
	_, tr := c.send(webrtc.MimeTypeVP8)
	if err := c.tryNegotiate(map[*webrtc.RTPTransceiver]string{tr: "cam"}, nil); !errors.Is(err, ErrTrackExists) {
		t.Fatalf("error %v", err)
	}
}

func TestCloseOfEverything(t *testing.T) {
	t.Parallel()
	e, err := New(Config{UDPAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e.Router("room") != nil {
		t.Fatal("a closed engine makes routers")
	}
	e2 := startEngine(t, Config{})
	r := e2.Router("room")
	c, src := publishVP8(t, r, "cam", 5)
	for range 10 {
		src.frame(t)
	}
	eventually(t, "frames arrive", func() bool { return e2.pool.Live() >= 30 })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if c.ep.State() != Closed || e2.pool.Live() != 0 {
		t.Fatalf("state %v, %d packets held", c.ep.State(), e2.pool.Live())
	}
	if _, err := c.ep.Negotiate(c.pc.LocalDescription().SDP, nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("negotiating after Close: %v", err)
	}
	if e2.Router("room") == r {
		t.Fatal("the closed router is still there")
	}
}
