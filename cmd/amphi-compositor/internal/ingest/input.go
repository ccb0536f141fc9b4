// Package ingest turns the RTP packets of one track into frames with a playout
// time: order, frames, sender reports, lip sync, drift, loss. It has no clock and
// no goroutine; times are durations since the program's epoch.
package ingest

import (
	"time"

	"github.com/pion/rtp"

	"github.com/amphi-sfu/amphi/hls/wire"
)

const (
	// maxStreams bounds the SSRCs of one input: layers and codecs come and go.
	maxStreams = 8
	// takeover is how long the active stream must be silent before another one,
	// not newer than it, may follow it.
	takeover = time.Second
	// observeEvery is how often a stream's least delay goes to its Sync.
	observeEvery = 100 * time.Millisecond
	// Keyframe requests repeat faster in the beginning.
	requestEvery  = 400 * time.Millisecond
	requestSlowly = 2 * time.Second
	requestFast   = 6
	// requestLive is how recent the last packet must be for a request to make sense.
	requestLive = 2 * time.Second
)

// Frame is one video frame or one audio packet, ready to be decoded.
type Frame struct {
	Codec wire.Codec
	Data  []byte
	Key   bool
	// Due is the playout time. It may have passed.
	Due time.Duration
	// Lost is the number of packets missing right before (audio).
	Lost int
	// Fresh says that the frame has no connection with the one before it: first of
	// its stream. A decoder keeps no state over it.
	Fresh bool
}

// Counters are what an Input did; drops by reason.
type Counters struct {
	Packets, Lost, Frames, Keys, Requests int64
	Drops                                 map[string]int64
}

// Reasons for which packets and frames are dropped.
const (
	DropMalformed   = "malformed_packet"
	DropPayloadType = "unknown_payload_type"
	DropLate        = "late_packet"
	DropJump        = "sequence_jump"
	DropStreams     = "too_many_streams"
	DropIncomplete  = "incomplete_frame"
	DropNoKeyframe  = "waiting_for_keyframe"
	DropInactive    = "inactive_stream"
)

// Input is one track. Not for concurrent use.
type Input struct {
	kind    wire.Kind
	formats map[uint8]wire.Format
	sync    *Sync

	streams map[uint32]*stream
	active  *stream
	serial  int
	ready   []Frame
	count   Counters

	requested time.Duration
	tries     int
}

// stream is one SSRC of an input.
type stream struct {
	ssrc   uint32
	serial int // order of appearance
	codec  wire.Codec
	clock  clock
	least  least
	member *member

	order    reorder
	asm      assembler
	begun    bool // the decoder has seen its first frame
	wantKey  bool
	lost     int
	packets  int64
	last     time.Duration // arrival of the newest packet
	observed time.Duration
}

// New returns an Input for a validated announcement. Inputs of one peer share
// sync.
func New(a *wire.AddInput, sync *Sync) *Input {
	in := &Input{
		kind: a.Kind, formats: make(map[uint8]wire.Format), sync: sync,
		streams: make(map[uint32]*stream), count: Counters{Drops: make(map[string]int64)},
	}
	for _, f := range a.Formats {
		in.formats[f.PayloadType] = f
	}
	return in
}

// Close takes the input's streams out of its Sync.
func (in *Input) Close() {
	for _, s := range in.streams {
		in.sync.leave(s.member)
	}
	clear(in.streams)
	in.active = nil
}

// Counters returns a copy.
func (in *Input) Counters() Counters {
	c := in.count
	c.Drops = make(map[string]int64, len(in.count.Drops))
	for k, v := range in.count.Drops {
		c.Drops[k] = v
	}
	return c
}

// Synced tells whether the stream in use has sender reports.
func (in *Input) Synced() bool { return in.active != nil && in.active.clock.synced }

// Codec is that of the stream in use, empty before the first.
func (in *Input) Codec() wire.Codec {
	if in.active == nil {
		return ""
	}
	return in.active.codec
}

func (in *Input) drop(reason string) { in.count.Drops[reason]++ }

// Push takes one RTP packet, which the input keeps. Call Next afterwards.
func (in *Input) Push(b []byte, now time.Duration) {
	var p rtp.Packet
	if err := p.Unmarshal(b); err != nil || p.Version != 2 {
		in.drop(DropMalformed)
		return
	}
	f, ok := in.formats[p.PayloadType]
	if !ok {
		in.drop(DropPayloadType)
		return
	}
	in.count.Packets++
	s := in.stream(p.SSRC, now)
	if s == nil {
		in.drop(DropStreams)
		return
	}
	if s.codec != f.Codec {
		s.reset(f)
	}
	s.packets++
	s.last = now
	capture := s.clock.capture(p.Timestamp)
	s.least.add(int64(now)-capture, now)
	if s.packets == 1 || now-s.observed >= observeEvery {
		s.observed = now
		in.sync.observe(s.member, s.least.value(), s.clock.synced, now)
	}
	switch s.order.push(held{
		marker: p.Marker, pt: p.PayloadType, seq: p.SequenceNumber,
		ts: p.Timestamp, arrived: now, payload: p.Payload,
	}) {
	case late:
		in.drop(DropLate)
		if after, missed := s.order.missed(p.SequenceNumber, now); missed {
			in.sync.missed(after, now)
		}
	case jumped:
		in.drop(DropJump)
		s.asm.gap()
		s.wantKey = in.kind == wire.Video
	}
	in.drain(s, now)
}

// Report takes a sender report.
func (in *Input) Report(r wire.SenderReport, now time.Duration) {
	s := in.stream(r.SSRC, now)
	if s == nil {
		return
	}
	was := s.clock.synced
	s.clock.report(r.NTP, r.RTP)
	if s.clock.synced && !was { // what was observed so far had another zero
		s.least, s.packets = least{}, 0
	}
}

