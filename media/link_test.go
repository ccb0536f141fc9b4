//go:build !race

package media

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/netem"
)

// liveLayer is one simulcast layer as a browser would send it.
type liveLayer struct {
	rid     string
	width   int
	rate    int // bits per second
	packets int // per frame
}

// browserLayers are those of a 720p camera, low to high.
var browserLayers = []liveLayer{{"q", 320, 150_000, 1}, {"h", 640, 500_000, 2}, {"f", 1280, 1_500_000, 6}}

// keyframeFactor is how much larger than the others a keyframe is.
const keyframeFactor = 8

// publishLive makes a client that publishes a camera of three layers at 30 frames per
// second, keyframes on demand only, and a microphone.
// What it returns are the times at which frames were sent: the machine's own gaps are
// not the engine's.
func publishLive(t testing.TB, r *Router) *moments {
	t.Helper()
	sent := &moments{audio: &moments{}}
	c := newClient(t, r, "publisher", clientOptions{})
	capability := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	var tracks []*webrtc.TrackLocalStaticRTP
	for _, l := range browserLayers {
		track, err := webrtc.NewTrackLocalStaticRTP(capability, "video", "stream", webrtc.WithRTPStreamID(l.rid))
		if err != nil {
			t.Fatal(err)
		}
		tracks = append(tracks, track)
	}
	tr, err := c.pc.AddTransceiverFromTrack(tracks[0], webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		t.Fatal(err)
	}
	for _, track := range tracks[1:] {
		if err := tr.Sender().AddEncoding(track); err != nil {
			t.Fatal(err)
		}
	}
	audio, at := c.send(webrtc.MimeTypeOpus)
	c.negotiate(map[*webrtc.RTPTransceiver]string{tr: "cam", at: "mic"})
	c.connected()
	ids := map[string]uint8{}
	for _, x := range tr.Sender().GetParameters().HeaderExtensions {
		ids[x.URI] = uint8(x.ID)
	}
	var sources []*vp8Source
	for i, track := range tracks {
		l := browserLayers[i]
		src := newVP8Source(track.WriteRTP)
		src.width, src.seq, src.picture, src.ts = l.width, uint16(7000*i), uint16(1000*i), uint32(1_000_000*i)
		src.size = l.rate / 8 / 30 / l.packets
		src.extension = func(p *rtp.Packet) {
			for uri, v := range map[string]string{"urn:ietf:params:rtp-hdrext:sdes:mid": tr.Mid(), "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": l.rid} {
				if err := p.SetExtension(ids[uri], []byte(v)); err != nil {
					t.Errorf("setting an extension: %v", err)
				}
			}
		}
		sources = append(sources, src)
		c.wg.Go(func() { answerKeyframeRequests(tr.Sender(), l.rid, src, &sent.requests) })
	}
	every(t, time.Second/30, func() {
		sent.add(time.Now())
		for i, s := range sources {
			s.perFrame = browserLayers[i].packets
			if s.keyframe.Load() {
				s.perFrame *= keyframeFactor
			}
			s.frame(t)
		}
	})
	number := uint32(0)
	every(t, 20*time.Millisecond, func() {
		p := opusPacket(uint16(number))
		p.Timestamp = 960 * number
		p.Payload = append(opusFrame(number), make([]byte, 75)...)
		sent.audio.add(time.Now())
		if err := audio.WriteRTP(p); err != nil {
			t.Errorf("writing Opus: %v", err)
		}
		number++
	})
	return sent
}

// moments are times at which something happened.
type moments struct {
	audio    *moments     // of the publisher's microphone, by frame
	requests atomic.Int64 // of the publisher, for keyframes
	mu       sync.Mutex
	at       []time.Time
}

func (m *moments) add(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at, now)
}

func (m *moments) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.at)
}

// gap is the longest time without any in a span of time.
func (m *moments) gap(from, to time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	longest, last := time.Duration(0), from
	for _, at := range m.at {
		if at.Before(from) || at.After(to) {
			continue
		}
		longest, last = max(longest, at.Sub(last)), at
	}
	return max(longest, to.Sub(last))
}

func answerKeyframeRequests(s *webrtc.RTPSender, rid string, src *vp8Source, requests *atomic.Int64) {
	for {
		pkts, _, err := s.ReadSimulcastRTCP(rid)
		if err != nil {
			return
		}
		for _, p := range pkts {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				src.keyframe.Store(true)
				requests.Add(1)
			}
		}
	}
}

// player shows the frames of a VP8 stream as a browser does: in order, waiting for
// what is missing up to a second, then asking for a keyframe.
type player struct {
	c       *client
	mu      sync.Mutex // guards the fields below
	buffer  map[uint16]*rtp.Packet
	started bool
	next    uint16
	stalled time.Time // since when the next packet is missing; zero when it is not
	skipped int
	shown   moments
	frames  []frameShown
	heard   map[uint32]time.Time // frames of audio by number
}

// frameShown is when a frame was complete, with all before it.
type frameShown struct {
	timestamp uint32
	at        time.Time
}

const playerPatience = time.Second

func (p *player) receive(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	p.c.wg.Go(func() {
		for {
			if _, _, err := receiver.ReadRTCP(); err != nil {
				return
			}
		}
	})
	p.c.wg.Go(func() {
		for {
			pkt, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			switch {
			case len(pkt.Payload) == 0:
			case track.Kind() == webrtc.RTPCodecTypeVideo:
				p.add(pkt, uint32(track.SSRC()), time.Now())
			default:
				p.hear(pkt, time.Now())
			}
		}
	})
}

func isKeyframe(p *rtp.Packet) bool {
	return len(p.Payload) > 6 && p.Payload[0]&0x10 != 0 && p.Payload[6]&1 == 0
}

