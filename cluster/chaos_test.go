package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster"
)

// chaos is a cluster of five whose nodes and ways fail at random, with clients at each.
type chaos struct {
	*world
	ids  []string
	rng  *rand.Rand
	hist *history
}

const (
	chaosRooms = 12
	chaosTTL   = 450 * time.Millisecond
	// chaosTime ends the short form on a machine that is too busy for all its operations.
	chaosTime = 15 * time.Second
)

// TestLinearizable lets owners decide and clients write and read durable values while nodes are cut off, one way and
// both, paused, killed, stopped in peace and started again, clocks run at different rates, and rooms are handed over. Nothing of
// what anybody saw may be out of order. AMPHI_SOAK is how many operations; make soak does 100,000.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	operations := 4000
	if s := os.Getenv("AMPHI_SOAK"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		operations = n
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("AMPHI_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("AMPHI_SEED=%d", seed)
	c := &chaos{ids: []string{"eu1.1", "eu2.1", "us1.1", "us2.1", "as1.1"}, rng: rand.New(rand.NewPCG(seed, 0)), hist: &history{}}
	c.world = newWorld(t, func(cfg *cluster.NodeConfig) {
		cfg.LeaseTTL, cfg.Heartbeat = chaosTTL, 120*time.Millisecond
		cfg.StableAfter, cfg.DeadAfter = chaosTTL, 4*chaosTTL
		cfg.ProposeTimeout = 2 * time.Second
		cfg.SnapshotEntries = 500
	})
	c.dir = t.TempDir()
	for _, id := range c.ids {
		c.begin(id)
	}
	c.leased(c.ids...)
	for i := range chaosRooms {
		c.propose(c.ids[0], putRoom(fmt.Sprint("r", i), ""))
	}
	c.hist.begin = time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for i, id := range c.ids {
		for n := range 3 {
			rng := rand.New(rand.NewPCG(seed, uint64(1+i*10+n)))
			clients.Go(func() { c.access(ctx, id, rng, operations) })
		}
		clients.Go(func() { c.decide(ctx, id, rand.New(rand.NewPCG(seed, uint64(100+i)))) })
	}
	faults := 0
	short := os.Getenv("AMPHI_SOAK") == ""
	for c.hist.len() < operations || faults < 8 {
		if short && time.Since(c.hist.begin) > chaosTime {
			break
		}
		c.fault(faults)
		faults++
	}
	healed := time.Now()
	c.net.heal()
	for _, id := range c.ids {
		c.node(id).clock.resume()
	}
	cancel() // their load is no part of how long it takes to converge
	c.leased(c.ids...)
	t.Logf("%d faults; converged %v after the last was healed", faults, time.Since(healed).Round(time.Millisecond))
	for _, id := range c.ids {
		if life := c.node(id).Status().Incarnation; life > 2*uint64(faults)+2 {
			t.Errorf("%s registered %d times in %d faults", id, life, faults)
		}
	}
	clients.Wait()
	began := time.Now()
	c.hist.check(t)
	t.Logf("checked in %v", time.Since(began).Round(time.Millisecond))
}

func (c *chaos) begin(id string) *member {
	m := c.start(id, len(c.ids))
	m.clock.setRate(0.98 + 0.04*rand.Float64())
	return m
}

func (c *chaos) access(ctx context.Context, id string, rng *rand.Rand, operations int) {
	for n := 0; ctx.Err() == nil; n++ {
		m := c.node(id)
		if m == nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		// Not as fast as can be: reads that ask nobody would leave the nodes no time for their leases.
		pause(ctx, 2*time.Millisecond)
		if rng.IntN(10) == 0 {
			c.hist.claim(ctx, m, id, fmt.Sprint("s", rng.IntN(3)), fmt.Sprintf("%s-%d-%d", id, n, rng.Uint32()))
			continue
		}
		key := fmt.Sprint("k", rng.IntN(20+operations/200))
		if rng.IntN(2) == 0 {
			c.hist.put(ctx, m, key, fmt.Sprintf("%s-%d-%d", id, n, rng.Uint32()))
		} else {
			c.hist.get(ctx, m, key)
		}
	}
}

func (c *chaos) decide(ctx context.Context, id string, rng *rand.Rand) {
	for ctx.Err() == nil {
		pause(ctx, 3*time.Millisecond)
		if m := c.node(id); m != nil {
			c.hist.decide(m, id, fmt.Sprint("r", rng.IntN(chaosRooms)))
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// fault does something bad for a while, and waits a little after it has ended.
func (c *chaos) fault(n int) {
	some := func(most time.Duration) time.Duration { return time.Duration(c.rng.Int64N(int64(most))) }
	id := c.ids[c.rng.IntN(len(c.ids))]
	if c.rng.IntN(3) == 0 {
		id = c.leads(id)
	}
	other := c.ids[c.rng.IntN(len(c.ids))]
	ctx := context.Background()
	switch n % 8 {
	case 0:
		c.net.isolate(id, c.ids)
		pause(ctx, 100*time.Millisecond+some(3*chaosTTL))
	case 1:
		c.kill(id)
		pause(ctx, some(4*chaosTTL))
		c.begin(id)
	case 2: // one way
		c.net.set(true, way{id, other})
		pause(ctx, 100*time.Millisecond+some(3*chaosTTL))
	case 3: // the node stands still, and what is sent to it waits
		clock := c.node(id).clock
		clock.pause()
		c.net.isolate(id, c.ids)
		pause(ctx, 100*time.Millisecond+some(3*chaosTTL))
		clock.resume()
	case 4: // two against three
		for i, a := range c.ids {
			for j, b := range c.ids {
				if (i < 2) != (j < 2) {
					c.net.set(true, way{a, b})
				}
			}
		}
		pause(ctx, 200*time.Millisecond+some(4*chaosTTL))
	case 5:
		handover, cancel := context.WithTimeout(ctx, chaosTTL)
		_ = c.node(id).Handover(handover, "") // what stays is no fault
		cancel()
	case 6:
		c.stop(id)
		c.begin(id)
	case 7: // nobody hears anybody
		for _, a := range c.ids {
			c.net.isolate(a, c.ids)
		}
		pause(ctx, some(2*chaosTTL))
	}
	c.net.heal()
	pause(ctx, 100*time.Millisecond+some(2*chaosTTL))
}

// leads is a node that takes itself for the leader, or the one that is given.
func (c *chaos) leads(otherwise string) string {
	for _, id := range c.ids {
		if c.node(id).Status().Leading {
			return id
		}
	}
	return otherwise
}
