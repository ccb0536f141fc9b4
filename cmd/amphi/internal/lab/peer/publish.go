package peer

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/record"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/clip"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// What is sent: shaped like audio and video, but only servers can read it.
const (
	audioInterval = 20 * time.Millisecond
	audioSize     = 80
	frameInterval = time.Second / 30
	// videoSize is the payload of each packet, of which a frame of the layers has one, two and three.
	videoSize      = 900
	layers         = 3
	defaultPackets = 3
	// keyEvery is the number of frames between keyframes that nobody asked for.
	keyEvery = 300
)

// sender publishes one microphone and one camera.
type sender struct {
	peer         *Peer
	audio, video *client.Sender
	layers       []int // packets per frame of each
	key          [layers]atomic.Bool
	buf          []byte
}

// publish announces the tracks; a peer that resumed gets those that it had.
func (c *connection) publish(ctx context.Context) (*sender, error) {
	s := &sender{peer: c.peer, layers: []int{defaultPackets}}
	if c.peer.cfg.Packets > 0 {
		s.layers[0] = c.peer.cfg.Packets
	}
	mic, err := c.client.Publish(ctx, &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic"})
	if err != nil {
		return nil, err
	}
	if s.audio, err = c.media.AddSender(client.SenderConfig{TrackID: mic.GetId(), Codec: "opus"}); err != nil || c.peer.cfg.AudioOnly {
		return s, err
	}
	announce := &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_VIDEO, Source: "camera", Width: 1280, Height: 720}
	var rids []string
	if c.peer.cfg.Simulcast {
		s.layers = []int{1, 2, 3}
		for i, rid := range []string{"q", "h", "f"} {
			rids = append(rids, rid)
			announce.Layers = append([]*amphiv1.SimulcastLayer{{
				Rid: rid, ScaleDownBy: float64(int(4) >> i), MaxBitrateKbps: uint32(s.layers[i] * videoSize * 8 * 30 / 1000 * 2),
			}}, announce.Layers...)
		}
	}
	camera, err := c.client.Publish(ctx, announce)
	if err != nil {
		return nil, err
	}
	s.video, err = c.media.AddSender(client.SenderConfig{
		TrackID: camera.GetId(), Codec: "vp8", RIDs: rids, OnKeyframeRequest: func(layer int) { s.key[layer].Store(true) },
	})
	return s, err
}

// run sends by the clock until ctx ends. Packets that can't be written are lost, as on a dead link.
func (s *sender) run(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	var audio, frame int
	audioAt, frameAt := rand.Uint32(), rand.Uint32()
	audioSeq, videoSeq := uint16(rand.Uint32()), [layers]uint16{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		passed := time.Since(began)
		for ; time.Duration(audio)*audioInterval <= passed; audio++ {
			s.sendAudio(audioSeq, audioAt, audio == 0)
			audioSeq, audioAt = audioSeq+1, audioAt+960
		}
		for ; s.video != nil && time.Duration(frame)*frameInterval <= passed; frame++ {
			for layer := range s.layers {
				s.sendFrame(layer, &videoSeq[layer], frameAt, uint16(frame), frame%keyEvery == 0)
			}
			frameAt += 3000
		}
	}
}

func (s *sender) sendAudio(seq uint16, at uint32, first bool) {
	payload := make([]byte, audioSize)
	payload[0] = 0x78 // Opus: CELT, 20 ms, mono, one frame
	record.Stamp{
		Publisher: s.peer.cfg.Publisher, Layer: record.AudioLayer, Count: s.peer.counts.audio.Add(1), Sent: time.Now().UnixNano(),
	}.Put(payload)
	const spoken = 30 // -dBov
	_ = s.audio.Send(0, &rtp.Packet{
		Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: at, Marker: first}, Payload: payload,
	}, spoken)
}

// sendFrame sends a frame of a layer, which looks like VP8.
func (s *sender) sendFrame(layer int, seq *uint16, at uint32, picture uint16, key bool) {
	key = s.key[layer].Swap(false) || key
	packets := s.layers[layer]
	for i := range packets {
		data := make([]byte, videoSize)
		if i == 0 {
			frameHeader(data, key, 1280>>(len(s.layers)-1-layer), 720>>(len(s.layers)-1-layer))
		}
		record.Stamp{
			Publisher: s.peer.cfg.Publisher, Layer: uint8(layer), Count: s.peer.counts.video[layer].Add(1), Sent: time.Now().UnixNano(),
		}.Put(data)
		s.buf = clip.Describe(s.buf, picture&0x7fff, clip.Payload{Data: data, First: i == 0, Last: i == packets-1, Key: key})
		_ = s.video.Send(layer, &rtp.Packet{
			Header: rtp.Header{Version: 2, SequenceNumber: *seq, Timestamp: at, Marker: i == packets-1}, Payload: s.buf,
		}, 0)
		*seq++
	}
}

// frameHeader writes what a server reads of a VP8 frame (RFC 6386 section 9.1).
func frameHeader(b []byte, key bool, width, height int) {
	if !key {
		b[0] = 0x11
		return
	}
	b[0] = 0x10
	copy(b[3:], []byte{0x9d, 0x01, 0x2a, byte(width), byte(width >> 8), byte(height), byte(height >> 8)})
}
