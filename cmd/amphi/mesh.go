package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cascade"
	"github.com/amphi-sfu/amphi/cascade/trunk"
	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/cluster/link"
	"github.com/amphi-sfu/amphi/hls/edge"
	"github.com/amphi-sfu/amphi/media"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

// ClusterConfig is how a node takes part in a cluster.
type ClusterConfig struct {
	// Name is the cluster's; Zone the failure domain within the node's region; Roles are those of ARCHITECTURE.md.
	Name, Zone string
	Roles      []string
	Identity   *identity.Identity
	// URL is where clients reach the node; empty: where it listens. Advertise is its address for the other nodes.
	URL       string
	Advertise netip.Addr
	// LinkAddr, GossipAddr and TrunkAddr are HOST:PORT to listen on.
	LinkAddr, GossipAddr, TrunkAddr string
	// GossipKeyFile holds the keys of gossip, Seeds are HOST:PORT of nodes that are known, Allow the networks that nodes
	// may be in; empty: all.
	GossipKeyFile string
	Seeds         []string
	Allow         []netip.Prefix
	// BootstrapExpect is how many voters found the cluster.
	BootstrapExpect int
	// Keys are API keys that the cluster is to have.
	Keys []*amphiv1.ApiKey
	// Drain is how long a drain takes at most, when nobody says otherwise; default 60 s.
	Drain time.Duration
	// Raft overrides the time-outs of the registry, for tests.
	Raft cluster.NodeConfig
}

// Calls between nodes besides the cluster's own.
const kindStatus byte = 16

// Messages between nodes besides the cluster's own.
const kindPaths byte = 17

// peersFile keeps whom a node has met, in its data directory.
const peersFile = "peers.json"

// mesh is what joins a node to the others.
type mesh struct {
	cfg     ClusterConfig
	node    *Node
	log     *slog.Logger
	self    *amphiv1.ClusterNode
	link    *link.Link
	gossip  *gossip.Gossip // set once the node listens
	cluster *cluster.Cluster
	trunks  *trunk.Set
	relays  *cascade.Manager
	edge    *edge.Edge
	origins *originServer
	desk    *desk
	// director is of the rooms that this node owns.
	director *director
	planner  *planner
	paths    *paths
	turn     atomic.Uint32
	drain    *drain
	// revoked are certificates that count no more; revoking holds a token when there may be more of them.
	revoked  *identity.Revocations
	revoking chan struct{}
}

// newMesh opens the ports between nodes. The node's media must be there.
func newMesh(n *Node, cfg ClusterConfig) (*mesh, error) {
	m := &mesh{cfg: cfg, node: n, log: n.log, drain: newDrain(), paths: newPaths(), revoking: make(chan struct{}, 1)}
	if m.cfg.Drain == 0 {
		m.cfg.Drain = time.Minute
	}
	file := ""
	if n.cfg.Data != "" {
		file = filepath.Join(n.cfg.Data, revokedFile)
	}
	var err error
	if m.revoked, err = identity.OpenRevocations(file); err != nil {
		return m, err
	}
	cfg.Identity.Heed(m.revoked)
	if m.link, err = link.New(link.Config{Logger: n.log, Identity: cfg.Identity, Addr: cfg.LinkAddr}); err != nil {
		return m, err
	}
	m.relays = cascade.New(cascade.Config{Node: n.cfg.ID, Logger: n.log}, cascade.Engine(n.media), relayTrunks{m})
	m.trunks, err = trunk.New(trunk.Config{Logger: n.log, Node: n.cfg.ID, UDPAddr: cfg.TrunkAddr, Now: n.media.Now}, trunk.Deps{
		Dial: func(ctx context.Context, node string) (*tls.Conn, error) {
			return m.link.Dial(ctx, node, link.TrunkProtocol)
		},
		Handler: m.relays, Shed: m.relays.Shed, Flush: m.relays.Flush,
	})
	if err != nil {
		return m, err
	}
	m.link.Handle(link.TrunkProtocol, m.trunks.Accept)
	m.self = &amphiv1.ClusterNode{
		Id: n.cfg.ID, Region: n.cfg.Region, Zone: cfg.Zone, Roles: m.roles(), Version: version(), StartedMs: n.started.UnixMilli(),
		ClusterAddr: m.advertised(m.link.Addr()), TrunkAddr: m.advertised(net.UDPAddrFromAddrPort(m.trunks.LocalAddr())),
	}
	raft := cfg.Raft
	raft.Logger, raft.Node, raft.Dir, raft.BootstrapExpect = n.log, m.self, n.cfg.Data, cfg.BootstrapExpect
	m.cluster, err = cluster.New(raft, cluster.Deps{
		Peers: m.link,
		Dial: func(ctx context.Context, node string) (net.Conn, error) {
			return m.link.Dial(ctx, node, link.RaftProtocol)
		},
		Members: m.living,
	})
	if err != nil {
		return m, err
	}
	m.link.Handle(link.RaftProtocol, func(node string, conn *tls.Conn) { m.cluster.Accept(node, conn) })
	m.link.OnMessage(cluster.KindRoom, func(from string, msg []byte) {
		if err := n.Deliver(from, msg); err != nil {
			m.log.Debug("room message dropped", "from", from, "err", err)
		}
	})
	m.link.OnCall(kindStatus, m.answerStatus)
	m.link.OnMessage(kindPaths, func(from string, msg []byte) {
		if !m.paths.take(from, msg, time.Since(n.started)) {
			m.log.Debug("what a node says of its trunks cannot be read", "from", from)
		}
	})
	m.cluster.Watch(func(room string) {
		if room != "" {
			return
		}
		select {
		case m.revoking <- struct{}{}:
		default:
		}
	})
	m.planner = newPlanner(m.members, m.rtt)
	return m, nil
}

