package media

import (
	"time"

	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/seq"
)

const (
	// paceFactor: video leaves at most so many times faster than the estimate, so that
	// a keyframe is spread instead of filling the queue of a narrow link.
	paceFactor = 2.5
	// paceFloor is the slowest pace in bits per second.
	paceFloor = 400_000
	// paceBurst is how much may leave at once, in time at the pace; paceBurstMin in bytes.
	paceBurst    = 40 * time.Millisecond
	paceBurstMin = 6000
	// paceDelay is how long a packet waits at most, whatever the pace.
	paceDelay = 250 * time.Millisecond
)

// pacer spreads bursts of video to one client. It holds references to packets, not copies:
// they get their transport-wide number and are sealed when they leave. It belongs to
// who has the worker's turn; its zero value holds nothing back.
type pacer struct {
	rate   int64 // bits per second; 0: no limit
	tokens int64 // bytes that may leave now
	filled int64 // time up to which tokens were given
	queue  []paced
	head   int
}

type paced struct {
	dt    *DownTrack
	pkt   *packet.Packet
	index uint64
	meta  seq.Meta
	since int64
}

// setRate sets the pace for an estimate in bits per second; 0 for no limit.
func (p *pacer) setRate(estimate int64) {
	p.rate = 0
	if estimate > 0 {
		p.rate = max(int64(float64(estimate)*paceFactor), paceFloor)
	}
}

// fill gives tokens for the time passed. A debt, from packets that waited longest, is
// limited like the savings: it must not delay what comes much later.
func (p *pacer) fill(now int64) {
	passed := min(max(now-p.filled, 0), int64(time.Second))
	p.filled = now
	most := max(p.rate/8*int64(paceBurst)/int64(time.Second), paceBurstMin)
	p.tokens = min(max(p.tokens, -most)+p.rate/8*passed/int64(time.Second), most)
}

// take says whether a packet of n bytes may leave at once.
func (p *pacer) take(n int, now int64) bool {
	if p.head < len(p.queue) {
		return false
	}
	if p.rate == 0 {
		return true
	}
	p.fill(now)
	if p.tokens <= 0 {
		return false
	}
	p.tokens -= int64(n)
	return true
}

// hold queues a packet, retaining it.
func (p *pacer) hold(dt *DownTrack, pkt *packet.Packet, index uint64, meta seq.Meta, now int64) {
	pkt.Retain()
	p.queue = append(p.queue, paced{dt, pkt, index, meta, now})
}

// release calls send for the packets that may leave now; it says whether some are left.
func (p *pacer) release(now int64, send func(paced)) bool {
	p.fill(now)
	for p.head < len(p.queue) {
		q := p.queue[p.head]
		if p.rate != 0 && p.tokens <= 0 && now-q.since < int64(paceDelay) {
			return true
		}
		p.tokens -= int64(len(q.pkt.Payload))
		p.queue[p.head] = paced{}
		p.head++
		send(q)
		q.pkt.Release()
	}
	p.queue, p.head = p.queue[:0], 0
	return false
}

// clear lets go of everything.
func (p *pacer) clear() {
	for _, q := range p.queue[p.head:] {
		q.pkt.Release()
	}
	p.queue, p.head = nil, 0
}

// waiting is the number of packets held back.
func (p *pacer) waiting() int { return len(p.queue) - p.head }

// pace sends what may leave now; it says whether something is still waiting.
func (o *outbound) pace(now int64) bool {
	if o.pacer.waiting() == 0 {
		return false
	}
	if !o.ready() {
		o.pacer.clear()
		return false
	}
	return o.pacer.release(now, sendPaced)
}

// unpace sends all that is waiting, before the header that it is to leave with changes.
func (o *outbound) unpace() {
	for o.pacer.waiting() > 0 {
		o.pace(o.w.now + int64(paceDelay))
	}
}

func sendPaced(q paced) { q.dt.send(q.pkt, q.index, q.meta, 0) }
