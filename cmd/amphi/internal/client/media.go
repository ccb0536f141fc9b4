package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pion/webrtc/v4"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// MediaConfig configures a Media.
type MediaConfig struct {
	API *webrtc.API
	// Certificate saves making one for each of many connections; nil makes one.
	Certificate *webrtc.Certificate
	// OnTrack is called for each receiving section when its first packet has come, on a goroutine of its
	// own, and may block: it usually reads until the error that Media.Close causes. May be nil.
	OnTrack func(mid string, remote *webrtc.TrackRemote)
	// Generation of the peer's connections that this one is; 0 is the first.
	Generation uint32
}

// Media is the PeerConnection of a joined peer: always the offerer, receiving sections as slots.
type Media struct {
	client *Client
	pc     *webrtc.PeerConnection
	cfg    MediaConfig
	wg     sync.WaitGroup
	turn   chan struct{} // holds one value: whoever takes it may negotiate

	connectedOnce sync.Once
	connected     chan struct{}

	mu      sync.Mutex // guards the fields below
	closed  bool
	audio   int
	video   int
	senders []*Sender
	slots   map[string]string // mid -> track id
}

// NewMedia makes a PeerConnection for c, which must have joined; nothing is negotiated yet.
func NewMedia(c *Client, cfg MediaConfig) (*Media, error) {
	if cfg.API == nil {
		return nil, errors.New("making a peer connection: no API")
	}
	conf := webrtc.Configuration{}
	if cfg.Certificate != nil {
		conf.Certificates = []webrtc.Certificate{*cfg.Certificate}
	}
	pc, err := cfg.API.NewPeerConnection(conf)
	if err != nil {
		return nil, fmt.Errorf("making a peer connection: %w", err)
	}
	m := &Media{
		client: c, pc: pc, cfg: cfg, turn: make(chan struct{}, 1),
		connected: make(chan struct{}), slots: make(map[string]string),
	}
	m.turn <- struct{}{}
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			m.connectedOnce.Do(func() { close(m.connected) })
		}
	})
	pc.OnTrack(m.onTrack)
	return m, nil
}

func (m *Media) onTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	if m.cfg.OnTrack == nil || !m.enter() {
		return
	}
	defer m.wg.Done()
	mid := ""
	for _, t := range m.pc.GetTransceivers() {
		if t.Receiver() == receiver {
			mid = t.Mid()
		}
	}
	m.cfg.OnTrack(mid, remote)
}

// enter counts a goroutine that Close waits for; false when it is closed already.
func (m *Media) enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Add(1)
	return true
}

// Connected is closed when ICE and DTLS are through.
func (m *Media) Connected() <-chan struct{} { return m.connected }

// PeerConnection is the connection itself, for statistics and RTCP.
func (m *Media) PeerConnection() *webrtc.PeerConnection { return m.pc }

// AddSlots adds receiving sections until there are audio and video of them. Negotiate makes it effective.
func (m *Media) AddSlots(audio, video int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	init := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	for ; m.audio < audio; m.audio++ {
		if _, err := m.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, init); err != nil {
			return fmt.Errorf("adding an audio slot: %w", err)
		}
	}
	for ; m.video < video; m.video++ {
		if _, err := m.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, init); err != nil {
			return fmt.Errorf("adding a video slot: %w", err)
		}
	}
	return nil
}

// Negotiate offers what there is now. Calls take turns.
func (m *Media) Negotiate(ctx context.Context) error {
	select {
	case <-m.turn:
		defer func() { m.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	offer, err := m.pc.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("making an offer: %w", err)
	}
	if err := m.pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("setting the offer: %w", err)
	}
	answer, err := m.client.Negotiate(ctx, &amphiv1.Negotiate{Sdp: offer.SDP, Publish: m.sections(), Generation: max(1, m.cfg.Generation)})
	if err != nil {
		return err
	}
	if err := m.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		return fmt.Errorf("setting the answer: %w", err)
	}
	m.mu.Lock()
	senders := append([]*Sender(nil), m.senders...)
	m.mu.Unlock()
	for _, s := range senders {
		s.negotiated()
	}
	return nil
}

func (m *Media) sections() []*amphiv1.PublishedSection {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*amphiv1.PublishedSection
	for _, s := range m.senders {
		if mid := s.transceiver.Mid(); mid != "" {
			out = append(out, &amphiv1.PublishedSection{Mid: mid, TrackId: s.trackID})
		}
	}
	return out
}

// Handle takes what the server says about slots from Config.OnMessage. It reports whether the client
// must now AddSlots and Negotiate, and for how many.
func (m *Media) Handle(msg *amphiv1.ServerMessage) (need *amphiv1.SlotsNeeded) {
	if s := msg.GetSlots(); s != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		clear(m.slots)
		for _, slot := range s.GetSlots() {
			m.slots[slot.GetMid()] = slot.GetTrackId()
		}
	}
	return msg.GetSlotsNeeded()
}

// TrackOf is the id of the track that a receiving section carries now, "" if none.
func (m *Media) TrackOf(mid string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slots[mid]
}

// Close ends the connection and waits for its goroutines. It may be repeated.
func (m *Media) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	err := m.pc.GracefulClose()
	m.wg.Wait()
	return err
}
