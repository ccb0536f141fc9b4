package media

import (
	"time"

	"github.com/amphi-sfu/amphi/media/alloc"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/limit"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/reception"
	"github.com/amphi-sfu/amphi/media/seal"
	"github.com/amphi-sfu/amphi/media/seq"
)

// DownTrack is a sending slot of an endpoint and what it carries now. All of it
// belongs to who has the worker's turn.
type DownTrack struct {
	// What every packet needs comes first, in few cache lines: with hundreds of subscribers
	// none of it is in the processor's cache when the next packet comes.
	out      *outbound
	kind     codec.Kind
	sourcePT uint8 // the router-wide payload type that wire.pt stands for
	turn     bool  // the layers forwarded changed, and what is sent does not say so yet
	wire     wire
	seqs     *seq.Map
	source   *Encoding // it is being forwarded; nil or followed
	skip     replayed
	sel      layer.Selector
	cursor   outputCursor
	// redundancy is that of audio.
	redundancy redundancy
	counts     downCounts
	used       seal.Guard

	target *Encoding // it is waited for; nil or followed
	track  *UpTrack  // nil: the slot is free
	sub    Subscription
	// share is what the allocator knows and decides.
	share alloc.Track
	// wished is what the track counts as this slot's wish.
	wished wish
	mid    string
	// formats are those that the client takes in this slot.
	formats []negotiate.Format
	rtxNext uint64
	recent  recentSources
	resent  resendMemory
	// keyframes are the client's requests that are still allowed.
	keyframes limit.Bucket
}

// outputCursor is where the output stands, for the next source to go on from.
type outputCursor struct {
	started   bool
	timestamp uint32
	arrival   int64
	picture   uint16
	tl0       uint8
	frame     uint16 // of the dependency descriptor
	templates uint8  // the first id after those of its structure
	structure *descriptor.Structure
	asked     int64 // when a keyframe was asked for last
	switched  int64
	notBefore int64 // until when a new slot waits for the client to know it
}

// replayed remembers up to which packet a source was sent from the ring, as the
// same packets may still be in the worker's queue.
type replayed struct {
	enc *Encoding
	upT uint64
}

type downCounts struct {
	packets, bytes, retransmitted, missed, switches uint64
	lost                                            uint32
	fraction                                        uint8
	jitter                                          uint32
	rtt                                             time.Duration
	noCodec, lowestOnly                             bool
	reportNTP                                       uint32 // middle 32 bits of the last report
	reportAt                                        int64
}

// recentSources finds the encodings of recent packets by id.
type recentSources struct {
	list [4]*Encoding
	next int
}

func (r *recentSources) add(e *Encoding) {
	if r.find(e.id) == nil {
		r.list[r.next%len(r.list)] = e
		r.next++
	}
}

func (r *recentSources) find(id uint32) *Encoding {
	for _, e := range r.list {
		if e != nil && e.id == id {
			return e
		}
	}
	return nil
}

// bind makes the slot carry a track.
func (dt *DownTrack) bind(u *UpTrack, sub Subscription) {
	if dt.track != u {
		dt.unbind()
		dt.track = u
	}
	dt.sub = sub
	dt.out.awake = awakeTicks
	dt.out.allocate(dt.out.w.e.now())
}

// unbind frees the slot. What it sent can still be retransmitted.
func (dt *DownTrack) unbind() {
	dt.setFollowed(nil, nil)
	dt.wished.set(nil, -1, false)
	dt.track, dt.share = nil, alloc.Track{}
	dt.out.bw.stale, dt.out.awake = true, awakeTicks
	dt.sel.SetTarget(-1, layer.None())
	dt.counts.noCodec, dt.counts.lowestOnly = false, false
}

// follow brings the slot in line with what was allocated and is being sent.
func (dt *DownTrack) follow(now int64) {
	if dt.track == nil || !dt.out.ready() || now < dt.cursor.notBefore {
		return
	}
	enc, target := dt.track.resolve(dt.share.Target)
	if enc == nil {
		dt.sel.SetTarget(-1, layer.None())
		dt.setFollowed(nil, nil)
		return
	}
	dt.counts.lowestOnly = dt.wire.descriptorID == 0 && enc.Codec().Name == codec.AV1 && target.Spatial > 0
	if dt.counts.lowestOnly {
		target.Spatial = 0 // without descriptors nothing says which frames make a picture
	}
	dt.sel.SetTarget(enc.index, target)
	source := dt.source
	if current, _ := dt.sel.Current(); current < 0 {
		source = nil
	}
	dt.setFollowed(source, enc)
	if _, waiting := dt.sel.Waiting(); waiting {
		dt.awaitKeyframe(enc, now)
	}
}

