package media

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/amphi-sfu/amphi/media/alloc"
	"github.com/amphi-sfu/amphi/media/bwe"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/seal"
)

const (
	allocatePeriod = int64(200 * time.Millisecond)
	// deafAfter is how long a client that promised feedback may send none before it is
	// served without an estimate.
	deafAfter = int64(4 * time.Second)
	// probePeriod is how often padding is sent while the estimator probes.
	probePeriod = 5 * time.Millisecond
	// maxPadding bounds the packets of padding sent at a time.
	maxPadding = 200
)

// bandwidth joins the estimator and the allocator of one endpoint. It belongs to the
// worker, as outbound does.
type bandwidth struct {
	estimator *bwe.Estimator // nil until the client has offered feedback
	allocated int64
	began     int64 // when the first packet left
	stale     bool  // something changed that the allocator has to know
	tracks    []*alloc.Track
}

// enable begins estimating.
func (b *bandwidth) enable() {
	if b.estimator != nil {
		return
	}
	// Without a Config to be wrong about, New cannot fail.
	if e, err := bwe.New(bwe.Config{Seed: rand.Uint64()}); err == nil {
		b.estimator = e
	}
}

// estimate is the bandwidth towards the client in bits per second, 0 while unknown.
func (b *bandwidth) estimate() uint64 {
	if b.estimator == nil || b.estimator.Stats().Feedbacks == 0 {
		return 0
	}
	return uint64(b.estimator.Estimate())
}

// budget is what may be sent, in bits per second; negative: anything.
func (b *bandwidth) budget(now int64) (bps int64, proven bool) {
	if b.estimator == nil {
		return -1, true
	}
	s := b.estimator.Stats()
	if s.Feedbacks == 0 && b.began != 0 && now-b.began > deafAfter {
		return -1, true
	}
	return s.Estimate, s.Overuses+s.LossBackoffs+s.ProbesFailed+s.Timeouts > 0
}

// transportFeedback takes one packet of transport-wide feedback.
func (o *outbound) transportFeedback(raw []byte, now int64) {
	if o.bw.estimator == nil {
		return
	}
	changed, err := o.bw.estimator.Feedback(raw, time.Duration(now))
	if err != nil {
		o.w.e.drops.add(dropRTCP)
		return
	}
	if changed && now-o.bw.allocated >= allocatePeriod/4 {
		o.allocate(now)
	}
}

// poll moves the estimator on; it runs at every tick of the worker.
func (o *outbound) poll(now int64) {
	b := &o.bw
	if b.estimator != nil && b.estimator.Poll(time.Duration(now)) {
		b.stale = true
	}
	if b.stale || now-b.allocated >= allocatePeriod {
		o.allocate(now)
	}
	if b.probing() {
		o.w.probing[o] = struct{}{}
	}
}

func (b *bandwidth) probing() bool {
	if b.estimator == nil {
		return false
	}
	_, ok := b.estimator.Probing()
	return ok
}

// allocate divides the estimate among the tracks and lets them follow it.
func (o *outbound) allocate(now int64) {
	b := &o.bw
	if now-b.allocated >= allocatePeriod {
		o.noteLoss()
	}
	b.allocated, b.stale = now, false
	b.tracks = b.tracks[:0]
	for _, dt := range o.tracks {
		if dt.track != nil {
			dt.describe(now)
			b.tracks = append(b.tracks, &dt.share)
		}
	}
	budget, proven := b.budget(now)
	base := int64(0)
	if budget >= 0 && !proven {
		// Nothing speaks against the lowest layers until the path has shown what it
		// carries: who joins sees something at once.
		for _, t := range b.tracks {
			base += lowestRate(t)
		}
	}
	if budget >= 0 {
		budget = max(budget, base)
	}
	o.pacer.setRate(int64(b.estimate()))
	demand := o.w.allocator.Allocate(b.tracks, budget, time.Duration(now))
	if b.estimator != nil {
		want := bwe.Demand{Next: demand.Next, Top: demand.Top}
		if base > b.estimator.Estimate() && want.Next == 0 {
			// What is being sent has not been proven: probe for that.
			want = bwe.Demand{Next: base, Top: base + base/10}
		}
		b.estimator.SetDemand(want)
	}
	clear(b.tracks)
	for _, dt := range o.tracks {
		dt.noteWish()
		dt.follow(now)
	}
}

// lowestRate is what the lowest layer of a visible track costs, with some room.
func lowestRate(t *alloc.Track) int64 {
	if t.Class != alloc.Audio && t.Width == 0 && t.Height == 0 {
		return 0
	}
	for _, opt := range t.Options {
		if opt.Live {
			return max(opt.Rate, 150_000) * 5 / 4
		}
	}
	return 0
}

