package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/clip"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// joinTimeout is how long one peer may take to join and connect.
const joinTimeout = 30 * time.Second

// publisher is one peer that sends the clip in a loop.
type publisher struct {
	run    *run
	client *client.Client
	media  *client.Media
	video  *client.Sender
	audio  *client.Sender
	// sent is when each payload of the clip was last written, Unix nanoseconds.
	sent []atomic.Int64
	// restart asks a layer for its keyframe.
	restart   []atomic.Bool
	requested atomic.Uint64
}

func certificate() (*webrtc.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return cert, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// startPublishers joins them one after the other and lets them send until ctx ends.
func (r *run) startPublishers(ctx context.Context, wg *sync.WaitGroup) error {
	for i := range r.cfg.Publishers {
		p, err := r.newPublisher(ctx, i)
		if err != nil {
			return fmt.Errorf("publisher %d: %w", i, err)
		}
		wg.Go(func() {
			defer leave(p.client)
			defer p.media.Close()
			// Publishers don't send in step.
			offset := time.Duration(i) * r.clip.FrameInterval / time.Duration(r.cfg.Publishers)
			if err := p.send(ctx, offset); err != nil && ctx.Err() == nil {
				r.fail(fmt.Sprintf("publisher %d", i), err)
			}
		})
	}
	return nil
}

func (r *run) newPublisher(ctx context.Context, i int) (*publisher, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	token, err := r.cfg.Token(r.cfg.Roles.Publish, fmt.Sprintf("load-publisher-%d", i))
	if err != nil {
		return nil, err
	}
	p := &publisher{run: r, sent: make([]atomic.Int64, r.clip.Payloads), restart: make([]atomic.Bool, len(r.clip.Layers))}
	p.client, err = client.Dial(ctx, client.Config{
		URL: r.cfg.URL, Open: r.cfg.Open, Token: token, Agent: "amphi-load", OnMessage: r.chat.receive,
		Join: &amphiv1.Join{Name: fmt.Sprintf("Publisher %d", i)},
	})
	if err != nil {
		return nil, err
	}
	if err := p.connect(ctx); err != nil {
		if p.media != nil {
			_ = p.media.Close()
		}
		_ = p.client.Close()
		return nil, err
	}
	r.chat.add(p.client)
	return p, nil
}

func (p *publisher) connect(ctx context.Context) error {
	api, err := client.NewAPI(client.TransportConfig{Loopback: p.run.loopback, Respond: true, Codec: "vp8"})
	if err != nil {
		return err
	}
	if p.media, err = client.NewMedia(p.client, client.MediaConfig{API: api, Certificate: p.run.cert}); err != nil {
		return err
	}
	if err := p.announce(ctx); err != nil {
		return err
	}
	if err := p.media.Negotiate(ctx); err != nil {
		return err
	}
	select {
	case <-p.media.Connected():
		return nil
	case <-p.client.Done():
		return p.client.Err()
	case <-ctx.Done():
		return fmt.Errorf("connecting the media: %w", ctx.Err())
	}
}

func (p *publisher) announce(ctx context.Context) error {
	r := p.run
	mic, err := p.client.Publish(ctx, &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic"})
	if err != nil {
		return err
	}
	if p.audio, err = p.media.AddSender(client.SenderConfig{TrackID: mic.GetId(), Codec: "opus"}); err != nil {
		return err
	}
	if r.cfg.Traffic == Audio {
		p.own(mic.GetId())
		return nil
	}
	best := r.clip.Layers[len(r.clip.Layers)-1]
	announce := &amphiv1.PublishTrack{
		Kind: amphiv1.Kind_KIND_VIDEO, Source: "camera", Width: uint32(best.Width), Height: uint32(best.Height),
	}
	var rids []string
	if len(r.clip.Layers) > 1 {
		for i := len(r.clip.Layers) - 1; i >= 0; i-- {
			l := r.clip.Layers[i]
			rids = append([]string{l.RID}, rids...)
			announce.Layers = append(announce.Layers, &amphiv1.SimulcastLayer{
				Rid: l.RID, ScaleDownBy: float64(best.Width) / float64(l.Width), MaxBitrateKbps: uint32(l.BitrateKbps) * 2,
			})
		}
	}
	camera, err := p.client.Publish(ctx, announce)
	if err != nil {
		return err
	}
	p.video, err = p.media.AddSender(client.SenderConfig{
		TrackID: camera.GetId(), Codec: "vp8", RIDs: rids, OnKeyframeRequest: func(layer int) {
			p.requested.Add(1)
			p.restart[layer].Store(true)
		},
	})
	p.own(mic.GetId(), camera.GetId())
	return err
}

func (p *publisher) own(tracks ...string) {
	p.run.mu.Lock()
	defer p.run.mu.Unlock()
	for _, id := range tracks {
		p.run.publishers[id] = p
	}
}

// sending is where the loop of a publisher is.
type sending struct {
	frame   []int // next frame of each layer
	picture []uint16
	seq     []uint16
	buf     []byte
}

// send writes audio and video by the clock until ctx ends.
func (p *publisher) send(ctx context.Context, offset time.Duration) error {
	c := p.run.clip
	began := time.Now().Add(offset)
	s := &sending{
		frame: make([]int, len(c.Layers)), picture: make([]uint16, len(c.Layers)), seq: make([]uint16, len(c.Layers)),
		buf: make([]byte, 0, 1500),
	}
	var video, audio int
	for {
		nextVideo := began.Add(time.Duration(video) * c.FrameInterval)
		nextAudio := began.Add(time.Duration(audio) * clip.AudioInterval)
		if p.video == nil || nextAudio.Before(nextVideo) {
			if !sleep(ctx, time.Until(nextAudio)) {
				return nil
			}
			pkt := &rtp.Packet{
				Header: rtp.Header{
					Version: 2, SequenceNumber: uint16(audio), Timestamp: uint32(audio) * 960, Marker: audio == 0,
				},
				Payload: c.Audio[audio%len(c.Audio)],
			}
			if err := p.audio.Send(0, pkt, 30); err != nil {
				return fmt.Errorf("sending audio: %w", err)
			}
			audio++
			continue
		}
		if !sleep(ctx, time.Until(nextVideo)) {
			return nil
		}
		timestamp := uint32(time.Duration(video) * c.FrameInterval * 90_000 / time.Second)
		for layer := range c.Layers {
			if err := p.sendFrame(ctx, s, layer, timestamp); err != nil {
				return fmt.Errorf("sending video: %w", err)
			}
		}
		video++
	}
}

func (p *publisher) sendFrame(ctx context.Context, s *sending, layer int, timestamp uint32) error {
	frames := p.run.clip.Layers[layer].Frames
	if p.restart[layer].Swap(false) {
		s.frame[layer] = 0
	}
	for i, payload := range frames[s.frame[layer]] {
		if i > 0 && p.run.cfg.Pace > 0 {
			sleep(ctx, p.run.cfg.Pace)
		}
		s.buf = clip.Describe(s.buf, s.picture[layer], payload)
		pkt := &rtp.Packet{
			Header:  rtp.Header{Version: 2, SequenceNumber: s.seq[layer], Timestamp: timestamp, Marker: payload.Last},
			Payload: s.buf,
		}
		s.seq[layer]++
		p.sent[payload.Index].Store(time.Now().UnixNano())
		if err := p.video.Send(layer, pkt, 0); err != nil {
			return err
		}
	}
	s.picture[layer]++
	s.frame[layer] = (s.frame[layer] + 1) % len(frames)
	return nil
}
