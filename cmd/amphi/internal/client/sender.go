package client

import (
	"fmt"
	"sync/atomic"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// Sender sends one published track, as one encoding or as simulcast.
type Sender struct {
	trackID     string
	rids        []string
	tracks      []*webrtc.TrackLocalStaticRTP
	transceiver *webrtc.RTPTransceiver
	exts        atomic.Pointer[extensions]
	keyframe    func(layer int)
}

// extensions are the negotiated numbers of the RTP header extensions that a Sender writes; 0 is none.
type extensions struct {
	mid   string
	midID uint8
	ridID uint8
	level uint8
}

// SenderConfig describes a track that the peer has announced.
type SenderConfig struct {
	TrackID string
	// Codec is "opus", "vp8" or "h264".
	Codec string
	// RIDs in the order of layers, lowest first, as "q", "h", "f"; empty sends one encoding without RID.
	RIDs []string
	// OnKeyframeRequest is told which layer is asked for a keyframe, on a goroutine of the Sender; may be nil.
	OnKeyframeRequest func(layer int)
}

// AddSender adds a sending section for a published track. Negotiate makes it effective.
func (m *Media) AddSender(cfg SenderConfig) (*Sender, error) {
	capability := webrtc.RTPCodecCapability{ClockRate: 90000}
	switch cfg.Codec {
	case "opus":
		capability = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	case "vp8":
		capability.MimeType = webrtc.MimeTypeVP8
	case "h264":
		capability.MimeType = webrtc.MimeTypeH264
		capability.SDPFmtpLine = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	default:
		return nil, fmt.Errorf("adding a sender: codec %q is not opus, vp8 or h264", cfg.Codec)
	}
	s := &Sender{trackID: cfg.TrackID, rids: cfg.RIDs, keyframe: cfg.OnKeyframeRequest}
	rids := cfg.RIDs
	if len(rids) == 0 {
		rids = []string{""}
	}
	for _, rid := range rids {
		var opts []func(*webrtc.TrackLocalStaticRTP)
		if rid != "" {
			opts = append(opts, webrtc.WithRTPStreamID(rid))
		}
		track, err := webrtc.NewTrackLocalStaticRTP(capability, cfg.TrackID, cfg.TrackID, opts...)
		if err != nil {
			return nil, fmt.Errorf("adding a sender: %w", err)
		}
		s.tracks = append(s.tracks, track)
	}
	if err := s.attach(m.pc); err != nil {
		return nil, fmt.Errorf("adding a sender: %w", err)
	}
	m.mu.Lock()
	m.senders = append(m.senders, s)
	m.mu.Unlock()
	for layer, rid := range rids {
		if m.enter() {
			go func() {
				defer m.wg.Done()
				s.readFeedback(layer, rid)
			}()
		}
	}
	return s, nil
}

func (s *Sender) attach(pc *webrtc.PeerConnection) (err error) {
	s.transceiver, err = pc.AddTransceiverFromTrack(s.tracks[0],
		webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return err
	}
	for _, t := range s.tracks[1:] {
		if err := s.transceiver.Sender().AddEncoding(t); err != nil {
			return err
		}
	}
	return nil
}

// readFeedback takes RTCP, which the interceptors need to be read, until the connection is closed.
func (s *Sender) readFeedback(layer int, rid string) {
	for {
		var packets []rtcp.Packet
		var err error
		if rid == "" {
			packets, _, err = s.transceiver.Sender().ReadRTCP()
		} else {
			packets, _, err = s.transceiver.Sender().ReadSimulcastRTCP(rid)
		}
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				if s.keyframe != nil {
					s.keyframe(layer)
				}
			}
		}
	}
}

// negotiated looks up the numbers of the header extensions.
func (s *Sender) negotiated() {
	e := &extensions{mid: s.transceiver.Mid()}
	for _, x := range s.transceiver.Sender().GetParameters().HeaderExtensions {
		switch x.URI {
		case sdp.SDESMidURI:
			e.midID = uint8(x.ID)
		case sdp.SDESRTPStreamIDURI:
			e.ridID = uint8(x.ID)
		case audioLevelURI:
			e.level = uint8(x.ID)
		}
	}
	s.exts.Store(e)
}

// TrackID is the id of the published track.
func (s *Sender) TrackID() string { return s.trackID }

// Send writes p on a layer, 0 for a track without simulcast; SSRC, payload type and the extensions that
// name section and layer are filled in. level is the audio's level in -dBov, 0 to 127, and is ignored for
// video. Packets sent before the negotiation is through are dropped.
func (s *Sender) Send(layer int, p *rtp.Packet, level uint8) error {
	e := s.exts.Load()
	if e == nil {
		return nil
	}
	p.Header.Extension, p.Header.Extensions = false, p.Header.Extensions[:0]
	if e.midID != 0 {
		if err := p.Header.SetExtension(e.midID, []byte(e.mid)); err != nil {
			return err
		}
	}
	if e.ridID != 0 && len(s.rids) > 0 {
		if err := p.Header.SetExtension(e.ridID, []byte(s.rids[layer])); err != nil {
			return err
		}
	}
	if e.level != 0 && s.tracks[0].Kind() == webrtc.RTPCodecTypeAudio {
		// RFC 6464: the top bit says that it is voice.
		if err := p.Header.SetExtension(e.level, []byte{0x80 | level&0x7f}); err != nil {
			return err
		}
	}
	return s.tracks[layer].WriteRTP(p)
}
