//go:build cgo

package program

import (
	"context"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/ingest"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

const (
	// inputQueue is how many packets may wait for a decoder: two seconds of 5 Mbit/s, or
	// one large keyframe of a screen.
	inputQueue = 1024
	// pollEvery bounds how late an input notices that it needs a keyframe.
	pollEvery = 200 * time.Millisecond
	// failures is how many access units in a row may fail before the decoder is made anew.
	failures = 15
	// staleAfter is how long a tile keeps a picture when no packet comes any more.
	staleAfter = 3 * time.Second
)

// message is what the reader hands to an input.
type message struct {
	packet []byte
	report *wire.SenderReport
	at     time.Duration // arrival
}

// input is one track: a goroutine of its own orders and decodes it.
type input struct {
	p      *Program
	id     uint32
	kind   wire.Kind
	name   string
	queue  chan message
	cancel context.CancelFunc
	sync   *ingest.Sync

	// Of the input's goroutine.
	ingest *ingest.Input
	codecs codecs

	// Of the video clock.
	shown   *av.Frame // the picture in the tile
	version uint64    // of shown; grows

	mu      sync.Mutex // guards the fields below
	frames  mix.Queue[*av.Frame]
	voice   *mix.Voice // nil for video
	last    time.Duration
	figures wire.InputStats
	drops   map[string]int64
	pushed  map[string]int64 // drops of ingest, as of the last snapshot
}

// codecs are the decoders of one input.
type codecs struct {
	video     *av.Decoder
	codec     wire.Codec // of video
	failed    int        // access units in a row
	opus      *av.Opus
	pcm, bent []float32
	spent     time.Duration // CPU of codecs that were replaced
}

// close frees them; decoded pictures stay.
func (c *codecs) close() {
	if c.video != nil {
		c.spent += c.video.CPU()
		c.video.Close()
		c.video = nil
	}
	if c.opus != nil {
		c.spent += c.opus.CPU()
		c.opus.Close()
		c.opus = nil
	}
}

// cpu is the thread time of all decoding so far.
func (c *codecs) cpu() time.Duration {
	d := c.spent
	if c.video != nil {
		d += c.video.CPU()
	}
	if c.opus != nil {
		d += c.opus.CPU()
	}
	return d
}

func newInput(p *Program, a *wire.AddInput, sync *ingest.Sync, cancel context.CancelFunc) *input {
	in := &input{
		p: p, id: a.ID, kind: a.Kind, name: a.Name, cancel: cancel, sync: sync,
		queue: make(chan message, inputQueue), ingest: ingest.New(a, sync), drops: make(map[string]int64),
		last: p.clock.now(),
	}
	if a.Kind == wire.Audio {
		in.voice = mix.NewVoice(p.audio.mixed())
		in.codecs.pcm = make([]float32, 2*av.MaxOpusSamples)
		in.codecs.bent = make([]float32, 2*(av.MaxOpusSamples+64))
	}
	return in
}

// run decodes until ctx ends.
func (in *input) run(ctx context.Context) {
	defer in.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-in.queue:
			if m.report != nil {
				in.ingest.Report(*m.report, m.at)
				continue
			}
			in.ingest.Push(m.packet, m.at)
			in.decode()
			in.count(m.at)
			if _, waits := in.ingest.Deadline(); !waits {
				continue
			}
		case <-timer.C:
			in.ingest.Poll(in.p.clock.now())
			in.decode()
			in.snapshot()
		}
		in.request()
		next := pollEvery
		if at, waits := in.ingest.Deadline(); waits {
			next = min(max(at-in.p.clock.now(), time.Millisecond), next)
		}
		timer.Reset(next)
	}
}

// close frees the codecs; decoded pictures stay until free.
func (in *input) close() {
	in.ingest.Close()
	in.codecs.close()
}

// free releases the pictures. The video clock must have let go of the input.
func (in *input) free() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.frames.Clear((*av.Frame).Free)
	if in.shown != nil {
		in.shown.Free()
		in.shown = nil
	}
}

// request asks the node for a keyframe where one is missing. A failed write ends
// the program elsewhere.
func (in *input) request() {
	if ssrc, wanted := in.ingest.KeyframeWanted(in.p.clock.now()); wanted {
		_ = in.p.out.keyframeRequest(wire.KeyframeRequest{Input: in.id, SSRC: ssrc})
	}
}

// decode decodes what the ingest has ready.
func (in *input) decode() {
	for {
		f, ok := in.ingest.Next()
		if !ok {
			return
		}
		if in.kind == wire.Audio {
			in.decodeAudio(f)
		} else {
			in.decodeVideo(f)
		}
	}
}

