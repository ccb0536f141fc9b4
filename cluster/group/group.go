// Package group is a node's part in the Raft group: the log, its copies and elections. hashicorp/raft's types stop
// here. What the log's entries mean is the Machine's.
package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// ErrNotLeader says that the entry was not taken: this node does not lead. ErrUnknown says that the entry may be
// carried out or not.
var (
	ErrNotLeader = errors.New("this node is not the leader")
	ErrUnknown   = errors.New("whether the entry is committed is not known")
)

// Machine is what the log drives. Calls come one at a time, from one goroutine, but for the function that Snapshot
// returns.
type Machine interface {
	// Apply carries out one entry; its result is Propose's at the node that proposed it.
	Apply(index uint64, entry []byte) any
	// Snapshot returns a function that writes the state as it is now, later and while entries go on.
	Snapshot() func(io.Writer) error
	// Restore replaces the state by one that such a function wrote.
	Restore(io.Reader) error
}

// Config says how the node takes part. Zero values are defaults.
type Config struct {
	Logger *slog.Logger
	// ID is the node's; it is its address as well.
	ID string
	// Dir keeps the log; empty keeps it in memory.
	Dir string
	// Dial connects to another node's group; its conns come out of the other's Accept.
	Dial func(ctx context.Context, node string) (net.Conn, error)
	// SnapshotEntries is after how many entries a snapshot is taken; default 8192.
	SnapshotEntries uint64
}

// Heartbeat is the time-out for voters that are rtt apart: 200 ms on a LAN, 400 ms at 80 ms.
func Heartbeat(rtt time.Duration) time.Duration {
	return min(max(200*time.Millisecond, 5*rtt), 3*time.Second)
}

// Group is a node's part in the Raft group. Safe for concurrent use after Start.
type Group struct {
	cfg       Config
	fsm       raft.FSM
	log       raft.LogStore
	stable    raft.StableStore
	snaps     raft.SnapshotStore
	closers   []io.Closer
	streams   *streams
	raft      *raft.Raft // set by Start
	trans     *raft.NetworkTransport
	heartbeat time.Duration // set by Start
	notify    chan bool
	leaders   chan raft.Observation

	waiting sync.Mutex // guards the fields below
	timeout time.Duration
	trust   bool
}

// New opens what the directory holds, and starts nothing.
func New(cfg Config, m Machine) (*Group, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.SnapshotEntries == 0 {
		cfg.SnapshotEntries = 8192
	}
	g := &Group{cfg: cfg, fsm: machine{m}, notify: make(chan bool, 16), leaders: make(chan raft.Observation, 1)}
	if err := g.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the Raft log in %s: %w", cfg.Dir, err), g.closeStores())
	}
	return g, nil
}

func (g *Group) open() error {
	if g.cfg.Dir == "" {
		store := raft.NewInmemStore()
		g.log, g.stable, g.snaps = store, store, raft.NewInmemSnapshotStore()
		return nil
	}
	if err := os.MkdirAll(g.cfg.Dir, 0o700); err != nil {
		return err
	}
	// The lock on the database also keeps a second process out of the directory.
	bolt, err := boltdb.New(boltdb.Options{Path: filepath.Join(g.cfg.Dir, "raft.db"), BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if err != nil {
		return err
	}
	g.closers = append(g.closers, bolt)
	if g.log, err = raft.NewLogCache(512, bolt); err != nil {
		return err
	}
	votes, err := openVotes(filepath.Join(g.cfg.Dir, "raft.votes"))
	if err != nil {
		return err
	}
	g.stable, g.closers = votes, append(g.closers, votes)
	g.snaps, err = raft.NewFileSnapshotStoreWithLogger(g.cfg.Dir, 2, logger(g.cfg.Logger))
	return err
}

func (g *Group) closeStores() error {
	var err error
	for _, c := range g.closers {
		err = errors.Join(err, c.Close())
	}
	g.closers = nil
	return err
}

// Start takes part in the group until Close: heartbeat is after how much silence of the leader a node stands for
// election, and a leader who hears no majority resigns. The state is restored from the last snapshot before it
// returns, from the log after.
func (g *Group) Start(heartbeat time.Duration) error {
	g.heartbeat, g.timeout = heartbeat, heartbeat
	log := logger(g.cfg.Logger)
	dialTimeout := max(2*time.Second, 4*g.heartbeat)
	g.streams = newStreams(g.cfg.ID, g.cfg.Dial)
	g.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger: log, Stream: g.streams, MaxPool: 3, Timeout: dialTimeout,
		// No pipelining: its sender waits for ever when the leader learns of a newer term while the pipeline is full.
		MaxRPCsInFlight: 1,
	})
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(g.cfg.ID)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = g.heartbeat, g.heartbeat, g.heartbeat
	c.CommitTimeout = 50 * time.Millisecond
	c.BatchApplyCh = false // an entry that waits in the buffer when Raft ends is never answered
	c.ShutdownOnRemove = false
	c.SnapshotThreshold, c.TrailingLogs, c.SnapshotInterval = g.cfg.SnapshotEntries, g.cfg.SnapshotEntries/2, 30*time.Second
	c.NotifyCh = g.notify
	c.NoLegacyTelemetry = true
	c.Logger = log
	r, err := raft.NewRaft(c, g.fsm, g.log, g.stable, g.snaps, g.trans)
	if err != nil {
		return errors.Join(fmt.Errorf("starting Raft: %w", err), g.trans.Close())
	}
	r.RegisterObserver(raft.NewObserver(g.leaders, false, func(o *raft.Observation) bool {
		_, is := o.Data.(raft.LeaderObservation)
		return is
	}))
	g.raft = r
	g.streams.keeping.Go(func() { g.streams.keep(g.spared, dialTimeout) })
	return nil
}

