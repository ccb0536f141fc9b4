package hls

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// The test binary is its own compositor.
func TestMain(m *testing.M) {
	hlstest.Main()
	goleak.VerifyTestMain(m)
}

// encoding is a fake Encoding that a test pushes packets into.
type encoding struct {
	codec codec.Codec
	ssrc  uint32

	mu    sync.Mutex // guards the fields below
	w, h  int
	sinks []packet.Sink
	asked int
	seq   uint64
	// wanted is the size that the track was wanted at last.
	wanted [2]int
}

func (e *encoding) wantedAt() [2]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wanted
}

func (e *encoding) Attach(s packet.Sink) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sinks = append(e.sinks, s)
	s.WriteSenderReport(packet.SenderReport{SSRC: e.ssrc})
}

func (e *encoding) Detach(s packet.Sink) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sinks = slices.DeleteFunc(e.sinks, func(x packet.Sink) bool { return x == s })
}

func (e *encoding) RequestKeyframe() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
}

func (e *encoding) Size() (int, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.w, e.h
}

func (e *encoding) Codec() codec.Codec { return e.codec }

func (e *encoding) push(key bool, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	p := &packet.Packet{ExtSeq: e.seq, SSRC: e.ssrc, PayloadType: e.codec.PayloadType, Keyframe: key, StartOfFrame: true, Payload: payload}
	for _, s := range e.sinks {
		s.WriteRTP(p)
	}
}

func (e *encoding) keyframesAsked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

func (e *encoding) attached() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sinks)
}

// room is a fake Source and Track.
type room struct {
	mu     sync.Mutex // guards the field below
	tracks map[string][]*encoding
}

func (r *room) Track(_, id string) (Track, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list, ok := r.tracks[id]
	return track(list), ok
}

func (r *room) set(id string, e ...*encoding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tracks == nil {
		r.tracks = map[string][]*encoding{}
	}
	if len(e) == 0 {
		delete(r.tracks, id)
		return
	}
	r.tracks[id] = e
}

type track []*encoding

func (t track) Encodings() []Encoding {
	out := make([]Encoding, len(t))
	for i, e := range t {
		out[i] = e
	}
	return out
}

func (t track) Want(_ any, width, height int) {
	for _, e := range t {
		e.mu.Lock()
		e.wanted = [2]int{width, height}
		e.mu.Unlock()
	}
}

func video(ssrc uint32, w, h int) *encoding {
	return &encoding{codec: codec.ByPayloadType(96), ssrc: ssrc, w: w, h: h}
}

func audio(ssrc uint32) *encoding { return &encoding{codec: codec.ByPayloadType(111), ssrc: ssrc} }

// composer is a fake Composer that keeps what it is told.
type composer struct {
	mu      sync.Mutex // guards the fields below
	desired compose.Desired
	sets    int
	packets map[uint32][]uint32 // SSRCs by input
	reports map[uint32][]uint32
	stats   compose.Stats
}

func (c *composer) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (c *composer) Set(d compose.Desired) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.desired, c.sets = d, c.sets+1
}

func (c *composer) WriteRTP(input uint32, p *packet.Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.packets == nil {
		c.packets = map[uint32][]uint32{}
	}
	c.packets[input] = append(c.packets[input], p.SSRC)
}

func (c *composer) WriteSenderReport(input uint32, sr packet.SenderReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reports == nil {
		c.reports = map[uint32][]uint32{}
	}
	c.reports[input] = append(c.reports[input], sr.SSRC)
}

func (c *composer) Stats() compose.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *composer) got(input uint32) []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets[input])
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s does not come true", what)
		}
	}
}
