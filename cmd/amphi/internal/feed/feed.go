// Package feed publishes media that does not come from a WebRTC client as such a client
// would: with a PeerConnection to this very node, over loopback. So it takes the one way that
// all that is published takes, with its limits, permissions, statistics and relays.
package feed

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/logging"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
)

const (
	videoClock   = 90_000
	audioClock   = 48_000
	mtu          = 1200 // of a payload
	reportEvery  = time.Second
	mdnsDisabled = 1 // ice.MulticastDNSMode, whose package only media imports
	levelURI     = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	h264Params   = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	opusParams   = "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1"
)

// Config of a Feed.
type Config struct {
	// Video and Audio say what will be published: H.264 of constrained baseline profile, Opus.
	Video, Audio bool
	// Node tells where this node takes media.
	Node func() netip.AddrPort
	// Publish hands the offer to whoever answers it.
	Publish func(ctx context.Context, offer string) (answer string, err error)
	// OnKeyframeRequest is told that a subscriber needs a keyframe. It must not block.
	OnKeyframeRequest func()
}

// Feed is a PeerConnection that publishes. Video and Audio are called one at a time each.
type Feed struct {
	cfg   Config
	pc    *webrtc.PeerConnection
	video *stream
	audio *stream
	gone  chan struct{}
	end   context.CancelFunc
	tasks sync.WaitGroup

	mu   sync.Mutex // guards the field below
	zero time.Time  // of the publication's time 0
}

// stream is one RTP stream (RFC 3550).
type stream struct {
	track  *webrtc.TrackLocalStaticRTP
	sender *webrtc.RTPSender
	clock  uint32
	base   uint32
	level  uint8 // id of the audio level's extension, 0: none

	mu      sync.Mutex // guards the fields below
	seq     uint16
	packets uint32
	octets  uint32
	begun   bool
}

// Start connects. Gone is closed when the connection ends by the other side.
func Start(ctx context.Context, cfg Config) (*Feed, error) {
	if !cfg.Video && !cfg.Audio {
		return nil, errors.New("starting a feed: nothing to publish")
	}
	api, err := newAPI()
	if err != nil {
		return nil, fmt.Errorf("starting a feed: %w", err)
	}
	pc, err := api.NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		return nil, fmt.Errorf("starting a feed: %w", err)
	}
	life, end := context.WithCancel(context.Background())
	f := &Feed{cfg: cfg, pc: pc, gone: make(chan struct{}), end: end}
	if err := f.connect(ctx, life); err != nil {
		f.Close()
		return nil, fmt.Errorf("starting a feed: %w", err)
	}
	return f, nil
}

func newAPI() (*webrtc.API, error) {
	media := &webrtc.MediaEngine{}
	feedback := []webrtc.RTCPFeedback{{Type: "ccm", Parameter: "fir"}, {Type: "nack", Parameter: "pli"}, {Type: "nack"}}
	if err := media.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 102, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeH264, ClockRate: videoClock, SDPFmtpLine: h264Params, RTCPFeedback: feedback}}, webrtc.RTPCodecTypeVideo); err != nil {
		return nil, err
	}
	if err := media.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: audioClock, Channels: 2, SDPFmtpLine: opusParams}}, webrtc.RTPCodecTypeAudio); err != nil {
		return nil, err
	}
	if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: levelURI}, webrtc.RTPCodecTypeAudio); err != nil {
		return nil, err
	}
	quiet := &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
	registry := &interceptor.Registry{}
	responder, err := nack.NewResponderInterceptor(nack.WithResponderLoggerFactory(quiet))
	if err != nil {
		return nil, err
	}
	registry.Add(responder)
	set := webrtc.SettingEngine{LoggerFactory: quiet}
	set.SetICEMulticastDNSMode(mdnsDisabled)
	set.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	set.SetIncludeLoopbackCandidate(true)
	set.SetInterfaceFilter(func(name string) bool { return strings.HasPrefix(name, "lo") })
	return webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(set)), nil
}

// connect negotiates and waits until packets may go.
func (f *Feed) connect(ctx, life context.Context) error {
	var err error
	if f.cfg.Audio {
		if f.audio, err = f.add(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: audioClock, Channels: 2}); err != nil {
			return err
		}
	}
	if f.cfg.Video {
		if f.video, err = f.add(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: videoClock, SDPFmtpLine: h264Params}); err != nil {
			return err
		}
	}
	connected := make(chan struct{})
	var once, over sync.Once
	f.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			once.Do(func() { close(connected) })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			over.Do(func() { close(f.gone) })
		}
	})
	gathered := webrtc.GatheringCompletePromise(f.pc)
	offer, err := f.pc.CreateOffer(nil)
	if err == nil {
		err = f.pc.SetLocalDescription(offer)
	}
	if err != nil {
		return err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return ctx.Err()
	}
	answer, err := f.cfg.Publish(ctx, f.pc.LocalDescription().SDP)
	if err != nil {
		return err
	}
	err = f.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: withoutCandidates(answer)})
	if err != nil {
		return err
	}
	if err := f.pc.AddICECandidate(f.here()); err != nil {
		return err
	}
	select {
	case <-connected:
	case <-f.gone:
		return errors.New("node does not take the connection")
	case <-ctx.Done():
		return ctx.Err()
	}
	f.begin(life)
	return nil
}

