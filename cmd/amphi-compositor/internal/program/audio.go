//go:build cgo

package program

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// audioLead is how long before its playout a block is mixed: the encoder sends a
// block out one block later, and a part must not wait for its sound.
const audioLead = mix.Block * time.Second / mix.Rate

// warmUp is how many blocks are encoded before the first that is sent.
const warmUp = 2

// audio is the clock of the sound.
type audio struct {
	p     *Program
	aac   *av.AAC
	limit mix.Limiter

	block int64        // the next one
	from  int64        // first sample that is sent
	next  atomic.Int64 // sample up to which everything is mixed

	left, right [mix.Block]float32
	mixNS, cpu  atomic.Int64
}

func newAudio(p *Program) (*audio, error) {
	aac, err := av.NewAAC(p.start.AudioBitrate)
	if err != nil {
		return nil, err
	}
	return &audio{p: p, aac: aac}, nil
}

func (a *audio) close() { a.aac.Close() }

func (a *audio) config() []byte { return a.aac.Config() }

// mixed is the sample up to which everything has been mixed.
func (a *audio) mixed() int64 { return a.next.Load() }

// begin prepares for a program whose picture begins at tick, and returns the
// first sample that will be sent: the first frame that begins with the tick or later.
func (a *audio) begin(tick int64) int64 {
	b := a.p.grid.FirstBlock(tick)
	if b*mix.Block < mix.SampleAt(a.p.grid.TickTime(tick)) {
		b++
	}
	a.from = b * mix.Block
	a.block = max(b-warmUp, 0)
	a.next.Store(a.block * mix.Block)
	return a.from
}

// run mixes and encodes every block, each at its time, until ctx ends.
func (a *audio) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var voices []voice
	for ; ; a.block++ {
		at := a.block * mix.Block
		if wait := mix.SampleTime(at) - audioLead - a.p.clock.now(); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
		} else if ctx.Err() != nil {
			return nil
		}
		voices = a.p.inputs.voices(voices[:0])
		a.mix(voices, at)
		au, pts, err := a.aac.Encode(a.left[:], a.right[:], at)
		if err != nil {
			return fmt.Errorf("block %d: %w", a.block, err)
		}
		a.cpu.Store(int64(a.aac.CPU()))
		if len(au) == 0 || pts < a.from {
			continue
		}
		if err := a.p.out.audio(wire.AudioAU{
			Samples: pts, TimeNS: a.p.start.EpochNS + int64(mix.SampleTime(pts)), Data: au,
		}); err != nil {
			return err
		}
	}
}

// mix sums the voices of one block.
func (a *audio) mix(voices []voice, at int64) {
	runtime.LockOSThread() // for its CPU time
	defer runtime.UnlockOSThread()
	began := av.ThreadTime()
	clear(a.left[:])
	clear(a.right[:])
	for _, v := range voices {
		v.in.mu.Lock()
		v.in.voice.Mix(a.left[:], a.right[:], at, v.gain)
		v.in.mu.Unlock()
	}
	a.next.Store(at + mix.Block)
	a.limit.Process(a.left[:], a.right[:])
	a.mixNS.Add(int64(av.ThreadTime() - began))
}
