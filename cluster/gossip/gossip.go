// Package gossip tells the nodes of a cluster of each other: who is alive, where, in which region and role, and how busy.
package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/amphi-sfu/amphi/cluster/refusal"
)

// State of a node, as this one sees it.
type State string

// States of a node.
const (
	Alive   State = "alive"
	Suspect State = "suspect" // it did not answer this node; it may be dead soon, or answer after all
	Left    State = "left"    // it said that it ends
	Dead    State = "dead"
)

// Member is a node.
type Member struct {
	ID, Region, Zone string
	Roles            []string
	// URL is where clients reach the node, ClusterAddr and TrunkAddr HOST:PORT of its other ports.
	URL, ClusterAddr, TrunkAddr string
	Version                     string
	StartedMs                   int64
	// Load is how busy the node is: 0 idle, 255 full.
	Load     uint8
	Draining bool
	State    State
	// Addr is where it gossips.
	Addr netip.AddrPort
}

// Config of a Gossip. The zero value of each duration means its default.
type Config struct {
	Logger *slog.Logger
	// Self is what this node says of itself; Load, Draining, State and Addr are set here.
	Self Member
	// Cluster is the cluster's name. Packets of another cluster are dropped before anything else.
	Cluster string
	// Addr is HOST:PORT to listen on, UDP and TCP. Advertise is the address that others reach it at; default that of Addr.
	Addr      string
	Advertise netip.Addr
	// KeyFile holds the keys; see ParseKeys. It is read again when it changes.
	KeyFile string
	// Seeds are HOST:PORT of nodes to join by; any one that lives is enough.
	Seeds []string
	// Allow are the networks that nodes may be in; empty: all, as the keys decide.
	Allow []netip.Prefix
	// PeersFile keeps the addresses of nodes over restarts; empty: nowhere.
	PeersFile string
	// Rejoin is how often nodes that should be there are called; default 2 s.
	Rejoin time.Duration
	// DeadTime is how long a dead node is still told what others are; default 30 s. Partitions that last longer heal by
	// calling again.
	DeadTime time.Duration

	blocked func(address string) bool // of tests: a cut network
}

// Timing, as measured for links of up to 200 ms and 2 % loss: a death is known after 2.5 to 3.5 s.
const (
	probeInterval  = 500 * time.Millisecond
	probeTimeout   = 300 * time.Millisecond
	suspicionMult  = 4
	gossipInterval = 100 * time.Millisecond
	pushPull       = 10 * time.Second
	streamTimeout  = 2 * time.Second
	// reclaim is for how long a dead node's name is kept from a node at another address.
	reclaim = time.Second
	// suspectFor is how long a suspicion lasts that leads to no death: it was refuted.
	suspectFor = suspicionMult*probeInterval*2 + time.Second

	keysEvery  = time.Second
	leaveAfter = time.Second
)

// Gossip may be used from many goroutines.
type Gossip struct {
	cfg       Config
	log       *slog.Logger
	refused   *refusal.Counter
	transport *transport
	ring      *memberlist.Keyring
	known     *known
	watchers  []func()
	wake      chan struct{} // has room for one: members changed
	announce  chan struct{} // has room for one: this node changed

	mu       sync.Mutex // guards the fields below; never held while calling out
	self     Member
	leaving  bool
	members  map[string]*record
	keyStamp string
}

// record is a member and when it became what it is.
type record struct {
	Member
	leaving   bool
	changed   time.Time
	suspected time.Time // zero: it is not
}

// New checks the configuration, reads the keys and opens the port.
func New(cfg Config) (*Gossip, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Rejoin == 0 {
		cfg.Rejoin = 2 * time.Second
	}
	if cfg.DeadTime == 0 {
		cfg.DeadTime = 30 * time.Second
	}
	longest := cfg.Self
	longest.Load, longest.Draining = 255, true
	if _, err := encode(longest, true); err != nil {
		return nil, fmt.Errorf("describing this node: %w", err)
	}
	if cfg.Cluster == "" || len(cfg.Cluster) > 64 {
		return nil, errors.New("the cluster needs a name of 1 to 64 bytes")
	}
	for _, seed := range cfg.Seeds {
		if _, _, err := hostPort(seed); err != nil {
			return nil, fmt.Errorf("a seed: %w", err)
		}
	}
	keys, err := LoadKeys(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("taking gossip's keys: %w", err)
	}
	g := &Gossip{
		cfg: cfg, log: cfg.Logger, refused: refusal.New(cfg.Logger, "gossip refused"), ring: ring,
		known: loadKnown(cfg.PeersFile, cfg.Logger), wake: make(chan struct{}, 1), announce: make(chan struct{}, 1),
		self: cfg.Self, members: map[string]*record{}, keyStamp: stampOf(cfg.KeyFile),
	}
	if g.transport, err = newTransport(cfg, g.refused); err != nil {
		return nil, err
	}
	g.self.Addr, g.self.State = g.transport.self(), Alive
	return g, nil
}

// Addr is where this node gossips, as the others are told.
func (g *Gossip) Addr() netip.AddrPort { return g.transport.self() }

// Watch has f called after members changed, on one goroutine, several changes at once. For before Run.
func (g *Gossip) Watch(f func()) { g.watchers = append(g.watchers, f) }

