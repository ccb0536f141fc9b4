package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/feed"
	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/rtmp"
	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
	headless "github.com/amphi-sfu/amphi/signal/whip"
)

const (
	rtmpApp = "live"
	// What a transcoder makes where the role says nothing else.
	transcodedWidth, transcodedHeight = 1280, 720
	transcodedFPS                     = 30
	transcodedKbps, opusKbps          = 2500, 96 // of sound also where the role has less: that is for voices, one channel
	transcodedKeyframes               = 4 * time.Second
	// joinTime and leaveTime bound how long it may take to come into the room with media, and to leave it.
	joinTime  = 10 * time.Second
	leaveTime = 5 * time.Second
)

// encoders admits encoders that publish over RTMP: each becomes a peer without a WebSocket, as over WHIP.
type encoders struct {
	log        *slog.Logger
	signal     *signal.Server
	media      *media.Engine
	compositor string
	// Transcoders that ended though nobody had asked for it: by themselves, and by us because nothing came out of them.
	died, quiet atomic.Uint64
}

// newRTMP opens the RTMP port, nil where the node has none.
func (n *Node) newRTMP() (*rtmp.Server, error) {
	if n.cfg.RTMPAddr == "" {
		return nil, nil
	}
	path, err := compositorPath(n.cfg.CompositorPath)
	if err != nil {
		return nil, err
	}
	n.encoders = &encoders{log: n.log, signal: n.signal, media: n.media, compositor: path}
	return rtmp.New(rtmp.Config{Logger: n.log, Addr: n.cfg.RTMPAddr}, n.encoders)
}

// transcoderExits counts by reason; e may be nil.
func (e *encoders) transcoderExits() map[string]uint64 {
	if e == nil {
		return nil
	}
	return map[string]uint64{"died": e.died.Load(), "quiet": e.quiet.Load()}
}

// Publish implements rtmp.Stage.
func (e *encoders) Publish(_ context.Context, r rtmp.Request) (rtmp.Publication, error) {
	if r.App != rtmpApp {
		return nil, errors.New("the path is not /live/KEY")
	}
	who, err := e.signal.Encoder(r.Key, r.Remote)
	if err != nil {
		return nil, err
	}
	return &encoder{encoders: e, who: who, log: e.log.With("room", who.Room, "remote", r.Remote), gone: make(chan struct{})}, nil
}

// encoder is one that publishes.
type encoder struct {
	*encoders
	who  signal.Encoder
	log  *slog.Logger
	gone chan struct{}
	once sync.Once // closes gone

	session    string          // to end it
	left       <-chan struct{} // closed when it is out of the room
	feed       *feed.Feed
	transcoder *compose.Transcoder
	passes     bool // pictures need no transcoder
	limit      allowance
	stop       context.CancelFunc
	tasks      sync.WaitGroup
}

// passes tells whether pictures need no transcoder: every WebRTC client decodes them, for they are of (constrained) baseline
// profile, which has no B-pictures, and they are no larger than the role's.
func passes(f rtmp.Format, role *amphiv1.PublishParams) bool {
	most := settings(role, true)
	long, short := max(f.Width, f.Height), min(f.Width, f.Height)
	return len(f.SPS) > 3 && f.SPS[1] == 66 && long <= max(most.MaxWidth, most.MaxHeight) && short <= min(most.MaxWidth, most.MaxHeight)
}

// Begin implements rtmp.Publication: the encoder joins.
func (e *encoder) Begin(ctx context.Context, f rtmp.Format) error {
	video, audio := f.SPS != nil && e.who.Publish.GetVideo(), f.AudioConfig != nil && e.who.Publish.GetAudio()
	if !video && !audio {
		return errors.New("the role publishes none of what comes")
	}
	e.passes = passes(f, e.who.Publish)
	e.limit = newAllowance(settings(e.who.Publish, true).Bitrate)
	if err := e.prepare(video && !e.passes, audio, f.AudioConfig); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	var err error
	e.feed, err = feed.Start(ctx, feed.Config{
		Video: video, Audio: audio, Node: e.media.UDPAddr,
		Publish: func(ctx context.Context, offer string) (string, error) {
			s, err := e.signal.Headless().Publish(ctx, headless.Request{Token: e.who.Token, Room: e.who.Room, Offer: offer})
			e.session, e.left = s.ID, s.Gone
			return s.Answer, err
		},
		OnKeyframeRequest: func() {
			if e.transcoder != nil && !e.passes {
				e.transcoder.ForceKeyframe()
			}
		},
	})
	if err != nil {
		return err
	}
	var life context.Context
	life, e.stop = context.WithCancel(context.Background())
	if e.transcoder != nil {
		e.tasks.Go(func() {
			if err := e.transcoder.Run(life); err != nil {
				e.log.Error("transcoding for an encoder", "err", err)
				e.leave()
			}
		})
	}
	e.tasks.Go(func() {
		select {
		case <-e.feed.Gone():
			e.leave()
		case <-e.left:
			e.leave()
		case <-life.Done():
		}
	})
	e.log.Info("encoder publishes over RTMP", "role", e.who.Role, "video", video, "audio", audio, "transcoded", video && !e.passes)
	return nil
}