// Poll gives up on packets that were waited for long enough.
func (in *Input) Poll(now time.Duration) {
	for _, s := range in.streams {
		in.drain(s, now)
	}
}

// Deadline is when Poll has something to do, unless a packet comes first.
func (in *Input) Deadline() (at time.Duration, ok bool) {
	hold := in.sync.hold()
	for _, s := range in.streams {
		if t, waits := s.order.deadline(hold); waits && (!ok || t < at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// Next returns the frames that are complete, in decoding order.
func (in *Input) Next() (Frame, bool) {
	if len(in.ready) == 0 {
		return Frame{}, false
	}
	f := in.ready[0]
	in.ready[0] = Frame{}
	in.ready = in.ready[1:]
	return f, true
}

// Undecodable says that the decoder made nothing of what it got: only a
// keyframe helps.
func (in *Input) Undecodable() {
	if in.active != nil && in.kind == wire.Video {
		in.active.wantKey = true
	}
}

// KeyframeWanted tells whether a keyframe must be asked for now, and counts it as asked.
func (in *Input) KeyframeWanted(now time.Duration) (ssrc uint32, ok bool) {
	if in.kind != wire.Video {
		return 0, false
	}
	switch s := in.needy(now); {
	case s != nil:
		ssrc = s.ssrc
	case in.active != nil && !in.active.wantKey:
		in.tries = 0
		return 0, false
	case len(in.streams) > 0 || in.tries > 0: // nobody who could answer
		return 0, false
	}
	every := requestEvery
	if in.tries >= requestFast {
		every = requestSlowly
	}
	if in.tries > 0 && now-in.requested < every {
		return 0, false
	}
	in.requested = now
	in.tries++
	in.count.Requests++
	return ssrc, true
}

// needy is the newest living stream that waits for a keyframe.
func (in *Input) needy(now time.Duration) (s *stream) {
	for _, x := range in.streams {
		if x.wantKey && x.packets > 0 && now-x.last < requestLive && (s == nil || x.serial > s.serial) &&
			(in.active == nil || x.serial >= in.active.serial) {
			s = x
		}
	}
	return s
}

// stream finds or makes the stream of an SSRC; the longest silent one makes room.
func (in *Input) stream(ssrc uint32, now time.Duration) *stream {
	if s := in.streams[ssrc]; s != nil {
		return s
	}
	if len(in.streams) >= maxStreams {
		var oldest *stream
		for _, s := range in.streams {
			if s != in.active && (oldest == nil || s.last < oldest.last) {
				oldest = s
			}
		}
		if now-oldest.last < takeover {
			return nil
		}
		in.remove(oldest)
	}
	in.serial++
	s := &stream{ssrc: ssrc, serial: in.serial, last: now, member: in.sync.join()}
	for _, f := range in.formats { // until a packet says which
		s.reset(f)
		break
	}
	in.streams[ssrc] = s
	return s
}

func (in *Input) remove(s *stream) {
	in.sync.leave(s.member)
	delete(in.streams, s.ssrc)
}

// reset begins the stream anew with another format; sender reports stay valid
// while the clock rate does.
func (s *stream) reset(f wire.Format) {
	c := clock{rate: int64(f.ClockRate)}
	if s.clock.rate == c.rate {
		c = s.clock
	}
	s.codec, s.clock = f.Codec, c
	s.order = reorder{}
	s.asm = assembler{codec: f.Codec}
	s.wantKey, s.begun, s.lost = f.Codec != wire.Opus, false, 0
}

// drain moves what is in order on to the decoder.
func (in *Input) drain(s *stream, now time.Duration) {
	hold := in.sync.hold()
	for {
		p, lost, ok := s.order.pop(now, hold)
		if !ok {
			return
		}
		if lost > 0 {
			in.count.Lost += int64(lost)
			s.lost += lost
			s.asm.gap()
			s.wantKey = in.kind == wire.Video
		}
		if len(p.payload) == 0 { // padding only
			continue
		}
		if in.kind == wire.Audio {
			in.emit(s, unit{data: p.payload, key: true, ts: p.ts}, now)
			continue
		}
		u, whole, broken := s.asm.push(p)
		if broken {
			in.drop(DropIncomplete)
			s.wantKey = true
		}
		if whole {
			in.emit(s, u, now)
		}
	}
}

func (in *Input) emit(s *stream, u unit, now time.Duration) {
	if s.wantKey && !u.key {
		in.drop(DropNoKeyframe)
		return
	}
	if !in.activate(s, now) {
		in.drop(DropInactive)
		return
	}
	s.wantKey = false
	in.count.Frames++
	if u.key && in.kind == wire.Video {
		in.count.Keys++
	}
	due := in.sync.due(s.member, s.clock.capture(u.ts))
	in.sync.arrived(due-now, now)
	in.ready = append(in.ready, Frame{Codec: s.codec, Data: u.data, Key: u.key, Due: due, Lost: s.lost, Fresh: !s.begun})
	s.begun, s.lost = true, 0
}

// activate makes s the stream in use where it may be: newer than the present one, or
// the present one fell silent. The old one shows until the new one has a keyframe.
func (in *Input) activate(s *stream, now time.Duration) bool {
	switch a := in.active; {
	case a == s:
		return true
	case a == nil || s.serial > a.serial:
	case now-a.last < takeover:
		return false
	}
	if a := in.active; a != nil {
		a.begun, a.wantKey = false, in.kind == wire.Video
	}
	in.active, s.begun = s, false
	return true
}
