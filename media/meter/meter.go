// Package meter measures an incoming RTP stream: its bit rate per layer, and
// whether its frames come in bursts. And it merges requests for keyframes of it.
package meter

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

// window is how long bit rates are counted before they are believed.
const window = 500 * time.Millisecond

// Layers told apart; higher ones count as the last.
const (
	spatialLayers  = 4
	temporalLayers = 4
)

// windows is how many of them a rate is the median of.
const windows = 5

// Cells is a set of layers: who receives one of them receives a packet.
type Cells uint16

// Cell is the set of one layer.
func Cell(spatial, temporal uint8) Cells {
	return 1 << (min(spatial, spatialLayers-1)*temporalLayers + min(temporal, temporalLayers-1))
}

// Rate measures bit rates: the median of the last windows, since a keyframe fills one but
// is not the rate. The zero value is ready; not safe for concurrent use.
type Rate struct {
	cells [spatialLayers * temporalLayers]counter
	all   counter
	used  Cells
	since int64
}

type counter struct {
	bytes uint64
	past  [windows]uint64
	bps   uint64
	n     int // windows so far
}

// Add counts a packet of n bytes that belongs to what receivers of the layers in c get.
func (r *Rate) Add(c Cells, n int) {
	r.used |= c
	for m := c; m != 0; m &= m - 1 {
		r.cells[bits.TrailingZeros16(uint16(m))].bytes += uint64(n)
	}
	r.all.bytes += uint64(n)
}

// Roll ends the window when it is long enough; call it several times per second, with the
// time in nanoseconds. A window without anything says nothing: the rate of a layer that
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
	for m := r.used; m != 0; m &= m - 1 {
		r.cells[bits.TrailingZeros16(uint16(m))].roll(d)
	}
	r.all.roll(d)
	r.since = now
}

func (c *counter) roll(d int64) {
	if c.bytes == 0 {
		return
	}
	known := min(c.n+1, windows)
	c.past[c.n%windows] = c.bytes * 8 * uint64(time.Second) / uint64(d)
	sorted := c.past
	slices.Sort(sorted[:known])
	c.bps, c.bytes = sorted[(known-1)/2], 0
	c.n++
}

// UpTo is the rate of a layer with all that it needs, in bits per second; that of the highest
// temporal layer below it when there are not so many.
func (r *Rate) UpTo(spatial, temporal int8) uint64 {
	t := min(uint8(max(temporal, 0)), temporalLayers-1)
	for t > 0 && r.used&Cell(uint8(spatial), t) == 0 {
		t--
	}
	return r.cell(spatial, int8(t))
}

func (r *Rate) cell(spatial, temporal int8) uint64 {
	s := min(uint8(max(spatial, 0)), spatialLayers-1)
	return r.cells[s*temporalLayers+uint8(temporal)].bps
}

// Total is the rate of everything, in bits per second.
func (r *Rate) Total() uint64 { return r.all.bps }

// Top is the highest temporal layer of a spatial one that carries anything.
func (r *Rate) Top(spatial int8) int8 {
	for t := int8(temporalLayers - 1); t > 0; t-- {
		if r.cell(spatial, t) > r.cell(spatial, t-1) {
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
const longestGap = int64(time.Millisecond)

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
