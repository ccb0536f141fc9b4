package cascade

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// drop is a reason for refusing what another node says; its name is the metric label.
type drop uint8

const (
	dropMalformed drop = iota
	dropRoom
	dropMember
	dropHome
	dropTrack
	dropLayers
	dropLoop
	dropLabelInUse
	dropTooMany
	dropLabel
	dropRetired // assigned once, let go of since
	dropPlan
	dropStale
	drops
)

func (d drop) String() string {
	return [drops]string{
		"malformed", "unknown_room", "not_member", "unknown_home", "unknown_track", "too_many_layers", "loop", "label_in_use",
		"too_many_wants", "unknown_label", "retired_label", "bad_plan", "stale_generation",
	}[d]
}

// dropCounters counts refusals by reason; safe for concurrent use.
type dropCounters struct {
	counts [drops]atomic.Uint64
	told   [drops]uint64 // belongs to who logs
}

func (c *dropCounters) add(d drop) { c.counts[d].Add(1) }

// manyDrops is how many refusals in a second are worth a warning.
const manyDrops = 100

// log writes one line for what was refused since the last one, if anything was.
func (c *dropCounters) log(log *slog.Logger) {
	var attrs []slog.Attr
	total := uint64(0)
	for d := range drops {
		n := c.counts[d].Load() - c.told[d]
		if n == 0 {
			continue
		}
		c.told[d] += n
		if d != dropRetired { // it was under way
			total += n
		}
		attrs = append(attrs, slog.Uint64(d.String(), n))
	}
	level := slog.LevelDebug
	if total >= manyDrops {
		level = slog.LevelWarn
	}
	if len(attrs) > 0 {
		log.LogAttrs(context.Background(), level, "refusing what other nodes say about relays", attrs...)
	}
}
