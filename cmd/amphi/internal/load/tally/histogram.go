// Package tally counts what the load generator sees: durations, and what one receiver got of one track.
package tally

import (
	"math"
	"math/bits"
	"time"
)

const (
	// Each power of two of microseconds is divided into this many steps, so a quantile is off by 3 % at most.
	steps    = 32
	stepBits = 5
	buckets  = (32-stepBits)*steps + steps
)

// Histogram counts durations from 1 µs to an hour; longer ones count as an hour. The zero value is
// ready. It is for one goroutine at a time.
type Histogram struct {
	counts [buckets]uint32
	n      uint64
	sum    time.Duration
	max    time.Duration
}

func bucket(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	us = min(us, math.MaxUint32)
	if us < 2*steps {
		return int(us)
	}
	shift := bits.Len64(us) - stepBits - 1
	return shift*steps + int(us>>shift)
}

// upper is the largest duration in bucket b.
func upper(b int) time.Duration {
	if b < 2*steps {
		return time.Duration(b) * time.Microsecond
	}
	shift := b/steps - 1
	return time.Duration((uint64(b%steps+steps)+1)<<shift-1) * time.Microsecond
}

// Add counts d.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucket(d)]++
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

// Merge adds what o counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Reset forgets everything.
func (h *Histogram) Reset() { *h = Histogram{} }

// Count is how many durations were added.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest; Mean the average; both 0 without any.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the average duration.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// Quantile is the duration that the share q (0 to 1) of all don't exceed; 0 without any.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	want := max(1, uint64(math.Ceil(q*float64(h.n))))
	var seen uint64
	for b, c := range h.counts {
		if seen += uint64(c); seen >= want {
			return min(upper(b), h.max)
		}
	}
	return h.max
}
