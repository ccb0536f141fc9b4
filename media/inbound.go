package media

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/nack"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/reception"
)

// inbound is the receiving half of an endpoint.
type inbound struct {
	ep *Endpoint

	mu        sync.Mutex // guards the fields below; taken before an UpTrack's or Encoding's
	keys      *srtp.Context
	header    rtp.Header // scratch of the decryption
	plain     []byte     // scratch for RTCP
	sections  map[string]*inSection
	streams   map[uint32]*inStream
	transport *twcc.Recorder // nil without transport-wide feedback
	transID   uint8
	clock     reception.Clock
	feedback  int64 // when feedback was sent last
	reported  int64 // when reports were sent last
	counts    inCounts
}

type inCounts struct {
	packets, bytes uint64
}

// inSection is a section of the offer with which the client publishes.
type inSection struct {
	mid     string
	track   *UpTrack
	formats map[uint8]codec.Codec
	rtx     map[uint8]uint8 // payload type of retransmissions to that of the media
	rids    []string        // low to high
	ext     negotiate.Extensions
	fb      negotiate.Feedback
	ssrcs   []uint32
	rtxOf   map[uint32]uint32
}

func (in *inbound) init(ep *Endpoint) {
	in.ep = ep
	in.sections = map[string]*inSection{}
	in.streams = map[uint32]*inStream{}
}

func (in *inbound) setKeys(c *srtp.Context) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.keys = c
}

func (in *inbound) close() {
	in.mu.Lock()
	in.keys = nil
	clear(in.streams)
	clear(in.sections)
	in.mu.Unlock()
	in.ep.router.e.setPublishing(in.ep, false)
}

// configure takes the sections of an offer that publish.
func (in *inbound) configure(roles []role, tracks map[string]*UpTrack) {
	sections := map[string]*inSection{}
	var transID uint8
	for _, r := range roles {
		u := tracks[r.section.Mid]
		if r.publish == nil || u == nil {
			continue
		}
		s := newInSection(r.section, u)
		sections[s.mid] = s
		if s.fb.TransportCC && s.ext.TransportCC != 0 {
			transID = s.ext.TransportCC
		}
	}
	in.mu.Lock()
	in.sections = sections
	for ssrc, st := range in.streams {
		s := sections[st.section.mid]
		if s == nil || s.track != st.section.track {
			delete(in.streams, ssrc)
			continue
		}
		st.section = s
	}
	in.transID = transID
	if transID != 0 && in.transport == nil {
		in.transport = twcc.NewRecorder(in.ep.ssrc)
	}
	in.mu.Unlock()
	in.ep.router.e.setPublishing(in.ep, len(sections) > 0)
}

func newInSection(s *negotiate.Section, u *UpTrack) *inSection {
	in := &inSection{
		mid: s.Mid, track: u, formats: map[uint8]codec.Codec{}, rtx: map[uint8]uint8{},
		rids: lowToHigh(s.RIDs), ext: s.Extensions, ssrcs: s.SSRCs, rtxOf: s.RTX,
	}
	for _, f := range s.Formats {
		in.formats[f.PayloadType] = f.Codec
		if f.RTX != 0 {
			in.rtx[f.RTX] = f.PayloadType
		}
		in.fb.NACK = in.fb.NACK || f.Feedback.NACK
		in.fb.PLI = in.fb.PLI || f.Feedback.PLI
		in.fb.FIR = in.fb.FIR || f.Feedback.FIR
		in.fb.TransportCC = in.fb.TransportCC || f.Feedback.TransportCC
	}
	return in
}

// lowToHigh orders simulcast streams by the names in use; others stay as offered.
func lowToHigh(rids []string) []string {
	for _, order := range [...][]string{
		{"q", "h", "f"}, {"l", "m", "h"}, {"lo", "mid", "hi"}, {"low", "mid", "high"}, {"low", "medium", "high"},
	} {
		if !slices.ContainsFunc(rids, func(r string) bool { return !slices.Contains(order, r) }) {
			return slices.DeleteFunc(slices.Clone(order), func(r string) bool { return !slices.Contains(rids, r) })
		}
	}
	return rids
}

// datagram takes an SRTP or SRTCP packet of the client. b may be overwritten after it returns.
func (in *inbound) datagram(b []byte, now int64) {
	drops := &in.ep.router.e.drops
	if len(b) > packet.MaxSize {
		drops.add(dropOversize)
		return
	}
	if len(b) >= 2 && b[1] >= 192 && b[1] <= 223 { // RFC 5761 section 4
		in.rtcp(b, now)
		return
	}
	h, err := packet.ParseHeader(b)
	if err != nil {
		drops.add(dropMalformed)
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.keys == nil {
		drops.add(dropNoKeys)
		return
	}
	p := in.ep.router.e.pool.Get()
	defer p.Release()
	plain, err := in.keys.DecryptRTP(p.Buffer()[:0], b, &in.header)
	if err != nil {
		if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) {
			drops.add(dropSRTPAuth)
		} else {
			drops.add(dropSRTPReplay)
		}
		return
	}
	in.counts.packets++
	in.counts.bytes += uint64(len(b))
	in.noteTransport(&h, now)
	st := in.streams[h.SSRC]
	if st == nil {
		if st = in.bind(&h); st == nil {
			return
		}
	}
	body, err := h.Body(plain)
	if err != nil {
		drops.add(dropMalformed)
		return
	}
	p.Payload, p.ArrivalNS = body, now
	p.SSRC, p.Timestamp, p.Marker = h.SSRC, h.Timestamp, h.Marker
	st.write(p, &h, drops)
}

func (in *inbound) noteTransport(h *packet.Header, now int64) {
	if in.transport == nil {
		return
	}
	if x := h.Extension(in.transID); len(x) == 2 {
		in.transport.Record(h.SSRC, uint16(x[0])<<8|uint16(x[1]), now/1000)
	}
}

