package media

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/media/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long anything may take that should take far less, even on a machine
// that is busy with other tests under the race detector.
const deadline = 60 * time.Second

func startEngine(t testing.TB, cfg Config) *Engine {
	t.Helper()
	if cfg.UDPAddr == "" {
		cfg.UDPAddr = "127.0.0.1:0"
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(deadline):
			t.Error("Run does not end")
		}
		if n := e.drops.snapshot()["nonce_reuse"]; n != 0 {
			t.Errorf("%d packets would have reused a nonce", n)
		}
	})
	return e
}

// eventually waits until ok says true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("timed out: %s", what)
		}
	}
}

// recorder is an Observer that remembers.
type recorder struct {
	mu      sync.Mutex
	states  []State
	slots   []Slot
	needed  [2]int
	quality []DownTrackStats
	// interest is the newest by track, told how often it was.
	interest map[string]int
	told     int
}

func (r *recorder) PublisherInterest(track string, maxSpatial int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.interest == nil {
		r.interest = map[string]int{}
	}
	r.interest[track] = maxSpatial
	r.told++
}

// interested is up to which encoding the track is wanted; all before anything was told.
func (r *recorder) interested(track string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.interest[track]; ok {
		return n
	}
	return maxEncodings
}

func (r *recorder) EndpointState(s State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, s)
}

func (r *recorder) SlotsChanged(s []Slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slots = s
}

func (r *recorder) SlotsNeeded(audio, video int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.needed = [2]int{audio, video}
}

func (r *recorder) TracksQuality(q []DownTrackStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quality = q
}

func (r *recorder) carries(track string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.slots {
		if s.TrackID == track {
			return true
		}
	}
	return false
}

// received are the packets of one section at a client.
type received struct {
	mu      sync.Mutex
	packets []*rtp.Packet
}

func (r *received) add(p *rtp.Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packets = append(r.packets, p)
}

func (r *received) all() []*rtp.Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*rtp.Packet(nil), r.packets...)
}

func (r *received) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.packets)
}

// client is a pion PeerConnection against an endpoint of the engine.
type client struct {
	t        testing.TB
	pc       *webrtc.PeerConnection
	ep       *Endpoint
	observer *recorder
	mu       sync.Mutex
	got      map[string]*received // by mid
	wg       sync.WaitGroup
	source   atomic.Pointer[vp8Source] // makes a keyframe when one is asked for
	// publishes is the source of what it publishes.
	publishes string
}

type clientOptions struct {
	setting func(*webrtc.SettingEngine)
	codecs  func(*webrtc.MediaEngine) error
	plain   bool // no interceptors: no NACK, no feedback
	// interceptors replaces the default ones.
	interceptors func(*webrtc.MediaEngine, *interceptor.Registry) error
}

func newClient(t testing.TB, r *Router, id string, opts clientOptions) *client {
	t.Helper()
	m := &webrtc.MediaEngine{}
	register := m.RegisterDefaultCodecs
	if opts.codecs != nil {
		register = func() error { return opts.codecs(m) }
	}
	if err := register(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		for _, uri := range []string{
			"urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
			"urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
		} {
			if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind); err != nil {
				t.Fatal(err)
			}
		}
	}
	err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: "urn:ietf:params:rtp-hdrext:ssrc-audio-level"}, webrtc.RTPCodecTypeAudio)
	if err != nil {
		t.Fatal(err)
	}
	registry := &interceptor.Registry{}
	if opts.interceptors == nil {
		opts.interceptors = func(m *webrtc.MediaEngine, r *interceptor.Registry) error {
			return webrtc.RegisterDefaultInterceptors(m, r)
		}
	}
	if !opts.plain {
		if err := opts.interceptors(m, registry); err != nil {
			t.Fatal(err)
		}
	}
	se := webrtc.SettingEngine{}
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	se.SetIncludeLoopbackCandidate(true)
	se.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	if opts.setting != nil {
		opts.setting(&se)
	}
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(se)).
		NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, pc: pc, publishes: "test", observer: &recorder{}, got: map[string]*received{}}
	pc.OnTrack(c.receive)
	if c.ep, err = r.NewEndpoint(EndpointConfig{ID: id, Observer: c.observer}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pc.Close()
		c.wg.Wait()
		c.ep.Close()
	})
	return c
}

func (c *client) receive(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	mid := ""
	for _, tr := range c.pc.GetTransceivers() {
		if tr.Receiver() == receiver {
			mid = tr.Mid()
		}
	}
	rec := c.section(mid)
	c.wg.Go(func() {
		for {
			if _, _, err := receiver.ReadRTCP(); err != nil {
				return
			}
		}
	})
	c.wg.Go(func() {
		for {
			p, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			rec.add(p)
		}
	})
}

func (c *client) section(mid string) *received {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.got[mid] == nil {
		c.got[mid] = &received{}
	}
	return c.got[mid]
}

// recvOnly adds receiving sections.
func (c *client) recvOnly(audio, video int) {
	c.t.Helper()
	add := func(n int, kind webrtc.RTPCodecType) {
		for range n {
			_, err := c.pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
			if err != nil {
				c.t.Fatal(err)
			}
		}
	}
	add(audio, webrtc.RTPCodecTypeAudio)
	add(video, webrtc.RTPCodecTypeVideo)
}

