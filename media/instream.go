package media

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtcp"

	"github.com/amphi-sfu/amphi/media/nack"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seq"
)

// inStream is one SSRC that a client sends: an encoding, or the retransmissions of one.
// It is guarded by its inbound's mutex.
type inStream struct {
	section  *inSection
	enc      *Encoding
	ssrc     uint32
	rtx      bool
	firs     uint8
	received receiverState
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
		st.received.note(number, h.Timestamp, p.ArrivalNS, c.ClockRate)
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

// receiverState is what receiver reports need (RFC 3550 appendix A).
type receiverState struct {
	unwrap                       seq.Unwrapper
	base, received               uint64
	expectedPrior, receivedPrior uint64
	transit                      uint32
	jitter                       uint32 // scaled by 16
	hasTransit                   bool
	lastReport                   uint32 // middle 32 bits of the NTP time of the last sender report
	lastReportAt                 int64
}

func (r *receiverState) note(s uint16, ts uint32, now int64, clockRate uint32) {
	ext := r.unwrap.Unwrap(s)
	if r.base == 0 {
		r.base = ext
	}
	r.received++
	arrival := uint32(now / 1000 * int64(clockRate) / 1e6)
	transit := arrival - ts
	if r.hasTransit {
		d := int64(int32(transit - r.transit))
		if d < 0 {
			d = -d
		}
		r.jitter = uint32(int64(r.jitter) + d - (int64(r.jitter)+8)>>4)
	}
	r.transit, r.hasTransit = transit, true
}

// report makes a reception report block and begins a new interval.
func (r *receiverState) report(ssrc uint32, now int64) rtcp.ReceptionReport {
	expected := r.unwrap.Highest() - r.base + 1
	lost := int64(expected) - int64(r.received)
	lostNow := int64(expected-r.expectedPrior) - int64(r.received-r.receivedPrior)
	fraction := uint8(0)
	if d := expected - r.expectedPrior; d > 0 && lostNow > 0 {
		fraction = uint8(min(lostNow*256/int64(d), 255))
	}
	r.expectedPrior, r.receivedPrior = expected, r.received
	block := rtcp.ReceptionReport{
		SSRC: ssrc, FractionLost: fraction, TotalLost: uint32(min(max(lost, 0), 1<<23-1)),
		LastSequenceNumber: uint32(r.unwrap.Highest() - 1<<16), Jitter: r.jitter >> 4,
	}
	if r.lastReportAt != 0 {
		block.LastSenderReport = r.lastReport
		block.Delay = uint32((now - r.lastReportAt) << 16 / int64(time.Second))
	}
	return block
}

// ntpClock translates a publisher's NTP times to the node's wall clock by one fixed
// offset, so that its tracks stay synchronised with each other, and nearly so with
// those of other publishers.
type ntpClock struct {
	offset uint64
	set    bool
}

func (c *ntpClock) translate(ntp uint64, arrival time.Time) uint64 {
	if !c.set {
		c.offset, c.set = toNTP(arrival)-ntp, true
	}
	return ntp + c.offset
}

// toNTP converts to the 64-bit format of RFC 3550 section 4.
func toNTP(t time.Time) uint64 {
	const unixToNTP = 2208988800
	sec := uint64(t.Unix() + unixToNTP)
	return sec<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}