// Members are all nodes that are known, this one among them, by id. The dead are kept for a day.
func (g *Gossip) Members() []Member {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Member, 0, len(g.members)+1)
	all = append(all, g.self)
	for _, r := range g.members {
		m := r.Member
		if m.State == Alive && !r.suspected.IsZero() && now.Sub(r.suspected) < suspectFor {
			m.State = Suspect
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// SetLoad says how busy this node is. The others hear of it within a second or two; small changes are told later.
func (g *Gossip) SetLoad(load uint8) {
	g.mu.Lock()
	g.self.Load = load
	g.mu.Unlock()
}

// SetDraining says whether this node takes new clients and rooms; the others hear of it at once.
func (g *Gossip) SetDraining(draining bool) {
	g.mu.Lock()
	changed := g.self.Draining != draining
	g.self.Draining = draining
	g.mu.Unlock()
	if changed {
		signal(g.announce)
		signal(g.wake)
	}
}

// Stats of gossip.
type Stats struct {
	// Members by state.
	Members map[State]int
	// Refused packets and streams since the start, by reason.
	Refused map[string]uint64
}

// Stats may be asked at any time.
func (g *Gossip) Stats() Stats {
	s := Stats{Members: map[State]int{}, Refused: g.refused.Totals()}
	for _, m := range g.Members() {
		s.Members[m.State]++
	}
	return s
}

func (g *Gossip) config() *memberlist.Config {
	c := memberlist.DefaultWANConfig()
	c.Name = g.cfg.Self.ID
	c.Transport = g.transport
	c.Label = g.cfg.Cluster
	c.Keyring = g.ring
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	// The upper limit of suspicion is the lower one: nodes that lost many others do not wait for their confirmations.
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, 1
	c.GossipInterval, c.GossipNodes = gossipInterval, 3
	c.GossipToTheDeadTime = g.cfg.DeadTime
	c.PushPullInterval = pushPull
	c.TCPTimeout = streamTimeout
	c.DeadNodeReclaimTime = reclaim
	// A compressed message could be a bomb, and there is little to compress.
	c.EnableCompression = false
	for _, p := range g.cfg.Allow {
		c.CIDRsAllowed = append(c.CIDRsAllowed, ipNet(p))
	}
	own := &lines{log: g.log, refused: g.refused, trouble: refusal.New(g.log, "gossip has trouble"), suspect: g.suspected}
	c.Logger = log.New(own, "", 0)
	d := &delegate{g}
	c.Delegate, c.Events, c.Alive = d, d, d
	return c
}

// Run gossips until ctx is done, says goodbye and returns. What memberlist itself has started ends soon after.
func (g *Gossip) Run(ctx context.Context) error {
	g.transport.start()
	list, err := memberlist.Create(g.config())
	if err != nil {
		return errors.Join(fmt.Errorf("starting gossip: %w", err), g.transport.Shutdown())
	}
	var wg sync.WaitGroup
	wg.Go(func() { g.tell(ctx) })
	wg.Go(func() { g.announceLoop(ctx, list) })
	wg.Go(func() { g.rejoin(ctx, list) })
	wg.Go(func() { g.watchKeys(ctx) })
	<-ctx.Done()
	wg.Wait()
	g.leave(list)
	g.known.save(g.Members(), time.Now())
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("stopping gossip: %w", err)
	}
	return g.transport.Shutdown()
}

// Close frees the port of a Gossip that never ran.
func (g *Gossip) Close() error { return g.transport.Shutdown() }

// leave tells the others that this node ends, so that they do not have to find out.
func (g *Gossip) leave(list *memberlist.Memberlist) {
	g.mu.Lock()
	g.leaving = true
	g.mu.Unlock()
	if err := list.UpdateNode(leaveAfter); err != nil {
		g.log.Debug("telling that this node leaves", "err", err)
	}
	if err := list.Leave(leaveAfter); err != nil {
		g.log.Debug("leaving gossip", "err", err)
	}
}

// tell calls the watchers.
func (g *Gossip) tell(ctx context.Context) {
	for {
		select {
		case <-g.wake:
			for _, f := range g.watchers {
				f()
			}
		case <-ctx.Done():
			return
		}
	}
}

const (
	loadEvery = time.Second
	// loadStep is a change of load that is told within loadEvery, and loadRounds after how many of them any is.
	loadStep   = 8
	loadRounds = 10
)

// announceLoop tells the others what changed of this node.
func (g *Gossip) announceLoop(ctx context.Context, list *memberlist.Memberlist) {
	ticker := time.NewTicker(loadEvery)
	defer ticker.Stop()
	told, rounds := -loadStep, 0
	for {
		now := false
		select {
		case <-g.announce:
			now = true
		case <-ticker.C:
			rounds++
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		load := int(g.self.Load)
		g.mu.Unlock()
		change := max(load-told, told-load)
		if !now && (change == 0 || change < loadStep && rounds < loadRounds) {
			continue
		}
		told, rounds = load, 0
		if err := list.UpdateNode(loadEvery); err != nil {
			g.log.Debug("telling what changed of this node", "err", err)
		}
	}
}

// watchKeys takes the keys from their file whenever it changes.
func (g *Gossip) watchKeys(ctx context.Context) {
	ticker := time.NewTicker(keysEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			g.checkKeys()
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gossip) checkKeys() {
	stamp := stampOf(g.cfg.KeyFile)
	g.mu.Lock()
	same := stamp == g.keyStamp
	g.keyStamp = stamp
	g.mu.Unlock()
	if same {
		return
	}
	keys, err := LoadKeys(g.cfg.KeyFile)
	if err == nil {
		before := g.ring.GetPrimaryKey()
		if err = install(g.ring, keys); err == nil {
			g.log.Info("gossip's keys were read again", "keys", len(keys), "another_first", !bytes.Equal(before, keys[0]))
			return
		}
	}
	g.log.Warn("gossip's keys changed and cannot be used; the last ones stay", "err", err)
}

// stampOf changes when the file does.
func stampOf(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return "missing"
	}
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano())
}

// signal leaves a token unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