// awaitKeyframe begins with the last keyframe if it is near enough and nothing is
// being shown, else asks for a new one.
func (dt *DownTrack) awaitKeyframe(enc *Encoding, now int64) {
	if dt.source == nil {
		w := dt.out.w
		dt.skip = replayed{}
		if dt.kind == codec.Video && dt.mapCodec(enc.Codec()) {
			w.replay = enc.ring.SinceKeyframe(w.replay[:0], replayLimit)
			for _, p := range w.replay {
				dt.write(enc, p, 0)
				dt.skip = replayed{enc, p.ExtSeq}
				p.Release()
			}
			clear(w.replay)
			if dt.source == enc {
				return
			}
		}
	}
	if now-dt.cursor.asked >= int64(keyframeRetry) || dt.cursor.asked == 0 {
		dt.cursor.asked = now
		enc.RequestKeyframe()
	}
}

// setFollowed puts the DownTrack on the lists of what it needs, and off the others.
func (dt *DownTrack) setFollowed(source, target *Encoding) {
	if source == dt.source && target == dt.target {
		return // as at nearly every allocation; the lists may be long
	}
	id := dt.out.w.id
	for _, old := range [...]*Encoding{dt.source, dt.target} {
		if old != nil && old != source && old != target {
			old.subs[id].remove(dt)
		}
	}
	for _, enc := range [...]*Encoding{source, target} {
		if enc != nil {
			enc.subs[id].add(dt)
		}
	}
	dt.source, dt.target = source, target
}

func (s *subscribers) add(dt *DownTrack) {
	for _, x := range s.list {
		if x == dt {
			return
		}
	}
	s.list = append(s.list, dt)
	s.n.Store(int32(len(s.list)))
}

func (s *subscribers) remove(dt *DownTrack) {
	for i, x := range s.list {
		if x == dt {
			last := len(s.list) - 1
			s.list[i], s.list[last] = s.list[last], nil
			s.list = s.list[:last]
			break
		}
	}
	s.n.Store(int32(len(s.list)))
}

// mapCodec chooses the client's payload type for a codec of the router.
func (dt *DownTrack) mapCodec(c codec.Codec) bool {
	if c.Name == 0 {
		return false
	}
	if c.PayloadType == dt.sourcePT && dt.wire.pt != 0 {
		return true
	}
	var found *negotiate.Format
	for i := range dt.formats {
		f := &dt.formats[i]
		if f.Codec == c {
			found = f
			break
		}
		if found == nil && f.Codec.Decodes(c) {
			found = f
		}
	}
	dt.counts.noCodec = found == nil
	if found == nil {
		return false
	}
	dt.out.unpace() // what waits has the old payload type
	dt.sourcePT = c.PayloadType
	dt.wire.pt, dt.wire.rtxPT, dt.wire.nack = found.PayloadType, 0, found.Feedback.NACK
	dt.wire.redPT = found.RED
	if dt.wire.rtxSSRC != 0 {
		dt.wire.rtxPT = found.RTX
	}
	return true
}

// write forwards one packet, or not, with padding if it leaves at once. It runs once per
// packet and subscriber.
func (dt *DownTrack) write(enc *Encoding, p *packet.Packet, padding uint8) {
	if dt.skip.enc == enc && p.ExtSeq <= dt.skip.upT || !dt.out.ready() {
		return
	}
	if p.PayloadType != dt.sourcePT && !dt.mapCodec(codec.ByPayloadType(p.PayloadType)) {
		return
	}
	if len(p.Payload) == 0 { // padding that a publisher probes with
		if enc == dt.source {
			dt.seqs.Skip(p.ExtSeq, 0, 0)
		}
		return
	}
	switch dt.sel.Select(layer.Packet{Encoding: enc.index, Keyframe: p.Keyframe, Timestamp: p.Timestamp, Frame: &p.Frame}) {
	case layer.Drop:
		return
	case layer.Skip:
		dt.seqs.Skip(p.ExtSeq, skippedPictures(p), 0)
		return
	case layer.Switch:
		dt.switchTo(enc, p)
	case layer.Turn:
		dt.turn = true
	}
	if dt.turn {
		dt.turn = !dt.reshape(p)
	}
	index, meta, ok := dt.seqs.Forward(p.ExtSeq)
	if !ok {
		return
	}
	if !dt.used.Use(index) { // never, unless numbering is wrong; a nonce must not be reused
		dt.out.w.e.drops.add(dropReuse)
		return
	}
	dt.cursor.advance(p, meta)
	if o := dt.out; dt.kind == codec.Video && !o.pacer.take(len(p.Payload), o.w.now) {
		o.pacer.hold(dt, p, index, meta, o.w.now)
		o.w.probing[o] = struct{}{}
		return
	}
	dt.send(p, index, meta, padding)
}

// send sends p as output packet index.
func (dt *DownTrack) send(p *packet.Packet, index uint64, meta seq.Meta, padding uint8) {
	n := 0
	if dt.redundancy.depth > 0 && dt.wire.redundant() {
		n = dt.out.sendRedundant(dt, p, index, meta)
	} else {
		n = dt.out.sendMedia(dt, p, index, meta, form{padding: padding})
	}
	if n > 0 {
		dt.counts.packets++
		dt.counts.bytes += uint64(n)
		dt.out.resends.earn(n)
	}
}

