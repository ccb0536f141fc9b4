package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/cluster/group"
	"github.com/amphi-sfu/amphi/cluster/lease"
)

// real is a world of n voters with the timing of the product, delay apart one way.
func real(b *testing.B, n int, delay time.Duration) (*world, []string) {
	w := newWorld(b, func(cfg *cluster.NodeConfig) {
		cfg.LeaseTTL, cfg.Heartbeat = lease.TTL, group.Heartbeat(2*delay)
		cfg.DeadAfter = time.Hour
	})
	w.dir = b.TempDir()
	w.net.delay = delay
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("eu%d.1", i+1))
		w.start(ids[i], n)
	}
	w.leased(ids...)
	return w, ids
}

// percentiles reports the median and the 95th percentile, in milliseconds.
func percentiles(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	for name, at := range map[string]int{"p50-ms": 50, "p95-ms": 95} {
		b.ReportMetric(float64(all[(len(all)-1)*at/100].Microseconds())/1000, name)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLeaderKilled kills the Raft leader while a client at another node writes: from the kill until a write is
// answered that was begun after it.
func BenchmarkLeaderKilled(b *testing.B) {
	for _, c := range []struct {
		name  string
		n     int
		delay time.Duration
	}{{"LAN", 3, 0}, {"80ms", 5, 40 * time.Millisecond}} {
		b.Run(c.name, func(b *testing.B) {
			w, ids := real(b, c.n, c.delay)
			var all []time.Duration
			for b.Loop() {
				leader := w.leader()
				client := ids[(slices.Index(ids, leader)+1)%len(ids)]
				began := time.Now()
				killed := make(chan struct{})
				go func() {
					w.kill(leader)
					close(killed)
				}()
				until(b, w.wait, "the leader is down", func() bool { return w.node(leader) == nil })
				w.propose(client, putRoom("r", ""))
				all = append(all, time.Since(began))
				<-killed
				w.start(leader, c.n)
				w.leased(ids...)
			}
			percentiles(b, all)
		})
	}
}

// BenchmarkLeaderCutOff cuts the Raft leader off, as a black hole does: from then until a write at another node is answered.
func BenchmarkLeaderCutOff(b *testing.B) {
	w, ids := real(b, 3, 40*time.Millisecond)
	var all []time.Duration
	for b.Loop() {
		leader := w.leader()
		client := ids[(slices.Index(ids, leader)+1)%len(ids)]
		began := time.Now()
		w.net.isolate(leader, ids)
		w.propose(client, putRoom("r", ""))
		all = append(all, time.Since(began))
		w.net.heal()
		w.leased(ids...)
	}
	percentiles(b, all)
}

// BenchmarkOwnerKilled kills a room's owner: until another node knows that it is the owner and has a lease. Once the
// owner does not lead the Raft group, once it does.
func BenchmarkOwnerKilled(b *testing.B) {
	for _, leads := range []bool{false, true} {
		b.Run(map[bool]string{false: "follower", true: "leader"}[leads], func(b *testing.B) {
			w, ids := real(b, 3, 0)
			var all []time.Duration
			for i := 0; b.Loop(); i++ {
				leader := w.leader()
				owner := leader
				if !leads {
					owner = ids[(slices.Index(ids, leader)+1)%3]
				}
				room := fmt.Sprint("room", i)
				w.propose(owner, putRoom(room, ""))
				w.owned(owner, room)
				began := time.Now()
				killed := make(chan struct{})
				go func() {
					w.kill(owner)
					close(killed)
				}()
				until(b, w.wait, "the owner is down", func() bool { return w.node(owner) == nil })
				until(b, w.wait, "another is the owner", func() bool {
					for _, id := range w.ids() {
						m := w.node(id)
						if p, err := m.Owner(room); err == nil && p.GetNode() == id && m.Leased() {
							return true
						}
					}
					return false
				})
				all = append(all, time.Since(began))
				<-killed
				w.start(owner, 3)
				w.leased(ids...)
			}
			percentiles(b, all)
		})
	}
}

// BenchmarkClusterPropose is one command after the other at a follower of three, with flushes to disk.
func BenchmarkClusterPropose(b *testing.B) {
	w, ids := real(b, 3, 0)
	leader := w.leader()
	m := w.node(ids[(slices.Index(ids, leader)+1)%3])
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Propose(context.Background(), putRoom("demo", "")); err != nil {
			b.Fatal(err)
		}
	}
}
