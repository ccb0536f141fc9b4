package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/group"
	"github.com/amphi-sfu/amphi/cluster/lease"
	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// Kinds of messages between nodes: what Send carries, and the registry's calls.
const (
	KindRoom     byte = 1
	KindRegistry byte = 2
)

// Peers carries messages between nodes; any goroutine may call it.
type Peers interface {
	// Send queues a message in order, without blocking; an error means that it is lost.
	Send(node string, kind byte, msg []byte) error
	// Call asks another node; it ends with ctx, or earlier when the node is lost.
	Call(ctx context.Context, node string, kind byte, msg []byte) ([]byte, error)
	// OnCall sets who answers calls of a kind; f has a goroutine of its own for each call and ends with ctx.
	OnCall(kind byte, f func(ctx context.Context, from string, msg []byte) ([]byte, error))
	// Heard is when anything came from the node last; zero: never.
	Heard(node string) time.Time
	// RTT is the round trip to the node; 0: not known.
	RTT(node string) time.Duration
}

// Member is a living node as gossip sees it.
type Member struct {
	ID    string
	Roles []string
	// Load is 0 to 255.
	Load int
}

// Deps are what a Cluster is joined to.
type Deps struct {
	Peers Peers
	// Dial connects to another node's Accept.
	Dial func(ctx context.Context, node string) (net.Conn, error)
	// Members are the nodes that live, with this one; must be quick.
	Members func() []Member
}

// NodeConfig is how a node takes part in a cluster. Zero values are defaults.
type NodeConfig struct {
	Logger *slog.Logger
	// Node is this node, without incarnation and drain; its id, roles and addresses count.
	Node *pb.ClusterNode
	// Dir keeps the registry; empty keeps it in memory.
	Dir string
	// BootstrapExpect is how many voters must see each other before they found the cluster; once in its life. It is
	// more than half of the voters that are started. 0: this node only joins one.
	BootstrapExpect int
	// MaxVoters is up to how many nodes with role voter get a vote; default 5.
	MaxVoters int
	// Heartbeat is Raft's time-out; default by the round trip to the voters, see group.Heartbeat.
	Heartbeat time.Duration
	// LeaseTTL is default lease.TTL; all else about leases follows from it.
	LeaseTTL time.Duration
	// ProposeTimeout is for how long a command is tried; default 8 s.
	ProposeTimeout time.Duration
	// StableAfter is for how long a node must be well before it votes, DeadAfter for how long a voter must be dead
	// before it is removed; defaults 10 s and 60 s.
	StableAfter, DeadAfter time.Duration
	// Monotonic is the node's clock; default the machine's.
	Monotonic func() time.Duration
	// SnapshotEntries is after how many entries the log is compacted; default 8192.
	SnapshotEntries uint64
}

// Cluster holds the registry of many nodes, and this node's place among them. Safe for concurrent use.
type Cluster struct {
	cfg     NodeConfig
	id      string
	log     *slog.Logger
	deps    Deps
	replica *replica
	group   *group.Group
	started chan struct{} // closed when the group takes part
	killed  chan struct{} // closed by Kill
	dying   sync.Once
	leader  *leader
	holder  *holder
	placer  *placer
	founder founder
	doubts  *doubts

	mu      sync.Mutex     // guards the fields below; never held while calling out
	elected chan struct{}  // closed, and made anew, when there may be another leader
	leaving map[string]int // rooms that are being handed over by this node
}

// New opens what the directory holds. Run starts everything.
func New(cfg NodeConfig, deps Deps) (*Cluster, error) {
	cfg = cfg.withDefaults()
	c := &Cluster{
		cfg: cfg, id: cfg.Node.GetId(), log: cfg.Logger, deps: deps, replica: newReplica(), started: make(chan struct{}), killed: make(chan struct{}),
		elected: make(chan struct{}), leaving: map[string]int{},
	}
	if c.id == "" {
		return nil, errors.New("a node of a cluster has an id")
	}
	dir := ""
	if cfg.Dir != "" {
		dir = filepath.Join(cfg.Dir, "raft")
	}
	var err error
	c.group, err = group.New(group.Config{
		Logger: cfg.Logger, ID: c.id, Dir: dir, Dial: deps.Dial, SnapshotEntries: cfg.SnapshotEntries,
	}, c.replica)
	if err != nil {
		return nil, err
	}
	c.leader, c.holder, c.placer, c.doubts = newLeader(c), newHolder(c), newPlacer(c), &doubts{c: c}
	deps.Peers.OnCall(KindRegistry, c.answer)
	return c, nil
}

