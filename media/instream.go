package media

import (
	"encoding/binary"
	"time"

	"github.com/amphi-sfu/amphi/media/nack"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/reception"
)

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