// advance notes the newest packet sent.
func (c *outputCursor) advance(p *packet.Packet, meta seq.Meta) {
	ts := p.Timestamp + meta.Timestamp
	if c.started && int32(ts-c.timestamp) < 0 {
		return
	}
	c.picture = p.Counters.PictureID + meta.Picture
	c.tl0 = p.Counters.TL0PicIdx + meta.TL0
	if st := p.Frame.Structure; st != nil {
		if frame := uint16(p.Frame.Number) + meta.Frame; int16(frame-c.frame) > 0 || !c.started {
			c.frame = frame
		}
		if st != c.structure {
			c.structure = st
			c.templates = st.Offset() + meta.Template + uint8(st.Templates())
		}
	}
	c.started, c.timestamp, c.arrival = true, ts, p.ArrivalNS
}

// switchTo makes p, of enc, the next packet of the output.
func (dt *DownTrack) switchTo(enc *Encoding, p *packet.Packet) {
	meta := seq.Meta{Source: enc.id}
	c := &dt.cursor
	if c.started {
		meta.Timestamp = dt.spliceTimestamp(enc, p) - p.Timestamp
		if p.Counters.PictureIDAt != 0 {
			meta.Picture = c.picture + 1 - p.Counters.PictureID
		}
		if p.Counters.TL0At != 0 {
			meta.TL0 = c.tl0 + 1 - p.Counters.TL0PicIdx
		}
		if st := p.Frame.Structure; st != nil {
			meta.Frame = c.frame + 1 - uint16(p.Frame.Number)
			meta.Template = (c.templates - st.Offset()) & 63
		}
	}
	c.structure = nil
	meta.Spatial, meta.Targets = dt.sel.Shape()
	dt.turn = false
	dt.seqs.Switch(p.ExtSeq, meta)
	dt.recent.add(enc)
	dt.counts.switches++
	c.asked, c.switched = 0, p.ArrivalNS
	if dt.source != enc {
		dt.out.w.unsettled = append(dt.out.w.unsettled, switched{dt, dt.source})
		dt.source = enc // it is followed as the target
	}
}

// spliceTimestamp returns the output timestamp for the first packet of another
// source: from the sender reports of both, when they belong to one publisher and
// agree with the arrival times within a second, else from the time passed.
func (dt *DownTrack) spliceTimestamp(enc *Encoding, p *packet.Packet) uint32 {
	c := &dt.cursor
	rate := int64(90000)
	if dt.kind == codec.Audio {
		rate = 48000
	}
	passed := max((p.ArrivalNS-c.arrival)*rate/int64(time.Second), 1)
	ts := c.timestamp + uint32(passed)
	if old := dt.source; old != nil && old != enc && old.track == enc.track {
		a, b := old.SenderReport(), enc.SenderReport()
		if a.NTP != 0 && b.NTP != 0 {
			// Where the old source's clock would stand at the time p was sampled.
			between := reception.Between(b.NTP, a.NTP) * rate / int64(time.Second)
			onOld := a.RTP + uint32(between) + (p.Timestamp - b.RTP)
			_, meta, ok := dt.seqs.Lookup(uint16(dt.seqs.Next() - 1))
			aligned := onOld + meta.Timestamp
			if off := int64(int32(aligned - ts)); ok && off > -rate && off < rate {
				ts = aligned
			}
		}
	}
	if int32(ts-c.timestamp) <= 0 {
		ts = c.timestamp + 1
	}
	return ts
}

// reshape notes which layers are forwarded from p on. It is false when a later packet was
// sent already.
func (dt *DownTrack) reshape(p *packet.Packet) bool {
	meta := dt.seqs.Meta()
	restricted := meta.Targets != 0
	meta.Spatial, meta.Targets = dt.sel.Shape()
	if meta.Targets == 0 && restricted && !p.Keyframe {
		meta.Targets = ^uint32(0) // until a keyframe says so, the receiver has to be told that it gets everything again
	}
	if p.Keyframe && p.Descriptor != nil {
		// Those of an encoder that began anew may have gone back.
		if frame := uint16(p.Frame.Number) + meta.Frame; int16(frame-dt.cursor.frame) < 0 {
			meta.Frame = dt.cursor.frame + 1 - uint16(p.Frame.Number)
		}
	}
	return dt.seqs.Change(p.ExtSeq, meta)
}

// skippedPictures says by how many picture ids the output closes up without p.
func skippedPictures(p *packet.Packet) uint16 {
	if p.StartOfFrame && !p.Counters.Gaps {
		return 1
	}
	return 0
}

// named gives layers within an encoding the names they have for the track.
func (dt *DownTrack) named(encoding int8, l layer.Layer) layer.Layer {
	if dt.track == nil {
		return layer.None()
	}
	return dt.track.named(encoding, l)
}

// tick lets go of a track that has ended, and begins on a slot that has waited.
func (dt *DownTrack) tick(now int64) {
	if dt.cursor.notBefore != 0 && now >= dt.cursor.notBefore {
		dt.cursor.notBefore = 0
		dt.follow(now)
	}
	if dt.track != nil && dt.track.closed.Load() {
		dt.unbind()
	}
}
