//go:build cgo

package program

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// failuresMost is how many pictures in a row an encoder may refuse before the
// program ends: a new process may do better.
const failuresMost = 30

// job is one picture for an encoder.
type job struct {
	sheet *sheet
	tick  int64
	key   bool
	began time.Duration
}

// encoder makes one variant, in a goroutine of its own.
type encoder struct {
	p       *Program
	index   int
	variant wire.Variant
	jobs    chan job
	enc     av.VideoEncoder
	preset  string
	own     *av.Canvas // for a variant of another size than the canvas
	scaler  av.Scaler
	failed  int

	frames, keys, bytes, cpu, longest atomic.Int64
}

func newEncoder(p *Program, i int) (*encoder, error) {
	e := &encoder{p: p, index: i, variant: p.start.Variants[i], jobs: make(chan job, sheets), preset: p.start.Preset}
	if e.preset == "" {
		e.preset = "veryfast"
	}
	var err error
	if e.enc, err = av.NewVideoEncoder(p.start.Encoder, av.VideoConfig{
		W: e.variant.Width, H: e.variant.Height, FPS: p.start.FPS, Bitrate: e.variant.Bitrate, Preset: e.preset,
	}); err != nil {
		return nil, fmt.Errorf("variant %q: %w", e.variant.Name, err)
	}
	if e.variant.Width != p.start.Width || e.variant.Height != p.start.Height {
		if e.own, err = av.NewCanvas(e.variant.Width, e.variant.Height); err != nil {
			e.close()
			return nil, fmt.Errorf("making a canvas: %w", err)
		}
	}
	return e, nil
}

func (e *encoder) close() {
	e.enc.Close()
	e.scaler.Close()
	if e.own != nil {
		e.own.Free()
	}
}

// run encodes until jobs is closed. After a fatal error it only gives sheets back.
func (e *encoder) run() {
	failed := false
	for j := range e.jobs {
		if failed {
			e.p.video.release(j.sheet)
			continue
		}
		if err := e.job(j); err != nil {
			failed = true
			e.p.video.fail(err)
		}
	}
}

func (e *encoder) job(j job) error {
	c := j.sheet.canvas
	if e.own != nil {
		if err := e.scaler.Paint(e.own, e.own.Bounds(), &c.Frame, c.Bounds()); err != nil {
			e.p.inputs.drop(dropScale, 1)
		}
		c = e.own
	}
	au, idr, err := e.enc.Encode(c, j.tick, j.key || e.failed > 0)
	e.p.video.release(j.sheet)
	if err != nil {
		e.p.inputs.drop(dropEncode, 1)
		if e.failed++; e.failed > failuresMost {
			return err
		}
		return nil
	}
	e.failed = 0
	err = e.p.out.video(wire.VideoAU{
		Variant: e.index, Key: idr, Tick: j.tick,
		TimeNS: e.p.start.EpochNS + int64(e.p.grid.TickTime(j.tick)), Data: au,
	})
	e.frames.Add(1)
	e.bytes.Add(int64(len(au)))
	if idr {
		e.keys.Add(1)
	}
	e.cpu.Store(int64(e.enc.CPU() + e.scaler.CPU()))
	if took := int64(e.p.clock.now() - e.p.grid.TickTime(j.tick)); took > e.longest.Load() {
		e.longest.Store(took)
	}
	return err
}

// stats takes a snapshot; the longest latency begins anew.
func (e *encoder) stats() wire.VariantStats {
	return wire.VariantStats{
		Name: e.variant.Name, Frames: e.frames.Load(), Keys: e.keys.Load(), Bytes: e.bytes.Load(),
		EncodeNS: e.cpu.Load(), Preset: e.preset, LatencyNS: e.longest.Swap(0),
	}
}
