// Package limit bounds what one sender may cost: token buckets, as plain values. Times are
// nanoseconds of a monotonic clock.
package limit

import "time"

// Bucket is a token bucket: it fills at a steady rate up to a burst. The zero value holds
// nothing for ever; not safe for concurrent use.
type Bucket struct {
	// In units of a token per 10^9, so that no rate is too low to count.
	rate, burst, level int64
	at                 int64
}

// scale is how many units a token has.
const scale = int64(time.Second)

// maxTokens bounds rate and burst, so that units fit 64 bits.
const maxTokens = 1 << 32

// NewBucket returns a full bucket. rate is in tokens per second, both are cut to 2^32.
func NewBucket(rate, burst int64) Bucket {
	rate, burst = min(max(rate, 0), maxTokens), min(max(burst, 0), maxTokens)
	return Bucket{rate: rate, burst: burst * scale, level: burst * scale}
}

// fill adds what has come since the last call.
func (b *Bucket) fill(now int64) {
	passed := now - b.at
	b.at = now
	if passed <= 0 || b.rate == 0 {
		return
	}
	if missing := b.burst - b.level; passed > missing/b.rate {
		b.level = b.burst
		return
	}
	b.level += passed * b.rate
}

// Take takes n tokens if they are there.
func (b *Bucket) Take(n, now int64) bool {
	b.fill(now)
	if b.level < n*scale {
		return false
	}
	b.level -= n * scale
	return true
}

// Spend takes n tokens whether they are there or not. What is owed is at most a burst.
func (b *Bucket) Spend(n, now int64) {
	b.fill(now)
	b.level = max(b.level-min(n, maxTokens)*scale, -b.burst)
}

// Level is how many tokens there are, negative when some are owed.
func (b *Bucket) Level(now int64) int64 {
	b.fill(now)
	return b.level / scale
}

// Rate is how much a sender may send: packets and bytes per second.
type Rate struct {
	Packets, Bytes int64
}

// Add returns both rates together.
func (r Rate) Add(o Rate) Rate { return Rate{r.Packets + o.Packets, r.Bytes + o.Bytes} }

// Throttle holds a sender to a rate. Bursts of a second's worth pass; who has used that up is
// refused everything until half of it has been saved up again, so that refusing costs next to
// nothing and what passes is whole. The zero value refuses all but the first packet.
type Throttle struct {
	rate           Rate
	packets, bytes Bucket
	shut           bool
}

// Set changes the rate. It takes effect at once; what was saved up stays, as far as it fits.
func (t *Throttle) Set(r Rate, now int64) {
	if r == t.rate {
		return
	}
	began := t.rate != Rate{}
	used := Rate{t.packets.burst/scale - t.packets.Level(now), t.bytes.burst/scale - t.bytes.Level(now)}
	t.rate, t.packets, t.bytes = r, NewBucket(r.Packets, r.Packets), NewBucket(r.Bytes, r.Bytes)
	t.packets.at, t.bytes.at = now, now
	if began {
		t.packets.Spend(used.Packets, now)
		t.bytes.Spend(used.Bytes, now)
	}
}

// Open says whether a packet may be looked at; ask it before doing any work for the packet.
func (t *Throttle) Open(now int64) bool {
	if !t.shut {
		return true
	}
	if t.packets.Level(now) < t.rate.Packets/2 || t.bytes.Level(now) < t.rate.Bytes/2 {
		return false
	}
	t.shut = false
	return true
}

// Spend counts a packet of n bytes that turned out to be the sender's own.
func (t *Throttle) Spend(n int, now int64) {
	t.packets.Spend(1, now)
	t.bytes.Spend(int64(n), now)
	if t.packets.level <= 0 || t.bytes.level <= 0 {
		t.shut = true
	}
}
