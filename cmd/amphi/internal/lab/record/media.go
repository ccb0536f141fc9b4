package record

import (
	"slices"
	"sync"
	"time"
)

// Track is what one viewer gets of one track of a publisher.
type Track struct {
	Publisher uint16
	Audio     bool
}

// Track is the track that a stamped packet belongs to.
func (s Stamp) Track() Track { return Track{Publisher: s.Publisher, Audio: s.Layer == AudioLayer} }

// arrival is one packet that came.
type arrival struct {
	at, sent int64 // Unix nanoseconds
	count    uint64
	layer    uint8
}

// maxArrivals bounds the memory of one track: half an hour of 500 packets/s.
const maxArrivals = 900_000

// Media notes the packets that one viewer gets. It may be used from several goroutines.
type Media struct {
	mu     sync.Mutex // guards the fields below
	tracks map[Track][]arrival
	last   int64
}

// Add notes a packet that came at a time, in Unix nanoseconds.
func (m *Media) Add(s Stamp, at int64) {
	t := s.Track()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tracks == nil {
		m.tracks = map[Track][]arrival{}
	}
	m.last = at
	if len(m.tracks[t]) < maxArrivals {
		m.tracks[t] = append(m.tracks[t], arrival{at: at, sent: s.Sent, count: s.Count, layer: s.Layer})
	}
}

// Last is when the last packet came, Unix nanoseconds; 0 is never.
func (m *Media) Last() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// Window is what came of one track in a stretch of time.
type Window struct {
	// Gap is the longest time without a packet, its edges included.
	Gap time.Duration `json:"gap_ns"`
	// GapAt is when it began, from the window's beginning.
	GapAt time.Duration `json:"gap_at_ns"`
	// Packets came, Repeated of them more than once; Missing were sent in the window, between others
	// that came, and never came.
	Packets  int `json:"packets"`
	Repeated int `json:"repeated"`
	Missing  int `json:"missing"`
	// DelayP50 and DelayP99 are from the publisher's write to the viewer.
	DelayP50 time.Duration `json:"delay_p50_ns"`
	DelayP99 time.Duration `json:"delay_p99_ns"`
	// Layer is the highest that came, -1 none.
	Layer int `json:"layer"`
}

// Window looks at a track between two times. What was sent in the window and came later counts as come.
func (m *Media) Window(t Track, from, to time.Time) Window {
	m.mu.Lock()
	all := m.tracks[t]
	m.mu.Unlock()
	return window(all, from.UnixNano(), to.UnixNano())
}

// gap notes a silence if it is the longest so far.
func (w *Window) gap(began, from, to int64) {
	if d := time.Duration(to - from); d > w.Gap {
		w.Gap, w.GapAt = d, time.Duration(from-began)
	}
}

func window(all []arrival, from, to int64) Window {
	w := Window{Layer: -1}
	previous := from
	byLayer := map[uint8][]uint64{}
	var delays []int64
	for _, a := range all {
		if a.at >= from && a.at < to {
			w.gap(from, previous, a.at)
			previous = a.at
			w.Packets++
			if a.layer != AudioLayer {
				w.Layer = max(w.Layer, int(a.layer))
			}
			delays = append(delays, a.at-a.sent)
		}
		if a.sent >= from && a.sent < to {
			byLayer[a.layer] = append(byLayer[a.layer], a.count)
		}
	}
	w.gap(from, previous, to)
	for _, counts := range byLayer {
		slices.Sort(counts)
		for i, c := range counts[1:] {
			switch before := counts[i]; {
			case c == before:
				w.Repeated++
			default:
				w.Missing += int(c - before - 1)
			}
		}
	}
	slices.Sort(delays)
	if n := len(delays); n > 0 {
		w.DelayP50, w.DelayP99 = time.Duration(delays[n/2]), time.Duration(delays[n*99/100])
	}
	return w
}

// FirstOfLayer is when the first packet of a layer came after a time; false: not yet.
func (m *Media) FirstOfLayer(t Track, layer int, after time.Time) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.tracks[t] {
		if a.at >= after.UnixNano() && int(a.layer) == layer {
			return time.Unix(0, a.at), true
		}
	}
	return time.Time{}, false
}

// LastOfLayer is when the last packet of a layer or a higher one came; the zero time is never.
func (m *Media) LastOfLayer(t Track, layer int) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.tracks[t]
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].layer != AudioLayer && int(all[i].layer) >= layer {
			return time.Unix(0, all[i].at)
		}
	}
	return time.Time{}
}

// Delays are the times from the publisher's write to the viewer of what came between two times, sorted.
func (m *Media) Delays(t Track, from, to time.Time) []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []time.Duration
	for _, a := range m.tracks[t] {
		if a.at >= from.UnixNano() && a.at < to.UnixNano() {
			out = append(out, time.Duration(a.at-a.sent))
		}
	}
	slices.Sort(out)
	return out
}

// Flows tells whether a track has no gap as long as limit between two times.
func (m *Media) Flows(t Track, from, to time.Time, limit time.Duration) bool {
	m.mu.Lock()
	all := m.tracks[t]
	m.mu.Unlock()
	first, last := from.UnixNano(), to.UnixNano()
	i, _ := slices.BinarySearchFunc(all, first, func(a arrival, at int64) int { return int(min(1, max(-1, a.at-at))) })
	previous := first
	for _, a := range all[i:] {
		if a.at >= last {
			break
		}
		if time.Duration(a.at-previous) > limit {
			return false
		}
		previous = max(previous, a.at)
	}
	return time.Duration(last-previous) <= limit
}
