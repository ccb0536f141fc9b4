package media

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pion/rtcp"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/icetcp"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seal"
	"github.com/amphi-sfu/amphi/media/seq"
	"github.com/amphi-sfu/amphi/media/udp"
)

// headerRoom is the longest header that is written, but for a descriptor: fixed part and one
// block of extensions.
const headerRoom = 12 + 4 + 12

// outbound is the sending half of an endpoint. All of it belongs to who has its worker's turn.
type outbound struct {
	// What every packet needs comes first, in few cache lines.
	w       *worker
	dest    *udp.Dest    // nil before a pair is selected, and with ICE-TCP
	stream  *icetcp.Conn // when the selected pair is not UDP
	sealer  *seal.Sealer
	sent    sendCounts
	bw      bandwidth
	resends resendBudget
	pacer   pacer

	ep     *Endpoint
	tracks []*DownTrack
	// transport counts transport-wide where no estimator does.
	transport uint64
	scratch   []byte
	described []byte // the descriptor being written
	ticks     int
	awake     int  // ticks that are still looked at while no track is sent
	away      bool // the client has fallen silent, and does not count among those who want something
	limits    outLimits
	way       netip.Addr // where packets went last
}

type sendCounts struct {
	packets, bytes, retransmitted uint64
}

// ready says that packets can be sealed and sent.
func (o *outbound) ready() bool { return o.sealer != nil && (o.dest != nil || o.stream != nil) }

// setPath says where packets go from now on; nil: nowhere.
func (o *outbound) setPath(p *path) {
	was := o.ready()
	o.note(p)
	o.stream = nil
	switch {
	case p == nil:
		o.dest = nil
	case p.stream != nil:
		o.dest, o.stream = nil, p.stream
	case o.dest == nil:
		o.dest = o.w.sender.NewDest(p.addr)
	default:
		o.dest.SetAddr(p.addr)
	}
	o.started(was)
}

// note tells the estimator when packets go to another address: that is another way there.
func (o *outbound) note(p *path) {
	if p == nil {
		return
	}
	if b := o.bw.estimator; b != nil && o.way.IsValid() && o.way != p.addr.Addr() {
		b.Rerouted(time.Duration(o.w.e.now()))
	}
	o.way = p.addr.Addr()
}

func (o *outbound) setKeys(s *seal.Sealer) {
	was := o.ready()
	o.sealer = s
	o.started(was)
}

// started begins all DownTracks when the endpoint has become ready.
func (o *outbound) started(was bool) {
	if was || !o.ready() {
		return
	}
	o.awake = awakeTicks
	now := o.w.e.now()
	o.allocate(now)
}

// close lets go of everything.
func (o *outbound) close() {
	for _, dt := range o.tracks {
		dt.unbind()
	}
	o.pacer.clear()
	o.tracks, o.sealer, o.dest, o.stream = nil, nil, nil, nil
	delete(o.w.endpoints, o)
	delete(o.w.probing, o)
	o.w.load.Add(-1)
}

// tick does what is due now and then.
func (o *outbound) tick(now int64) {
	if !o.ready() {
		return
	}
	// A client that is sent nothing costs nothing, once its state has been published.
	if o.awake == 0 {
		return
	}
	o.awake--
	o.ticks++
	for _, dt := range o.tracks {
		dt.tick(now)
		if dt.track != nil {
			o.awake = awakeTicks
		}
	}
	o.poll(now)
	if o.ticks%5 == 0 {
		o.ep.publish(o)
	}
}

// carries says that a slot carries the track.
func (o *outbound) carries(u *UpTrack) bool {
	for _, dt := range o.tracks {
		if dt.track == u {
			return true
		}
	}
	return false
}

// reserve returns an empty slice with room for n bytes, in the memory it is sent from.
func (o *outbound) reserve(n int) []byte {
	if o.dest != nil {
		return o.dest.Reserve(n)
	}
	if cap(o.scratch) < n {
		o.scratch = make([]byte, 0, n)
	}
	return o.scratch[:0]
}

// commit sends what was written into the last reservation.
func (o *outbound) commit(b []byte) {
	o.sent.packets++
	o.sent.bytes += uint64(len(b))
	if o.dest != nil {
		o.dest.Commit(len(b))
		return
	}
	if _, err := o.stream.Write(b); err != nil {
		o.w.e.drops.add(dropNotConnected)
	}
}

// wire is how a DownTrack's packets look to its client.
type wire struct {
	ssrc, rtxSSRC uint32
	pt, rtxPT     uint8
	redPT         uint8 // of audio with redundancy, 0 without
	transportID   uint8 // header extension ids, 0 without
	levelID       uint8
	descriptorID  uint8
	nack          bool
}

// sendsTransport says that packets carry a transport-wide number.
func (w *wire) sendsTransport() bool { return w.transportID != 0 && w.sentOnce() }

// sentOnce says that a packet leaves once under its number, and so may carry what depends on
// when it leaves. Where lost packets have to be sent again as they were, for want of RTX, it
// must not: other contents under the same SRTP index would reuse a nonce.
func (w *wire) sentOnce() bool { return w.rtxPT != 0 || !w.nack }

// outHeader is what of a header differs from packet to packet and client to client.
type outHeader struct {
	pt              uint8
	seq             uint16
	timestamp, ssrc uint32
	descriptor      []byte // nil without
}

