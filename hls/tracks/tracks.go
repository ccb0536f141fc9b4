// Package tracks records tracks as they were published: RTP in, WebM (Opus, VP8, VP9, AV1) or MP4 (H.264, Opus) out, without decoding
// anything. Picture and sound of one peer share a file and are in sync by their sender reports.
package tracks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// Config of a Recording. Dir and Name are needed.
type Config struct {
	Logger *slog.Logger
	// Dir exists; files in it begin with Name: letters, digits, dash, underscore.
	Dir, Name string
	// Wait is how long a missing packet is waited for; default 1 s.
	Wait time.Duration
	// Queue is how many packets wait for a slow disk; default 4,096. Beyond it they are missing.
	Queue int
	// Now is the wall clock; default time.Now.
	Now func() time.Time
}

// Stats of a Recording.
type Stats struct {
	Packets, Frames int64 // taken, written
	Overflow        int64 // packets that the queue had no room for
	Missing, Late   int64 // packets that never came, or too late
	Left            int64 // frames left out: incomplete, before a keyframe, or not written
	Failure         string
}

// Recording records up to one track of audio and one of video. Run must be called.
type Recording struct {
	cfg    Config
	events chan event
	mux    mux   // owned by Run
	wall   int64 // owned by Run: Unix nanoseconds less nanoseconds of arrival times
	inputs []*Input

	mu     sync.Mutex // guards the fields below
	stats  Stats
	closed bool
}

// event is a packet, whose reference goes with it, or a report.
type event struct {
	in     *Input
	packet *packet.Packet
	report packet.SenderReport
}

// Input takes the packets of one track. It implements packet.Sink; any goroutine may call it, also after the recording has ended.
type Input struct {
	r       *Recording
	index   int
	request func()
	asked   atomic.Int64 // when a keyframe was last asked for, in nanoseconds of arrival times

	// Owned by Run.
	order reorder
	asm   *assembler
}

const (
	// askEvery is how often a keyframe is asked for, in nanoseconds.
	askEvery = int64(time.Second)
	// noteEvery is how often the figures are brought up to date.
	noteEvery = 500 * time.Millisecond
)

// New makes a Recording with inputs for tracks of these kinds. requestKeyframe is called, by a goroutine of its own, when one is needed and there is video; it may be nil.
func New(cfg Config, kinds []codec.Kind, requestKeyframe func()) (*Recording, error) {
	if cfg.Dir == "" || !nameOK(cfg.Name) {
		return nil, fmt.Errorf("recording tracks: directory %q, name %q", cfg.Dir, cfg.Name)
	}
	if len(kinds) == 0 || len(kinds) > 2 || len(kinds) == 2 && kinds[0] == kinds[1] {
		return nil, errors.New("recording tracks: one track of audio, one of video, or both")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Wait <= 0 {
		cfg.Wait = time.Second
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 4096
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if requestKeyframe == nil {
		requestKeyframe = func() {}
	}
	r := &Recording{cfg: cfg, events: make(chan event, cfg.Queue), mux: mux{dir: cfg.Dir, name: cfg.Name}}
	for i, k := range kinds {
		in := &Input{r: r, index: i}
		in.asked.Store(-askEvery)
		if k == codec.Video {
			in.request = requestKeyframe
		}
		rate := int64(videoRate)
		if k == codec.Audio {
			rate = audioRate
		}
		r.inputs = append(r.inputs, in)
		r.mux.inputs = append(r.mux.inputs, &muxInput{clock: clock{rate: rate}})
	}
	return r, nil
}

func nameOK(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Input is the sink of the n-th track.
func (r *Recording) Input(n int) *Input { return r.inputs[n] }

// WriteRTP implements packet.Sink. It never blocks.
func (in *Input) WriteRTP(p *packet.Packet) {
	p.Retain()
	if !in.r.send(event{in: in, packet: p}) {
		p.Release()
	}
}

// WriteSenderReport implements packet.Sink.
func (in *Input) WriteSenderReport(sr packet.SenderReport) { in.r.send(event{in: in, report: sr}) }

func (r *Recording) send(e event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	select {
	case r.events <- e:
		return true
	default:
		r.stats.Overflow++
		return false
	}
}

// Stats as they are now.
func (r *Recording) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Run records until ctx ends, and completes the files, which it returns. A process that is killed leaves that to Complete.
func (r *Recording) Run(ctx context.Context) ([]File, error) {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	var wg sync.WaitGroup // of keyframe requests
	defer wg.Wait()
	for running := true; running; {
		select {
		case e := <-r.events:
			r.take(e, &wg)
		case <-tick.C:
			r.note()
		case <-ctx.Done():
			running = false
		}
	}
	r.mu.Lock()
	r.closed = true
	close(r.events)
	r.mu.Unlock()
	for e := range r.events {
		r.take(e, &wg)
	}
	for _, in := range r.inputs {
		for r.drain(in, 1<<62, 0) {
		}
		in.order.release()
	}
	r.mux.end()
	r.note()
	return Complete(r.cfg.Dir, r.cfg.Name)
}

func (r *Recording) take(e event, wg *sync.WaitGroup) {
	in, clock := e.in, &r.mux.inputs[e.in.index].clock
	if e.packet == nil {
		clock.report(e.report, r.mux.file != nil)
		return
	}
	p := e.packet
	r.mu.Lock()
	r.stats.Packets++
	r.mu.Unlock()
	if in.asm == nil || codec.ByPayloadType(p.PayloadType).Name != in.asm.codec {
		in.asm = newAssembler(codec.ByPayloadType(p.PayloadType).Name)
	}
	if r.wall == 0 {
		r.wall = r.cfg.Now().UnixNano() - p.ArrivalNS
	}
	now := p.ArrivalNS
	in.order.push(p)
	for r.drain(in, now, int64(r.cfg.Wait)) {
	}
	if in.request != nil && (in.asm.lost || r.mux.torn) && now-in.asked.Load() >= askEvery {
		in.asked.Store(now)
		wg.Go(in.request)
	}
}

// drain takes the next packet in order, if it is there.
func (r *Recording) drain(in *Input, now, wait int64) bool {
	p, missing := in.order.pop(now, wait)
	if p == nil {
		return false
	}
	defer p.Release()
	r.mu.Lock()
	r.stats.Missing += int64(missing)
	r.mu.Unlock()
	name := codec.ByPayloadType(p.PayloadType).Name
	if name != in.asm.codec {
		in.asm = newAssembler(name)
	}
	f, ok := in.asm.push(p, missing)
	if !ok {
		return true
	}
	clock := &r.mux.inputs[in.index].clock
	arrived := p.ArrivalNS + r.wall
	clock.begin(f.ts, arrived)
	r.mux.add(in.index, f, clock.at(f.ts, arrived))
	return true
}

// note brings the figures up to date.
func (r *Recording) note() {
	left, late := r.mux.left, int64(0)
	for _, in := range r.inputs {
		late += in.order.late
		if in.asm != nil {
			left += in.asm.left
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Frames, r.stats.Left, r.stats.Late, r.stats.Failure = r.mux.frames, left, late, ""
	if r.mux.err != nil {
		r.stats.Failure = r.mux.err.Error()
	}
}
