package media

import (
	"time"

	"github.com/pion/rtcp"

	"github.com/amphi-sfu/amphi/media/control"
	"github.com/amphi-sfu/amphi/media/packet"
)

// maxRepeats is how often one packet is sent again at most: some clients go on asking
// for what has long been repaired.
const maxRepeats = 5

// resendMemory keeps a packet from being sent again more often than it can help. It
// takes memory with the first loss only.
type resendMemory struct {
	entries *[512]resendEntry
}

type resendEntry struct {
	at    uint32 // ms of the node's clock, 0: never
	seq   uint16
	times uint8
}

// forgetResend is after how many milliseconds a number means another packet.
const forgetResend = 5000

// times says how often packet s has been sent again, and for how many milliseconds
// it has not.
func (m *resendMemory) times(s uint16, now int64) (times uint8, ago uint32) {
	if m.entries == nil {
		return 0, 0
	}
	e := &m.entries[s%uint16(len(m.entries))]
	ago = uint32(now/int64(time.Millisecond)) - e.at
	if e.seq != s || e.at == 0 || ago > forgetResend {
		return 0, 0
	}
	return e.times, ago
}

func (m *resendMemory) note(s uint16, now int64) {
	if m.entries == nil {
		m.entries = new([512]resendEntry)
	}
	times, _ := m.times(s, now)
	m.entries[s%uint16(len(m.entries))] = resendEntry{
		seq: s, times: times + 1, at: max(uint32(now/int64(time.Millisecond)), 1),
	}
}

// resendBudget keeps retransmissions to a share of what is sent for the first time, so
// that a client that asks for everything, or a link that drops it, is not sent more and more.
type resendBudget struct {
	bytes int
	begun bool
}

const (
	// resendShare: one byte sent again for so many sent first.
	resendShare = 2
	// resendBurst is how much may be saved up, in bytes: a burst of loss comes at once.
	resendBurst = 96 << 10
)

func (b *resendBudget) earn(n int) {
	if !b.begun {
		b.begun, b.bytes = true, resendBurst
	}
	b.bytes = min(b.bytes+n/resendShare, resendBurst)
}

// spend says whether n bytes may be sent again, of a packet that was sent again so many
// times already: the more often, the more of the budget is left to others.
func (b *resendBudget) spend(n int, times uint8) bool {
	if b.bytes-n < resendBurst*int(min(times, 4))/5 {
		return false
	}
	b.bytes -= n
	return true
}

// maxResends bounds what one NACK message may ask for.
const maxResends = 128

// nacked answers a negative acknowledgement (RFC 4585 section 6.2.1).
func (dt *DownTrack) nacked(p control.Packet) {
	if !dt.out.ready() || dt.wire.pt == 0 || !dt.wire.nack {
		return
	}
	now := dt.out.w.e.now()
	within := uint32(max(dt.counts.rtt/2, 10*time.Millisecond) / time.Millisecond)
	left := maxResends
	for i := range p.Pairs() {
		first, following := p.Pair(i)
		for s, wanted := first, uint32(following)<<1|1; wanted != 0; s, wanted = s+1, wanted>>1 {
			if wanted&1 == 0 {
				continue
			}
			if left--; left < 0 {
				return
			}
			if times, ago := dt.resent.times(s, now); times == 0 || times < maxRepeats && ago >= within<<(times-1) {
				dt.resend(s, times, now)
			}
		}
	}
}

func (dt *DownTrack) resend(s uint16, times uint8, now int64) {
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
	if !dt.out.resends.spend(len(p.Payload), times) {
		dt.out.w.e.drops.add(dropResendLimit)
		return
	}
	dt.resent.note(s, now)
	if n := dt.out.sendMedia(dt, p, dt.seqs.Extend(s), meta, form{rtx: dt.wire.rtxPT != 0}); n > 0 {
		dt.counts.retransmitted++
		dt.out.sent.retransmitted++
	}
}

// sendReport passes a sender report on, in the numbers of the output (RFC 3550 section 6.4.1).
func (dt *DownTrack) sendReport(enc *Encoding, sr packet.SenderReport) {
	if enc != dt.source || !dt.out.ready() || dt.counts.packets == 0 {
		return
	}
	if current, _ := dt.sel.Current(); current != enc.index {
		return // it waits to begin anew: in which numbers the output will go on is not known yet
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
	dt.redundancy.note(float64(r.FractionLost)/256, redundancyReport)
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
