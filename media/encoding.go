package media

import (
	"errors"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/meter"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/ring"
	"github.com/amphi-sfu/amphi/media/seq"
)

// liveFor is how long after its last packet an encoding still counts as being
// sent. Screen shares may send one frame per second.
const liveFor = int64(2500 * time.Millisecond)

// upstream reaches the publisher of an encoding.
type upstream interface {
	// requestKeyframe asks for a keyframe now; merging was done.
	requestKeyframe(enc *Encoding)
}

// maxUnread is after how many packets in a row whose descriptors cannot be read what explains them
// is not waited for any more.
const maxUnread = 100

// Encoding is one RTP stream of an UpTrack: the only one, or one simulcast layer.
// Its exported methods are safe for concurrent use.
type Encoding struct {
	track    *UpTrack
	rid      string
	index    int8
	id       uint32
	ring     *ring.Ring
	upstream upstream
	gate     meter.Gate
	last     atomic.Int64 // arrival of the newest packet
	// generation is that of a remote track.
	generation atomic.Uint64
	subs       [maxWorkers]subscribers
	attached   atomic.Int32 // sinks that are not relays
	media      *inStream    // guarded by the inbound's mutex: where the generator of NACKs is
	// lostTooMuch is set when so much is missing that only a keyframe helps.
	lostTooMuch atomic.Bool

	mu      sync.Mutex // guards the fields below; nothing else is locked under it but ring, gate and worker queues
	numbers seq.Tracker
	clock   seq.Timeline
	inspect codec.Inspector
	codec   codec.Codec
	unread  int // packets in a row whose descriptor could not be read
	sinks   []packet.Sink
	report  packet.SenderReport
	encodingMeters
	encodingRest
	finished bool
}

// subscribers are the DownTracks of one worker; n may be read by anyone, list
// belongs to the worker.
type subscribers struct {
	n    atomic.Int32
	list []*DownTrack
}

// encodingMeters measure what arrives.
type encodingMeters struct {
	counts encodingCounts
	rates  meter.Rate
	burst  meter.Burst
}

type encodingCounts struct {
	packets, bytes, keyframes, duplicates, recovered, restarts uint64
}

func newEncoding(u *UpTrack, index int, rid string, up upstream) *Encoding {
	size := videoRing
	if u.kind == codec.Audio {
		size = audioRing
	}
	return &Encoding{
		track: u, rid: rid, index: int8(index), id: u.router.e.nextSource.Add(1), numbers: seq.Tracker{Behind: uint16(size)},
		ring: ring.New(size), upstream: up, gate: meter.Gate{Interval: int64(keyframeInterval)},
	}
}

// Track is the UpTrack that the encoding belongs to.
func (e *Encoding) Track() *UpTrack { return e.track }

// RID is the simulcast stream's id, empty without simulcast.
func (e *Encoding) RID() string { return e.rid }

// Spatial is the encoding's place among those of its track, low to high.
func (e *Encoding) Spatial() int { return int(e.index) }

// Codec returns the codec of the newest packet, the zero value before the first.
func (e *Encoding) Codec() codec.Codec {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.codec
}

// ClockRate is that of the RTP timestamps, in Hz; 0 before the first packet.
func (e *Encoding) ClockRate() uint32 { return e.Codec().ClockRate }

// Size returns the picture size of the newest keyframe, that of the highest spatial layer, zero
// before the first.
func (e *Encoding) Size() (width, height int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.inspect.Size(layer.Top)
	return s.Width, s.Height
}

// SenderReport returns the newest sender report; its NTP is zero before the first.
func (e *Encoding) SenderReport() packet.SenderReport {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.report
}

// Attach adds a sink, which gets every packet from now on; it should ask for a
// keyframe when it has to begin with one. Attaching twice has no effect.
func (e *Encoding) Attach(s packet.Sink) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.finished || slices.Contains(e.sinks, s) {
		return
	}
	e.sinks = append(slices.Clone(e.sinks), s)
	e.sinksChanged()
	if e.report.NTP != 0 {
		s.WriteSenderReport(e.report)
	}
}

// Detach removes a sink. When it returns the sink is not called any more.
func (e *Encoding) Detach(s packet.Sink) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sinks = slices.DeleteFunc(slices.Clone(e.sinks), func(x packet.Sink) bool { return x == s })
	e.sinksChanged()
}

