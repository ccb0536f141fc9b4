package media

import (
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/interest"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seq"
)

// Now is the time of the engine's monotonic clock, in nanoseconds; that of Packet.ArrivalNS.
func (e *Engine) Now() int64 { return e.now() }

// Flush sends what Remote.Write brought: call it after a batch of packets. What is worth waiting
// for the rest of a frame does so as packets of clients do.
func (e *Engine) Flush() {
	if e.holding() {
		e.kickWorkers()
		return
	}
	e.work()
}

// WantLayer says up to which encoding another node wants the track; -1: not any more. by is any
// comparable value that stands for the node. What is let go of is let go of at once, as the other node has waited
// already; and its microphones are not wanted for that.
func (u *UpTrack) WantLayer(by any, maxSpatial int) {
	d := &u.demand
	d.mu.Lock()
	before, was := d.layers[by]
	if maxSpatial < 0 {
		delete(d.layers, by)
	} else {
		if d.layers == nil {
			d.layers = map[any]int8{}
		}
		d.layers[by] = int8(min(maxSpatial, int(interest.Top)))
	}
	raised := maxSpatial >= 0 && (!was || maxSpatial > int(before))
	d.mu.Unlock()
	if raised {
		u.router.e.kickClock()
	}
}

// Large says that somebody at this node shows the track large.
func (u *UpTrack) Large() bool {
	d := &u.demand
	if d.large.Load() > 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sizes {
		if s.large() {
			return true
		}
	}
	return false
}

// relayedLocked is the highest encoding that another node wants. Called with d.mu held.
func (d *demand) relayedLocked() int8 {
	most := interest.None
	for _, l := range d.layers {
		most = max(most, l)
	}
	return most
}

// Quiet says that the track is a microphone that is not one of the loudest.
func (u *UpTrack) Quiet() bool { return u.quiet.Load() }

// WireSeq is a packet's extended number as nodes tell each other, without the generation.
func WireSeq(p *packet.Packet) uint64 { return p.ExtSeq & wireSeqs }

// wireSeqs are the bits of an extended number that nodes tell each other.
const wireSeqs = 1<<generationShift - 1

// Packet returns a recent packet of the present generation by its WireSeq with a reference for the
// caller, nil when it is not to be had any more.
func (e *Encoding) Packet(ext uint64) *packet.Packet {
	return e.ring.Packet(ext&wireSeqs | e.generation.Load()<<generationShift)
}

// Highest is the highest WireSeq of the present generation, 0 before its first packet.
func (e *Encoding) Highest() uint64 {
	h := e.ring.Highest()
	if h>>generationShift != e.generation.Load() {
		return 0
	}
	return h & wireSeqs
}

// StartFrom is the WireSeq of the first packet of the newest keyframe, if a receiver can begin with
// that and what followed; ok is false when there is none or it is too long ago.
func (e *Encoding) StartFrom() (ext uint64, ok bool) {
	ext, ok = e.ring.Keyframe(replayLimit)
	return ext & wireSeqs, ok
}

// Live says that packets come.
func (e *Encoding) Live() bool { return e.live(e.track.router.e.now()) }

// Bitrate is what is being sent, in bits per second.
func (e *Encoding) Bitrate() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.live(e.track.router.e.now()) {
		return 0
	}
	return e.rates.Total()
}

// writePlaced takes a packet whose extended number is known, as another node has found it. It says
// whether the packet was new. The caller keeps its reference.
func (e *Encoding) writePlaced(p *packet.Packet, c codec.Codec) (fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.finished {
		return false
	}
	before := e.numbers.Highest()
	e.numbers.Place(p.ExtSeq)
	late, anew := p.ExtSeq < before, false
	if p.ExtSeq > before {
		follows := e.clock.Take(p.Timestamp, p.ArrivalNS, c.ClockRate) == seq.Valid
		if !follows { // its home has believed it
			e.clock.Expect()
			e.clock.Take(p.Timestamp, p.ArrivalNS, c.ClockRate)
		}
		if anew = before != 0 && (!follows || p.ExtSeq-before > uint64(e.numbers.Behind)); anew {
			e.restart()
		}
	}
	_, fresh = e.take(p, c, late)
	if anew && p.Keyframe {
		e.lostTooMuch.Store(false)
	}
	return fresh
}

// expected notes what the encoding will be like, unless packets have told.
func (e *Encoding) expected(info EncodingInfo) (changed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.numbers.Highest() != 0 && e.last.Load() != 0 || e.finished {
		return false
	}
	before := e.inspect.Shape()
	e.codec = info.Codec
	e.inspect.Expect(info.Codec, codec.Size{Width: info.Width, Height: info.Height})
	return e.inspect.Shape() != before
}

// beginAnew makes the next packet a new beginning whatever it is.
func (e *Encoding) beginAnew(generation uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.generation.Store(generation)
	if e.finished {
		return
	}
	e.clock.Expect()
	e.report = packet.SenderReport{}
	e.restart()
}