// here is the node's candidate, whatever addresses it tells to others.
func (f *Feed) here() webrtc.ICECandidateInit {
	node := f.cfg.Node()
	a := node.Addr()
	if a.IsUnspecified() || !a.Unmap().Is4() {
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	section := uint16(0)
	return webrtc.ICECandidateInit{
		Candidate:     fmt.Sprintf("candidate:1 1 udp 2130706431 %s %d typ host", a.Unmap(), node.Port()),
		SDPMLineIndex: &section,
	}
}

// withoutCandidates takes away the addresses that are for clients elsewhere.
func withoutCandidates(sdp string) string {
	var b strings.Builder
	for line := range strings.Lines(sdp) {
		if !strings.HasPrefix(line, "a=candidate:") && !strings.HasPrefix(line, "a=end-of-candidates") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (f *Feed) add(c webrtc.RTPCodecCapability) (*stream, error) {
	track, err := webrtc.NewTrackLocalStaticRTP(c, strings.TrimPrefix(c.MimeType, "video/"), "feed")
	if err != nil {
		return nil, err
	}
	t, err := f.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return nil, err
	}
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24
	return &stream{track: track, sender: t.Sender(), clock: c.ClockRate, base: binary.BigEndian.Uint32(random[:]), seq: binary.BigEndian.Uint16(random[4:])}, nil
}

// begin starts the goroutines: sender reports, and what the node asks for.
func (f *Feed) begin(life context.Context) {
	for _, s := range []*stream{f.audio, f.video} {
		if s == nil {
			continue
		}
		for _, e := range s.sender.GetParameters().HeaderExtensions {
			if e.URI == levelURI && s == f.audio {
				s.level = uint8(e.ID)
			}
		}
		f.tasks.Go(func() { f.listen(s) })
	}
	f.tasks.Go(func() {
		t := time.NewTicker(reportEvery)
		defer t.Stop()
		for {
			select {
			case <-life.Done():
				return
			case now := <-t.C:
				f.report(now)
			}
		}
	})
}

// listen takes RTCP until the connection ends.
func (f *Feed) listen(s *stream) {
	for {
		packets, _, err := s.sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				if s == f.video && f.cfg.OnKeyframeRequest != nil {
					f.cfg.OnKeyframeRequest()
				}
			}
		}
	}
}

// report sends what picture and sound belong together (RFC 3550 section 6.4.1): both go by the publication's one time.
func (f *Feed) report(now time.Time) {
	f.mu.Lock()
	zero := f.zero
	f.mu.Unlock()
	if zero.IsZero() {
		return
	}
	for _, s := range []*stream{f.audio, f.video} {
		if s == nil {
			continue
		}
		if sr := s.report(now.Sub(zero), now); sr != nil {
			_ = f.pc.WriteRTCP([]rtcp.Packet{sr})
		}
	}
}

func (s *stream) report(at time.Duration, now time.Time) *rtcp.SenderReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		return nil
	}
	const epoch = 2_208_988_800 // of NTP, before UNIX's
	return &rtcp.SenderReport{
		SSRC:    uint32(s.sender.GetParameters().Encodings[0].SSRC),
		NTPTime: uint64(now.Unix()+epoch)<<32 | uint64(now.Nanosecond())<<32/uint64(time.Second),
		RTPTime: s.rtpTime(at), PacketCount: s.packets, OctetCount: s.octets,
	}
}

func (s *stream) rtpTime(at time.Duration) uint32 {
	clock := int64(s.clock)
	return s.base + uint32(int64(at/time.Second)*clock+int64(at%time.Second)*clock/int64(time.Second))
}

// Gone is closed when the node has ended the connection.
func (f *Feed) Gone() <-chan struct{} { return f.gone }

// Video publishes an access unit (Annex B, without B-pictures) that is shown at a time of the publication.
func (f *Feed) Video(at time.Duration, annexB []byte) {
	if f.video == nil {
		return
	}
	f.time(at)
	f.video.write(at, (&codecs.H264Payloader{}).Payload(mtu, annexB), nil)
}

// Audio publishes an Opus packet whose loudness is level in −dBov, 0 to 127.
func (f *Feed) Audio(at time.Duration, level uint8, packet []byte) {
	if f.audio == nil {
		return
	}
	f.time(at)
	f.audio.write(at, [][]byte{packet}, &level)
}

// time sets the publication's time 0 by its first unit.
func (f *Feed) time(at time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.zero.IsZero() {
		f.zero = time.Now().Add(-at)
	}
}

func (s *stream) write(at time.Duration, payloads [][]byte, level *uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, payload := range payloads {
		p := &rtp.Packet{
			Header: rtp.Header{
				Version: 2, SequenceNumber: s.seq, Timestamp: s.rtpTime(at),
				Marker: i == len(payloads)-1 && level == nil || level != nil && !s.begun, // RFC 6184 section 5.1; RFC 3551 section 4.1
			},
			Payload: payload,
		}
		if level != nil && s.level != 0 {
			_ = p.SetExtension(s.level, []byte{*level & 0x7f})
		}
		s.seq++
		s.packets++
		s.octets += uint32(len(payload))
		s.begun = true
		_ = s.track.WriteRTP(p) // fails only when the connection has ended
	}
}

// Close ends the connection and waits for its goroutines.
func (f *Feed) Close() {
	f.end()
	_ = f.pc.GracefulClose()
	f.tasks.Wait()
}