func (p *player) add(pkt *rtp.Packet, ssrc uint32, now time.Time) {
	p.mu.Lock()
	ask := p.addLocked(pkt, now)
	p.mu.Unlock()
	if ask {
		// A failure to ask is the loss of the request: the next stall asks again.
		_ = p.c.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
	}
}

func (p *player) addLocked(pkt *rtp.Packet, now time.Time) (ask bool) {
	if !p.started {
		if !isKeyframe(pkt) {
			return false
		}
		p.started, p.next = true, pkt.SequenceNumber
	}
	if int16(pkt.SequenceNumber-p.next) < 0 {
		return false // repeated, as a probe
	}
	p.buffer[pkt.SequenceNumber] = pkt
	for {
		cur := p.buffer[p.next]
		if cur == nil {
			break
		}
		delete(p.buffer, p.next)
		p.next++
		p.stalled = time.Time{}
		if cur.Marker {
			p.shown.add(now)
			p.frames = append(p.frames, frameShown{cur.Timestamp, now})
		}
	}
	if len(p.buffer) == 0 {
		return false
	}
	if p.stalled.IsZero() {
		p.stalled = now
	}
	if now.Sub(p.stalled) < playerPatience {
		return false
	}
	return !p.skipLocked()
}

// skipLocked goes on with the next keyframe that has come; false when there is none.
func (p *player) skipLocked() bool {
	for d := uint16(1); d < 5000; d++ {
		if pkt := p.buffer[p.next+d]; pkt != nil && isKeyframe(pkt) {
			for i := range d {
				delete(p.buffer, p.next+i)
			}
			p.next += d
			p.stalled = time.Time{}
			p.skipped++
			return true
		}
	}
	p.stalled = time.Now() // asked: patience again
	return false
}

// viewLink makes a viewer behind an emulated link to the engine.
func viewLink(t testing.TB, r *Router, down netem.Params) (*client, *player, *netem.Relay) {
	t.Helper()
	relay := emulate(t, r.e, down)
	c, p := viewThrough(t, r, relay, "viewer")
	return c, p, relay
}

func emulate(t testing.TB, e *Engine, down netem.Params) *netem.Relay {
	t.Helper()
	relay, err := netem.NewRelay(netem.RelayConfig{Target: e.UDPAddr(), Down: down, Up: netem.Params{Delay: 20 * time.Millisecond}, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	return relay
}

// viewThrough makes a viewer that reaches the engine through a relay only.
func viewThrough(t testing.TB, r *Router, relay *netem.Relay, id string) (*client, *player) {
	t.Helper()
	return viewWith(t, r, relay, id, clientOptions{})
}

func viewWith(t testing.TB, r *Router, relay *netem.Relay, id string, opts clientOptions) (*client, *player) {
	t.Helper()
	c := newClient(t, r, id, opts)
	p := &player{c: c, buffer: map[uint16]*rtp.Packet{}, heard: map[uint32]time.Time{}}
	c.pc.OnTrack(p.receive)
	c.recvOnly(1, 1)
	subscribeAll(c.ep, "cam", "mic")
	negotiateThrough(c, relay, nil)
	c.connected()
	return c, p
}

// negotiateThrough negotiates so that the client reaches the engine through a relay only,
// when there is one.
func negotiateThrough(c *client, relay *netem.Relay, publish map[*webrtc.RTPTransceiver]string) {
	t := c.t
	t.Helper()
	if relay == nil {
		c.negotiate(publish)
		return
	}
	addr := c.ep.router.e.UDPAddr()
	var list []Publish
	offer, err := c.pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	for tr, id := range publish {
		kind, _ := codec.ParseKind(tr.Kind().String())
		list = append(list, Publish{Mid: tr.Mid(), TrackID: id, Kind: kind, Source: "test"})
	}
	answer, err := c.ep.Negotiate(c.pc.LocalDescription().SDP, list)
	if err != nil {
		t.Fatal(err)
	}
	direct, shaped := fmt.Sprintf(" 127.0.0.1 %d ", addr.Port()), fmt.Sprintf(" 127.0.0.1 %d ", relay.Addr().Port())
	if !strings.Contains(answer, direct) {
		t.Fatalf("no candidate at%sin the answer:\n%s", direct, answer)
	}
	answer = strings.ReplaceAll(answer, direct, shaped)
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
}

// videoState is what the engine says of the viewer's video.
func videoState(c *client) (s DownTrackStats, estimate uint64) {
	st := c.ep.Stats()
	for _, d := range st.DownTracks {
		if d.TrackID == "cam" {
			return d, st.Estimate
		}
	}
	return s, st.Estimate
}

// watch looks at the viewer every 100 ms for a while and returns the layers it saw.
func watch(t testing.TB, c *client, length time.Duration) (layers []int8) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	line := ""
	for end := time.Now().Add(length); time.Now().Before(end); {
		<-tick.C
		s, estimate := videoState(c)
		layers = append(layers, s.Current.Spatial)
		line += fmt.Sprintf(" %d/%dk", s.Current.Spatial, estimate/1000)
	}
	t.Logf("layer/estimate each 100 ms:%s", line)
	return layers
}

// stall is a gap between frames sent that says that the machine has no time for a test
// of timing.
const stall = 250 * time.Millisecond

// checkFreeze fails when the viewer saw nothing new for longer than allowed, unless the
// machine did not let the publisher send either.
func checkFreeze(t testing.TB, p *player, sent *moments, from time.Time, allowed time.Duration) {
	t.Helper()
	now := time.Now()
	f, own := p.shown.gap(from, now), sent.gap(from, now)
	t.Logf("longest time between frames: %v sent, %v shown", own, f)
	if f > allowed && own < stall {
		t.Errorf("froze for %v", f)
	}
}
