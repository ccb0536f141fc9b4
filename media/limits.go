package media

import (
	"errors"
	"time"

	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/control"
	"github.com/amphi-sfu/amphi/media/limit"
)

// What one client may send and ask for. A second's worth may come at once.
const (
	// maxKnownSSRCs is how many SSRCs one association may use in its life: the SRTP keys have
	// state for each.
	maxKnownSSRCs = 1024
	// Packets of SSRCs not known yet are cheap to make and expensive to look at.
	strangerRate, strangerBurst = 200, 500
	// takeoverAfter is how long an SSRC has to be silent before another takes its encoding.
	takeoverAfter = 300 * time.Millisecond
	// nackRate is how many packets per second one client may ask to be sent again.
	nackRate = 10_000
	// keyframeCost, in milliseconds, is how often a client may ask for a keyframe of one track
	// in the long run; it may ask keyframeBurst times at once.
	keyframeCost, keyframeBurst = 2000, 5
	// sampleEvery is how many packets of a sender that is over its rate one is decrypted of, to
	// keep the SRTP rollover counter in step. It is prime: SSRCs that alternate all have their turn.
	sampleEvery = 251
)

// baseRate is for what belongs to no published track, as packets of tracks that have just ended.
var baseRate = limit.Rate{Packets: 500, Bytes: 1_000_000 / 8}

// publishRate is what one published track may take, all encodings and retransmissions together.
// maxBitrate is that of its encodings, 0 for any.
func publishRate(kind codec.Kind, maxBitrate int64) limit.Rate {
	if kind == codec.Audio {
		return limit.Rate{Packets: 1000, Bytes: 2_000_000 / 8}
	}
	r := limit.Rate{Packets: 5000, Bytes: 25_000_000 / 8}
	if maxBitrate > 0 { // low ones are not worth being exact about: a keyframe is no less large
		r.Bytes = max(2*maxBitrate, 4_000_000) / 8
	}
	return r
}

// controlRate is for RTCP.
var controlRate = limit.Rate{Packets: 2000, Bytes: 4_000_000 / 8}

// inLimits bound what an endpoint's packets cost. It is guarded by its inbound's mutex.
type inLimits struct {
	media, control limit.Throttle
	strangers      limit.Bucket
	known          map[uint32]struct{} // SSRCs of which an authentic packet came
	skipped        int
}

func (l *inLimits) init(now int64) {
	l.media.Set(baseRate, now)
	l.control.Set(controlRate, now)
	l.strangers = limit.NewBucket(strangerRate, strangerBurst)
	l.known = map[uint32]struct{}{}
}

// admit says whether a packet of an SSRC without a stream is worth decrypting, or why not.
func (l *inLimits) admit(ssrc uint32, now int64) (reason drop, ok bool) {
	if _, known := l.known[ssrc]; known {
		return 0, true
	}
	if len(l.known) >= maxKnownSSRCs {
		return dropTooManySSRCs, false
	}
	return dropUnknownSSRC, l.strangers.Take(1, now)
}

// sample chooses packets to decrypt of a sender that is over its rate.
func (l *inLimits) sample() bool {
	l.skipped++
	return l.skipped%sampleEvery == 0
}

// drop counts a packet of this endpoint that was dropped.
func (in *inbound) drop(d drop) {
	in.ep.router.e.drops.add(d)
	in.counts.dropped[d]++
}

// decryptDrop says why a packet could not be decrypted.
func (in *inbound) decryptDrop(b []byte, err error) drop {
	const shortestTag = 10
	if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) {
		return dropSRTPAuth
	}
	if n, err := in.header.Unmarshal(b); err != nil || len(b) < n+shortestTag {
		return dropMalformed
	}
	return dropSRTPReplay
}

// outLimits bound what an endpoint may ask of its worker, who owns it.
type outLimits struct {
	nacks limit.Bucket
}

func newOutLimits() outLimits { return outLimits{nacks: limit.NewBucket(nackRate, nackRate)} }

// control handles what the client says about what it receives: a compound packet that was
// checked. now is when it came.
func (o *outbound) control(b []byte, now int64) {
	for {
		p, rest, ok := control.Next(b)
		if !ok {
			return
		}
		b = rest
		switch p.Kind() {
		case control.TransportWide:
			o.transportFeedback(p, now)
		case control.NACK:
			o.nacked(p, now)
		case control.PLI:
			o.keyframeWanted(p.Media(), now)
		case control.FIR:
			for i := range p.Targets() {
				o.keyframeWanted(p.Target(i), now)
			}
		case control.ReceiverReport, control.SenderReport:
			for i := range p.Reports() {
				r := p.Report(i)
				if dt := o.track(r.SSRC); dt != nil {
					dt.reported(r)
				}
			}
		}
	}
}

func newKeyframeLimit() limit.Bucket { return limit.NewBucket(1000, keyframeBurst*keyframeCost) }

func (o *outbound) nacked(p control.Packet, now int64) {
	dt := o.track(p.Media())
	switch {
	case dt == nil:
		o.w.e.drops.add(dropFeedbackSSRC)
	case !o.limits.nacks.Take(int64(p.Pairs()), now):
		o.w.e.drops.add(dropNACKFlood)
	default:
		dt.nacked(p)
	}
}

func (o *outbound) keyframeWanted(ssrc uint32, now int64) {
	dt := o.track(ssrc)
	switch {
	case dt == nil:
		o.w.e.drops.add(dropFeedbackSSRC)
	case !dt.keyframes.Take(keyframeCost, now):
		o.w.e.drops.add(dropKeyframeFlood)
	default:
		dt.keyframeWanted()
	}
}
