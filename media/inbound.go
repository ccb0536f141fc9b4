package media

import (
	"encoding/binary"
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
	"github.com/amphi-sfu/amphi/media/seq"
)

// inbound is the receiving half of an endpoint.
type inbound struct {
	ep *Endpoint

	mu         sync.Mutex // guards the fields below; taken before an UpTrack's or Encoding's
	keys       *srtp.Context
	header     rtp.Header // scratch of the decryption
	rtcpHeader rtcp.Header
	sections   map[string]*inSection
	streams    map[uint32]*inStream
	transport  *twcc.Recorder // nil without transport-wide feedback
	transSeq   seq.Tracker    // of what it records
	transID    uint8
	clock      reception.Clock
	feedback   int64 // when feedback was sent last
	reported   int64 // when reports were sent last
	counts     inCounts
	limits     inLimits
	log        dropLog
}

type inCounts struct {
	packets, bytes uint64
	dropped        [drops]uint64
}

// drops returns the drops by reason.
func (c *inCounts) drops() map[string]uint64 {
	m := map[string]uint64{}
	for i, n := range c.dropped {
		if n > 0 {
			m[drop(i).String()] = n
		}
	}
	return m
}

// inSection is a section of the offer with which the client publishes.
type inSection struct {
	mid     string
	track   *UpTrack
	formats map[uint8]codec.Codec
	rtx     map[uint8]uint8 // payload type of retransmissions to that of the media
	redPT   uint8           // payload type of audio with redundancy, 0 without
	rids    []string        // low to high
	ext     negotiate.Extensions
	fb      negotiate.Feedback
	ssrcs   []uint32
	rtxOf   map[uint32]uint32
}

// lateTransport is how far behind the highest a transport-wide number may be and still be that of a
// packet that others have overtaken: what is reported again for it fits one packet.
const lateTransport = 256

func (in *inbound) init(ep *Endpoint) {
	in.ep = ep
	in.transSeq.Behind = lateTransport
	in.sections = map[string]*inSection{}
	in.streams = map[uint32]*inStream{}
	in.limits.init(ep.router.e.now())
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
	allowed := baseRate
	claimed := map[uint32]bool{}
	collisions := 0
	for _, r := range roles {
		u := tracks[r.section.Mid]
		if r.publish == nil || u == nil {
			continue
		}
		s := newInSection(r.section, u)
		collisions += s.claim(claimed)
		allowed = allowed.Add(publishRate(u.kind, r.publish.MaxBitrate))
		sections[s.mid] = s
		if s.fb.TransportCC && s.ext.TransportCC != 0 {
			transID = s.ext.TransportCC
		}
	}
	in.mu.Lock()
	for range collisions {
		in.drop(dropCollision)
	}
	in.limits.media.Set(allowed, in.ep.router.e.now())
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
		if f.RED != 0 {
			in.formats[f.RED], in.redPT = f.Codec, f.RED
		}
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

// claim takes the SSRCs that the section announces. Those that another section announced before
// it are that one's (RFC 3550 section 8.2); it returns how many they were.
func (s *inSection) claim(claimed map[uint32]bool) (collisions int) {
	free := func(ssrc uint32) bool {
		if claimed[ssrc] {
			collisions++
			return false
		}
		claimed[ssrc] = true
		return true
	}
	s.ssrcs = slices.DeleteFunc(slices.Clone(s.ssrcs), func(ssrc uint32) bool { return !free(ssrc) })
	rtxOf := map[uint32]uint32{}
	for rtx, media := range s.rtxOf {
		if free(rtx) {
			rtxOf[rtx] = media
		}
	}
	s.rtxOf = rtxOf
	return collisions
}

// datagram takes an SRTP or SRTCP packet of the client. b may be overwritten after it returns.
func (in *inbound) datagram(b []byte, now int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case len(b) > packet.MaxSize:
		in.drop(dropOversize)
	case in.keys == nil:
		in.drop(dropNoKeys)
	case len(b) >= 2 && b[1] >= 192 && b[1] <= 223: // RFC 5761 section 4
		in.rtcp(b, now)
	default:
		in.rtp(b, now)
	}
}

