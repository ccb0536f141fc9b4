// Package nack decides which lost packets of one received RTP stream to ask for
// again, and when (RFC 4585 section 6.2.1). It is a plain value: sequences and
// the time go in, sequences to request come out.
package nack

import (
	"errors"
	"slices"
	"sort"
	"time"
)

// Defaults of Config.
const (
	DefaultReorderPackets = 3
	DefaultReorderWait    = 10 * time.Millisecond
	DefaultMinInterval    = 20 * time.Millisecond
	DefaultMaxInterval    = 400 * time.Millisecond
	DefaultRTT            = 80 * time.Millisecond
	DefaultMaxTries       = 8
	DefaultMaxMissing     = 512
	DefaultMaxAge         = time.Second
	DefaultMaxPerCall     = 128
)

// Limits of what is taken for reordering, and how long after the last packet that was
// overtaken there is none any more.
const (
	MaxReorderPackets = 64
	MaxReorderWait    = 80 * time.Millisecond
	reorderMemory     = 10 * time.Second
)

// Config of a Generator. The zero value of a field means its default.
type Config struct {
	// ReorderPackets and ReorderWait are how long a gap may be mere reordering:
	// a packet is first requested once the newest sequence is so far beyond it,
	// or once so much time has passed, whichever is first. Where packets are seen to be
	// overtaken by more, both grow, up to MaxReorderPackets and MaxReorderWait.
	ReorderPackets int
	ReorderWait    time.Duration
	// Separate says that retransmissions come by Repaired only (RFC 4588), so that what
	// Receive takes late was overtaken, even when it had been requested.
	Separate bool
	// MinInterval and MaxInterval bound the time between two requests of one
	// packet, which otherwise is 1.25 round trips.
	MinInterval, MaxInterval time.Duration
	// RTT is the round trip assumed until SetRTT.
	RTT time.Duration
	// MaxTries is how often one packet is requested.
	MaxTries int
	// MaxMissing is how many packets may be missing at a time. More at once is
	// not loss but an outage: the oldest are given up.
	MaxMissing int
	// MaxAge is after which time a missing packet is of no use any more.
	MaxAge time.Duration
	// MaxPerCall caps the sequences that one Due returns.
	MaxPerCall int
}

