package media

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/control"
	"github.com/amphi-sfu/amphi/media/packet"
)

// rtcp takes an SRTCP packet of the client: reports about what it sends are used here,
// feedback about what it receives goes to the worker. Called with mu held.
func (in *inbound) rtcp(b []byte, now int64) {
	const header = 8
	switch {
	case len(b) < header:
		in.drop(dropRTCP)
		return
	case !in.limits.control.Open(now):
		in.drop(dropRTCPFlood)
		return
	}
	sender := binary.BigEndian.Uint32(b[4:])
	if reason, ok := in.limits.admit(sender, now); !ok {
		in.drop(reason)
		return
	}
	p := in.ep.router.e.pool.Get()
	defer p.Release()
	plain, err := in.keys.DecryptRTCP(p.Buffer()[:0], b, &in.rtcpHeader)
	if err != nil {
		in.drop(rtcpDrop(b, err))
		return
	}
	in.limits.control.Spend(len(b), now)
	in.limits.known[sender] = struct{}{}
	if control.Check(plain) != nil {
		in.drop(dropRTCP)
		return
	}
	p.Payload, p.ArrivalNS = plain, now
	if feedback, urgent := in.publisherReports(plain, now); feedback {
		in.ep.out.w.pushControl(in.ep.out, p, urgent)
	}
}

// rtcpDrop says why a packet could not be decrypted.
func rtcpDrop(b []byte, err error) drop {
	const header, index, shortestTag = 8, 4, 10
	switch {
	case errors.Is(err, srtp.ErrFailedToVerifyAuthTag):
		return dropSRTPAuth
	case b[0]>>6 != 2 || len(b) < header+index+shortestTag:
		return dropRTCP
	}
	return dropSRTPReplay
}

// publisherReports uses what a compound packet says about what the client sends. It tells
// whether there is anything about what it receives, and whether that is urgent.
func (in *inbound) publisherReports(b []byte, now int64) (feedback, urgent bool) {
	for {
		p, rest, ok := control.Next(b)
		if !ok {
			return feedback || urgent, urgent
		}
		b = rest
		switch p.Kind() {
		case control.SenderReport:
			in.senderReport(p, now)
			feedback = feedback || p.Reports() > 0
		case control.ReceiverReport:
			feedback = feedback || p.Reports() > 0
		case control.TransportWide:
			feedback = true
		case control.NACK, control.PLI, control.FIR:
			urgent = true
		case control.Goodbye:
			for i := range p.Sources() {
				in.goodbye(p.Source(i))
			}
		}
	}
}

// goodbye notes that the client says it sends an SSRC no more (RFC 3550 section 6.6). It stays
// bound, as it may come back without saying again what it is.
func (in *inbound) goodbye(ssrc uint32) {
	st := in.streams[ssrc]
	if st == nil || st.ended {
		return
	}
	st.ended = true
	if !st.rtx {
		st.enc.ended()
	}
}

func (in *inbound) senderReport(p control.Packet, now int64) {
	ssrc, ntp, rtp := p.Sender()
	st := in.streams[ssrc]
	if st == nil || st.rtx || ntp == 0 { // 0: it has no clock
		return
	}
	st.received.SenderReport(ntp, now)
	e := in.ep.router.e
	if !st.enc.writeReport(packet.SenderReport{
		SSRC: ssrc, RTP: rtp, ArrivalNS: now,
		NTP: in.clock.Translate(ntp, e.start.Add(time.Duration(now))),
	}) {
		in.drop(dropReport)
	}
}

// track finds the DownTrack with an SSRC.
func (o *outbound) track(ssrc uint32) *DownTrack {
	for _, dt := range o.tracks {
		if dt.wire.ssrc == ssrc {
			return dt
		}
	}
	return nil
}

// tick makes the feedback to the publisher that is due, and sends it.
func (in *inbound) tick(now int64) {
	in.mu.Lock()
	if in.keys == nil {
		in.mu.Unlock()
		return
	}
	var pkts []rtcp.Packet
	var due []uint16
	for _, st := range in.streams {
		if st.missing == nil {
			continue
		}
		if due = st.missing.Due(time.Duration(now), due[:0]); len(due) > 0 {
			pkts = append(pkts, &rtcp.TransportLayerNack{
				SenderSSRC: in.ep.ssrc, MediaSSRC: st.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(due),
			})
		}
	}
	if in.transport != nil && now-in.feedback >= int64(feedbackPeriod) {
		in.feedback = now
		pkts = append(pkts, in.transport.BuildFeedbackPacket()...)
	}
	if now-in.reported >= int64(reportPeriod) {
		in.reported = now
		pkts = append(pkts, in.reports(now)...)
	}
	in.mu.Unlock()
	if len(pkts) > 0 {
		in.ep.sendRTCP(pkts...)
	}
}

// reports makes receiver reports of at most 31 blocks each (RFC 3550 section 6.4.2).
func (in *inbound) reports(now int64) []rtcp.Packet {
	var blocks []rtcp.ReceptionReport
	for _, st := range in.streams {
		if !st.rtx && st.received.Started() {
			blocks = append(blocks, st.received.Report(st.ssrc, now))
		}
	}
	var pkts []rtcp.Packet
	for len(blocks) > 0 {
		n := min(len(blocks), 31)
		pkts = append(pkts, &rtcp.ReceiverReport{SSRC: in.ep.ssrc, Reports: blocks[:n]})
		blocks = blocks[n:]
	}
	return pkts
}
