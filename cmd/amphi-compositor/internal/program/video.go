//go:build cgo

package program

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

const (
	// sheets is how many pictures may be between the clock and the encoders.
	sheets = 4
	// behindMost is how far the clock may lag before ticks are left out: viewers need the present, not a slow past. Under overload,
	// where lost time isn't made up for, behindBusy is.
	behindMost = 500 * time.Millisecond
	behindBusy = 150 * time.Millisecond
)

// video is the clock of the picture.
type video struct {
	p        *Program
	first    int64
	force    atomic.Bool // an IDR on the next tick
	encoders []*encoder
	level    atomic.Int32  // mix.Level
	unseen   atomic.Uint32 // wire.Idle
	overload mix.Overload  // of run
	shown    *scene        // of run: the last one that was painted
	fade     fade          // of run

	ticks, late, newest atomic.Int64
	paintNS             atomic.Int64

	all []*sheet

	mu   sync.Mutex // guards free and refs of sheets
	free []*sheet   // the last one was used most recently
	idle chan struct{}
	fail context.CancelCauseFunc // ends run
}

func newVideo(p *Program) (*video, error) {
	v := &video{p: p, idle: make(chan struct{}, 1)}
	for range sheets {
		c, err := av.NewCanvas(p.start.Width, p.start.Height)
		if err != nil {
			v.close()
			return nil, fmt.Errorf("making a canvas: %w", err)
		}
		v.all = append(v.all, &sheet{canvas: c})
	}
	v.free = append(v.free, v.all...)
	for i := range p.start.Variants {
		e, err := newEncoder(p, i)
		if err != nil {
			v.close()
			return nil, err
		}
		v.encoders = append(v.encoders, e)
	}
	return v, nil
}

func (v *video) close() {
	for _, e := range v.encoders {
		e.close()
	}
	for _, s := range v.all {
		s.close()
	}
	v.fade.close()
	v.encoders, v.all, v.fade = nil, nil, fade{}
}

// run ticks until ctx ends, and waits for the encoders.
func (v *video) run(ctx context.Context) error {
	ctx, v.fail = context.WithCancelCause(ctx)
	defer v.fail(nil)
	var encoding sync.WaitGroup
	for _, e := range v.encoders {
		encoding.Go(func() {
			e.run()
		})
	}
	err := v.tickAll(ctx) // jobs never fill up: there are as many as sheets
	for _, e := range v.encoders {
		close(e.jobs)
	}
	encoding.Wait()
	return err
}

// tickAll calls tick for every tick, each at its time.
func (v *video) tickAll(ctx context.Context) error {
	grid := v.p.grid
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last *sheet
	missedKey := false
	behind := behindMost
	for tick := v.first; ; tick++ {
		if wait := grid.TickTime(tick) - v.p.clock.now(); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return cause(ctx)
			}
		} else if -wait > behind {
			to := grid.TickAt(v.p.clock.now())
			v.p.inputs.drop(dropTickSkipped, to-tick)
			for ; tick < to; tick++ {
				missedKey = missedKey || grid.Key(tick)
			}
		}
		began := v.p.clock.now()
		late := began-grid.TickTime(tick) > grid.TickTime(1)
		if late {
			v.late.Add(1)
		}
		level := v.overload.Tick(began, late)
		v.level.Store(int32(level))
		behind = behindMost
		if level > mix.Normal {
			behind = behindBusy
		}
		key := grid.Key(tick) || missedKey || v.force.Swap(false) || tick == v.first
		missedKey = false
		if key || !grid.Spared(tick, level.Every()) {
			s := v.sheet(ctx)
			if s == nil {
				return cause(ctx)
			}
			v.paint(s, tick, last, level)
			last = s
			v.encode(s, tick, key)
		} else {
			v.p.inputs.drop(dropTickSpared, 1)
		}
		v.ticks.Add(1)
		v.newest.Store(tick)
	}
}

// cause is why an encoder ended ctx, nil when it was simply told to.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// sheet waits for a canvas that no encoder reads; nil when ctx ends.
func (v *video) sheet(ctx context.Context) *sheet {
	for {
		v.mu.Lock()
		if n := len(v.free); n > 0 {
			s := v.free[n-1]
			v.free = v.free[:n-1]
			v.mu.Unlock()
			return s
		}
		v.mu.Unlock()
		select {
		case <-v.idle:
		case <-ctx.Done():
			return nil
		}
	}
}

// release gives a canvas back when its last reader is done.
func (v *video) release(s *sheet) {
	v.mu.Lock()
	s.refs--
	if s.refs == 0 {
		v.free = append(v.free, s)
	}
	v.mu.Unlock()
	select {
	case v.idle <- struct{}{}:
	default:
	}
}

// paint brings a sheet to the present. last is what was shown before, nil at the start; it may be the same sheet.
func (v *video) paint(s *sheet, tick int64, last *sheet, level mix.Level) {
	runtime.LockOSThread() // for its CPU time
	defer runtime.UnlockOSThread()
	began := av.ThreadTime()
	// A tick shows what is due in its middle: half a tick too early or too late, not
	// up to a whole one too late.
	at := v.p.grid.TickTime(tick) + v.p.grid.TickTime(1)/2
	sc := v.p.scenes.now.Load()
	// Inputs that ended are not in scenes made after; those before may still
	// be on screen for a moment.
	var buf [16]*input
	for _, in := range v.p.inputs.each(buf[:0], wire.Video) {
		in.advance(at)
	}
	if last != nil && v.shown != nil && v.shown.serial != sc.serial {
		ticks := int64(sc.fade) * v.p.grid.FPS / int64(time.Second)
		if level > mix.Normal { // what is spared elsewhere is not spent here
			ticks = 0
		}
		v.fade.change(v.shown, sc, last.canvas, tick, ticks)
	}
	v.shown = sc
	if failed := s.paint(sc); failed > 0 {
		v.p.inputs.drop(dropScale, int64(failed))
	}
	s.stale = v.fade.apply(s.canvas, tick)
	v.letGo(sc)
	v.paintNS.Add(int64(av.ThreadTime() - began))
}

// letGo frees the pictures of ended inputs that the scene doesn't show.
func (v *video) letGo(sc *scene) {
	gone := v.p.inputs.takeGone()
	if len(gone) == 0 {
		return
	}
	shown := make(map[*input]bool)
	for i := range sc.tiles {
		shown[sc.tiles[i].in] = true
	}
	for _, in := range gone {
		if shown[in] { // its next scene is being made
			v.p.inputs.putGone(in)
			continue
		}
		in.free()
	}
}

// encode hands a painted sheet to all encoders.
func (v *video) encode(s *sheet, tick int64, key bool) {
	v.mu.Lock()
	s.refs = 1 + len(v.encoders)
	v.mu.Unlock()
	began := v.p.clock.now()
	idle := wire.Idle(v.unseen.Load())
	for i, e := range v.encoders {
		if idle.Has(i) && !key && tick%v.p.grid.PartTicks != 0 { // nobody looks: one picture a part keeps the grid
			v.release(s)
			continue
		}
		e.jobs <- job{s, tick, key, began}
	}
	v.release(s)
}