// announce makes the node known to gossip, now that it listens for clients.
func (m *mesh) announce() error {
	m.self.Url = m.cfg.URL
	if m.self.Url == "" {
		m.self.Url = m.node.front.URL()
	}
	peers := ""
	if m.node.cfg.Data != "" {
		peers = filepath.Join(m.node.cfg.Data, peersFile)
	}
	g, err := gossip.New(gossip.Config{
		Logger: m.log, Cluster: m.cfg.Name, Addr: m.cfg.GossipAddr, Advertise: m.cfg.Advertise, KeyFile: m.cfg.GossipKeyFile,
		Seeds: m.cfg.Seeds, Allow: m.cfg.Allow, PeersFile: peers,
		Self: gossip.Member{
			ID: m.self.GetId(), Region: m.self.GetRegion(), Zone: m.self.GetZone(), Roles: m.self.GetRoles(), URL: m.self.GetUrl(),
			ClusterAddr: m.self.GetClusterAddr(), TrunkAddr: m.self.GetTrunkAddr(), Version: m.self.GetVersion(), StartedMs: m.self.GetStartedMs(),
		},
	})
	if err != nil {
		return err
	}
	m.gossip = g
	g.Watch(m.meet)
	return nil
}

// advertised is an address of this node as the others reach it.
func (m *mesh) advertised(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if m.cfg.Advertise.IsValid() {
		host = m.cfg.Advertise.String()
	}
	return net.JoinHostPort(host, port)
}

// services are what runs between the nodes, those first that others lean on.
func (m *mesh) services() []service {
	return []service{
		{"the cluster's port", m.link.Run},
		{"gossip", m.gossip.Run},
		{"the registry", m.cluster.Run},
		{"certificates that count no more", m.heed},
		{"trunks", m.trunks.Run},
		{"relays", m.relays.Run},
		{"the node's load", m.tellLoad},
		{"the node's trunks, as others are told", m.tellPaths},
		{"the cluster's first records", m.found},
	}
}

// close frees what was opened, for a node that never ran.
func (m *mesh) close() {
	if m.gossip != nil {
		_ = m.gossip.Close()
	}
	if m.cluster != nil {
		_ = m.cluster.Close()
	}
	if m.trunks != nil {
		_ = m.trunks.Close()
	}
	if m.link != nil {
		_ = m.link.Close()
	}
}

