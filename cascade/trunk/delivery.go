package trunk

import (
	"time"

	"github.com/amphi-sfu/amphi/media/bwe"
)

const (
	// longPath is a queue on the path that says that more is sent than it carries.
	longPath = 30 * time.Millisecond
	// slower is the share of what is sent that arrives at most then: if all arrives, the path
	// has only become longer.
	slower = 0.8
	// sureAfter is how long it must last, in time of arrival, for the rate to be known.
	sureAfter = 60 * time.Millisecond
	// deliveryShare is what the estimate becomes of that rate. Until the queue is short again,
	// drainMost at most, even less is sent, as little as empties it within drainTime, but
	// drainLeast of the rate.
	deliveryShare = 0.92
	drainLeast    = 0.4
	drainTime     = 500 * time.Millisecond
	drainMost     = int64(time.Second)
	shortPath     = 15 * time.Millisecond
	// probeEcho is how long after a probe a queue may be its own.
	probeEcho = int64(300 * time.Millisecond)
)

// delivery notices faster than the estimate when a path suddenly carries much less: as soon as
// there is a queue on the path, what arrives is what it carries. The zero value is ready.
type delivery struct {
	sizes  [1 << 13]uint16 // of records sent, by packet number
	report bwe.Report      // scratch
	since  time.Duration   // arrival of the last record before the queue was long; 0 while it is not
	bytes  int
	total  uint64 // bytes sent so far
	before uint64 // total, and the time, when since was set
	at     int64
	rate   int64 // bits per second, to drain the queue
	until  int64 // how long that counts at most
	probed int64 // when the estimate was last probed
}

// sent notes a record's size on the wire.
func (d *delivery) sent(number uint16, size int) {
	d.sizes[number%uint16(len(d.sizes))] = uint16(size)
	d.total += uint64(size)
}

// take looks at the parsed report; full says that packets arrive further apart than they left. It returns what the
// path has been seen to carry, 0 when there is nothing new to say.
func (d *delivery) take(queue time.Duration, full bool, now int64) int64 {
	if queue < shortPath {
		d.until = 0
	}
	if queue < longPath || now-d.probed < probeEcho && d.probed != 0 {
		d.since = 0
		return 0
	}
	last, bytes := time.Duration(0), 0
	for i, s := range d.report.Statuses {
		if !s.Received {
			continue
		}
		at := d.report.Reference + s.Arrival
		last = max(last, at)
		bytes += int(d.sizes[(d.report.Base+uint16(i))%uint16(len(d.sizes))])
	}
	if d.since == 0 || last < d.since {
		d.begin(last, now)
		return 0
	}
	d.bytes += bytes
	if last-d.since < sureAfter {
		return 0
	}
	rate := float64(d.bytes) * 8 / (last - d.since).Seconds()
	sent := float64(d.total-d.before) * 8 / max(time.Duration(now-d.at).Seconds(), 0.001)
	d.begin(last, now)
	if (rate > slower*sent || !full) && now >= d.until {
		return 0
	}
	share := min(max(1-queue.Seconds()/drainTime.Seconds(), drainLeast), deliveryShare)
	drain := int64(rate * share)
	if now < d.until && drain > d.rate*9/10 {
		return 0 // it is known, and the queue drains
	}
	d.rate, d.until = drain, now+drainMost
	return int64(rate * deliveryShare)
}

// begin begins a window in which arrivals are counted.
func (d *delivery) begin(last time.Duration, now int64) {
	d.since, d.bytes, d.before, d.at = last, 0, d.total, now
}

// limit is the most that should be sent, in bits per second.
func (d *delivery) limit(now int64) int64 {
	if now >= d.until {
		return never
	}
	return d.rate
}
