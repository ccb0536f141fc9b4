// Package meter measures an incoming RTP stream: its bit rate per temporal layer, and
// whether its frames come in bursts. And it merges requests for keyframes of it.
package meter

import (
	"slices"
	"sync"
	"time"
)

// window is how long bit rates are counted before they are believed.
const window = 500 * time.Millisecond

// layers is how many temporal layers are told apart; higher ones count as the last.
const layers = 4

// windows is how many of them a rate is the median of.
const windows = 5

// Rate measures bit rates: the median of the last windows, since a keyframe fills one but
// is not the rate. The zero value is ready; not safe for concurrent use.
type Rate struct {
	bytes [layers]uint64
	past  [layers][windows]uint64
	bps   [layers]uint64
	n     int // windows so far
	since int64
}

// Add counts n bytes of a temporal layer.
func (r *Rate) Add(temporal uint8, n int) { r.bytes[min(temporal, layers-1)] += uint64(n) }

// Roll ends the window when it is long enough; call it several times per second, with the
// time in nanoseconds. A window without anything says nothing: the rate of a stream that
// rests is what it was, so that its next beginning can be judged.
func (r *Rate) Roll(now int64) {
	if r.since == 0 {
		r.since = now
		return
	}
	d := now - r.since
	if d < int64(window) {
		return
	}
	if r.bytes == [layers]uint64{} {
		r.since = now
		return
	}
	known := min(r.n+1, windows)
	for i := range r.bytes {
		r.past[i][r.n%windows] = r.bytes[i] * 8 * uint64(time.Second) / uint64(d)
		sorted := r.past[i]
		slices.Sort(sorted[:known])
		r.bps[i], r.bytes[i] = sorted[(known-1)/2], 0
	}
	r.n++
	r.since = now
}

// UpTo is the rate of the temporal layers up to t together, in bits per second.
func (r *Rate) UpTo(t int8) uint64 {
	var sum uint64
	for i := range r.bps {
		if int8(i) <= t {
			sum += r.bps[i]
		}
	}
	return sum
}

// Top is the highest temporal layer that carries anything.
func (r *Rate) Top() int8 {
	for t := int8(layers - 1); t > 0; t-- {
		if r.bps[t] > 0 {
			return t
		}
	}
	return 0
}

// Burst tells whether the packets of a frame come close behind each other, so that waiting
// for the rest of it saves more than it delays. The zero value is ready.
type Burst struct {
	timestamp uint32
	arrival   int64
	gap       int64 // smoothed time between two packets of one frame
}

// longestGap bounds what one late packet does to the smoothed gap.
const longestGap = int64(10 * time.Millisecond)

// More takes a packet and says whether the rest of its frame is about to come: whether
// packets of one frame are less than within apart.
func (b *Burst) More(timestamp uint32, arrival int64, marker bool, within time.Duration) bool {
	if timestamp == b.timestamp {
		b.gap += (min(arrival-b.arrival, longestGap) - b.gap) / 8
	}
	b.timestamp, b.arrival = timestamp, arrival
	return !marker && b.gap < int64(within)
}

// Gate merges keyframe requests: at most one per Interval, and one that came too early goes out
// when it may, unless a keyframe came meanwhile. It is safe for concurrent use.
type Gate struct {
	// Interval is the least time between two requests, in nanoseconds.
	Interval int64

	mu      sync.Mutex // guards the fields below
	sent    int64
	pending bool
	total   uint64
}

// Request says whether a request may go out now.
func (g *Gate) Request(now int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sent != 0 && now-g.sent < g.Interval {
		g.pending = true
		return false
	}
	g.sendLocked(now)
	return true
}

// Due says whether a request that was held back may go out now.
func (g *Gate) Due(now int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.pending || now-g.sent < g.Interval {
		return false
	}
	g.sendLocked(now)
	return true
}

func (g *Gate) sendLocked(now int64) {
	g.sent, g.pending = now, false
	g.total++
}

// Arrived tells of a keyframe: whoever waited is served by it.
func (g *Gate) Arrived() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending = false
}

// Count is how many requests went out.
func (g *Gate) Count() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total
}