// decoderOf names libavcodec's decoder.
func decoderOf(c wire.Codec) string {
	if c == wire.AV1 {
		return "libdav1d"
	}
	return string(c)
}

func (in *input) decodeVideo(f ingest.Frame) {
	c := &in.codecs
	if c.video == nil || c.codec != f.Codec || c.failed >= failures {
		c.close()
		dec, err := av.NewDecoder(decoderOf(f.Codec))
		if err != nil {
			in.drop(dropUndecodable)
			return
		}
		c.video, c.codec, c.failed = dec, f.Codec, 0
	}
	pic, err := c.video.Decode(f.Data, f.Due)
	if err != nil {
		c.failed++
		in.drop(dropUndecodable)
		in.ingest.Undecodable()
		return
	}
	c.failed = 0
	if pic == nil {
		return
	}
	in.mu.Lock()
	old, full := in.frames.Push(pic, pic.Due())
	if full {
		in.drops[dropFrameQueue]++
	}
	in.figures.Frames++
	in.figures.Width, in.figures.Height = pic.Size()
	in.mu.Unlock()
	if full {
		old.Free()
	}
}

func (in *input) decodeAudio(f ingest.Frame) {
	c := &in.codecs
	if c.opus == nil || f.Fresh {
		c.close()
		dec, err := av.NewOpus()
		if err != nil {
			in.drop(dropUndecodable)
			return
		}
		c.opus = dec
	}
	in.mu.Lock()
	conceal, stretch := in.voice.Plan(mix.SampleAt(f.Due), f.Lost)
	in.mu.Unlock()
	const step = mix.Rate / 50
	for conceal > 0 {
		n := min(conceal, step)
		conceal -= n
		made := 0
		var err error
		if conceal == 0 { // the packet after a loss may carry the lost one in short
			made, err = c.opus.Recover(f.Data, c.pcm, n)
		} else {
			made, err = c.opus.Conceal(c.pcm, n)
		}
		if err != nil {
			break
		}
		in.write(c.pcm[:2*made], int64(made))
	}
	n, err := c.opus.Decode(f.Data, c.pcm)
	if err != nil {
		in.drop(dropUndecodable)
		return
	}
	pcm := c.pcm[:2*n]
	if stretch != 0 && n >= step/4 {
		pcm = mix.Stretch(c.bent, pcm, n+stretch*n/step)
	}
	in.write(pcm, 0)
}

// write appends samples to the voice, of which some are made up.
func (in *input) write(pcm []float32, concealed int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.voice.Write(pcm)
	in.figures.Concealed += concealed
	if concealed == 0 {
		in.figures.Frames++
	}
}

func (in *input) drop(reason string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.drops[reason]++
}

// count notes that a packet came.
func (in *input) count(now time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.last = now
}

// advance moves to the newest picture that is due; for the video clock only.
// Pictures of a track from which nothing comes any more are let go.
func (in *input) advance(at time.Duration) {
	in.mu.Lock()
	superseded := int64(0)
	f, ok := in.frames.Take(at, func(f *av.Frame) {
		superseded++
		f.Free()
	})
	if superseded > 0 {
		in.drops[dropUnshown] += superseded
	}
	stale := at-in.last > staleAfter
	in.mu.Unlock()
	switch {
	case ok:
		if in.shown != nil {
			in.shown.Free()
		}
		in.shown = f
		in.version++
	case stale && in.shown != nil:
		in.shown.Free()
		in.shown = nil
		in.version++
	}
}

// snapshot copies the counters of the input's goroutine to where stats finds them.
func (in *input) snapshot() {
	c := in.ingest.Counters()
	in.mu.Lock()
	defer in.mu.Unlock()
	f := &in.figures
	f.Codec, f.Synced, f.DelayNS = in.ingest.Codec(), in.ingest.Synced(), int64(in.sync.Delay())
	f.Packets, f.Lost, f.Keys, f.KeyframeRq = c.Packets, c.Lost, c.Keys, c.Requests
	f.DecodeNS = int64(in.codecs.cpu())
	in.pushed = c.Drops
}

// stats returns the last snapshot.
func (in *input) stats() wire.InputStats {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := in.figures
	f.Input, f.Name = in.id, in.name
	f.Drops = make(map[string]int64, len(in.pushed)+len(in.drops))
	for k, v := range in.pushed {
		f.Drops[k] = v
	}
	for k, v := range in.drops {
		f.Drops[k] += v
	}
	if in.voice != nil {
		late, ahead, resyncs := in.voice.Counters()
		for k, v := range map[string]int64{"late_samples": late, "early_samples": ahead, "resynced": resyncs} {
			if v > 0 {
				f.Drops[k] = v
			}
		}
	}
	return f
}