func (cfg NodeConfig) withDefaults() NodeConfig {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxVoters == 0 {
		cfg.MaxVoters = 5
	}
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = lease.TTL
	}
	if cfg.ProposeTimeout == 0 {
		cfg.ProposeTimeout = 8 * time.Second
	}
	if cfg.StableAfter == 0 {
		cfg.StableAfter = 10 * time.Second
	}
	if cfg.DeadAfter == 0 {
		cfg.DeadAfter = time.Minute
	}
	if cfg.Monotonic == nil {
		cfg.Monotonic = monotonic
	}
	return cfg
}

// Run takes part in the cluster until ctx ends. It then gives its rooms and leadership to others, and returns after
// everything has ended. It is called once.
func (c *Cluster) Run(ctx context.Context) error {
	heartbeat := c.cfg.Heartbeat
	if heartbeat == 0 {
		heartbeat = group.Heartbeat(c.measure(ctx))
	}
	if err := c.group.Start(heartbeat); err != nil {
		return errors.Join(err, c.group.Close())
	}
	close(c.started)
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	for _, f := range []func(context.Context){c.leader.run, c.holder.run, c.placer.run, c.followLeader, c.doubts.run, c.adaptHeartbeat} {
		wg.Go(func() { f(inner) })
	}
	if c.cfg.BootstrapExpect > 0 && c.votes() {
		wg.Go(func() { c.found(inner) })
	}
	end := c.group.Kill
	select {
	case <-ctx.Done():
		c.depart()
		end = c.group.Close
	case <-c.killed:
	}
	cancel()
	wg.Wait()
	if err := end(); err != nil {
		return fmt.Errorf("leaving the Raft group: %w", err)
	}
	return nil
}

// Kill ends Run at once and tells nobody, as a crash would.
func (c *Cluster) Kill() { c.dying.Do(func() { close(c.killed) }) }

// depart gives what this node still has away and takes it for down, so that nobody waits for its lease to run out.
func (c *Cluster) depart() {
	incarnation := c.holder.end()
	if incarnation == 0 {
		return
	}
	hosts := c.hosts(c.alive())
	hosts = slices.DeleteFunc(hosts, func(h registry.Host) bool { return h.ID == c.id })
	if len(hosts) == 0 {
		return
	}
	var move *pb.MoveRooms
	c.Read(func(r *pb.Registry) { move = registry.Takeover(r, c.id, hosts) })
	ctx, cancel := context.WithTimeout(context.Background(), attempt)
	defer cancel()
	if err := c.Propose(ctx, &pb.RegistryCommand{Body: &pb.RegistryCommand_MoveRooms{MoveRooms: move}}); err != nil {
		c.log.Warn("the others could not be told that this node leaves", "err", err)
	}
}

// Close gives back what New opened, when Run was never called.
func (c *Cluster) Close() error {
	if c.running() {
		return nil
	}
	return c.group.Close()
}

func (c *Cluster) running() bool {
	select {
	case <-c.started:
		return true
	default:
		return false
	}
}

func (c *Cluster) votes() bool { return slices.Contains(c.cfg.Node.GetRoles(), "voter") }

// Accept takes a connection from another node's Dial and returns at once; it is the cluster's then.
func (c *Cluster) Accept(node string, conn net.Conn) {
	if !c.running() {
		_ = conn.Close()
		return
	}
	c.group.Accept(node, conn)
}

// Read runs f with the registry as it is on this node. f must be quick, and neither change nor keep it; messages
// inside never change and may be kept.
func (c *Cluster) Read(f func(*pb.Registry)) { c.replica.read(f) }

