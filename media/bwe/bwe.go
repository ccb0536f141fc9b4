// Package bwe estimates, at the sender, how much one receiver's path can carry.
// It keeps the transport-wide sequence numbers, reads the feedback about them,
// and combines the trend of delay, the acknowledged rate and loss; it says when
// and how hard to probe, since a sender that has little to send never finds out
// otherwise. It is a plain value: packets, feedback and the time go in.
package bwe

import (
	"errors"
	"time"
)

// Defaults of Config, rates in bits per second, loss as a share.
const (
	DefaultInitial = 400_000
	DefaultMin     = 50_000
	DefaultMax     = 50_000_000
	DefaultLoss    = 0.05

	DefaultProbeWait = 6 * time.Second
)

// Config of an Estimator. The zero value of a field means its default.
type Config struct {
	// Initial, Min and Max are the first and the extreme estimates in bits per second.
	Initial, Min, Max int64
	// Overhead is added to each packet's size, in bytes; 28 for IPv4 and UDP,
	// 0 means 28.
	Overhead int
	// Loss is the share of packets lost, beyond what is lost at any rate, above which less is
	// sent; 0 means DefaultLoss.
	Loss float64
	// ProbeWait is the longest pause between probes that fail; 0 means DefaultProbeWait.
	ProbeWait time.Duration
	// Seed spreads the pauses between probes: estimators that share a link and probe at the
	// same moments never find what is free. Any value will do, if others have another.
	Seed uint64
}

func (c Config) withDefaults() (Config, error) {
	if c.Initial < 0 || c.Min < 0 || c.Max < 0 || c.Overhead < 0 || c.Loss < 0 || c.ProbeWait < 0 {
		return c, errors.New("bwe: negative value")
	}
	if c.Initial == 0 {
		c.Initial = DefaultInitial
	}
	if c.Min == 0 {
		c.Min = DefaultMin
	}
	if c.Max == 0 {
		c.Max = DefaultMax
	}
	if c.Overhead == 0 {
		c.Overhead = 28
	}
	if c.Loss == 0 {
		c.Loss = DefaultLoss
	}
	if c.ProbeWait == 0 {
		c.ProbeWait = DefaultProbeWait
	}
	if c.Min > c.Initial || c.Initial > c.Max {
		return c, errors.New("bwe: Min, Initial, Max must ascend")
	}
	return c, nil
}

// Estimator estimates one receiver's bandwidth. Times are durations on the
// caller's monotonic clock. It is not safe for concurrent use.
type Estimator struct {
	// What every packet sent needs comes first, in few cache lines.
	cfg      Config
	history  history
	firstOut time.Duration // first packet sent since the last feedback; 0 for none
	probes   prober

	trend    trend
	rate     control
	report   Report // scratch of Feedback
	clock    receiverClock
	acked    uint64 // newest sequence reported as received, +1; 0 for none
	queueMin minFilter
	rttMin   minFilter
	rerouted time.Duration // since when packets take the present way
	last     window
	fedBack  time.Duration // time of the last feedback
	timeouts int
	demand   Demand
	counts   Stats
}

// Demand is what the sender would like to send, in bits per second.
type Demand struct {
	// Next is the least total that would improve the picture: the present
	// allocation with the next layer. Top is the total with nothing held back.
	// Both 0: everything wanted is being sent.
	Next, Top int64
}

// Stats tells what the estimator knows.
type Stats struct {
	Estimate int64 // bits per second
	// Sent and Acked are the rates, in bits per second, of the last window as it
	// left here and as it arrived.
	Sent, Acked int64
	// Loss is the share of packets lost in that window, InherentLoss what of it
	// did not go away when less was sent.
	Loss, InherentLoss float64
	// QueueDelay is how long packets wait on the path, beyond its least delay.
	QueueDelay time.Duration
	// RTT is the least round trip seen lately, feedback interval included.
	RTT time.Duration
	// Competing says that others fill the path's queue whatever is sent here, so that loss
	// counts instead of delay.
	Competing bool
	// ApplicationLimited says that less is being sent than the estimate.
	ApplicationLimited bool
	// Feedbacks, Rejected (feedback that made no sense), Overuses, LossBackoffs,
	// Probes, ProbesFailed and Timeouts count events.
	Feedbacks, Rejected, Overuses, LossBackoffs uint64
	Probes, ProbesFailed, Timeouts              uint64
}

