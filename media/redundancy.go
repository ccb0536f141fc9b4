package media

import (
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/red"
	"github.com/amphi-sfu/amphi/media/seal"
	"github.com/amphi-sfu/amphi/media/seq"
)

const (
	// redundancyOn and redundancyMore are the shares of packets lost from which on audio is
	// sent with one earlier frame, and with two; redundancyOff and redundancyLess those below
	// which it is not any more.
	redundancyOn, redundancyOff    = 0.03, 0.01
	redundancyMore, redundancyLess = 0.05, 0.03
	// redundancyReport and redundancyWindow are how much one receiver report, and one look
	// at transport-wide feedback (five a second), weigh.
	redundancyReport, redundancyWindow = 0.5, 0.1
	// maxRedundant is the most earlier frames in a packet, maxRedundantBytes their size.
	maxRedundant      = 2
	maxRedundantBytes = 700
	// recoverNear is how many of the newest packets are looked at for a frame that comes again.
	recoverNear = 8
)

// redundancy decides with how many earlier frames audio is sent to one client (RFC 2198):
// none unless packets get lost on the way to it.
type redundancy struct {
	loss  float64 // smoothed
	depth int
}

// note takes a measure of loss.
func (r *redundancy) note(loss, weight float64) {
	r.loss += (loss - r.loss) * weight
	switch {
	case r.loss >= redundancyMore:
		r.depth = 2
	case r.loss < redundancyOff:
		r.depth = 0
	case r.loss >= redundancyOn && r.depth == 0, r.loss < redundancyLess && r.depth > 1:
		r.depth = 1
	}
}

// redundant says that the client takes redundant audio: what was earlier depends on when it is asked.
func (w *wire) redundant() bool { return w.redPT != 0 && w.sentOnce() }

// noteLoss looks at what the estimator knows of loss.
func (o *outbound) noteLoss() {
	if o.bw.estimator == nil {
		return
	}
	loss, known := 0.0, false
	for _, dt := range o.tracks {
		if dt.kind != codec.Audio || dt.wire.redPT == 0 {
			continue
		}
		if !known {
			loss, known = o.bw.estimator.Stats().Loss, true
		}
		dt.redundancy.note(loss, redundancyWindow)
	}
}

// sendRedundant sends p with earlier frames as output packet index. It reports the bytes sent.
func (o *outbound) sendRedundant(dt *DownTrack, p *packet.Packet, index uint64, meta seq.Meta) int {
	w := &dt.wire
	var held [maxRedundant]*packet.Packet
	var blocks [maxRedundant + 1]red.Block
	blocks[maxRedundant] = red.Block{PayloadType: w.pt, Data: p.Payload}
	first, size := maxRedundant, 0
	for first > maxRedundant-dt.redundancy.depth {
		q, offset := dt.earlier(p, meta, index-uint64(maxRedundant-first+1))
		if q == nil {
			break
		}
		first--
		held[first] = q
		blocks[first] = red.Block{PayloadType: w.pt, Offset: offset, Data: q.Payload}
		if size += red.HeaderSize + len(q.Payload); size > maxRedundantBytes {
			first++
			break
		}
	}
	defer func() {
		for _, q := range held {
			if q != nil {
				q.Release()
			}
		}
	}()
	if first == maxRedundant {
		return o.sendMedia(dt, p, index, meta, form{})
	}
	size += red.PrimarySize + len(p.Payload) + seal.MaxOverhead
	b := o.reserve(headerRoom + size)
	b = o.appendHeader(b, w, p, outHeader{pt: w.redPT, ssrc: w.ssrc, seq: uint16(index), timestamp: p.Timestamp + meta.Timestamp}, size)
	payload := red.Append(b[len(b):len(b):cap(b)], blocks[first:])
	out, err := o.sealer.Seal(b, payload, w.ssrc, index)
	if err != nil {
		o.w.e.drops.add(dropSeal)
		return 0
	}
	o.commit(out)
	return len(out)
}

// earlier returns output packet index, which is before p, with a reference for the caller and
// how far back it is; nil when it is not to be had or does not fit.
func (dt *DownTrack) earlier(p *packet.Packet, meta seq.Meta, index uint64) (q *packet.Packet, offset uint16) {
	ext, m, ok := dt.seqs.Lookup(uint16(index))
	if !ok {
		return nil, 0
	}
	enc := dt.recent.find(m.Source)
	if enc == nil {
		return nil, 0
	}
	if q = enc.ring.Packet(ext); q == nil {
		return nil, 0
	}
	back := p.Timestamp + meta.Timestamp - q.Timestamp - m.Timestamp
	if q.PayloadType != p.PayloadType || len(q.Payload) == 0 || len(q.Payload) > red.MaxFrame || back == 0 || back > red.MaxOffset {
		q.Release()
		return nil, 0
	}
	return q, uint16(back)
}

// unpack takes redundant audio of a publisher apart, once for everybody: p becomes the newest
// frame, and earlier ones that were lost are recovered. It is false for a packet that makes
// no sense.
func (in *inbound) unpack(st *inStream, p *packet.Packet, number uint16, c codec.Codec) bool {
	var scratch [red.MaxBlocks]red.Block
	blocks, err := red.Parse(p.Payload, scratch[:0])
	if err != nil {
		return false
	}
	for _, b := range blocks {
		if st.section.formats[b.PayloadType] != c || b.PayloadType == st.section.redPT {
			return false
		}
	}
	last := len(blocks) - 1
	for i, b := range blocks[:last] {
		if len(b.Data) > 0 && b.Offset > 0 {
			in.recover(st, p, b, number-uint16(last-i), c)
		}
	}
	p.Payload = blocks[last].Data
	return true
}

// recover puts a redundant frame in the place of packet number, unless that one, or the frame
// in another, has come.
func (in *inbound) recover(st *inStream, p *packet.Packet, b red.Block, number uint16, c codec.Codec) {
	timestamp := p.Timestamp - uint32(b.Offset)
	if st.enc.ring.HasTimestamp(timestamp, recoverNear) {
		return
	}
	q := in.ep.router.e.pool.Get()
	defer q.Release()
	q.Payload = q.Buffer()[:copy(q.Buffer(), b.Data)]
	q.ArrivalNS, q.SSRC, q.Timestamp = p.ArrivalNS, p.SSRC, timestamp
	if ext, fresh := st.enc.write(q, number, c, true); fresh {
		st.note(ext, time.Duration(p.ArrivalNS), true)
	}
}