// bind finds out what a new SSRC is: announced in the offer, named by header
// extensions (RFC 8843 section 9.2, RFC 8852), or known by its payload type.
func (in *inbound) bind(h *packet.Header) *inStream {
	drops := &in.ep.router.e.drops
	if len(in.streams) >= maxInStreams {
		drops.add(dropTooManySSRCs)
		return nil
	}
	s := in.sectionOf(h)
	if s == nil {
		drops.add(dropUnknownSSRC)
		return nil
	}
	st := &inStream{section: s, ssrc: h.SSRC}
	_, st.rtx = s.rtx[h.PayloadType]
	rid := string(h.Extension(s.ext.RID))
	if st.rtx {
		rid = string(h.Extension(s.ext.RepairedRID))
	}
	index := 0
	switch {
	case len(s.rids) > 0 && rid != "":
		if index = slices.Index(s.rids, rid); index < 0 {
			drops.add(dropUnknownSSRC)
			return nil
		}
	case len(s.rids) > 0:
		drops.add(dropUnknownSSRC) // not said yet which stream it is
		return nil
	case st.rtx:
		if media, ok := s.rtxOf[h.SSRC]; ok {
			index = max(slices.Index(s.ssrcs, media), 0)
		}
	default:
		index = max(slices.Index(s.ssrcs, h.SSRC), 0)
	}
	if index >= maxEncodings {
		drops.add(dropUnknownSSRC)
		return nil
	}
	if st.enc = s.track.encoding(index, rid, in); st.enc == nil {
		drops.add(dropUnknownSSRC)
		return nil
	}
	in.streams[h.SSRC] = st
	return st
}

func (in *inbound) sectionOf(h *packet.Header) *inSection {
	for _, s := range in.sections {
		if _, isRTX := s.rtxOf[h.SSRC]; isRTX || slices.Contains(s.ssrcs, h.SSRC) {
			return s
		}
	}
	var only *inSection
	for _, s := range in.sections {
		if mid := h.Extension(s.ext.MID); mid != nil {
			return in.sections[string(mid)]
		}
		if len(s.ssrcs) > 0 {
			continue // it said what it sends: this may be a late packet of a section that has ended
		}
		_, media := s.formats[h.PayloadType]
		_, rtx := s.rtx[h.PayloadType]
		if media || rtx {
			if only != nil {
				return nil // two sections would do
			}
			only = s
		}
	}
	return only
}

// requestKeyframe implements upstream. It runs on any goroutine.
func (in *inbound) requestKeyframe(enc *Encoding) {
	in.mu.Lock()
	var pkt rtcp.Packet
	for _, st := range in.streams {
		if st.enc != enc || st.rtx {
			continue
		}
		switch fb := st.section.fb; {
		case fb.PLI:
			pkt = &rtcp.PictureLossIndication{SenderSSRC: in.ep.ssrc, MediaSSRC: st.ssrc}
		case fb.FIR:
			st.firs++
			pkt = &rtcp.FullIntraRequest{
				SenderSSRC: in.ep.ssrc, MediaSSRC: st.ssrc,
				FIR: []rtcp.FIREntry{{SSRC: st.ssrc, SequenceNumber: st.firs}},
			}
		}
	}
	in.mu.Unlock()
	if pkt != nil {
		in.ep.sendRTCP(pkt)
	}
}

// inStream is one SSRC that a client sends: an encoding, or the retransmissions of one.
// It is guarded by its inbound's mutex.
type inStream struct {
	section  *inSection
	enc      *Encoding
	ssrc     uint32
	rtx      bool
	firs     uint8
	received reception.State
	missing  *nack.Generator // nil without NACK, and for retransmissions
}

// write takes a decrypted packet.
func (st *inStream) write(p *packet.Packet, h *packet.Header, drops *dropCounters) {
	s := st.section
	now := time.Duration(p.ArrivalNS)
	pt, number := h.PayloadType, h.SequenceNumber
	if st.rtx {
		media, ok := s.rtx[pt]
		if !ok {
			drops.add(dropPayloadType)
			return
		}
		if len(p.Payload) < 2 {
			return // padding that probes the bandwidth
		}
		pt, number = media, binary.BigEndian.Uint16(p.Payload)
		p.Payload = p.Payload[2:]
	}
	c, ok := s.formats[pt]
	if !ok {
		drops.add(dropPayloadType)
		return
	}
	if !st.rtx {
		st.received.Note(number, h.Timestamp, p.ArrivalNS, c.ClockRate)
	}
	if s.track.muted.Load() {
		drops.add(dropMuted)
		st.missing = nil // nothing is missed while nothing is wanted
		return
	}
	if x := h.Extension(s.ext.AudioLevel); len(x) == 1 {
		p.AudioLevel = x[0] & 0x7f
		s.track.router.observe(s.track.id, p.AudioLevel, now)
	}
	ext, fresh := st.enc.write(p, number, c, st.rtx)
	if fresh {
		st.note(ext, now)
	}
}

// note lets the generator of the encoding's media stream know that packet ext came.
func (st *inStream) note(ext uint64, now time.Duration) {
	media := st
	if st.rtx {
		if media = st.enc.media; media == nil {
			return
		}
	} else {
		st.enc.media = st
	}
	if !st.section.fb.NACK {
		return
	}
	if media.missing == nil {
		if st.rtx {
			return
		}
		g, err := nack.New(nack.Config{})
		if err != nil {
			return
		}
		media.missing = g
	}
	if !media.missing.Receive(ext, now) {
		media.enc.lostTooMuch.Store(true) // the clock asks for a keyframe
	}
}
