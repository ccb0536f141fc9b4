package bwe

import "time"

const (
	// probePackets and probeSpan size a cluster: enough packets to see their
	// spacing, long enough for a sender that wakes every few milliseconds.
	probePackets = 8
	probePayload = 1100
	probeSpan    = 40 * time.Millisecond
	probeMaxSpan = 150 * time.Millisecond
	// probeGood is the share of a cluster's packets that must have arrived, of
	// those that loss at any rate leaves.
	probeGood = 0.8
	// probeSaturated: a cluster that arrives this much slower than it left has
	// met the path's limit.
	probeSaturated = 0.88
	// probeBunched: a cluster that arrives this much faster than it left says nothing.
	probeBunched = 1.6
	// probeMargin is added to what is wanted, so that success leaves headroom; probeRetry
	// when more was tried and failed.
	probeMargin = 1.25
	probeRetry  = 1.1
	// probeStep caps a cluster's rate as a multiple of the estimate.
	probeStep = 3.0
	// probeWait is the pause after a failed probe, doubling up to Config.ProbeWait,
	// and the least pause after congestion.
	probeWait = 1500 * time.Millisecond
	// probeSilent is how often a receiver that went silent is probed, to notice
	// when it is back.
	probeSilent = 2 * time.Second
	// probeAgain is the pause after a probe that succeeded.
	probeAgain = 100 * time.Millisecond
)

// prober sends clusters of packets at a rate above the estimate and looks at how
// they arrive.
type prober struct {
	id     uint8
	active bool // being sent
	flying bool // sent, its feedback not complete

	rate        float64
	start, end  time.Duration
	bytes       int
	first, last uint64 // sequences
	next        time.Duration
	wait        time.Duration
	longest     time.Duration // of waits
	chance      uint64        // state of the generator that spreads pauses
}

// sent takes note of a packet and returns the cluster it belongs to.
func (p *prober) sent(size int, seq uint64, now time.Duration) uint8 {
	if !p.active {
		return 0
	}
	if p.bytes == 0 {
		p.first, p.start = seq, now
		p.end = now + p.span()
	}
	p.bytes += size
	p.last = seq
	return p.id
}

// span is how long the cluster lasts.
func (p *prober) span() time.Duration {
	s := time.Duration(probePackets * probePayload * 8 / p.rate * float64(time.Second))
	return min(max(s, probeSpan), probeMaxSpan)
}

func (p *prober) abort(now time.Duration) {
	p.active, p.flying = false, false
	p.next = now + probeSilent
}

func (p *prober) backOff(now time.Duration) {
	p.wait = min(max(2*p.wait, probeWait), p.longest)
	p.next = now + p.spread(p.wait)
}

// spread makes a pause up to a quarter shorter, or a twelfth longer, by chance (Knuth's
// generator).
func (p *prober) spread(d time.Duration) time.Duration {
	p.chance = p.chance*6364136223846793005 + 1442695040888963407
	return d*3/4 + d/3*time.Duration(p.chance>>56)/256
}

// Probing says whether a cluster is being sent, and at how many bits per second.
func (e *Estimator) Probing() (rate int64, ok bool) {
	return int64(e.probes.rate), e.probes.active
}

// Padding is how many bytes of padding (or repeated packets) to send now, beyond
// the media already sent, to keep up with the probe; 0 when none is due. Call it
// every few milliseconds while Probing.
func (e *Estimator) Padding(now time.Duration) int {
	p := &e.probes
	if !p.active {
		return 0
	}
	if p.bytes == 0 {
		return probePayload // the first packet starts the clock
	}
	if now >= p.end {
		p.active, p.flying = false, true
		p.end = now
		return 0
	}
	due := int(p.rate/8*(now-p.start).Seconds()) + probePayload - p.bytes
	return max(due, 0)
}