// appendHeader appends an RTP header (RFC 3550 section 5.1, RFC 8285).
// size is that of payload and tag.
func (o *outbound) appendHeader(b []byte, w *wire, p *packet.Packet, h outHeader, size int) []byte {
	transport := w.sendsTransport()
	level := w.levelID != 0 && p.AudioLevel != packet.NoAudioLevel
	extended := transport || level || h.descriptor != nil
	first := byte(0x80)
	if extended {
		first |= 0x10
	}
	b = append(b, first, h.pt, byte(h.seq>>8), byte(h.seq))
	b = binary.BigEndian.AppendUint32(b, h.timestamp)
	b = binary.BigEndian.AppendUint32(b, h.ssrc)
	if !extended {
		return b
	}
	start := len(b)
	size += len(b) + 8 + len(h.descriptor)
	if len(h.descriptor) > 16 || h.descriptor != nil && w.descriptorID > 14 { // the two-byte form; a descriptor is only negotiated where both may be mixed
		b = append(b, 0x10, 0, 0, 0)
		if transport {
			n := o.number(size, o.w.now)
			b = append(b, w.transportID, 2, byte(n>>8), byte(n))
		}
		b = append(b, w.descriptorID, byte(len(h.descriptor)))
		b = append(b, h.descriptor...)
	} else {
		b = append(b, 0xbe, 0xde, 0, 0)
		if transport {
			n := o.number(size, o.w.now)
			b = append(b, w.transportID<<4|1, byte(n>>8), byte(n))
		}
		if level {
			b = append(b, w.levelID<<4, p.AudioLevel)
		}
		if n := len(h.descriptor); n > 0 {
			b = append(b, w.descriptorID<<4|byte(n-1))
			b = append(b, h.descriptor...)
		}
	}
	for (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	b[start+3] = byte((len(b)-start)/4 - 1)
	return b
}

// form is how a packet leaves: as the next packet of the retransmission stream (RFC 4588), or
// with padding (RFC 3550 section 5.1), in bytes.
type form struct {
	rtx     bool
	padding uint8
}

// sendMedia seals p for the client, as output packet index of the media stream if f does not say
// otherwise. It reports the bytes sent, 0 when the packet could not be sealed.
func (o *outbound) sendMedia(dt *DownTrack, p *packet.Packet, index uint64, meta seq.Meta, f form) int {
	w := &dt.wire
	if !w.sentOnce() {
		f.padding = 0
	}
	h := outHeader{pt: w.pt, ssrc: w.ssrc, timestamp: p.Timestamp + meta.Timestamp}
	if w.descriptorID != 0 && p.Descriptor != nil {
		o.described = p.Frame.Append(o.described[:0], p.Descriptor, descriptor.Edit{
			Number: meta.Frame, Templates: meta.Template, Active: meta.Targets,
		})
		h.descriptor = o.described
	}
	b := o.reserve(headerRoom + len(h.descriptor) + 2 + len(p.Payload) + int(f.padding) + seal.MaxOverhead)
	sealIndex := index
	if f.rtx {
		h.ssrc, h.pt, sealIndex = w.rtxSSRC, w.rtxPT, dt.rtxNext
		dt.rtxNext++
	}
	h.seq = uint16(sealIndex)
	if p.Marker || p.Frame.Last && p.Frame.Spatial == meta.Spatial { // the picture ends with what is forwarded of it
		h.pt |= 0x80
	}
	b = o.appendHeader(b, w, p, h, len(p.Payload)+int(f.padding)+seal.MaxOverhead)
	payload := p.Payload
	if f != (form{}) || meta.Picture != 0 || meta.TL0 != 0 {
		payload = rewrite(b, p, index, meta, f)
	}
	out, err := o.sealer.Seal(b, payload, h.ssrc, sealIndex)
	if err != nil {
		o.w.e.drops.add(dropSeal)
		return 0
	}
	o.commit(out)
	return len(out)
}

// rewrite puts the payload behind header in its memory, with the original sequence
// number in front for RTX, with the counters of its descriptor moved, and with its padding.
func rewrite(header []byte, p *packet.Packet, index uint64, meta seq.Meta, f form) []byte {
	b := header[len(header):len(header):cap(header)]
	if f.rtx {
		b = append(b, byte(index>>8), byte(index))
	}
	at := len(b)
	b = append(b, p.Payload...)
	codec.RewriteCounters(b[at:], p.Counters, meta.Picture, meta.TL0)
	if n := f.padding; n > 0 {
		header[0] |= 0x20
		b = append(b, make([]byte, n-1)...)
		b = append(b, n)
	}
	return b
}

// sendRTCP encrypts and sends a compound packet at once.
func (ep *Endpoint) sendRTCP(pkts ...rtcp.Packet) {
	raw, err := rtcp.Marshal(pkts)
	if err != nil {
		ep.log.Debug("marshalling RTCP", "err", err)
		return
	}
	ep.outRTCP.Lock()
	defer ep.outRTCP.Unlock()
	ctx := ep.outRTCP.ctx
	if ctx == nil {
		return
	}
	sealed, err := ctx.EncryptRTCP(nil, raw, nil)
	if err != nil {
		ep.log.Debug("encrypting RTCP", "err", err)
		return
	}
	ep.sendDatagram(sealed)
}
