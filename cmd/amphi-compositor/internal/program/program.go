//go:build cgo

// Package program is one live program: inputs are decoded as they come, one clock
// paints and encodes every tick, another mixes the voices, and nothing that an
// input does or omits can stall, shift or gap what goes out.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/label"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// Config of a program.
type Config struct {
	Logger  *slog.Logger // slog.Default when nil
	Fonts   *label.Fonts // required
	Version string       // reported in Ready
}

// Program obeys the node at the other end of a connection.
type Program struct {
	log     *slog.Logger
	cfg     Config
	conn    net.Conn
	out     *sender
	start   *wire.Start
	clock   clock
	grid    mix.Grid
	inputs  *inputs
	scenes  *scenes
	video   *video
	audio   *audio
	working sync.WaitGroup // goroutines of Run
}

// clock counts from the program's epoch; it never steps while the process lives.
type clock struct {
	zero  time.Time // has a monotonic reading
	since time.Duration
}

func newClock(epochNS int64) clock {
	now := time.Now()
	return clock{zero: now, since: time.Duration(now.UnixNano() - epochNS)}
}

// now is the time since the epoch.
func (c clock) now() time.Duration { return c.since + time.Since(c.zero) }

// New makes a program that will talk over conn.
func New(cfg Config, conn net.Conn) (*Program, error) {
	if cfg.Fonts == nil {
		return nil, errors.New("program without fonts")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Program{log: cfg.Logger, cfg: cfg, conn: conn, out: newSender(conn)}, nil
}

// Run serves until the node closes its end or parent ends (nil), or something fails
// that a new process would do better. It returns after all its goroutines have.
func (p *Program) Run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = p.conn.Close() }) // ends reads and writes
	defer stop()

	r := wire.NewReader(p.conn)
	f, err := r.Next()
	if err != nil {
		return outcome(parent, ctx, err)
	}
	s, err := f.Start()
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	if err := p.open(s); err != nil {
		return err
	}
	spawn := func(doing string, f func(context.Context) error) {
		p.working.Go(func() {
			if err := f(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", doing, err))
			}
		})
	}
	spawn("making scenes", p.scenes.run)
	spawn("encoding video", p.video.run)
	spawn("encoding audio", p.audio.run)
	spawn("reporting", p.report)
	err = p.obey(ctx, r)
	cancel(err)
	p.inputs.closeAll()
	p.working.Wait()
	p.video.close()
	p.audio.close()
	p.inputs.free()
	return outcome(parent, ctx, err)
}

// outcome turns what ended the reader into what ended the program: nil when it was told
// to end, else what failed first, such as an encoder.
func outcome(parent, ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if parent.Err() != nil || hungUp(err) {
		return nil
	}
	return err
}

// hungUp tells whether the node closed its end: the reader sees EOF, but a writer may
// notice before.
func hungUp(err error) bool {
	for _, e := range []error{io.EOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// open makes everything that Start describes, and answers Ready.
func (p *Program) open(s *wire.Start) error {
	p.start = s
	p.clock = newClock(s.EpochNS)
	p.grid = mix.Grid{FPS: int64(s.FPS), PartTicks: int64(s.PartTicks), GOPTicks: int64(s.GOPTicks)}
	p.inputs = newInputs(p)
	p.scenes = newScenes(p)
	var err error
	if p.audio, err = newAudio(p); err != nil {
		return err
	}
	if p.video, err = newVideo(p); err != nil {
		p.audio.close()
		return err
	}
	first := p.grid.First(s.FirstTick, p.clock.now())
	p.video.first = first
	firstSample := p.audio.begin(first)
	encoder := s.Encoder
	if encoder == "" {
		encoder = "x264"
	}
	return p.out.ready(&wire.Ready{
		FirstTick: first, FirstSample: firstSample, AudioConfig: p.audio.config(),
		Encoder: encoder, Version: p.cfg.Version + "; " + av.Version(),
	})
}

// obey follows the node's frames until the connection ends.
func (p *Program) obey(ctx context.Context, r *wire.Reader) error {
	for {
		f, err := r.Next()
		if err != nil {
			return err
		}
		if err := p.handle(ctx, f); err != nil {
			return err
		}
	}
}

// handle dispatches one frame. A control message whose content can't be obeyed is
// refused and counted, and what was before stays: the name of one peer must not end
// the program for all. What isn't even a frame of ours is an error.
func (p *Program) handle(ctx context.Context, f wire.Frame) error {
	switch f.Type {
	case wire.TypeRTP:
		m, err := f.RTP()
		if err == nil {
			p.inputs.packet(m, p.clock.now())
		}
		return err
	case wire.TypeSenderReport:
		m, err := f.SenderReport()
		if err == nil {
			p.inputs.senderReport(m, p.clock.now())
		}
		return err
	case wire.TypeAddInput:
		m, err := f.AddInput()
		if p.accepts(err) {
			p.inputs.add(ctx, m)
		}
		return nil
	case wire.TypeRemoveInput:
		id, err := f.RemoveInput()
		if err == nil {
			p.inputs.remove(id)
		}
		return err
	case wire.TypeScene:
		m, err := f.Scene()
		if p.accepts(err) {
			p.scenes.want(m)
		}
		return nil
	case wire.TypeIdle:
		m, err := f.Idle()
		if err == nil {
			p.video.unseen.Store(uint32(m))
		}
		return err
	case wire.TypePicture:
		m, err := f.Picture()
		if err == nil && !p.scenes.keep(m) {
			p.inputs.drop(dropRefused, 1)
		}
		return err
	case wire.TypeAudioMix:
		m, err := f.AudioMix()
		if p.accepts(err) {
			p.inputs.mix(m)
		}
		return nil
	case wire.TypeForceKeyframe:
		p.video.force.Store(true)
		return nil
	}
	return fmt.Errorf("frame type %d from the node", f.Type)
}

// accepts tells whether a control message was understood; one that was not is counted.
func (p *Program) accepts(err error) bool {
	if err == nil {
		return true
	}
	p.inputs.drop(dropRefused, 1)
	p.log.Warn("control message refused", "err", err)
	return false
}