// send adds a sending section and returns what to write to.
func (c *client) send(mime string) (*webrtc.TrackLocalStaticRTP, *webrtc.RTPTransceiver) {
	c.t.Helper()
	capability := webrtc.RTPCodecCapability{MimeType: mime, ClockRate: 90000}
	switch mime {
	case webrtc.MimeTypeOpus:
		capability.ClockRate, capability.Channels = 48000, 2
	case webrtc.MimeTypeH264:
		capability.SDPFmtpLine = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	}
	track, err := webrtc.NewTrackLocalStaticRTP(capability, fmt.Sprintf("track-%s", mime), "stream")
	if err != nil {
		c.t.Fatal(err)
	}
	tr, err := c.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		c.t.Fatal(err)
	}
	c.wg.Go(func() { c.readFeedback(tr.Sender()) })
	return track, tr
}

func (c *client) readFeedback(sender *webrtc.RTPSender) {
	for {
		pkts, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range pkts {
			if _, ok := p.(*rtcp.PictureLossIndication); ok {
				if src := c.source.Load(); src != nil {
					src.keyframe.Store(true)
				}
			}
		}
	}
}

// negotiate makes an offer and applies the answer. publish names the track of each sending
// transceiver.
func (c *client) negotiate(publish map[*webrtc.RTPTransceiver]string) {
	c.t.Helper()
	if err := c.tryNegotiate(publish, nil); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) tryNegotiate(publish map[*webrtc.RTPTransceiver]string, opts *webrtc.OfferOptions) error {
	c.t.Helper()
	offer, err := c.pc.CreateOffer(opts)
	if err != nil {
		return err
	}
	if err := c.pc.SetLocalDescription(offer); err != nil {
		return err
	}
	var list []Publish
	for tr, id := range publish {
		kind, _ := codec.ParseKind(tr.Kind().String())
		list = append(list, Publish{Mid: tr.Mid(), TrackID: id, Kind: kind, Source: c.publishes})
	}
	answer, err := c.ep.Negotiate(c.pc.LocalDescription().SDP, list)
	if err != nil {
		return err
	}
	return c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

func (c *client) connected() {
	c.t.Helper()
	eventually(c.t, "client connects", func() bool {
		return c.pc.ConnectionState() == webrtc.PeerConnectionStateConnected && c.ep.State() == Connected
	})
}

// vp8Source writes synthetic VP8: frames of several packets, a keyframe first and on demand.
type vp8Source struct {
	write     func(*rtp.Packet) error
	ssrc      uint32
	seq       uint16
	ts        uint32
	picture   uint16
	tl0       uint8
	frames    int
	perFrame  int
	size      int
	width     int
	temporal  bool
	extension func(*rtp.Packet)
	keyframe  atomic.Bool
}

func newVP8Source(write func(*rtp.Packet) error) *vp8Source {
	s := &vp8Source{write: write, seq: 65500, ts: 1 << 31, picture: 32700, perFrame: 3, size: 300, width: 640}
	s.keyframe.Store(true)
	return s
}

// frame writes one frame.
func (s *vp8Source) frame(t testing.TB) {
	key := s.keyframe.Swap(false)
	tid := 0
	if s.temporal && !key {
		tid = s.frames % 2
	}
	if tid == 0 {
		s.tl0++
	}
	for i := range s.perFrame {
		b := make([]byte, 6, s.size)
		b[0], b[1] = 0x80, 0xe0 // X; I L T
		if i == 0 {
			b[0] |= 0x10
		}
		binary.BigEndian.PutUint16(b[2:], 0x8000|s.picture&0x7fff)
		b[4] = s.tl0
		b[5] = byte(tid<<6) | 0x20
		if i == 0 && key {
			b = append(b, 0x50, 0, 0, 0x9d, 1, 0x2a, byte(s.width), byte(s.width>>8), byte(s.width*3/4), byte(s.width*3/4>>8))
		} else {
			b = append(b, 0x01)
		}
		for len(b) < s.size {
			b = append(b, byte(s.seq))
		}
		p := &rtp.Packet{
			Header:  rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: s.seq, Timestamp: s.ts, SSRC: s.ssrc, Marker: i == s.perFrame-1},
			Payload: b,
		}
		if s.extension != nil {
			s.extension(p)
		}
		s.seq++
		if err := s.write(p); err != nil {
			t.Errorf("writing VP8: %v", err)
		}
	}
	s.frames++
	s.ts += 3000
	s.picture++
}

// every calls f at an interval until the test ends or stop is called.
func every(t testing.TB, d time.Duration, f func()) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				f()
			}
		}
	})
	var once sync.Once
	stop = func() {
		once.Do(func() { close(done) })
		wg.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// continuous checks that sequence numbers have no gap (reordering aside) and no duplicates,
// and that timestamps never go back.
func continuous(t testing.TB, packets []*rtp.Packet) {
	t.Helper()
	if len(packets) == 0 {
		t.Fatal("no packets")
	}
	first := packets[0].SequenceNumber
	seen := map[uint16]bool{}
	high := int16(0)
	for _, p := range packets {
		d := p.SequenceNumber - first
		if seen[d] {
			t.Fatalf("sequence number %d twice", p.SequenceNumber)
		}
		seen[d] = true
		high = max(high, int16(d))
	}
	for i := range uint16(high) {
		if !seen[i] {
			t.Fatalf("sequence number %d of %d packets is missing", first+i, len(packets))
		}
	}
	ts := packets[0].Timestamp
	for _, p := range packets {
		if int32(p.Timestamp-ts) < 0 {
			t.Fatalf("timestamp went back from %d to %d", ts, p.Timestamp)
		}
		ts = p.Timestamp
	}
}