// RequestKeyframe asks the publisher for a keyframe. However often it is called, at
// most one request per 200 ms goes out.
func (e *Encoding) RequestKeyframe() {
	if e.track.kind != codec.Video || e.track.closed.Load() || e.track.muted.Load() {
		return
	}
	if e.gate.Request(e.track.router.e.now()) {
		e.upstream.requestKeyframe(e)
	}
}

// retryKeyframe sends a request that was held back.
func (e *Encoding) retryKeyframe(now int64) {
	if e.gate.Due(now) {
		e.upstream.requestKeyframe(e)
	}
}

// live says that packets come.
func (e *Encoding) live(now int64) bool {
	last := e.last.Load()
	return last != 0 && now-last < liveFor
}

// write takes a packet of the publisher whose sequence number is s and whose payload
// type was mapped to c; everything else of p that the header tells is set. The caller
// keeps its reference. It returns the extended number and whether the packet was new.
func (e *Encoding) write(p *packet.Packet, s uint16, c codec.Codec, recovered bool) (ext uint64, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.finished {
		return 0, false
	}
	drops := &e.track.router.e.drops
	if !e.place(p, s, c, recovered) {
		drops.add(dropJump)
		return 0, false
	}
	return e.take(p, c, recovered)
}

// take is write for a packet that has its place. Called with mu held.
func (e *Encoding) take(p *packet.Packet, c codec.Codec, recovered bool) (ext uint64, fresh bool) {
	drops := &e.track.router.e.drops
	p.PayloadType = c.PayloadType
	if len(p.Payload) > 0 && e.inspect.Differs(c, p) {
		if p.ExtSeq < e.numbers.Highest() { // it was under way when the publisher changed
			drops.add(dropTooLate)
			return p.ExtSeq, true
		}
		e.restart()
	}
	e.codec = c
	shape := e.inspect.Shape()
	if len(p.Payload) > 0 {
		switch err := e.inspect.Inspect(c, p); {
		case errors.Is(err, codec.ErrDescriptor):
			// What explains it may be on its way. It is asked for again, or a keyframe is.
			drops.add(dropDescriptor)
			if e.unread++; shape.Size == (codec.Size{}) || e.unread%maxUnread == 0 {
				e.lostTooMuch.Store(true)
			}
			return p.ExtSeq, false
		case err != nil:
			drops.add(dropPayload)
			return p.ExtSeq, true // it came: asking for it again would not help
		}
	}
	e.unread = 0
	switch e.ring.Put(p) {
	case ring.Duplicate:
		e.counts.duplicates++
		drops.add(dropDuplicate)
		return p.ExtSeq, false
	case ring.TooOld:
		drops.add(dropTooLate)
		return p.ExtSeq, false
	}
	if begins := !e.live(p.ArrivalNS); begins || e.inspect.Shape() != shape {
		e.track.layersChanged()
		if begins {
			e.wake(p)
		}
	}
	e.last.Store(p.ArrivalNS)
	e.count(p, recovered)
	quiet, waking := e.track.quiet.Load(), p.ArrivalNS-e.woke < wakeFor
	more := !recovered && !quiet && e.moreComes(p, c)
	for i, w := range e.track.router.e.workers {
		if n := e.subs[i].n.Load(); (n > 0 || waking) && !quiet {
			w.push(e, p, more && n >= holdSubscribers)
		}
	}
	for _, sink := range e.sinks {
		if len(p.Payload) > 0 {
			sink.WriteRTP(p)
		} else if s, ok := sink.(packet.RelaySink); ok {
			s.WritePadding(p)
		}
	}
	return p.ExtSeq, true
}

// place finds the packet's extended number. It is false for a packet that does not follow
// from those before, in number or in time; when further ones agree with it the encoding goes
// on from there, with a keyframe.
func (e *Encoding) place(p *packet.Packet, s uint16, c codec.Codec, recovered bool) bool {
	if recovered {
		ext, ok := e.numbers.Near(s)
		p.ExtSeq = ext
		return ok
	}
	before := e.numbers.Highest()
	ext, verdict := e.numbers.Take(s)
	switch {
	case verdict == seq.Restarted:
		e.clock.Expect()
		e.clock.Take(p.Timestamp, p.ArrivalNS, c.ClockRate)
	case verdict == seq.Valid && ext > before:
		if verdict = e.clock.Take(p.Timestamp, p.ArrivalNS, c.ClockRate); verdict == seq.Restarted {
			ext = e.numbers.Restart(s)
		}
	}
	if verdict == seq.Restarted {
		e.restart()
	}
	p.ExtSeq = ext
	return verdict != seq.Doubtful
}