// meet tells everybody who reaches other nodes where these are.
func (m *mesh) meet() {
	links := map[string]string{}
	trunks := map[string]netip.AddrPort{}
	for _, g := range m.gossip.Members() {
		if g.ID == m.self.GetId() || !here(g) {
			continue
		}
		links[g.ID] = g.ClusterAddr
		// An address that makes no sense leaves the trunk without a dial of ours.
		if addr, err := netip.ParseAddrPort(g.TrunkAddr); err == nil {
			trunks[g.ID] = addr
		}
	}
	m.link.SetPeers(links)
	m.trunks.SetPeers(trunks)
}

// living are the nodes that gossip takes for alive, as the registry wants to know them.
func (m *mesh) living() []cluster.Member {
	var list []cluster.Member
	for _, g := range m.all() {
		if here(g) && !m.shutOut(g.ID) {
			list = append(list, cluster.Member{ID: g.ID, Roles: g.Roles, Load: int(g.Load)})
		}
	}
	return list
}

// here says that gossip does not know a node to be gone.
func here(g gossip.Member) bool { return g.State == gossip.Alive || g.State == gossip.Suspect }

// all are the members as gossip has them; none before it was made.
func (m *mesh) all() []gossip.Member {
	if m.gossip == nil {
		return nil
	}
	return m.gossip.Members()
}

// seen are the members as this node knows them. One that the registry has buried is dead, though gossip is slower to find it: its lease
// had run out and others heard nothing of it. Gossip still goes by its own view, and so does what lets such a node come back.
func (m *mesh) seen() []gossip.Member {
	all := m.all()
	m.cluster.Read(func(r *amphiv1.Registry) {
		for i, g := range all {
			if here(g) && g.ID != m.self.GetId() && r.GetNodes()[g.ID].GetDown() {
				all[i].State = gossip.Dead
			}
		}
	})
	return all
}

// members are all nodes, for choosing among them.
func (m *mesh) members() []member {
	all := m.seen()
	list := make([]member, 0, len(all))
	for _, g := range all {
		list = append(list, member{id: g.ID, region: g.Region, zone: g.Zone, roles: g.Roles, url: g.URL, load: g.Load,
			draining: g.Draining, alive: g.State == gossip.Alive})
	}
	return list
}

// rtt is the round trip between two nodes; 0: not known, negative: there is no trunk. This node's own it knows itself.
func (m *mesh) rtt(a, b string) time.Duration {
	node := b
	switch m.self.GetId() {
	case a:
	case b:
		node = a
	default:
		return m.paths.rtt(a, b, time.Since(m.node.started))
	}
	for _, t := range m.trunks.Stats().Trunks {
		if t.Node == node && t.Up {
			return t.RTT
		}
	}
	if node == m.self.GetId() {
		return 0
	}
	return -1
}

// Elsewhere implements signal.Guide.
func (m *mesh) Elsewhere(_ string, level uint32, _, region string) string {
	return elsewhere(m.members(), m.self.GetId(), level, m.turn.Add(1), region)
}

// Backups implements signal.Guide.
func (m *mesh) Backups(_ string, level uint32) []string {
	return backups(m.members(), m.self.GetId(), level)
}

// Update implements signal.Relays.
func (m *mesh) Update(room string, plan *amphiv1.RelayPlan, tracks []signal.RelayTrack) {
	list := make([]cascade.Track, 0, len(tracks))
	for _, t := range tracks {
		kind := media.Video
		if t.Kind == "audio" {
			kind = media.Audio
		}
		list = append(list, cascade.Track{ID: t.ID, PeerID: t.PeerID, Kind: kind, Source: t.Source, Muted: t.Muted})
	}
	m.relays.Update(room, plan, list)
}

// Close implements signal.Relays.
func (m *mesh) Close(room string) { m.relays.Close(room) }

// relayTrunks is the trunks as cascade knows them; they are made after it.
type relayTrunks struct{ m *mesh }

// Message implements cascade.Trunks. The trunk keeps the message.
func (t relayTrunks) Message(node string, msg []byte) error {
	if t.m.trunks == nil {
		return errors.New("there are no trunks yet")
	}
	return t.m.trunks.Message(node, append([]byte(nil), msg...))
}

// Send implements cascade.Trunks.
func (t relayTrunks) Send(node string, label uint32, ext uint64, class cascade.Class, rtp []byte) {
	t.m.trunks.Send(node, label, ext, trunk.Class(class), rtp)
}
