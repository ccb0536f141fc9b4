package cluster_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// world is a cluster in one process, on a network that can be cut.
type world struct {
	t    testing.TB
	net  *network
	dir  string // empty: registries in memory
	set  func(*cluster.NodeConfig)
	wait time.Duration

	mu    sync.RWMutex // guards the field below
	nodes map[string]*member
}

type member struct {
	*cluster.Cluster
	cancel context.CancelFunc
	done   chan error
	clock  *clock
}

// ttl of leases, in worlds that are not about time: a fifth of the real one would starve under the race detector.
const ttl = 600 * time.Millisecond

func newWorld(t testing.TB, set func(*cluster.NodeConfig)) *world {
	w := &world{t: t, net: newNetwork(), nodes: map[string]*member{}, set: set, wait: 30 * time.Second}
	t.Cleanup(func() {
		w.net.heal()
		var wg sync.WaitGroup
		for _, id := range w.ids() {
			wg.Go(func() { w.kill(id) })
		}
		wg.Wait()
		w.net.wg.Wait()
	})
	return w
}

// start starts a node: region and zone are in its name, "eu1.2" is node 2 in zone 1 of eu; as a voter unless told not to.
func (w *world) start(id string, expect int, roles ...string) *member {
	w.t.Helper()
	if len(roles) == 0 {
		roles = []string{"stage", "voter"}
	}
	m := &member{done: make(chan error, 1), clock: newClock()}
	cfg := cluster.NodeConfig{
		Node: &pb.ClusterNode{Id: id, Region: id[:2], Zone: id[2:3], Roles: roles}, BootstrapExpect: expect,
		LeaseTTL: ttl, Heartbeat: 100 * time.Millisecond, StableAfter: ttl, DeadAfter: 2 * ttl, Monotonic: m.clock.now, Logger: logger(id),
	}
	if w.dir != "" {
		cfg.Dir = filepath.Join(w.dir, id)
	}
	if w.set != nil {
		w.set(&cfg)
	}
	port := w.net.port(id)
	c, err := cluster.New(cfg, cluster.Deps{Peers: port, Dial: port.Dial, Members: w.members})
	if err != nil {
		w.t.Fatal(err)
	}
	m.Cluster = c
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	w.mu.Lock()
	w.nodes[id] = m
	w.mu.Unlock()
	port.setUp(true, c.Accept)
	go func() { m.done <- c.Run(ctx) }()
	return m
}

// logger writes what nodes say when AMPHI_TEST_LOG is set.
func logger(id string) *slog.Logger {
	if os.Getenv("AMPHI_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", id)
}

// members is gossip that knows at once who runs.
func (w *world) members() []cluster.Member {
	var all []cluster.Member
	for _, id := range w.ids() {
		all = append(all, cluster.Member{ID: id, Roles: w.rolesOf(id)})
	}
	return all
}

func (w *world) rolesOf(id string) []string {
	if id[2:3] == "x" {
		return []string{"stage"}
	}
	return []string{"stage", "voter"}
}

func (w *world) ids() []string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var ids []string
	for id := range w.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) node(id string) *member {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.nodes[id]
}

func (w *world) take(id string) *member {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.nodes[id]
	delete(w.nodes, id)
	return m
}

// kill ends a node as a crash would.
func (w *world) kill(id string) {
	m := w.take(id)
	w.net.port(id).setUp(false, nil)
	m.clock.resume()
	m.Kill()
	if err := <-m.done; err != nil {
		w.t.Errorf("killing %s: %v", id, err)
	}
	m.cancel()
}

// stop ends a node in peace.
func (w *world) stop(id string) {
	w.t.Helper()
	m := w.node(id)
	m.cancel()
	if err := <-m.done; err != nil {
		w.t.Errorf("stopping %s: %v", id, err)
	}
	w.take(id)
	w.net.port(id).setUp(false, nil)
}

// until waits for a condition.
func until(t testing.TB, most time.Duration, what string, f func() bool) {
	t.Helper()
	end := time.After(most)
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in %v: %s", most, what)
		}
	}
}

// three starts a cluster of three voters and waits until all have leases.
func (w *world) three() []string {
	w.t.Helper()
	ids := []string{"eu1.1", "eu2.1", "eu3.1"}
	for _, id := range ids {
		w.start(id, 3)
	}
	w.leased(ids...)
	return ids
}

func (w *world) leased(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		until(w.t, w.wait, id+" has a lease", func() bool { return w.node(id).Leased() })
	}
}

func (w *world) leader() string {
	w.t.Helper()
	var id string
	until(w.t, w.wait, "there is a leader", func() bool {
		for _, i := range w.ids() {
			if s := w.node(i).Status(); s.Leading && w.node(i).Leased() {
				id = i
				return true
			}
		}
		return false
	})
	return id
}

// owned waits until the room has an owner that node knows, and returns the placement.
func (w *world) owned(node, room string) *pb.Placement {
	w.t.Helper()
	var p *pb.Placement
	until(w.t, w.wait, room+" has an owner", func() bool {
		got, err := w.node(node).Owner(room)
		p = got
		return err == nil
	})
	return p
}

func (w *world) propose(node string, cmd *pb.RegistryCommand) {
	w.t.Helper()
	until(w.t, w.wait, "the command is carried out", func() bool {
		err := w.node(node).Propose(context.Background(), cmd)
		if err != nil && !proto.CodeOf(err).Retryable() {
			w.t.Fatalf("%s: %v", node, err)
		}
		return err == nil
	})
}

// clock is a node's monotonic clock, which a pause of the node stops reading.
type clock struct {
	start time.Time
	mu    sync.Mutex // guards the fields below
	gate  chan struct{}
	rate  float64
}

func newClock() *clock { return &clock{start: time.Now(), rate: 1} }

// now returns, while the node is paused, only when it goes on, and then what it was before.
func (c *clock) now() time.Duration {
	at := time.Since(c.start)
	c.mu.Lock()
	gate, rate := c.gate, c.rate
	c.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return time.Duration(float64(at) * rate)
}

// setRate lets the clock run faster or slower than others.
func (c *clock) setRate(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate = rate
}

func (c *clock) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gate == nil {
		c.gate = make(chan struct{})
	}
}

func (c *clock) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gate != nil {
		close(c.gate)
		c.gate = nil
	}
}

func voters(s cluster.Status) []string {
	var ids []string
	for _, server := range s.Servers {
		if server.Voter {
			ids = append(ids, server.ID)
		}
	}
	return ids
}

func encoded(t *testing.T, call *pb.RegistryCall) []byte {
	t.Helper()
	msg, err := gproto.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func decoded(t *testing.T, answer []byte) *pb.RegistryReply {
	t.Helper()
	reply := &pb.RegistryReply{}
	if err := gproto.Unmarshal(answer, reply); err != nil {
		t.Fatal(err)
	}
	return reply
}