// New makes an Estimator.
func New(cfg Config) (*Estimator, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Estimator{cfg: cfg}
	e.probes.chance, e.probes.longest = cfg.Seed, max(cfg.ProbeWait, probeWait)
	e.rate = control{estimate: float64(cfg.Initial), min: float64(cfg.Min), max: float64(cfg.Max), lossHigh: cfg.Loss}
	return e, nil
}

// Sent takes note of a packet of size bytes (the UDP payload) that leaves now and
// returns the transport-wide sequence number for its header extension. Packets
// must leave in the order of these numbers.
func (e *Estimator) Sent(size int, now time.Duration) uint16 {
	size = min(size+e.cfg.Overhead, 65535)
	p := sentPacket{sent: now, size: uint16(size)}
	p.probe = e.probes.sent(size, e.history.next, now)
	if e.firstOut == 0 {
		e.firstOut = now
	}
	return uint16(e.history.add(p))
}

// Near reads where the next packet sent will be noted, to have it in the processor's cache. What
// it returns means nothing.
func (e *Estimator) Near() uint64 {
	h := &e.history
	if h.ring == nil {
		return 0
	}
	return uint64(h.at(h.next).sent) + uint64(e.firstOut)
}

// Feedback takes one RTCP packet of transport-wide feedback, header included, and
// says whether the estimate changed.
func (e *Estimator) Feedback(b []byte, now time.Duration) (bool, error) {
	if err := ParseTWCC(b, &e.report); err != nil {
		e.counts.Rejected++
		return false, err
	}
	before := e.rate.estimate
	newest, ok := e.apply(&e.report, now)
	if !ok {
		e.counts.Rejected++
		return false, nil
	}
	e.counts.Feedbacks++
	if e.timeouts > 0 {
		e.probes.wait, e.probes.next = 0, now // it is back: find out soon what the path carries
	}
	e.fedBack, e.firstOut, e.timeouts = now, 0, 0
	e.last = e.measure(newest)
	e.rate.rtt = e.RTT()
	e.rate.padded = e.probes.active || e.probes.flying || (e.probes.id != 0 && now-e.probes.end < windowSpan+e.rate.rtt)
	queue := e.queueDelay(newest, now)
	e.rate.update(e.trend.state, e.last, queue, now, &e.counts)
	if e.trend.state == overuse {
		e.trend.state = normal // acted upon
	}
	e.finishProbe(now)
	return e.rate.estimate != before, nil
}

// apply puts a report into the history; false when it reports nothing new.
func (e *Estimator) apply(r *Report, now time.Duration) (newest uint64, ok bool) {
	reference := e.clock.unwrap(r.Reference)
	base, known := e.history.lookup(r.Base)
	for i, s := range r.Statuses {
		seq := base + uint64(i)
		if !known {
			// The report may begin before the history and end in it.
			if seq, ok = e.history.lookup(r.Base + uint16(i)); !ok {
				continue
			}
			known, base = true, seq-uint64(i)
		}
		if seq >= e.history.next {
			break
		}
		p := e.history.at(seq)
		switch {
		case p.fate == arrived:
		case s.Received:
			p.fate, p.arrival = arrived, reference+s.Arrival
			newest = max(newest, seq+1)
			if p.sent >= e.rerouted {
				e.trend.add(p.sent, p.arrival)
			}
		default:
			p.fate = lost
		}
	}
	if newest == 0 {
		return 0, false
	}
	if newest > e.acked {
		e.acked = newest
		if sent := e.history.at(newest - 1).sent; sent >= e.rerouted {
			e.rttMin.add(now-sent, now)
		}
	}
	return newest - 1, true
}

