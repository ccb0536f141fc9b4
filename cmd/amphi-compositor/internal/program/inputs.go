//go:build cgo

package program

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/ingest"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// inputs are the tracks of the program. The reader adds, removes and feeds them;
// the two clocks look at them.
type inputs struct {
	p       *Program
	running sync.WaitGroup // goroutines of inputs

	mu    sync.Mutex // guards the fields below
	byID  map[uint32]*input
	order []*input // in order of arrival
	syncs map[string]*group
	gains map[uint32]float32
	gone  []*input // ended, but the video clock may hold pictures of them
	drops map[string]int64
}

// group counts the inputs of one peer.
type group struct {
	sync *ingest.Sync
	refs int
}

// Reasons for drops of the program as a whole.
const (
	dropUnknownInput = "unknown_input"
	dropQueueFull    = "input_queue_full"
	dropTooMany      = "too_many_inputs"
	dropRefused      = "control_refused"
	dropDuplicate    = "duplicate_input"
	dropTickSkipped  = "tick_skipped"
	dropTickSpared   = "tick_spared"
	dropEncode       = "encode_failed"
	dropFrameQueue   = "frame_queue_full"
	dropUnshown      = "frame_superseded"
	dropUndecodable  = "undecodable"
	dropScale        = "unscalable"
)

func newInputs(p *Program) *inputs {
	return &inputs{
		p: p, byID: make(map[uint32]*input), syncs: make(map[string]*group),
		gains: make(map[uint32]float32), drops: make(map[string]int64),
	}
}

func (s *inputs) drop(reason string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops[reason] += n
}

// add announces an input and begins to decode it.
func (s *inputs) add(ctx context.Context, a *wire.AddInput) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.byID[a.ID] != nil:
		s.drops[dropDuplicate]++
		return
	case len(s.byID) >= wire.MaxInputs:
		s.drops[dropTooMany]++
		return
	}
	g := s.syncs[a.Sync]
	if g == nil || a.Sync == "" {
		g = &group{sync: ingest.NewSync()}
		if a.Sync != "" {
			s.syncs[a.Sync] = g
		}
	}
	g.refs++
	ctx, cancel := context.WithCancel(ctx)
	in := newInput(s.p, a, g.sync, cancel)
	s.byID[a.ID] = in
	s.order = append(s.order, in)
	s.running.Go(func() {
		in.run(ctx)
		s.ended(in, a.Sync, g)
	})
	s.p.scenes.changed()
}

// remove ends an input. Its tile shows the placeholder from the next tick on.
func (s *inputs) remove(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.byID[id]
	if in == nil {
		return
	}
	delete(s.byID, id)
	for i, x := range s.order {
		if x == in {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			break
		}
	}
	in.cancel()
	s.p.scenes.changed()
}

func (s *inputs) ended(in *input, name string, g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.refs--
	if g.refs == 0 && s.syncs[name] == g {
		delete(s.syncs, name)
	}
	s.gone = append(s.gone, in)
}

// closeAll ends all inputs and waits for them.
func (s *inputs) closeAll() {
	s.mu.Lock()
	for _, in := range s.order {
		in.cancel()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// free releases the pictures of all inputs, once nobody looks at them.
func (s *inputs) free() {
	for _, in := range s.takeGone() {
		in.free()
	}
}

// takeGone returns the inputs that ended since the last call.
func (s *inputs) takeGone() []*input {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.gone
	s.gone = nil
	return gone
}

// putGone keeps an ended input for a later call of takeGone.
func (s *inputs) putGone(in *input) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = append(s.gone, in)
}

// mix replaces the audio mix.
func (s *inputs) mix(m *wire.AudioMix) {
	gains := make(map[uint32]float32, len(m.Inputs))
	for _, g := range m.Inputs {
		gains[g.Input] = float32(g.Gain)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gains = gains
}

// packet hands a packet to its input, which is never waited for.
func (s *inputs) packet(m wire.RTP, now time.Duration) {
	s.feed(m.Input, message{packet: bytes.Clone(m.Packet), at: now})
}

func (s *inputs) senderReport(m wire.SenderReport, now time.Duration) {
	s.feed(m.Input, message{report: &m, at: now})
}

func (s *inputs) feed(id uint32, m message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.byID[id]
	if in == nil {
		s.drops[dropUnknownInput]++
		return
	}
	select {
	case in.queue <- m:
	default:
		s.drops[dropQueueFull]++
	}
}

// each appends the inputs of one kind to dst, in order.
func (s *inputs) each(dst []*input, kind wire.Kind) []*input {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.order {
		if in.kind == kind {
			dst = append(dst, in)
		}
	}
	return dst
}

// voice is one voice in the mix.
type voice struct {
	in   *input
	gain float32
}

// voices lists all voices; those that are not heard have gain 0.
func (s *inputs) voices(dst []voice) []voice {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.order {
		if in.kind == wire.Audio {
			dst = append(dst, voice{in, s.gains[in.id]})
		}
	}
	return dst
}

// find returns an input, nil when there is none.
func (s *inputs) find(id uint32) *input {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// counted returns a copy of the drops.
func (s *inputs) counted() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[string]int64, len(s.drops))
	for k, v := range s.drops {
		m[k] = v
	}
	return m
}
