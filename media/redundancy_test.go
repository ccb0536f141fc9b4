package media

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/red"
	"github.com/amphi-sfu/amphi/media/seal"
)

const (
	mimeRED = "audio/red"
	redPT   = 63
	opusPT  = 111
)

// opusAndRED registers what Chromium offers for a microphone, and VP8; with redFirst as an
// app that prefers redundancy does.
func opusAndRED(redFirst bool) func(*webrtc.MediaEngine) error {
	return func(m *webrtc.MediaEngine) error {
		list := []webrtc.RTPCodecParameters{
			{PayloadType: opusPT, RTPCodecCapability: webrtc.RTPCodecCapability{
				MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
			}},
			{PayloadType: redPT, RTPCodecCapability: redCapability()},
		}
		if redFirst {
			slices.Reverse(list)
		}
		for _, c := range list {
			if err := m.RegisterCodec(c, webrtc.RTPCodecTypeAudio); err != nil {
				return err
			}
		}
		feedback := []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}}
		for _, c := range []webrtc.RTPCodecParameters{
			{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: feedback}},
			{PayloadType: 97, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: "apt=96"}},
		} {
			if err := m.RegisterCodec(c, webrtc.RTPCodecTypeVideo); err != nil {
				return err
			}
		}
		return nil
	}
}

func redCapability() webrtc.RTPCodecCapability {
	return webrtc.RTPCodecCapability{MimeType: mimeRED, ClockRate: 48000, Channels: 2, SDPFmtpLine: "111/111"}
}

// opusFrame is frame n, recognisable.
func opusFrame(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0xf8}, n) }

// redPacket is frame n with the two before it.
func redPacket(n uint32) *rtp.Packet {
	var blocks []red.Block
	for back := min(2, n); back > 0; back-- {
		blocks = append(blocks, red.Block{PayloadType: opusPT, Offset: uint16(960 * back), Data: opusFrame(n - back)})
	}
	blocks = append(blocks, red.Block{PayloadType: opusPT, Data: opusFrame(n)})
	return &rtp.Packet{
		Header:  rtp.Header{Version: 2, PayloadType: redPT, SequenceNumber: uint16(n), Timestamp: 960 * n},
		Payload: red.Append(nil, blocks),
	}
}

// TestRedundantAudioOfAPublisher: redundant audio is unpacked once; who does not know it gets
// plain Opus, and what was lost on the way in is there again.
func TestRedundantAudioOfAPublisher(t *testing.T) {
	t.Parallel()
	r := startEngine(t, Config{}).Router("room")
	pub := newClient(t, r, "publisher", clientOptions{codecs: opusAndRED(true)})
	track, err := webrtc.NewTrackLocalStaticRTP(redCapability(), "mic", "stream")
	if err != nil {
		t.Fatal(err)
	}
	tr, err := pub.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		t.Fatal(err)
	}
	pub.negotiate(map[*webrtc.RTPTransceiver]string{tr: "mic"})
	pub.connected()
	c := newClient(t, r, "subscriber", clientOptions{})
	c.recvOnly(1, 0)
	c.negotiate(nil)
	c.connected()
	subscribeAll(c.ep, "mic")
	rec := c.section("0")
	const frames, first = 300, 100
	n := uint32(first)
	stop := every(t, 5*time.Millisecond, func() {
		if n < first+frames && n%5 != 3 && n%5 != 4 { // two in a row of each five are lost
			if err := track.WriteRTP(redPacket(n)); err != nil {
				t.Errorf("writing: %v", err)
			}
		}
		n++
	})
	eventually(t, "frames arrive", func() bool { return rec.count() >= 200 })
	stop()
	packets := rec.all()
	continuous(t, packets)
	slices.SortFunc(packets, func(a, b *rtp.Packet) int { return int(int16(a.SequenceNumber - b.SequenceNumber)) })
	begin := binary.BigEndian.Uint32(packets[0].Payload[1:])
	for i, p := range packets {
		if p.PayloadType != opusPT || len(p.Payload) != 5 || binary.BigEndian.Uint32(p.Payload[1:]) != begin+uint32(i) {
			t.Fatalf("packet %d of payload type %d: %x, want frame %d", i, p.PayloadType, p.Payload, begin+uint32(i))
		}
		if want := packets[0].Timestamp + 960*uint32(i); p.Timestamp != want {
			t.Fatalf("packet %d: timestamp %d, want %d", i, p.Timestamp, want)
		}
	}
	if s := r.UpTrack("mic").Encodings()[0]; s.Codec().Name != codec.Opus {
		t.Errorf("codec %v", s.Codec())
	}
}