func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		v   *int
		def int
	}{
		{&c.ReorderPackets, DefaultReorderPackets}, {&c.MaxTries, DefaultMaxTries},
		{&c.MaxMissing, DefaultMaxMissing}, {&c.MaxPerCall, DefaultMaxPerCall},
	} {
		if *f.v < 0 {
			return c, errors.New("nack: negative limit")
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&c.ReorderWait, DefaultReorderWait}, {&c.MinInterval, DefaultMinInterval},
		{&c.MaxInterval, DefaultMaxInterval}, {&c.RTT, DefaultRTT}, {&c.MaxAge, DefaultMaxAge},
	} {
		if *f.v < 0 {
			return c, errors.New("nack: negative duration")
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if c.MinInterval > c.MaxInterval {
		return c, errors.New("nack: MinInterval is above MaxInterval")
	}
	return c, nil
}

// Stats counts packets since New.
type Stats struct {
	Missing   uint64 // sequences once missing
	Requested uint64 // requests, repeated ones too
	Recovered uint64 // came after they had been requested
	Reordered uint64 // came late before they were requested
	Needless  uint64 // came late by themselves, after they had been requested
	GivenUp   uint64 // never came: too old, too often requested, too many
}

// Generator follows one stream. It is not safe for concurrent use.
type Generator struct {
	cfg      Config
	interval time.Duration
	started  bool
	highest  uint64
	missing  []gap // ascending by sequence
	stats    Stats
	// packets and wait are how much reordering is allowed for now, late when there was some last.
	packets int
	wait    time.Duration
	late    time.Duration
}

type gap struct {
	seq   uint64
	since time.Duration
	last  time.Duration // of the last request
	tries int
}

// New makes a Generator.
func New(cfg Config) (*Generator, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Generator{cfg: cfg, missing: make([]gap, 0, 16), packets: cfg.ReorderPackets, wait: cfg.ReorderWait}
	g.SetRTT(cfg.RTT)
	return g, nil
}

// SetRTT says how long a request and its answer take.
func (g *Generator) SetRTT(rtt time.Duration) {
	g.interval = min(max(rtt+rtt/4, g.cfg.MinInterval), g.cfg.MaxInterval)
}

// Repaired takes the unwrapped sequence of a packet that came by retransmission on a stream
// of its own, or was made from others. The result is as that of Receive.
func (g *Generator) Repaired(seq uint64, now time.Duration) bool {
	if !g.started || seq > g.highest {
		return g.Receive(seq, now)
	}
	if i, ok := g.find(seq); ok {
		if g.missing[i].tries > 0 {
			g.stats.Recovered++
		} else {
			g.stats.Reordered++
		}
		g.missing = slices.Delete(g.missing, i, i+1)
	}
	return true
}

// Receive takes the unwrapped sequence of a packet that arrived. It says false when the gap
// before it was too large to be repaired: the stream needs a keyframe.
func (g *Generator) Receive(seq uint64, now time.Duration) bool {
	if !g.started {
		g.started, g.highest = true, seq
		return true
	}
	if seq <= g.highest {
		g.arrivedLate(seq, now)
		return true
	}
	if g.late != 0 && now-g.late > reorderMemory {
		g.packets, g.wait, g.late = g.cfg.ReorderPackets, g.cfg.ReorderWait, 0
	}
	from := g.highest + 1
	g.highest = seq
	lost := seq - from
	if lost == 0 {
		return true
	}
	g.stats.Missing += lost
	intact := true
	if lost > uint64(g.cfg.MaxMissing) {
		g.stats.GivenUp += uint64(len(g.missing)) + lost
		g.missing = g.missing[:0]
		return false
	}
	if over := len(g.missing) + int(lost) - g.cfg.MaxMissing; over > 0 {
		g.stats.GivenUp += uint64(over)
		g.missing = slices.Delete(g.missing, 0, over)
		intact = false
	}
	for s := from; s < seq; s++ {
		g.missing = append(g.missing, gap{seq: s, since: now})
	}
	return intact
}

// Skip says that the packets from first to last will not come: nothing of them is asked for.
func (g *Generator) Skip(first, last uint64) {
	kept := g.missing[:0]
	for _, m := range g.missing {
		if m.seq >= first && m.seq <= last {
			g.stats.GivenUp++
			continue
		}
		kept = append(kept, m)
	}
	g.missing = kept
	if g.started && first <= g.highest+1 && last > g.highest {
		g.highest = last
	}
}

// Highest is the highest sequence taken, 0 before the first.
func (g *Generator) Highest() uint64 { return g.highest }

// arrivedLate takes a packet that others have overtaken: so much is allowed for from now on.
func (g *Generator) arrivedLate(seq uint64, now time.Duration) {
	i, ok := g.find(seq)
	if !ok {
		return
	}
	m := g.missing[i]
	g.missing = slices.Delete(g.missing, i, i+1)
	by := now - m.since
	switch {
	case m.tries == 0:
		g.stats.Reordered++
	case g.cfg.Separate:
		g.stats.Needless++
	default:
		g.stats.Recovered++
		return
	}
	g.late = max(now, 1)
	g.wait = min(max(g.wait, by+by/4), MaxReorderWait)
	g.packets = min(max(g.packets, int(min(g.highest-seq, MaxReorderPackets))+2), MaxReorderPackets)
}

func (g *Generator) find(seq uint64) (int, bool) {
	i := sort.Search(len(g.missing), func(i int) bool { return g.missing[i].seq >= seq })
	return i, i < len(g.missing) && g.missing[i].seq == seq
}

// Due appends to dst the wire sequences to request now, ascending, and returns
// it. Call it after a batch of packets and at the time that Next tells.
func (g *Generator) Due(now time.Duration, dst []uint16) []uint16 {
	kept, n := g.missing[:0], 0
	for _, m := range g.missing {
		if now-m.since >= g.cfg.MaxAge || (m.tries >= g.cfg.MaxTries && now-m.last >= g.interval) {
			g.stats.GivenUp++
			continue
		}
		if n < g.cfg.MaxPerCall && g.due(m, now) {
			dst = append(dst, uint16(m.seq))
			m.tries++
			m.last = now
			g.stats.Requested++
			n++
		}
		kept = append(kept, m)
	}
	g.missing = kept
	return dst
}

func (g *Generator) due(m gap, now time.Duration) bool {
	switch {
	case m.tries >= g.cfg.MaxTries:
		return false
	case m.tries > 0:
		return now-m.last >= g.interval
	default:
		return g.highest-m.seq >= uint64(g.packets) || now-m.since >= g.wait
	}
}

// Next is when Due should be called although no packet comes; false while
// nothing is missing.
func (g *Generator) Next() (time.Duration, bool) {
	if len(g.missing) == 0 {
		return 0, false
	}
	next := time.Duration(1<<63 - 1)
	for _, m := range g.missing {
		at := m.last + g.interval
		if m.tries == 0 {
			at = m.since + g.wait
			if g.highest-m.seq >= uint64(g.packets) {
				at = m.since
			}
		}
		next = min(next, at, m.since+g.cfg.MaxAge)
	}
	return next, true
}

// Missing is how many packets are missed at present.
func (g *Generator) Missing() int { return len(g.missing) }

// Stats returns the counters.
func (g *Generator) Stats() Stats { return g.stats }
