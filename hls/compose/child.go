package compose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/packet"
)

// Child is a Composer that runs amphi-compositor.
type Child struct {
	cfg Config
	out Output
	log *slog.Logger

	current                      atomic.Pointer[life] // the process that takes packets; nil without
	packets                      atomic.Int64
	lead                         atomic.Int32 // the first variant that does not idle
	dropNone, dropFull, dropLong atomic.Int64

	mu        sync.Mutex // guards the fields below; never held while writing to the process
	desired   Desired
	stats     Stats
	peak      time.Duration
	peakSince time.Time
	warned    bool // that the process runs as root
}

const (
	minBackoff = 250 * time.Millisecond
	goodLife   = 5 * time.Second // a life that ends the back-off
)

// Run implements Composer.
func (c *Child) Run(ctx context.Context) error {
	var wait time.Duration
	for ctx.Err() == nil {
		begun := time.Now()
		err := c.live(ctx)
		if ctx.Err() != nil {
			break
		}
		c.note(func(s *Stats) {
			s.State, s.PID, s.LastExit = Down, 0, err.Error()
			s.Exits++
		})
		if time.Since(begun) >= goodLife {
			wait = 0
		}
		c.log.Warn("compositor ended", "err", err, "lived", time.Since(begun).Round(time.Millisecond), "next_start_in", wait)
		if !sleep(ctx, wait) {
			break
		}
		wait = min(max(2*wait, minBackoff), c.cfg.MaxBackoff)
	}
	c.note(func(s *Stats) { s.State, s.PID = Down, 0 })
	return nil
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Child) note(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}

// Set implements Composer.
func (c *Child) Set(d Desired) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.desired
	c.desired = Desired{
		Inputs: slices.Clone(d.Inputs), Scene: d.Scene, Mix: wire.AudioMix{Inputs: slices.Clone(d.Mix.Inputs)},
		Pictures: slices.Clone(d.Pictures), Idle: d.Idle,
	}
	c.desired.Scene.Tiles = slices.Clone(d.Scene.Tiles)
	lead := 0
	for lead < len(c.cfg.Start.Variants)-1 && d.Idle.Has(lead) {
		lead++
	}
	c.lead.Store(int32(lead))
	l := c.current.Load()
	if l == nil {
		return
	}
	frames, err := difference(nil, &old, &c.desired)
	if err != nil {
		c.log.Error("compositor not told", "err", err)
		return
	}
	if len(frames) > 0 && !l.box.addControl(frames) {
		l.abort(errStuck)
	}
}

// difference appends the frames that lead from one wish to another.
func difference(b []byte, from, to *Desired) ([]byte, error) {
	var err error
	had := make(map[uint32]*wire.AddInput, len(from.Inputs))
	for i := range from.Inputs {
		had[from.Inputs[i].ID] = &from.Inputs[i]
	}
	for i := range to.Inputs {
		in := &to.Inputs[i]
		if had[in.ID] == nil {
			if b, err = wire.AppendAddInput(b, in); err != nil {
				return nil, fmt.Errorf("adding input %d: %w", in.ID, err)
			}
		}
		delete(had, in.ID)
	}
	if b, err = pictures(b, to.Pictures, from.Pictures, false); err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(from.Scene, to.Scene) {
		if b, err = wire.AppendScene(b, &to.Scene); err != nil {
			return nil, fmt.Errorf("setting the scene: %w", err)
		}
	}
	if !reflect.DeepEqual(from.Mix, to.Mix) {
		if b, err = wire.AppendAudioMix(b, &to.Mix); err != nil {
			return nil, fmt.Errorf("setting the audio mix: %w", err)
		}
	}
	if from.Idle != to.Idle {
		b = wire.AppendIdle(b, to.Idle)
	}
	// Last, so that no scene names what is gone.
	if b, err = pictures(b, from.Pictures, to.Pictures, true); err != nil {
		return nil, err
	}
	for _, in := range from.Inputs {
		if had[in.ID] != nil {
			b = wire.AppendRemoveInput(b, in.ID)
		}
	}
	return b, nil
}

// pictures appends those of list that are not in other: to be kept, or to be forgotten.
func pictures(b []byte, list, other []wire.Picture, forget bool) ([]byte, error) {
	for _, p := range list {
		if slices.ContainsFunc(other, func(have wire.Picture) bool { return have.Key == p.Key }) {
			continue
		}
		if forget {
			p.Data = nil
		}
		var err error
		if b, err = wire.AppendPicture(b, p); err != nil {
			return nil, fmt.Errorf("handing over a picture: %w", err)
		}
	}
	return b, nil
}

// WriteRTP implements Composer.
func (c *Child) WriteRTP(input uint32, p *packet.Packet) {
	l := c.current.Load()
	if l == nil {
		c.countDrop(DropNoCompositor)
		return
	}
	c.countDrop(l.box.rtp(input, p))
}

// WriteSenderReport implements Composer.
func (c *Child) WriteSenderReport(input uint32, sr packet.SenderReport) {
	l := c.current.Load()
	if l == nil {
		c.countDrop(DropNoCompositor)
		return
	}
	if d := l.box.report(input, sr); d != "" {
		c.countDrop(d)
	}
}

// open makes l the current process: all that is wanted so far is the first thing that
// it is told, and every later wish a difference to it.
func (c *Child) open(l *life) error {
	start := c.cfg.Start
	now := time.Now()
	start.FirstTick = c.cfg.FirstTick(now)
	// The process goes by the wall clock of its start, which may have been set since ours.
	start.EpochNS = now.UnixNano() - int64(now.Sub(c.cfg.Epoch))
	b, err := wire.AppendStart(nil, &start)
	if err != nil {
		return fmt.Errorf("telling the compositor to start: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, err = difference(b, &Desired{}, &c.desired); err != nil {
		return err
	}
	l.box.addControl(b)
	c.current.Store(l)
	return nil
}

var (
	errStuck   = errors.New("compositor does not read its control frames")
	errSilent  = errors.New("compositor is silent")
	errHangUp  = errors.New("compositor hung up")
	errStopped = errors.New("stopped")
)