// TestRedundancyDecides is the hysteresis.
func TestRedundancyDecides(t *testing.T) {
	t.Parallel()
	var r redundancy
	for i, step := range []struct {
		loss float64
		want int
	}{
		{0, 0}, {0.02, 0}, {0.04, 1}, {0.02, 1}, {0.045, 1}, {0.1, 2}, {0.04, 2}, {0.025, 1}, {0.012, 1}, {0.005, 0}, {0.02, 0}, {0.3, 2}, {0, 0},
	} {
		if r.note(step.loss, 1); r.depth != step.want {
			t.Errorf("step %d, loss %v: %d earlier frames, want %d", i, step.loss, r.depth, step.want)
		}
	}
	r = redundancy{}
	r.note(0.04, redundancyWindow) // one packet in a short window
	if r.depth != 0 {
		t.Error("one window without much is enough")
	}
	r.note(0.5, redundancyWindow)
	for range 60 {
		r.note(0, redundancyWindow)
	}
	if r.depth != 0 {
		t.Errorf("12 s without loss: %+v", r)
	}
}

func TestRedundancyNeedsANonceOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		w    wire
		want bool
	}{
		{wire{redPT: 63}, true}, {wire{}, false}, {wire{redPT: 63, nack: true}, false}, {wire{redPT: 63, nack: true, rtxPT: 112}, true},
	} {
		if got := c.w.redundant(); got != c.want {
			t.Errorf("%+v: %v", c.w, got)
		}
	}
}

// audioPath is the way of audio from decryption to one subscriber's socket, without clients.
type audioPath struct {
	e    *Engine
	enc  *Encoding
	dt   *DownTrack
	sink *net.UDPConn
	open *srtp.Context
	n    uint32
}

func newAudioPath(t testing.TB) *audioPath {
	t.Helper()
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	f := &audioPath{e: e}
	if f.sink, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.sink.Close() })
	r := e.Router("room")
	u, err := r.addTrack("mic", codec.Audio, "mic", "origin")
	if err != nil {
		t.Fatal(err)
	}
	f.enc = u.encoding(0, "", nobody{})
	ep, err := r.NewEndpoint(EndpointConfig{ID: "subscriber"})
	if err != nil {
		t.Fatal(err)
	}
	section := negotiate.Section{Mid: "0", Kind: codec.Audio, Direction: negotiate.RecvOnly, Formats: []negotiate.Format{
		{PayloadType: opusPT, Codec: codec.ByPayloadType(111), RTPMap: "opus/48000/2", RED: redPT},
	}}
	ep.applySlots([]role{{section: &section, slot: true}})
	subscribeAll(ep, "mic")
	key, salt := make([]byte, 16), make([]byte, 12)
	sealer, err := seal.New(srtp.ProtectionProfileAeadAes128Gcm, key, salt)
	if err != nil {
		t.Fatal(err)
	}
	if f.open, err = srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes128Gcm); err != nil {
		t.Fatal(err)
	}
	ep.out.w.post(func() {
		ep.out.setKeys(sealer)
		ep.out.setPath(&path{addr: netip.MustParseAddrPort(f.sink.LocalAddr().String())})
		f.dt = ep.out.tracks[0]
	})
	e.workers[0].process()
	return f
}

// frame takes the next frame through the engine, after skipping some on the way in.
func (f *audioPath) frame(skip uint32) {
	f.n += 1 + skip
	p := f.e.pool.Get()
	defer p.Release()
	b := p.Buffer()
	binary.BigEndian.PutUint32(b[1:], f.n)
	p.Payload, p.Timestamp, p.ArrivalNS, p.SSRC = b[:5], 960*f.n, f.e.now(), 1
	f.enc.write(p, uint16(f.n), codec.ByPayloadType(111), false)
	f.e.workers[0].process()
}

