package media

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/pion/rtcp"

	"github.com/amphi-sfu/amphi/media/packet"
)

// rtcp takes an SRTCP packet of the client: reports about what it sends are used here,
// feedback about what it receives goes to the worker.
func (in *inbound) rtcp(b []byte, now int64) {
	e := in.ep.router.e
	in.mu.Lock()
	if in.keys == nil {
		in.mu.Unlock()
		e.drops.add(dropNoKeys)
		return
	}
	plain, err := in.keys.DecryptRTCP(in.plain[:0], b, nil)
	if err != nil {
		in.mu.Unlock()
		e.drops.add(dropSRTPAuth)
		return
	}
	in.plain = plain[:0]
	pkts, transport, err := splitRTCP(plain)
	if err != nil {
		in.mu.Unlock()
		e.drops.add(dropRTCP)
		return
	}
	feedback, urgent := len(transport) > 0, false
	for _, p := range pkts {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			in.senderReport(p, now)
			feedback = feedback || len(p.Reports) > 0
		case *rtcp.ReceiverReport:
			feedback = feedback || len(p.Reports) > 0
		case *rtcp.SourceDescription, *rtcp.Goodbye:
		default:
			urgent = true
		}
	}
	in.mu.Unlock()
	if !feedback && !urgent {
		return
	}
	o := in.ep.out
	handle := func() {
		for _, raw := range transport {
			o.transportFeedback(raw, now)
		}
		o.feedback(pkts)
	}
	if urgent {
		o.w.post(handle)
	} else {
		o.w.postLater(handle)
	}
}

// splitRTCP takes a compound packet apart (RFC 3550 section 6.1): transport-wide feedback is
// copied as it is, for the estimator to read, all else is parsed.
func splitRTCP(b []byte) (pkts []rtcp.Packet, transport [][]byte, err error) {
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 {
			return nil, nil, errRTCP
		}
		n := 4 * (int(b[2])<<8 + int(b[3]) + 1)
		if n > len(b) {
			return nil, nil, errRTCP
		}
		if b[1] == byte(rtcp.TypeTransportSpecificFeedback) && b[0]&0x1f == rtcp.FormatTCC {
			transport = append(transport, bytes.Clone(b[:n]))
		} else {
			p, err := rtcp.Unmarshal(b[:n])
			if err != nil {
				return nil, nil, fmt.Errorf("parsing RTCP: %w", err)
			}
			pkts = append(pkts, p...)
		}
		b = b[n:]
	}
	return pkts, transport, nil
}

var errRTCP = errors.New("malformed RTCP")

func (in *inbound) senderReport(sr *rtcp.SenderReport, now int64) {
	st := in.streams[sr.SSRC]
	if st == nil || st.rtx {
		return
	}
	st.received.SenderReport(sr.NTPTime, now)
	e := in.ep.router.e
	st.enc.writeReport(packet.SenderReport{
		SSRC: sr.SSRC, RTP: sr.RTPTime, ArrivalNS: now,
		NTP: in.clock.Translate(sr.NTPTime, e.start.Add(time.Duration(now))),
	})
}

// feedback handles what the client says about what it receives.
func (o *outbound) feedback(pkts []rtcp.Packet) {
	for _, p := range pkts {
		switch p := p.(type) {
		case *rtcp.TransportLayerNack:
			if dt := o.track(p.MediaSSRC); dt != nil {
				dt.nacked(p.Nacks)
			}
		case *rtcp.PictureLossIndication:
			if dt := o.track(p.MediaSSRC); dt != nil {
				dt.keyframeWanted()
			}
		case *rtcp.FullIntraRequest:
			for _, f := range p.FIR {
				if dt := o.track(f.SSRC); dt != nil {
					dt.keyframeWanted()
				}
			}
		case *rtcp.ReceiverReport:
			o.receptionReports(p.Reports)
		case *rtcp.SenderReport:
			o.receptionReports(p.Reports)
		}
	}
}

func (o *outbound) receptionReports(blocks []rtcp.ReceptionReport) {
	for _, r := range blocks {
		if dt := o.track(r.SSRC); dt != nil {
			dt.reported(r)
		}
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
