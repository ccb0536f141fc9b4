package trunk

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/bwe"
	"github.com/amphi-sfu/amphi/media/limit"
)

// errMalformed is the drop reason of a genuine record whose payload makes no sense.
var errMalformed = errors.New("malformed")

// oldKey is how long after a change of key records under the one before are taken.
const oldKey = int64(30 * time.Second)

// open decrypts a record. Only the socket's reader calls it.
func (l *line) open(b []byte, now int64) (record.Header, []byte, error) {
	h, payload, err := l.opener.Open(b)
	if p := l.opener.Phase(); p != l.phase {
		l.phase, l.rekeyed = p, now
	} else if l.rekeyed != 0 && now-l.rekeyed > oldKey {
		l.opener.Forget()
		l.rekeyed = 0
	}
	return h, payload, err
}

// took notes a genuine record, an RTP packet when it has been accepted. poke says that poll has
// something to do because of it.
func (l *line) took(h record.Header, payload []byte, now int64) (poke bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	due, lacking := l.arrivals.due, len(l.repairs.lacking)
	err = l.takeLocked(h, payload, now)
	poke = !due && l.arrivals.due || len(l.repairs.lacking) > lacking || h.Type == record.Probe || h.Type == record.Echo
	return poke, err
}

func (l *line) takeLocked(h record.Header, payload []byte, now int64) error {
	l.live.heard = max(l.live.heard, now)
	l.counts.received++
	l.counts.receivedBytes += uint64(len(payload) + record.Overhead + 28)
	wanted := h.Type != record.Report && h.Type != record.Echo
	l.arrivals.take(h.Number, now, wanted)
	switch h.Type {
	case record.Media, record.Repair:
		l.live.media = now
		l.counts.mediaReceived++
		l.repairs.take(h.Label, h.Ext, h.Type == record.Repair, now)
	case record.Probe:
		if len(payload) != probeSize {
			return errMalformed
		}
		if len(l.echoes) < maxEchoes {
			l.echoes = append(l.echoes, [probeSize]byte(payload))
		}
	case record.Echo:
		if len(payload) != probeSize {
			return errMalformed
		}
		l.live.echoed(int64(binary.BigEndian.Uint64(payload)), now)
	case record.Report:
		return l.takeReport(payload, now)
	case record.Gone:
		return l.takeGone(payload)
	}
	return nil
}

// takeReport learns what has arrived at the other end.
func (l *line) takeReport(payload []byte, now int64) error {
	r := &l.delivery.report
	if bwe.ParseTWCC(payload, r) != nil || len(r.Statuses) == 0 {
		return errMalformed
	}
	before, losses := l.est.Estimate(), l.est.Stats().LossBackoffs
	if _, err := l.est.Feedback(payload, time.Duration(now)); err != nil {
		return errMalformed
	}
	stats := l.est.Stats()
	l.path.take(r, now)
	if stats.Estimate < before && stats.LossBackoffs == losses && float64(max(stats.Sent, l.shed.sending())) < limitedShare*float64(before) {
		l.path.doubt(before, now)
	}
	// The last packet of a report has always come: it is what the report is about.
	next := l.sealer.Next()
	newest := next - uint64(uint16(next)-(r.Base+uint16(len(r.Statuses)-1)))
	if newest < next && newest >= l.acked {
		l.acked = newest + 1
		l.live.proven(now)
	}
	if rate := l.delivery.take(stats.QueueDelay, l.path.full, now); rate > 0 {
		l.path.before = 0
		l.est.Cut(rate, time.Duration(now))
		l.decide(now)
	}
	if rate := l.path.judge(stats.QueueDelay, now); rate > 0 {
		l.est.Raise(rate)
	}
	return nil
}

func (l *line) takeGone(payload []byte) error {
	var scratch [maxEntries]gone
	list, ok := parseGone(payload, scratch[:0])
	if !ok {
		return errMalformed
	}
	for _, g := range list {
		l.repairs.skip(g)
	}
	return nil
}

// answer takes a request: find looks a packet up, appending it to a scratch buffer, and is
// called without the lock.
func (l *line) answer(h record.Header, payload []byte, now int64, find func(label uint32, ext uint64) []byte) error {
	if _, err := l.took(h, nil, now); err != nil {
		return err
	}
	var scratch [maxEntries]request
	list, ok := parseRequests(payload, scratch[:0])
	if !ok {
		return errMalformed
	}
	for _, r := range list {
		for i := range requestSpan {
			if i == 0 || r.mask&(1<<(i-1)) != 0 {
				l.resend(r.label, r.ext+uint64(i), now, find)
			}
		}
	}
	return nil
}

// resend answers for one packet that is asked for.
func (l *line) resend(label uint32, ext uint64, now int64, find func(label uint32, ext uint64) []byte) {
	l.mu.Lock()
	l.counts.requested++
	out := l.shed.labels[label]
	if out == nil || out.shed || out.left(ext) {
		if out != nil && out.left(ext) {
			l.announce(out.gap)
		} else {
			l.announce(gone{label, ext, ext})
		}
		l.counts.unavailable++
		l.mu.Unlock()
		return
	}
	class := out.class
	l.mu.Unlock()
	rtp := find(label, ext)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(rtp) == 0 {
		l.counts.unavailable++
		l.announce(gone{label, ext, ext})
		return
	}
	if !l.resends.Take(int64(len(rtp)), now) {
		l.counts.overflowed++
		return
	}
	if l.enqueue(class, queued{label: label, ext: ext, at: now, typ: record.Repair}, rtp) {
		l.counts.resent++
	} else {
		l.counts.overflowed++
	}
}

// measure computes what is told of the last second.
func (l *line) measure(now int64) {
	passed := max(now-l.second, 1)
	last, c := l.rates.last, l.counts
	perSecond := func(n uint64) int64 { return int64(n) * 8 * int64(time.Second) / passed }
	l.rates.sent = perSecond(c.sentBytes - last.sentBytes)
	l.rates.got = perSecond(c.receivedBytes - last.receivedBytes)
	if expected := l.arrivals.highest - l.rates.lastHighest; expected > 0 {
		got := c.received - last.received
		l.rates.inLoss = max(0, 1-float64(got)/float64(expected))
	}
	l.rates.lastHighest, l.rates.last = l.arrivals.highest, c
	l.resends = l.allowance()
}

// allowance is a second of what may be sent again: a quarter of the budget.
func (l *line) allowance() limit.Bucket {
	rate := max(l.est.Estimate()/8/4, 64<<10)
	return limit.NewBucket(rate, rate)
}