// receive opens the next packet at the subscriber.
func (f *audioPath) receive(t testing.TB) (rtp.Packet, []red.Block) {
	t.Helper()
	buf := make([]byte, packet.MaxSize)
	if err := f.sink.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	n, err := f.sink.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := f.open.DecryptRTP(nil, buf[:n], nil)
	if err != nil {
		t.Fatal(err)
	}
	var p rtp.Packet
	if err := p.Unmarshal(plain); err != nil {
		t.Fatal(err)
	}
	if p.PayloadType != redPT {
		return p, nil
	}
	blocks, err := red.Parse(p.Payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p, blocks
}

// TestRedundantAudioToASubscriber: with loss, packets carry the frames before them, each with
// its own time; without, they are plain; the numbers go on whatever changes.
func TestRedundantAudioToASubscriber(t *testing.T) {
	f := newAudioPath(t)
	next := uint16(0)
	check := func(what string, skip uint32, frames ...uint32) {
		t.Helper()
		f.frame(skip)
		p, blocks := f.receive(t)
		if next != 0 && p.SequenceNumber != next+uint16(skip) {
			t.Fatalf("%s: number %d after %d", what, p.SequenceNumber, next-1)
		}
		next = p.SequenceNumber + 1
		if len(frames) == 0 {
			if p.PayloadType != opusPT || binary.BigEndian.Uint32(p.Payload[1:]) != f.n {
				t.Fatalf("%s: payload type %d: %x, want frame %d alone", what, p.PayloadType, p.Payload, f.n)
			}
			return
		}
		if len(blocks) != len(frames)+1 {
			t.Fatalf("%s: %d blocks in payload type %d, want the frames before %v", what, len(blocks), p.PayloadType, frames)
		}
		for i, b := range blocks {
			want := f.n
			if i < len(frames) {
				want = f.n - frames[i]
			}
			if binary.BigEndian.Uint32(b.Data[1:]) != want || b.PayloadType != opusPT || uint32(b.Offset) != 960*(f.n-want) {
				t.Fatalf("%s: block %d is %+v, want frame %d", what, i, b, want)
			}
		}
	}
	check("begin", 0)
	check("no loss", 0)
	f.dt.redundancy.note(0.04, 1)
	check("some loss", 0, 1)
	f.dt.redundancy.note(0.2, 1)
	check("much loss", 0, 2, 1)
	check("after a gap of the publisher's", 1) // the frame before is not there
	check("then", 0, 1)                        // nor is the second
	check("then", 0, 2, 1)
	check("after silence", 40) // longer than an offset can say
	check("then", 0, 1)
	f.dt.redundancy.note(0, 1)
	check("no loss any more", 0)
	if n := f.e.drops.snapshot()["nonce_reuse"]; n != 0 {
		t.Errorf("%d packets would have reused a nonce", n)
	}
}

func TestRedundancyAllocatesNothing(t *testing.T) {
	f := newAudioPath(t)
	f.dt.redundancy.note(0.2, 1)
	for range 4 * audioRing {
		f.frame(0)
	}
	if n := testing.AllocsPerRun(200, func() { f.frame(0) }); n != 0 && !raceDetector() {
		t.Errorf("%v allocations per packet", n)
	}
}

// FuzzRedundantAudio puts what a publisher may send as redundant audio through the engine.
func FuzzRedundantAudio(f *testing.F) {
	f.Add(redPacket(7).Payload)
	f.Add([]byte{0xef, 0xff, 0xff, 0xff, 0x6f})
	f.Add([]byte{0x6f})
	path := newAudioPath(f)
	ep, err := path.e.Router("room").NewEndpoint(EndpointConfig{ID: "publisher"})
	if err != nil {
		f.Fatal(err)
	}
	opus := codec.ByPayloadType(111)
	st := &inStream{enc: path.enc, section: &inSection{
		track: path.enc.track, formats: map[uint8]codec.Codec{opusPT: opus, redPT: opus}, redPT: redPT,
	}}
	var once sync.Mutex
	f.Fuzz(func(t *testing.T, b []byte) {
		once.Lock()
		defer once.Unlock()
		if len(b) > packet.MaxSize {
			return
		}
		path.n++
		p := path.e.pool.Get()
		p.Payload = p.Buffer()[:copy(p.Buffer(), b)]
		p.Timestamp, p.ArrivalNS = 960*path.n, path.e.now()
		ep.in.mu.Lock()
		ep.in.write(st, p, &packet.Header{PayloadType: redPT, SequenceNumber: uint16(path.n), Timestamp: p.Timestamp})
		ep.in.mu.Unlock()
		p.Release()
		path.e.workers[0].process()
	})
}