// describe tells the allocator about the track and its subscription.
func (dt *DownTrack) describe(now int64) {
	s := &dt.share
	s.Priority, s.MaxSpatial = dt.sub.Priority, int8(min(dt.sub.MaxSpatial, maxEncodings))
	s.Width, s.Height = dt.sub.MaxWidth, dt.sub.MaxHeight
	switch {
	case dt.kind == codec.Audio:
		s.Class = alloc.Audio
	case dt.track.source == "screen":
		s.Class = alloc.Screen
	default:
		s.Class = alloc.Camera
	}
	s.Options = dt.track.options(s.Options[:0], now)
}

// options appends the layers there are, ascending. When nothing is being sent, as of a
// screen that does not move, the last one that was counts as live: what comes next follows it.
func (u *UpTrack) options(dst []alloc.Option, now int64) []alloc.Option {
	u.mu.Lock()
	defer u.mu.Unlock()
	var newest *Encoding
	anyLive, coming, only := false, u.coming(now), u.onlyLocked() != nil
	for _, enc := range u.encodings {
		if enc == nil {
			continue
		}
		dst = enc.options(dst, now, coming, only)
		anyLive = anyLive || enc.live(now)
		if last := enc.last.Load(); last != 0 && (newest == nil || last > newest.last.Load()) {
			newest = enc
		}
	}
	if !anyLive && newest != nil {
		for i := range dst {
			dst[i].Live = only || dst[i].Layer.Spatial == newest.index
		}
	}
	return dst
}

// options appends what the encoding offers: its temporal layers and, if it is the track's only
// one, its spatial layers.
func (e *Encoding) options(dst []alloc.Option, now int64, coming, only bool) []alloc.Option {
	e.mu.Lock()
	defer e.mu.Unlock()
	shape, live := e.inspect.Shape(), e.live(now)
	first, last := int8(0), shape.Spatial-1
	if !only {
		first = last
	}
	for s := first; s <= last; s++ {
		size, top := e.inspect.Size(s), e.rates.Top(s)
		sent := live && (!only || s >= shape.Lowest && s <= shape.Highest)
		for t := range top + 1 {
			l := layer.Layer{Spatial: s, Temporal: t}
			if t == top {
				l.Temporal = layer.Top
			}
			o := alloc.Option{
				Layer: l, Rate: int64(e.rates.UpTo(s, l.Temporal)), Width: size.Width, Height: size.Height,
				Live: sent, Coming: coming && !live,
			}
			if !only {
				o.Layer.Spatial = e.index
			}
			dst = append(dst, o)
		}
	}
	return dst
}

// probe sends what the estimator's cluster lacks; false when it is over.
func (o *outbound) probe(now int64) bool {
	if !o.ready() || !o.bw.probing() {
		return false
	}
	carrier := o.probeCarrier()
	if carrier == nil {
		return false // what is sent anyway is all of the probe; the estimator ends it by itself
	}
	for range maxPadding {
		due := o.bw.estimator.Padding(time.Duration(now))
		if due <= 0 {
			break
		}
		carrier.pad(now, 255)
	}
	return o.bw.probing()
}

// probeCarrier is the DownTrack whose retransmission stream carries probes.
func (o *outbound) probeCarrier() *DownTrack {
	for _, dt := range o.tracks {
		if dt.kind == codec.Video && dt.wire.rtxPT != 0 && dt.wire.transportID != 0 {
			return dt
		}
	}
	return nil
}

// pad sends a packet of n bytes of padding (1..255) on the retransmission stream. It is
// not media sent again, which receivers that do not look at numbers would play twice.
func (dt *DownTrack) pad(now int64, n int) {
	o, w := dt.out, &dt.wire
	b := o.reserve(headerRoom + n + seal.MaxOverhead)
	b = append(b, 0xb0, w.rtxPT, byte(dt.rtxNext>>8), byte(dt.rtxNext))
	b = binary.BigEndian.AppendUint32(b, dt.cursor.timestamp)
	b = binary.BigEndian.AppendUint32(b, w.rtxSSRC)
	number := o.number(len(b)+8+n+seal.MaxOverhead, now)
	b = append(b, 0xbe, 0xde, 0, 1, w.transportID<<4|1, byte(number>>8), byte(number), 0)
	padding := b[len(b) : len(b)+n : cap(b)]
	clear(padding)
	padding[n-1] = byte(n)
	out, err := o.sealer.Seal(b, padding, w.rtxSSRC, dt.rtxNext)
	dt.rtxNext++
	if err != nil {
		o.w.e.drops.add(dropSeal)
		return
	}
	o.commit(out)
}

// number takes the next transport-wide sequence number, for a packet of size bytes.
func (o *outbound) number(size int, now int64) uint16 {
	if o.bw.estimator == nil {
		o.transport++
		return uint16(o.transport)
	}
	if o.bw.began == 0 {
		o.bw.began = now
	}
	return o.bw.estimator.Sent(size, time.Duration(now))
}