// planProbe starts a cluster when there is something to win by it.
func (e *Estimator) planProbe(now time.Duration) {
	p := &e.probes
	if p.active || p.flying || e.fedBack == 0 || now < p.next {
		return
	}
	if e.timeouts > 0 { // is anybody there?
		e.startProbe(e.rate.estimate, now)
		return
	}
	if e.rate.cut != 0 && now-e.rate.cut < probeWait {
		return
	}
	estimate := e.rate.estimate
	if e.demand.Next == 0 || estimate >= float64(e.demand.Top) {
		return
	}
	if e.counts.QueueDelay > congestedQueue && now-e.fedBack < time.Second {
		return // what was known of the queue is out of date when nothing is sent
	}
	// The next step is worth trying even if it is far. Going for more in one go
	// is for a path that has just shown that it carries more.
	margin := probeMargin
	if p.wait > 0 {
		margin = probeRetry
	}
	rate := min(float64(e.demand.Next)*margin, estimate*2*probeStep)
	if p.wait == 0 {
		rate = max(rate, min(float64(e.demand.Top)*probeMargin, estimate*probeStep, e.rate.max))
	}
	if rate < estimate*1.05 {
		return
	}
	e.startProbe(rate, now)
}

func (e *Estimator) startProbe(rate float64, now time.Duration) {
	p := &e.probes
	p.id = p.id%255 + 1
	p.rate, p.bytes = rate, 0
	p.active, p.flying = true, false
	p.end = now + time.Second // until the first packet sets it
	e.counts.Probes++
}

// finishProbe judges a cluster once its last packet has been reported.
func (e *Estimator) finishProbe(now time.Duration) {
	p := &e.probes
	if p.active && now >= p.end { // nobody asked for Padding any more
		p.active, p.flying = false, true
		p.end = now
	}
	if !p.flying {
		return
	}
	if p.bytes == 0 || p.first < e.history.first { // nothing could be sent, or nobody knows what
		p.flying = false
		p.next = now + probeWait
		return
	}
	overdue := now-p.end > max(500*time.Millisecond, 3*e.RTT())
	if e.acked <= p.last && !overdue {
		return
	}
	p.flying = false
	sent, got, ok := e.cluster()
	if !ok || e.rate.cut > p.start {
		e.counts.ProbesFailed++
		p.backOff(now)
		if e.timeouts > 0 {
			p.next = min(p.next, now+probeSilent)
		}
		return
	}
	if got > probeBunched*sent { // something held the packets up and let go of them together
		p.next = now + probeWait
		return
	}
	saturated := got < probeSaturated*sent
	result := min(sent, got)
	if saturated {
		result *= 0.92
	}
	before := e.rate.estimate
	e.rate.raise(min(result, p.rate))
	if saturated || e.rate.estimate < before*1.02 {
		e.counts.ProbesFailed++
		p.backOff(now)
		return
	}
	p.wait = 0
	p.next = now + probeAgain
}

// cluster returns the rates, in bits per second, at which the last cluster left
// and arrived; false when too much of it was lost.
func (e *Estimator) cluster() (sent, got float64, ok bool) {
	p := &e.probes
	var packets, arrivals, timed, bytes, firstSize, lastSize int
	var firstSent, lastSent, firstGot, lastGot time.Duration
	for seq := p.last + 1; seq > p.first; seq-- { // the newest first
		h := e.history.at(seq - 1)
		if h.probe != p.id {
			continue
		}
		packets++
		if h.fate != arrived {
			continue
		}
		arrivals++
		if timed > 0 && h.arrival > firstGot {
			continue // others have overtaken it: it says nothing of the rate
		}
		if timed == 0 {
			lastSent, lastGot, lastSize = h.sent, h.arrival, int(h.size)
		}
		timed++
		firstSent, firstGot, firstSize = h.sent, h.arrival, int(h.size)
		bytes += int(h.size)
	}
	if arrivals < probePackets/2 || float64(arrivals) < probeGood*(1-e.rate.inherent)*float64(packets)-1 {
		return 0, 0, false
	}
	out, in := lastSent-firstSent, lastGot-firstGot
	if out < 5*time.Millisecond || in < time.Millisecond {
		return 0, 0, false
	}
	sent = float64(bytes-lastSize) * 8 / out.Seconds()
	got = float64(bytes-firstSize) * 8 / in.Seconds()
	return sent, got, true
}
