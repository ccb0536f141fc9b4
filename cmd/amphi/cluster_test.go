package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// clusterPatience bounds every wait of these tests: the machine may be busy.
const clusterPatience = time.Minute

// clustered is a cluster in this process.
type clustered struct {
	t         *testing.T
	authority *identity.Authority
	keys      string
	size      int
	change    func(*Config) // of each node's configuration; may be nil
	nodes     []*clusterNode
}

type clusterNode struct {
	*Node
	stop  context.CancelFunc
	ended chan error
	dead  bool
}

func startCluster(t *testing.T, size int) *clustered {
	t.Helper()
	return startClusterWith(t, size, nil)
}

func startClusterWith(t *testing.T, size int, change func(*Config)) *clustered {
	t.Helper()
	authority, err := identity.New("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &clustered{t: t, authority: authority, keys: filepath.Join(t.TempDir(), "gossip.key"), size: size, change: change}
	if err := os.WriteFile(c.keys, []byte(gossip.NewKey()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range size {
		c.start(fmt.Sprintf("n%d", i+1), "r", fmt.Sprint("z", i%3))
	}
	for _, n := range c.nodes {
		c.until("every node has a leader, a lease and the demo room", func() bool {
			return n.mesh.cluster.Ready() && c.seeded(n)
		})
	}
	return c
}

// start runs a node until the test ends.
func (c *clustered) start(id, region, zone string) *clusterNode {
	c.t.Helper()
	who, err := c.authority.Identity(id)
	if err != nil {
		c.t.Fatal(err)
	}
	var seeds []string
	for _, n := range c.nodes {
		seeds = append(seeds, n.mesh.gossip.Addr().String())
	}
	cfg := Config{
		Logger: slog.New(slog.NewTextHandler(testWriter{c.t}, nil)), HTTPAddr: "127.0.0.1:0", ID: id, Region: region,
		Cluster: &ClusterConfig{
			Name: "test", Zone: zone, Roles: []string{roleStage, roleAudience, roleOrigin, roleVoter}, Identity: who,
			Advertise: netip.MustParseAddr("127.0.0.1"), LinkAddr: "127.0.0.1:0", GossipAddr: "127.0.0.1:0", TrunkAddr: "127.0.0.1:0",
			GossipKeyFile: c.keys, Seeds: seeds, BootstrapExpect: c.size, Drain: 20 * time.Second,
			Keys: []*amphiv1.ApiKey{{Id: devKey, Secret: devSecret}},
		},
	}
	if c.change != nil {
		c.change(&cfg)
	}
	node, err := NewNode(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &clusterNode{Node: node, stop: stop, ended: make(chan error, 1)}
	c.nodes = append(c.nodes, n)
	go func() { n.ended <- node.Run(ctx, func() {}) }()
	c.t.Cleanup(func() { c.end(n) })
	return n
}

// end stops a node without a drain and waits for it.
func (c *clustered) end(n *clusterNode) {
	if n.dead {
		return
	}
	n.dead = true
	n.mesh.begin(time.Millisecond)
	n.stop()
	select {
	case err := <-n.ended:
		if err != nil {
			c.t.Errorf("node %s ended with %v", n.cfg.ID, err)
		}
	case <-time.After(clusterPatience):
		c.t.Errorf("node %s did not end", n.cfg.ID)
	}
}

// seeded says that the node knows the demo room, which the first to ask makes.
func (c *clustered) seeded(n *clusterNode) bool {
	var room, preset, secret bool
	n.registry.Read(func(r *amphiv1.Registry) {
		room, preset = r.GetRooms()[devRoom] != nil, r.GetTemplates()["live-event"] != nil
		secret = len(r.GetNodeSecret()) > 0 && r.GetKeys()[devKey] != nil
	})
	if preset && !room {
		// Another node may have been quicker.
		_ = n.registry.Propose(c.t.Context(), &amphiv1.RegistryCommand{Id: proto.NewID(proto.RequestPrefix), OnlyNew: true,
			Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{Name: devRoom, Template: "live-event"}}})
	}
	return room && preset && secret
}

func (c *clustered) until(what string, cond func() bool) {
	c.t.Helper()
	c.within(clusterPatience, what, cond)
}

func (c *clustered) within(patience time.Duration, what string, cond func() bool) {
	c.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

func TestClusterHasOneRoomOnThreeNodes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	guests := []guest{}
	for i, n := range c.nodes {
		guests = append(guests, join(ctx, t, n.Node, []string{"host", "viewer", "audience"}[i], fmt.Sprint("Guest ", i)))
	}
	const each = 30
	var wg sync.WaitGroup
	for _, g := range guests {
		wg.Go(func() {
			for i := range each {
				if _, err := g.Chat(ctx, fmt.Sprintf("%s %d", g.PeerID(), i)); err != nil {
					t.Errorf("chat %d of %s: %v", i, g.PeerID(), err)
				}
			}
		})
	}
	wg.Wait()
	order := guests[0].heard(ctx, t, len(guests)*each)
	for _, g := range guests[1:] {
		if got := g.heard(ctx, t, len(guests)*each); !slices.Equal(got, order) {
			t.Errorf("%s heard another order", g.PeerID())
		}
	}
	moveAcross(ctx, t, guests[0], guests[1])
	c.until("every trunk is up, and the metrics say so", func() bool { return c.trunksUp(c.nodes[0]) == 2 })
}

// trunksUp counts the trunks of a node that its metrics tell to be up.
func (c *clustered) trunksUp(n *clusterNode) (up float64) {
	families, err := n.collectors().Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "amphi_trunk_up" {
			for _, m := range f.GetMetric() {
				up += m.GetGauge().GetValue()
			}
		}
	}
	return up
}
