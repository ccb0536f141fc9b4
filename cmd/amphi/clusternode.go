package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/cluster/link"
)

// peersFile keeps whom a node has met, in its data directory.
const peersFile = "peers.json"

// clusterNode is how this node knows the others and reaches them: its certificate, the link to each of them, and
// gossip, which tells the link where they are.
type clusterNode struct {
	cfg      serveConfig
	log      *slog.Logger
	started  time.Time
	identity *identity.Identity
	link     *link.Link
	gossip   *gossip.Gossip // nil until openGossip
}

// newClusterNode loads the certificate and opens the cluster's port. The link's handlers can be set then; openGossip
// comes when the trunks' port is known. now is the clock by which certificates are valid; nil: the machine's.
func newClusterNode(cfg serveConfig, now func() time.Time, logger *slog.Logger) (*clusterNode, error) {
	c := &clusterNode{cfg: cfg, log: logger, started: time.Now()}
	var err error
	c.identity, err = identity.Load(identity.Config{Logger: logger, Node: cfg.Node, Now: now,
		Files: identity.Files{CA: cfg.Cluster.CA, Cert: cfg.Cluster.Cert, Key: cfg.Cluster.Key}})
	if err != nil {
		return nil, err
	}
	c.link, err = link.New(link.Config{Logger: logger, Identity: c.identity, Addr: cfg.Cluster.Listen})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// openGossip opens gossip's port. trunk is where trunks listen.
func (c *clusterNode) openGossip(trunk net.Addr) error {
	self := gossip.Member{
		ID: c.cfg.Node, Region: c.cfg.Region, Zone: c.cfg.Zone, Roles: c.cfg.Roles, URL: c.cfg.URL, Version: version(),
		StartedMs:   c.started.UnixMilli(),
		ClusterAddr: c.advertised(c.link.Addr()), TrunkAddr: c.advertised(trunk),
	}
	var err error
	c.gossip, err = gossip.New(gossip.Config{
		Logger: c.log, Self: self, Cluster: c.cfg.Cluster.Name, Addr: c.cfg.Cluster.Gossip, Advertise: c.cfg.Advertise,
		KeyFile: c.cfg.Cluster.GossipKeys, Seeds: c.cfg.Cluster.Seeds, Allow: c.cfg.Cluster.Allow,
		PeersFile: filepath.Join(c.cfg.Data, peersFile),
	})
	if err != nil {
		return fmt.Errorf("joining the cluster: %w", err)
	}
	c.gossip.Watch(c.follow)
	return nil
}

// advertised is the port of a socket at the address that others reach this node by.
func (c *clusterNode) advertised(local net.Addr) string {
	_, port, err := net.SplitHostPort(local.String())
	if err != nil {
		return ""
	}
	return net.JoinHostPort(c.cfg.Advertise.String(), port)
}

// follow tells the link where the others are.
func (c *clusterNode) follow() {
	addresses := map[string]string{}
	for _, m := range c.others() {
		addresses[m.ID] = m.ClusterAddr
	}
	c.link.SetPeers(addresses)
}

// others are the nodes besides this one that gossip does not know to be gone.
func (c *clusterNode) others() []gossip.Member {
	var found []gossip.Member
	for _, m := range c.gossip.Members() {
		if m.ID != c.cfg.Node && (m.State == gossip.Alive || m.State == gossip.Suspect) {
			found = append(found, m)
		}
	}
	return found
}

// trunkPeers are where the others' trunks listen.
func (c *clusterNode) trunkPeers() map[string]netip.AddrPort {
	peers := map[string]netip.AddrPort{}
	for _, m := range c.others() {
		if address, err := netip.ParseAddrPort(m.TrunkAddr); err == nil {
			peers[m.ID] = address
		}
	}
	return peers
}

// members are all nodes that gossip knows, this one among them, as planner and guide want them.
func (c *clusterNode) members() []member {
	var all []member
	for _, m := range c.gossip.Members() {
		all = append(all, member{id: m.ID, region: m.Region, zone: m.Zone, roles: m.Roles, url: m.URL, load: m.Load,
			draining: m.Draining, alive: m.State == gossip.Alive})
	}
	return all
}

// services are those that Node.Run is to run: gossip ends before the link, so that the others hear of it first.
func (c *clusterNode) services() []service {
	return []service{{"the cluster's port", c.link.Run}, {"gossip", c.gossip.Run}}
}

// Run lives until ctx is done.
func (c *clusterNode) Run(ctx context.Context) error { return runAll(ctx, c.services(), func() {}) }

// Close frees the ports of a clusterNode that never ran.
func (c *clusterNode) Close() {
	_ = c.link.Close()
	if c.gossip != nil {
		_ = c.gossip.Close()
	}
}