func (e *encoder) leave() { e.once.Do(func() { close(e.gone) }) }

// prepare makes the transcoder that what comes needs.
func (e *encoder) prepare(video, audio bool, config []byte) error {
	if !video && !audio {
		return nil
	}
	t := settings(e.who.Publish, video)
	if audio {
		t.AudioConfig = config
	}
	var err error
	e.transcoder, err = compose.NewTranscoder(compose.TranscodeConfig{
		Logger: e.log, Path: e.compositor, Transcode: t,
		OnUnit: func(typ wire.Type, u wire.Unit) {
			if typ == wire.TypeTargetVideo {
				e.feed.Video(u.Time, u.Data)
			} else {
				e.feed.Audio(u.Time, u.Level, u.Data)
			}
		},
		OnEnd: func(err error) {
			if errors.Is(err, compose.ErrQuiet) {
				e.quiet.Add(1)
			} else {
				e.died.Add(1)
			}
		},
	})
	return err
}

// settings are what the role's settings make of a transcoder.
func settings(p *amphiv1.PublishParams, video bool) wire.Transcode {
	v := p.GetVideoParams()
	or := func(n uint32, def int) int {
		if n == 0 {
			return def
		}
		return int(n)
	}
	return wire.Transcode{
		Video: video, MaxWidth: or(v.GetWidth(), transcodedWidth), MaxHeight: or(v.GetHeight(), transcodedHeight),
		FPS: min(max(or(v.GetFramerate(), transcodedFPS), 5), 60), Bitrate: 1000 * or(v.GetBitrateKbps(), transcodedKbps),
		KeyframeEvery: transcodedKeyframes, AudioBitrate: 1000 * max(or(p.GetAudioParams().GetBitrateKbps(), opusKbps), opusKbps),
	}
}

// Video implements rtmp.Publication.
func (e *encoder) Video(pts time.Duration, key bool, annexB []byte) {
	if e.passes {
		if !e.limit.takes(pts, len(annexB)) {
			e.log.Warn("encoder sends more than its role may", "kbps", e.limit.perSecond*8/1000)
			e.leave()
			return
		}
		e.feed.Video(pts, annexB)
	} else if e.transcoder != nil {
		e.transcoder.WriteVideo(pts, key, annexB)
	}
}

// Audio implements rtmp.Publication.
func (e *encoder) Audio(pts time.Duration, au []byte) {
	if e.transcoder != nil {
		e.transcoder.WriteAudio(pts, au)
	}
}

// Gone implements rtmp.Publication.
func (e *encoder) Gone() <-chan struct{} { return e.gone }

// Close implements rtmp.Publication: the encoder leaves the room.
func (e *encoder) Close() {
	if e.stop != nil {
		e.stop()
	}
	e.tasks.Wait()
	if e.feed != nil {
		e.feed.Close()
	}
	if e.session != "" {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
		defer cancel()
		_ = e.signal.Headless().End(ctx, e.session) // it may be out already
	}
}

// allowance bounds the bytes of pictures that are passed on, over some seconds of the encoder's own time.
type allowance struct {
	perSecond int64
	credit    int64
	last      time.Duration
}

const (
	// headroom is how much more than its bit rate an encoder may send, in quarters: rate control is no exact art.
	headroom = 6
	// allowed is for how long it may send twice that.
	allowed = 4
)

func newAllowance(bitrate int) allowance {
	perSecond := int64(bitrate) / 8 * headroom / 4
	return allowance{perSecond: perSecond, credit: perSecond * allowed}
}

func (a *allowance) takes(at time.Duration, n int) bool {
	if d := at - a.last; d > 0 {
		a.credit = min(a.credit+int64(min(d, time.Minute)/time.Millisecond)*a.perSecond/1000, a.perSecond*allowed)
		a.last = at
	}
	a.credit -= int64(n)
	return a.credit >= 0
}