// Propose carries out a command, wherever the leader is, and returns when it is durable and has reached this node, or
// its refusal with a code. It is tried again over changes of leader, until ctx or the time-out ends; it is then
// "unavailable" or "timeout", and may still be carried out: give it an id and repeat it.
func (c *Cluster) Propose(ctx context.Context, cmd *pb.RegistryCommand) error {
	if cmd.GetId() == "" {
		cmd = gproto.Clone(cmd).(*pb.RegistryCommand)
		cmd.Id = rand.Text()
	}
	var err error
	c.replica.read(func(r *pb.Registry) { cmd, err = registry.Ruled(r, cmd) })
	if err != nil {
		return err
	}
	data, err := gproto.Marshal(cmd)
	switch {
	case err != nil:
		return proto.Errorf(proto.InvalidArgument, "the command cannot be encoded")
	case len(data) > maxEntry:
		return proto.Errorf(proto.MessageTooLarge, "a command has at most %d bytes", maxEntry)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ProposeTimeout)
	defer cancel()
	reply, err := c.askLeader(ctx, &pb.RegistryCall{Body: &pb.RegistryCall_Propose{Propose: data}})
	if err != nil {
		return err
	}
	if err := c.replica.wait(ctx, reply.GetIndex()); err != nil {
		return err
	}
	if reply.GetError() != nil {
		return proto.FromWire(reply.GetError())
	}
	return nil
}

// Sync returns when this node's registry has everything that was answered anywhere before Sync was called.
func (c *Cluster) Sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ProposeTimeout)
	defer cancel()
	reply, err := c.askLeader(ctx, &pb.RegistryCall{Body: &pb.RegistryCall_Index{Index: true}})
	if err != nil {
		return err
	}
	return c.replica.wait(ctx, reply.GetIndex())
}

// Owner answers who decides for the room, and at which epoch, as this node knows it. A room that nobody owns is placed
// in the background, and "unavailable" until it is, as is one that this node is handing over.
func (c *Cluster) Owner(room string) (*pb.Placement, error) {
	key := registry.RoomKey(room)
	var p *pb.Placement
	var known bool
	c.replica.read(func(r *pb.Registry) { p, known = r.GetPlacements()[key], r.GetRooms()[key] != nil })
	switch {
	case !known:
		return nil, proto.Errorf(proto.NotFound, "there is no such room")
	case p.GetNode() == "":
		c.placer.want(key)
		return nil, proto.Errorf(proto.Unavailable, "the room has no owner yet")
	case p.GetNode() == c.id && c.isLeaving(key):
		return nil, proto.Errorf(proto.Unavailable, "the room is being handed over")
	}
	return p, nil
}

// Leased tells whether this node may decide for the rooms that it owns.
func (c *Cluster) Leased() bool { return c.holder.leased() }

// Watch sets a function to call when a room's placement has changed; with "" when all may have, or Leased has. It is
// called from any goroutine and must not block.
func (c *Cluster) Watch(f func(room string)) { c.replica.watchers.add(f) }

// Nodes are those of the cluster, by id.
func (c *Cluster) Nodes() []*pb.ClusterNode {
	var all []*pb.ClusterNode
	c.replica.read(func(r *pb.Registry) { all = slices.Collect(maps.Values(r.GetNodes())) })
	slices.SortFunc(all, byID)
	return all
}

// Send queues a room's message, which it may keep, for another node; an error means that it is lost.
func (c *Cluster) Send(node, _ string, msg []byte) error {
	return c.deps.Peers.Send(node, KindRoom, msg)
}

// Status is what operators see of the registry at this node.
type Status struct {
	group.Stats
	Leased, Leading bool
	Incarnation     uint64
}

// Status is the registry's state at this node.
func (c *Cluster) Status() Status {
	if !c.running() {
		return Status{}
	}
	return Status{Stats: c.group.Stats(), Leased: c.Leased(), Leading: c.group.Leading(), Incarnation: c.holder.life()}
}

// Ready tells whether the node takes part: it knows a leader and its lease runs.
func (c *Cluster) Ready() bool { return c.running() && c.group.Leader() != "" && c.Leased() }
