package hls

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// Tap takes the access units of a program beside its packager, for outputs that leave the node as a
// stream. Its methods are called one at a time, by the goroutine that reads the compositor: they
// must not block, nor call the Origin, nor keep the bytes.
type Tap interface {
	// Begin says that a run's access units follow; at once where one is under way, and then the first
	// picture need not be a keyframe.
	Begin(packager.Run)
	// Takes tells whether a variant is of use, of the run that began. The others may idle, and are not handed over.
	Takes(variant int) bool
	// Video is one access unit (Annex B) of a variant that it takes.
	Video(variant int, tick int64, annexB []byte)
	// Audio is one AAC access unit of 1,024 samples of 48 kHz.
	Audio(sample int64, data []byte)
	// End says that the program has ended. It is called at most once, and nothing after it.
	End()
}

// taps are the taps of one program.
type taps struct {
	some atomic.Bool // the list is not empty: access units are many, and most programs have no tap

	mu    sync.Mutex // guards the fields below, and is held while taps are called
	list  map[*tapped]struct{}
	run   packager.Run
	begun bool
	ended bool
}

type tapped struct{ Tap }

func (t *taps) add(tap Tap) (*tapped, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, false
	}
	if t.list == nil {
		t.list = map[*tapped]struct{}{}
	}
	h := &tapped{tap}
	t.list[h] = struct{}{}
	t.some.Store(true)
	if t.begun {
		tap.Begin(t.run)
	}
	return h, true
}

func (t *taps) remove(h *tapped) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.list, h)
	t.some.Store(len(t.list) > 0)
}

// take tells whether any tap takes a variant.
func (t *taps) take(variant int) bool {
	if !t.some.Load() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for h := range t.list {
		if h.Takes(variant) {
			return true
		}
	}
	return false
}

func (t *taps) begin(r packager.Run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run, t.begun = r, true
	for h := range t.list {
		h.Begin(r)
	}
}

func (t *taps) video(variant int, tick int64, data []byte) {
	if !t.some.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for h := range t.list {
		if h.Takes(variant) {
			h.Video(variant, tick, data)
		}
	}
}

func (t *taps) audio(sample int64, data []byte) {
	if !t.some.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for h := range t.list {
		h.Audio(sample, data)
	}
}

func (t *taps) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for h := range t.list {
		h.End()
	}
	t.list = nil
	t.some.Store(false)
}

// Tap adds a tap to a running program. The function that it returns removes it: after that, none of
// its methods is called any more. It returns ErrNotFound, wrapped.
func (o *Origin) Tap(room, stream string, t Tap) (remove func(), err error) {
	p, err := o.find(room, stream)
	if err != nil {
		return nil, fmt.Errorf("tapping a program: %w", err)
	}
	h, ok := p.taps.add(t)
	if !ok {
		return nil, fmt.Errorf("tapping a program: %w", ErrNotFound)
	}
	p.poke() // what it takes is not to idle
	return func() { p.taps.remove(h) }, nil
}

// TapParts calls f with each part of a running program as it is published, of the variants that takes tells (name and index) and the
// audio, until remove is called or the program ends; f(nil) says that it has. Variants that nobody takes may idle. Neither may
// block, nor call the Origin. It returns ErrNotFound, wrapped.
func (o *Origin) TapParts(room, stream string, takes func(name string, variant int) bool, f func(*packager.Part)) (remove func(), err error) {
	p, err := o.find(room, stream)
	if err != nil {
		return nil, fmt.Errorf("tapping a program: %w", err)
	}
	defer p.poke() // what it takes is not to idle
	return p.pack.Tap(takes, f), nil
}
