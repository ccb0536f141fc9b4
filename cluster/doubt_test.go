package cluster_test

import (
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster"
)

// TestSilentLeaderIsReplacedSoon cuts leaders off: another leads before most of Raft's own timers, which run for up to three
// time-outs, would have had anybody look.
func TestSilentLeaderIsReplacedSoon(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	w := newWorld(t, func(cfg *cluster.NodeConfig) { cfg.Heartbeat, cfg.DeadAfter = timeout, time.Hour })
	ids := w.three()
	for range 3 {
		old := w.leader()
		others := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == old })
		w.net.isolate(old, ids)
		until(t, timeout*17/10, "another leads", func() bool {
			return slices.ContainsFunc(others, func(id string) bool { return w.node(id).Status().Leading })
		})
		w.net.heal()
		w.leased(ids...)
	}
}

// TestNewLeaderRenewsLeasesAtOnce has all leases run out: who waited for its next turn, 2 s apart, would be without one for
// longer than this.
func TestNewLeaderRenewsLeasesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *cluster.NodeConfig) { cfg.LeaseTTL, cfg.DeadAfter = 8*time.Second, time.Hour })
	ids := w.three()
	for _, id := range ids {
		w.net.isolate(id, ids)
	}
	until(t, 20*time.Second, "the leases run out", func() bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return w.node(id).Leased() })
	})
	w.net.heal()
	until(t, w.wait, "one leads", func() bool {
		return slices.ContainsFunc(ids, func(id string) bool { return w.node(id).Status().Leading })
	})
	until(t, 1500*time.Millisecond, "all have leases again", func() bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return !w.node(id).Leased() })
	})
}