// window is what the last packets looked like at both ends.
type window struct {
	sent, acked float64 // bits per second
	// peak is acked, or the most that arrived in one of the last peakSpans where that
	// is more: while a queue drains, that is what the path carries, whatever was sent
	// before.
	peak    float64
	loss    float64 // share of packets
	packets int
	lost    int
	span    time.Duration
}

const (
	windowSpan = 500 * time.Millisecond
	peakSpan   = 100 * time.Millisecond
	peakSpans  = 3
	// peakPackets is how many packets make the rate of so short a span worth anything.
	peakPackets = 8
	windowMin   = 100 * time.Millisecond
	// lateTime is by how much others may overtake a packet before it counts as lost.
	lateTime = 60 * time.Millisecond
)

// measure looks back from the packet newest over windowSpan of sending.
func (e *Estimator) measure(newest uint64) window {
	end := e.history.at(newest)
	var bytes, got, gone int
	var late, lateCount [peakSpans]int
	first, last := end.arrival, end.arrival
	oldest := newest
	for seq := newest; ; seq-- {
		p := e.history.at(seq)
		if end.sent-p.sent > windowSpan || p.sent < e.rerouted {
			break
		}
		oldest = seq
		switch p.fate {
		case arrived:
			first, last = min(first, p.arrival), max(last, p.arrival)
			bytes += int(p.size)
			got++
			if i := (end.arrival - p.arrival) / peakSpan; i >= 0 && i < peakSpans {
				late[i] += int(p.size)
				lateCount[i]++
			}
		case lost:
			if end.sent-p.sent > lateTime { // the newest ones may still come
				gone++
			}
		}
		if seq == e.history.first {
			break
		}
	}
	w := window{packets: got + gone, lost: gone, span: end.sent - e.history.at(oldest).sent}
	if got == 0 || w.span < windowMin || last-first < windowMin {
		return w
	}
	w.loss = float64(gone) / float64(got+gone)
	all := float64(bytes) * float64(got+gone) / float64(got)
	w.sent = all * 8 / w.span.Seconds()
	w.acked = float64(bytes) * 8 / max(last-first, w.span/2).Seconds()
	w.peak = w.acked
	for i, n := range lateCount {
		if n >= peakPackets {
			// One packet more or less is chance: count one less.
			w.peak = max(w.peak, float64(late[i])*float64(n-1)/float64(n)*8/peakSpan.Seconds())
		}
	}
	return w
}

// queueDelay is the newest packet's one-way delay above the least one seen.
func (e *Estimator) queueDelay(newest uint64, now time.Duration) time.Duration {
	p := e.history.at(newest)
	if p.sent < e.rerouted {
		e.rate.drain = false
		return e.counts.QueueDelay
	}
	oneWay := p.arrival - p.sent
	e.rate.drain = e.queueMin.add(oneWay, now)
	e.counts.QueueDelay = oneWay - e.queueMin.value()
	return e.counts.QueueDelay
}

// RTT is the least round trip seen lately, 100 ms before there is one.
func (e *Estimator) RTT() time.Duration {
	if !e.rttMin.valid {
		return 100 * time.Millisecond
	}
	return e.rttMin.value()
}

// Estimate is the present estimate in bits per second, headers of IP and UDP included.
func (e *Estimator) Estimate() int64 { return int64(e.rate.estimate) }

// Cut lowers the estimate to rate, in bits per second, which the caller has seen the path
// carry; a higher rate changes nothing.
func (e *Estimator) Cut(rate int64, now time.Duration) {
	if float64(rate) < e.rate.estimate {
		e.rate.set(float64(rate))
		e.rate.capacity, e.rate.cut = e.rate.estimate, now
	}
}

// Raise takes back a decrease, to rate in bits per second, which the caller has found out to be
// none of the path's; a lower rate changes nothing.
func (e *Estimator) Raise(rate int64) { e.rate.set(max(e.rate.estimate, float64(rate))) }