// restart makes the subscribers begin again with a keyframe: what comes next is numbered or
// timed anew. Called with mu held.
func (e *Encoding) restart() {
	e.counts.restarts++
	e.inspect = codec.Inspector{}
	e.ring.Clear()
	e.lostTooMuch.Store(true) // the clock asks for a keyframe
	for i := range e.subs {
		if e.subs[i].n.Load() > 0 {
			w := e.track.router.e.workers[i]
			w.post(func() {
				for _, dt := range e.subs[w.id].list {
					if current, _ := dt.sel.Current(); current == e.index { // it may be the target still
						dt.sel.Reset()
					}
				}
			})
		}
	}
}

// expect makes the next packet follow whatever its numbers are: another SSRC takes over.
func (e *Encoding) expect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.numbers.Expect()
}

// ended notes that the publisher said it sends no more of it, for now.
func (e *Encoding) ended() {
	if e.last.Swap(0) != 0 {
		e.track.layersChanged()
	}
}

// moreComes says that what could leave together with p is about to come.
func (e *Encoding) moreComes(p *packet.Packet, c codec.Codec) bool {
	if e.track.kind == codec.Audio {
		return e.track.router.beats.Soon(e.id, p.Timestamp, c.ClockRate, p.ArrivalNS, holdMost)
	}
	return e.burst.More(p.Timestamp, p.ArrivalNS, p.Marker, holdGap)
}

func (e *Encoding) count(p *packet.Packet, recovered bool) {
	e.counts.packets++
	e.counts.bytes += uint64(len(p.Payload))
	e.rates.Add(cells(&p.Frame), len(p.Payload)+rtpOverhead)
	if recovered {
		e.counts.recovered++
	}
	if p.Keyframe && e.track.kind == codec.Video {
		e.counts.keyframes++
		e.gate.Arrived()
	}
}

// maxReportError is how far the RTP time of a sender report may be from where the packets are.
const maxReportError = int64(30 * time.Second)

// writeReport takes a sender report, whose NTP time is the node's already. It is false for one
// whose RTP time has nothing to do with the packets.
func (e *Encoding) writeReport(sr packet.SenderReport) bool {
	e.mu.Lock()
	if e.finished {
		e.mu.Unlock()
		return true
	}
	if off := e.clock.Off(sr.RTP, sr.ArrivalNS, e.codec.ClockRate); off > maxReportError || off < -maxReportError {
		e.mu.Unlock()
		return false
	}
	e.report = sr
	for _, sink := range e.sinks {
		sink.WriteSenderReport(sr)
	}
	e.mu.Unlock()
	quiet := e.track.quiet.Load()
	for i := range e.subs {
		if e.subs[i].n.Load() > 0 && !quiet {
			w := e.track.router.e.workers[i]
			w.post(func() {
				for _, dt := range e.subs[w.id].list {
					dt.sendReport(e, sr)
				}
			})
		}
	}
	return true
}

// cells are the layers whose receivers get a frame.
func cells(f *descriptor.Frame) meter.Cells {
	if f.Structure == nil {
		return meter.Cell(0, 0)
	}
	var c meter.Cells
	for m := f.Present; m != 0; m &= m - 1 {
		t := f.Structure.Targets[bits.TrailingZeros32(m)]
		c |= meter.Cell(t.Spatial, t.Temporal)
	}
	return c
}

// rate returns the bit rate of a layer within the encoding, in bits per second.
func (e *Encoding) rate(l layer.Layer) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rates.UpTo(l.Spatial, l.Temporal)
}

func (e *Encoding) close() {
	e.mu.Lock()
	e.finished = true
	e.sinks = nil
	e.sinksChanged()
	e.mu.Unlock()
	e.ring.Clear()
}

// rtpOverhead is what IP, UDP, RTP and SRTP add to a payload, in bytes.
const rtpOverhead = 20 + 8 + 12 + 8 + 16
