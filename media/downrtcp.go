package media

import (
	"time"

	"github.com/pion/rtcp"

	"github.com/amphi-sfu/amphi/media/packet"
)

// resendMemory keeps a packet from being sent again more often than it can help.
type resendMemory struct {
	seq [64]uint16
	at  [64]int64
}

// again says whether packet s was sent again less than within ago, and if not notes it.
func (m *resendMemory) again(s uint16, now, within int64) bool {
	i := s % uint16(len(m.seq))
	if m.seq[i] == s && m.at[i] != 0 && now-m.at[i] < within {
		return true
	}
	m.seq[i], m.at[i] = s, now
	return false
}

// maxResends bounds what one NACK message may ask for.
const maxResends = 128

// nacked answers a negative acknowledgement (RFC 4585 section 6.2.1).
func (dt *DownTrack) nacked(pairs []rtcp.NackPair) {
	if !dt.out.ready() || dt.wire.pt == 0 || !dt.wire.nack {
		return
	}
	now := dt.out.w.e.now()
	within := max(int64(dt.counts.rtt)/2, int64(10*time.Millisecond))
	left := maxResends
	for _, pair := range pairs {
		for _, s := range pair.PacketList() {
			if left--; left < 0 {
				return
			}
			if !dt.resent.again(s, now, within) {
				dt.resend(s)
			}
		}
	}
}

func (dt *DownTrack) resend(s uint16) {
	ext, meta, ok := dt.seqs.Lookup(s)
	var p *packet.Packet
	if ok {
		if enc := dt.recent.find(meta.Source); enc != nil {
			p = enc.ring.Packet(ext)
		}
	}
	if p == nil {
		dt.counts.missed++
		dt.out.w.e.drops.add(dropNACKMiss)
		return
	}
	defer p.Release()
	// The packet may be one of another codec, from before a switch; its payload
	// type is gone, and so is its use.
	if p.PayloadType != dt.sourcePT || len(p.Payload) == 0 {
		return
	}
	if n := dt.out.sendMedia(dt, p, dt.seqs.Extend(s), meta, dt.wire.rtxPT != 0); n > 0 {
		dt.counts.retransmitted++
		dt.out.sent.retransmitted++
	}
}

// sendReport passes a sender report on, in the numbers of the output (RFC 3550 section 6.4.1).
func (dt *DownTrack) sendReport(enc *Encoding, sr packet.SenderReport) {
	if enc != dt.source || !dt.out.ready() || dt.counts.packets == 0 {
		return
	}
	_, meta, ok := dt.seqs.Lookup(uint16(dt.seqs.Next() - 1))
	if !ok || meta.Source != enc.id {
		return
	}
	dt.counts.reportNTP, dt.counts.reportAt = uint32(sr.NTP>>16), dt.out.w.e.now()
	dt.out.ep.sendRTCP(
		&rtcp.SenderReport{
			SSRC: dt.wire.ssrc, NTPTime: sr.NTP, RTPTime: sr.RTP + meta.Timestamp,
			PacketCount: uint32(dt.counts.packets), OctetCount: uint32(dt.counts.bytes),
		},
		&rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
			Source: dt.wire.ssrc,
			Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: cname}},
		}}},
	)
}

// reported takes a block of a receiver report.
func (dt *DownTrack) reported(r rtcp.ReceptionReport) {
	c := &dt.counts
	c.fraction, c.lost, c.jitter = r.FractionLost, r.TotalLost, r.Jitter
	if r.LastSenderReport != 0 && r.LastSenderReport == c.reportNTP {
		passed := dt.out.w.e.now() - c.reportAt
		held := int64(r.Delay) * int64(time.Second) >> 16
		if rtt := passed - held; rtt >= 0 && rtt < int64(10*time.Second) {
			c.rtt = time.Duration(rtt)
		}
	}
}

// keyframeWanted passes a client's keyframe request on to the publisher.
func (dt *DownTrack) keyframeWanted() {
	if dt.source != nil {
		dt.source.RequestKeyframe()
	}
}