// rtp takes an SRTP packet. What can be refused is refused before it costs a decryption.
func (in *inbound) rtp(b []byte, now int64) {
	h, err := packet.ParseHeader(b)
	if err != nil {
		in.drop(dropMalformed)
		return
	}
	open := in.limits.media.Open(now)
	if !open && !in.limits.sample() {
		in.drop(dropRateLimit)
		return
	}
	st := in.streams[h.SSRC]
	if st == nil {
		if reason, ok := in.limits.admit(h.SSRC, now); !ok {
			in.drop(reason)
			return
		}
	}
	p := in.ep.router.e.pool.Get()
	defer p.Release()
	plain, err := in.keys.DecryptRTP(p.Buffer()[:0], b, &in.header)
	if err != nil {
		in.drop(in.decryptDrop(b, err))
		return
	}
	in.limits.media.Spend(len(b), now)
	in.counts.packets++
	in.counts.bytes += uint64(len(b))
	if !open { // it was only decrypted to keep the rollover counter in step
		in.drop(dropRateLimit)
		return
	}
	in.noteTransport(&h, now)
	if st == nil {
		in.limits.known[h.SSRC] = struct{}{}
		if st = in.bind(&h, now); st == nil {
			return
		}
	} else if st.contradicts(&h) {
		in.drop(dropCollision)
		return
	}
	body, err := h.Body(plain)
	if err != nil {
		in.drop(dropMalformed)
		return
	}
	p.Payload, p.ArrivalNS = body, now
	p.SSRC, p.Timestamp, p.Marker = h.SSRC, h.Timestamp, h.Marker
	if id := st.section.ext.Descriptor; id != 0 && h.Extension(id) != nil {
		// As h, but in the packet's own memory.
		if own, err := packet.ParseHeader(plain); err == nil {
			p.Descriptor = own.Extension(id)
		}
	}
	in.write(st, p, &h)
}

// noteTransport notes a transport-wide number. The recorder keeps a place for every number
// between two, so those that are far from all others are kept from it.
func (in *inbound) noteTransport(h *packet.Header, now int64) {
	if in.transport == nil {
		return
	}
	x := h.Extension(in.transID)
	if len(x) != 2 {
		return
	}
	number := binary.BigEndian.Uint16(x)
	switch _, verdict := in.transSeq.Take(number); verdict {
	case seq.Doubtful:
		return
	case seq.Restarted:
		in.transport = twcc.NewRecorder(in.ep.ssrc)
	}
	in.transport.Record(h.SSRC, number, now/1000)
}

// bind finds out what a new SSRC is: announced in the offer, named by header
// extensions (RFC 8843 section 9.2, RFC 8852), or known by its payload type.
func (in *inbound) bind(h *packet.Header, now int64) *inStream {
	s := in.sectionOf(h)
	if s == nil {
		in.drop(dropUnknownSSRC)
		return nil
	}
	if len(in.streams) >= maxInStreams {
		in.drop(dropTooManySSRCs)
		return nil
	}
	st := &inStream{section: s, ssrc: h.SSRC, last: now}
	_, st.rtx = s.rtx[h.PayloadType]
	if _, media := s.formats[h.PayloadType]; !media && !st.rtx {
		in.drop(dropPayloadType)
		return nil
	}
	rid := string(h.Extension(s.ext.RID))
	if st.rtx {
		rid = string(h.Extension(s.ext.RepairedRID))
	}
	index := 0
	switch {
	case len(s.rids) > 0:
		index = slices.Index(s.rids, rid) // negative also while it has not said yet which it is
	case st.rtx:
		if media, ok := s.rtxOf[h.SSRC]; ok {
			index = max(slices.Index(s.ssrcs, media), 0)
		}
	default:
		index = max(slices.Index(s.ssrcs, h.SSRC), 0)
	}
	if index < 0 || index >= maxEncodings {
		in.drop(dropUnknownSSRC)
		return nil
	}
	if st.enc = s.track.encoding(index, rid, in); st.enc == nil {
		in.drop(dropUnknownSSRC)
		return nil
	}
	if !in.replace(st, now) {
		in.drop(dropCollision)
		return nil
	}
	in.streams[h.SSRC] = st
	return st
}

