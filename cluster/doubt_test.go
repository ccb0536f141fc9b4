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