// spared are the nodes that this one, if it leads, will have to reach at once: the voters first.
func (g *Group) spared() []string {
	servers := g.Servers()
	if !slices.Contains(servers, Server{ID: g.cfg.ID, Voter: true}) {
		return nil
	}
	slices.SortStableFunc(servers, func(a, b Server) int {
		switch {
		case a.Voter == b.Voter:
			return 0
		case a.Voter:
			return -1
		}
		return 1
	})
	var ids []string
	for _, s := range servers {
		if s.ID != g.cfg.ID {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Close hands leadership to another voter, if this node leads and another is there, and ends the node's part.
func (g *Group) Close() error {
	if g.raft == nil {
		return g.closeStores()
	}
	if g.Leading() && len(g.voters()) > 1 {
		if err := g.raft.LeadershipTransfer().Error(); err != nil {
			g.cfg.Logger.Warn("leadership could not be handed on", "err", err)
		}
	}
	return g.Kill()
}

// Kill ends the node's part at once, as a crash would.
func (g *Group) Kill() error {
	if g.raft == nil {
		return g.closeStores()
	}
	// Connections first: what waits for a peer must not hold up the end.
	err := errors.Join(g.trans.Close(), g.raft.Shutdown().Error())
	g.trans.CloseStreams()
	g.streams.wait()
	return errors.Join(err, g.closeStores())
}

// Accept takes a connection from another node's Dial. It returns at once; the connection is the group's.
func (g *Group) Accept(node string, conn net.Conn) { g.streams.deliver(conn) }

// Leadership tells when this node becomes the leader (true) and ceases to be (false); for one reader, which must not
// be slow.
func (g *Group) Leadership() <-chan bool { return g.notify }

// WaitLeader returns when there may be another leader, or ctx has ended; for one reader.
func (g *Group) WaitLeader(ctx context.Context) {
	select {
	case <-g.leaders:
	case <-ctx.Done():
	}
}

// Leading tells whether this node takes itself for the leader; another may have been elected already.
func (g *Group) Leading() bool { return g.raft.State() == raft.Leader }

// Leader is whom this node takes for the leader; "" when it knows of none.
func (g *Group) Leader() string {
	_, id := g.raft.LeaderWithID()
	return string(id)
}

// Term is the highest term this node has seen. Once it has answered n, no leader of a term below n is elected with its
// vote any more.
func (g *Group) Term() uint64 { return g.raft.CurrentTerm() }

// Propose adds an entry to the log and returns its index and the Machine's answer once it is committed and carried out.
func (g *Group) Propose(entry []byte, timeout time.Duration) (uint64, any, error) {
	f := g.raft.Apply(entry, timeout)
	switch err := f.Error(); {
	case err == nil:
		return f.Index(), f.Response(), nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return 0, nil, ErrNotLeader
	default:
		return 0, nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}

// Barrier waits until everything in the log has been carried out here; it fails when this node does not lead.
func (g *Group) Barrier() error {
	if err := g.raft.Barrier(0).Error(); err != nil {
		return errors.Join(ErrNotLeader, err)
	}
	return nil
}

// Committed is the index of the last entry that this node, as the leader, knows to be committed and that Machine has
// carried out or will; 0 when the log has none. Other nodes may have carried it out before this one has.
func (g *Group) Committed() (uint64, error) {
	first, err := g.log.FirstIndex()
	if err != nil {
		return 0, err
	}
	var l raft.Log
	for i := g.raft.CommitIndex(); i >= first && i > 0; i-- {
		if err := g.log.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			return 0, nil // the log has just been compacted: all of that was carried out
		} else if err != nil {
			return 0, err
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return 0, nil
}

// Server is a node of the group.
type Server struct {
	ID    string
	Voter bool
}

// Servers are the group's nodes as this node knows them, by id.
func (g *Group) Servers() []Server {
	f := g.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var all []Server
	for _, s := range f.Configuration().Servers {
		all = append(all, Server{ID: string(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	slices.SortFunc(all, func(a, b Server) int { return compare(a.ID, b.ID) })
	return all
}

func (g *Group) voters() []string {
	var ids []string
	for _, s := range g.Servers() {
		if s.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Founded tells whether this node has ever been in a group. It may be asked before Start.
func (g *Group) Founded() (bool, error) {
	if g.raft != nil {
		return g.raft.LastIndex() > 0, nil
	}
	return raft.HasExistingState(g.log, g.stable, g.snaps)
}

// Found begins a new group with these voters, of which this node is one. The others learn of it from the log; nobody
// else may do the same.
func (g *Group) Found(voters []string) error {
	var c raft.Configuration
	for _, id := range voters {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	if err := g.raft.BootstrapCluster(c).Error(); err != nil {
		return fmt.Errorf("founding the Raft group: %w", err)
	}
	return nil
}

// Change carries out a change of the group's nodes; only the leader can.
func (g *Group) Change(c Change) error {
	id, address := raft.ServerID(c.ID), raft.ServerAddress(c.ID)
	var f raft.Future
	switch c.Kind {
	case AddNonvoter:
		f = g.raft.AddNonvoter(id, address, 0, time.Second)
	case Promote:
		f = g.raft.AddVoter(id, address, 0, time.Second)
	default:
		f = g.raft.RemoveServer(id, 0, time.Second)
	}
	if err := f.Error(); err != nil {
		return fmt.Errorf("changing the Raft group: %w", err)
	}
	return nil
}

// calm is by how many times longer Raft waits for a leader that is trusted.
const calm = 3

// SetHeartbeat changes the time-out of a running group; it is never below that of Start.
func (g *Group) SetHeartbeat(d time.Duration) error {
	g.waiting.Lock()
	defer g.waiting.Unlock()
	g.timeout = max(d, g.heartbeat)
	return g.waitLocked()
}

// Trust says whether Raft leaves it to its user to find out that the leader is silent. Once it is not trusted any more, Raft looks at once
// whether the leader's time-out is over, and stands for election if it is and this node has a vote. By itself it would look when a random timer
// has run, which may be three time-outs after the last word, and two nodes may look at the same moment.
func (g *Group) Trust(trust bool) error {
	g.waiting.Lock()
	defer g.waiting.Unlock()
	g.trust = trust
	return g.waitLocked()
}

// Stand has this node stand for election at once, and the others vote for it though they may have a leader still: for a user
// who has asked a majority. It is as when the leader hands on its leadership to this node, only that nobody has told it to.
func (g *Group) Stand() error {
	id, addr := raft.ServerID(g.cfg.ID), raft.ServerAddress(g.cfg.ID)
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: g.trans.EncodePeer(id, addr),
	}}
	if err := g.trans.TimeoutNow(id, addr, req, &raft.TimeoutNowResponse{}); err != nil {
		return fmt.Errorf("standing for election: %w", err)
	}
	return nil
}

// Last is the term and index of the log's last entry; the term is 0 when only a snapshot has it.
func (g *Group) Last() (term, index uint64) {
	index = g.raft.LastIndex()
	var l raft.Log
	if g.log.GetLog(index, &l) == nil {
		term = l.Term
	}
	return term, index
}

// waitLocked has Raft's time-outs follow.
func (g *Group) waitLocked() error {
	d := g.timeout
	if g.trust {
		d *= calm
	}
	c := g.raft.ReloadableConfig()
	if c.HeartbeatTimeout == d {
		return nil
	}
	c.HeartbeatTimeout, c.ElectionTimeout = d, d
	return g.raft.ReloadConfig(c) // one that has become shorter has it look
}

// Timeout is after how much silence a leader may be doubted.
func (g *Group) Timeout() time.Duration {
	g.waiting.Lock()
	defer g.waiting.Unlock()
	return g.timeout
}

// Silence is how long the leader has not been heard here; false while this node leads or knows of no leader.
func (g *Group) Silence() (time.Duration, bool) {
	if g.raft.State() != raft.Follower || g.Leader() == "" {
		return 0, false
	}
	return time.Since(g.raft.LastContact()), true
}

// Stats are what operators see.
type Stats struct {
	Leader string
	// Term is Raft's; up to Committed entries are the group's, up to Applied this node has carried out.
	Term, Committed, Applied uint64
	Servers                  []Server
	Heartbeat                time.Duration
	LogEntries               uint64
}

// Stats are the group's figures as this node sees them.
func (g *Group) Stats() Stats {
	first, _ := g.log.FirstIndex()
	last, _ := g.log.LastIndex()
	s := Stats{
		Leader: g.Leader(), Term: g.Term(), Committed: g.raft.CommitIndex(), Applied: g.raft.AppliedIndex(), Servers: g.Servers(),
		Heartbeat: g.Timeout(),
	}
	if last > 0 {
		s.LogEntries = last - first + 1
	}
	return s
}

// machine is a Machine as hashicorp/raft drives it.
type machine struct{ m Machine }

func (f machine) Apply(l *raft.Log) any { return f.m.Apply(l.Index, l.Data) }

func (f machine) Snapshot() (raft.FSMSnapshot, error) { return snapshot(f.m.Snapshot()), nil }

func (f machine) Restore(r io.ReadCloser) error { return errors.Join(f.m.Restore(r), r.Close()) }

type snapshot func(io.Writer) error

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s snapshot) Release() {}