// replace lets st take the place of the SSRC that its encoding had before. It is false while
// that one is still being sent: the first to claim an encoding keeps it (RFC 3550 section 8.2).
func (in *inbound) replace(st *inStream, now int64) bool {
	for ssrc, old := range in.streams {
		if old.enc != st.enc || old.rtx != st.rtx {
			continue
		}
		if now-old.last < int64(takeoverAfter) && !old.ended && !old.withdrawn() {
			return false
		}
		delete(in.streams, ssrc)
	}
	if !st.rtx {
		if old := st.enc.media; old != nil && old.ssrc != st.ssrc {
			st.enc.expect()
		}
		st.enc.media = st
	}
	return true
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
	ended    bool  // the client said goodbye, and has sent nothing since
	last     int64 // when a packet came last
	firs     uint8
	received reception.State
	missing  *nack.Generator // nil without NACK, and for retransmissions
}

// contradicts says that a packet claims the stream's SSRC for another section or encoding.
func (st *inStream) contradicts(h *packet.Header) bool {
	s := st.section
	if mid := h.Extension(s.ext.MID); mid != nil && string(mid) != s.mid {
		return true
	}
	if len(s.rids) == 0 || st.rtx {
		return false
	}
	rid := h.Extension(s.ext.RID)
	return rid != nil && string(rid) != st.enc.rid
}

// withdrawn says that the offer announces SSRCs for the section, and this is not one of them.
func (st *inStream) withdrawn() bool {
	s := st.section
	if st.rtx {
		_, ok := s.rtxOf[st.ssrc]
		return len(s.rtxOf) > 0 && !ok
	}
	return len(s.ssrcs) > 0 && !slices.Contains(s.ssrcs, st.ssrc)
}

// write takes a decrypted packet.
func (in *inbound) write(st *inStream, p *packet.Packet, h *packet.Header) {
	s := st.section
	now := time.Duration(p.ArrivalNS)
	st.last, st.ended = p.ArrivalNS, false
	pt, number := h.PayloadType, h.SequenceNumber
	if st.rtx {
		media, ok := s.rtx[pt]
		if !ok {
			in.drop(dropPayloadType)
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
		in.drop(dropPayloadType)
		return
	}
	if !st.rtx {
		st.received.Note(number, h.Timestamp, p.ArrivalNS, c.ClockRate)
	}
	if s.track.muted.Load() {
		in.drop(dropMuted)
		st.missing = nil // nothing is missed while nothing is wanted
		return
	}
	if x := h.Extension(s.ext.AudioLevel); len(x) == 1 {
		p.AudioLevel = x[0] & 0x7f
		s.track.router.observe(s.track, p.AudioLevel, now)
	}
	if pt == s.redPT && len(p.Payload) > 0 && !in.unpack(st, p, number, c) {
		in.drop(dropPayload)
		return
	}
	ext, fresh := st.enc.write(p, number, c, st.rtx)
	if fresh {
		st.note(ext, now, st.rtx)
	}
}

// note lets the generator of the encoding's media stream know that packet ext came, or that
// it was repaired.
func (st *inStream) note(ext uint64, now time.Duration, repaired bool) {
	media := st.enc.media
	if media == nil || !st.section.fb.NACK {
		return
	}
	if media.missing == nil {
		if st.rtx {
			return
		}
		g, err := nack.New(nack.Config{Separate: len(st.section.rtx) > 0})
		if err != nil {
			return
		}
		media.missing = g
	}
	intact := false
	if repaired {
		intact = media.missing.Repaired(ext, now)
	} else {
		intact = media.missing.Receive(ext, now)
	}
	if !intact {
		media.enc.lostTooMuch.Store(true) // the clock asks for a keyframe
	}
}