// Rerouted says that packets take another way from now on, as when the client's address has changed. The
// estimate stays until that way shows what it carries; what was known of delay, loss and rivals is
// forgotten, for the delay of another way is no queue.
func (e *Estimator) Rerouted(now time.Duration) {
	e.rerouted = now
	e.trend, e.queueMin, e.rttMin, e.last, e.counts.QueueDelay = trend{}, minFilter{}, minFilter{}, window{}, 0
	c := &e.rate
	c.capacity, c.standing, c.inherent, c.lossCut, c.drain, c.rivals = 0, 0, 0, 0, false, rivals{}
	e.probes.active, e.probes.flying, e.probes.wait, e.probes.next = false, false, 0, now+windowSpan
}

// SetDemand says what probing is good for.
func (e *Estimator) SetDemand(d Demand) { e.demand = d }

// Poll moves time on without feedback; call it every 5 to 50 ms. It says whether
// the estimate changed.
func (e *Estimator) Poll(now time.Duration) bool {
	before := e.rate.estimate
	wait := max(time.Second, 4*e.RTT()) << min(e.timeouts, 3)
	if e.firstOut != 0 && e.fedBack != 0 && now-e.firstOut > wait {
		e.timeouts++
		e.counts.Timeouts++
		e.firstOut = now
		e.rate.silence(now)
		e.probes.abort(now)
	}
	e.finishProbe(now)
	e.planProbe(now)
	return e.rate.estimate != before
}

// Stats returns what the estimator knows.
func (e *Estimator) Stats() Stats {
	s := e.counts
	s.Estimate = e.Estimate()
	s.Sent, s.Acked, s.Loss = int64(e.last.sent), int64(e.last.acked), e.last.loss
	s.InherentLoss = e.rate.inherent
	s.RTT = e.RTT()
	s.ApplicationLimited, s.Competing = e.rate.limited, e.rate.rivals.competing
	return s
}

// receiverClock unwraps the reference time of feedback, which has 24 bits.
type receiverClock struct {
	last    time.Duration
	started bool
}

func (c *receiverClock) unwrap(ref time.Duration) time.Duration {
	if !c.started {
		c.started, c.last = true, ref
		return ref
	}
	diff := (ref - c.last) % refWrap
	switch {
	case diff > refWrap/2:
		diff -= refWrap
	case diff < -refWrap/2:
		diff += refWrap
	}
	c.last += diff
	return c.last
}

// minFilter holds the least value of the last 10 to 20 s, so that a change of
// route or a drift of clocks is forgotten.
type minFilter struct {
	cur, prev time.Duration
	since     time.Duration
	valid     bool
	// sure is the least value last confirmed, checked that a higher one is being looked at.
	sure    time.Duration
	checked bool
}

const (
	minFilterSpan = 10 * time.Second
	// minFilterRise is what the least value may have risen by without a second look, and
	// minFilterLook how long that takes.
	minFilterRise = 20 * time.Millisecond
	minFilterLook = 1500 * time.Millisecond
)

// add takes a value. It says true when the least one is about to be forgotten for a much
// higher one: that may be the path, or a queue that has been standing for so long.
func (f *minFilter) add(v, now time.Duration) (doubtful bool) {
	switch {
	case !f.valid, now-f.since > 2*minFilterSpan: // the first, or the first for long
		*f = minFilter{cur: v, prev: v, sure: v, since: now, valid: true}
	case now-f.since > minFilterSpan && !f.checked && min(f.cur, v) > f.sure+minFilterRise:
		f.checked = true
		f.since += minFilterLook
		return true
	case now-f.since > minFilterSpan:
		f.prev, f.cur, f.since = min(f.cur, v), v, now
		if f.checked || f.prev < f.sure {
			f.sure, f.checked = f.prev, false
		}
	default:
		f.cur = min(f.cur, v)
	}
	return false
}

func (f *minFilter) value() time.Duration { return min(f.cur, f.prev) }
