package standby_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
	"github.com/amphi-sfu/amphi/signal/owner"
	"github.com/amphi-sfu/amphi/signal/replica"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/standby"
)

const (
	theRoom = "hall"
	// leaseFor is a node's lease; deadAfter is when the registry gives its room away, on its own clock.
	leaseFor  = 1200 * time.Millisecond
	deadAfter = 1500 * time.Millisecond
)

// sim is nodes with one room, a registry that places it, and a network between them, in a synctest bubble.
type sim struct {
	t     *testing.T
	nodes []*simNode
	done  chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	rand   *rand.Rand
	placed *amphiv1.Placement
	// renewed is when the registry heard each node last; refill when it may name another standby.
	renewed map[string]time.Time
	refill  time.Time
	// cut are pairs "a>b" that lose everything, and nodes that do not reach the registry; paused are nodes whose messages
	// wait; loss is how many messages are lost besides.
	cut, unreachable, paused map[string]bool
	loss                     float64
	lines                    map[string]chan parcel
	// acting tells who acted as the owner at each epoch.
	acting  map[uint64]string
	durable map[string]*amphiv1.StoreEntry
	running bool
}

type parcel struct {
	msg []byte
	at  time.Time
}

// simNode is a node; its life ends when it is killed, and another begins.
type simNode struct {
	*sim
	id string

	// guarded by sim.mu
	alive    bool
	view     *amphiv1.Placement
	lease    time.Time
	watchers []func(string)
	owner    *owner.Owner
	set      *replica.Set
	keeper   *standby.Keeper
	room     *replica.Room
	follower *witness
	stop     func()
}

func newSim(t *testing.T, seed uint64, n int) *sim {
	s := &sim{t: t, done: make(chan struct{}), rand: rand.New(rand.NewPCG(seed, 7)), renewed: map[string]time.Time{},
		cut: map[string]bool{}, unreachable: map[string]bool{}, paused: map[string]bool{}, lines: map[string]chan parcel{},
		acting: map[uint64]string{}, durable: map[string]*amphiv1.StoreEntry{}}
	s.placed = &amphiv1.Placement{Node: "n0", Standby: "n1", Epoch: 1}
	for i := range n {
		s.nodes = append(s.nodes, &simNode{sim: s, id: fmt.Sprint("n", i)})
	}
	for _, n := range s.nodes {
		n.start()
	}
	s.wg.Go(s.registry)
	return s
}

// end stops everything.
func (s *sim) end() {
	close(s.done)
	for _, n := range s.nodes {
		n.kill()
	}
	s.wg.Wait()
}

func (s *sim) node(id string) *simNode {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.id == id })]
}

// start begins a life.
func (n *simNode) start() {
	n.mu.Lock()
	n.alive, n.watchers, n.view, n.lease = true, nil, n.placed, time.Now().Add(leaseFor)
	n.renewed[n.id] = time.Now()
	n.mu.Unlock()
	var err error
	keeper, err := standby.New(standby.Config{Node: n.id}, n, n)
	if err != nil {
		n.t.Fatal(err)
	}
	own, err := owner.New(owner.Config{Node: n.id}, owner.Deps{Carrier: n, Directory: n, Records: n, Copies: keeper})
	if err != nil {
		n.t.Fatal(err)
	}
	w := &witness{node: n}
	set, err := replica.New(replica.Config{Node: n.id, Follow: func(*replica.Room) replica.Follower { return w },
		Present: func(replica.Follower) []string { return w.present() }}, n, n)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{keeper.Run, own.Run, set.Run} {
		wg.Go(func() { _ = run(ctx) })
	}
	n.mu.Lock()
	n.owner, n.set, n.keeper, n.follower = own, set, keeper, w
	n.stop = func() { cancel(); wg.Wait() }
	n.mu.Unlock()
	r, err := set.Open(theRoom)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.room = r
	n.mu.Unlock()
}

// kill ends a life without a word.
func (n *simNode) kill() {
	n.mu.Lock()
	alive, stop := n.alive, n.stop
	n.alive = false
	n.mu.Unlock()
	if alive {
		stop()
	}
}

// Owner implements exchange.Directory.
func (n *simNode) Owner(string) (*amphiv1.Placement, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.view.GetNode() == "" {
		return nil, proto.Errorf(proto.Unavailable, "nobody owns the room")
	}
	return n.view, nil
}

// Leased implements exchange.Directory.
func (n *simNode) Leased() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.alive && time.Now().Before(n.lease)
}

// Watch implements exchange.Directory.
func (n *simNode) Watch(f func(string)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watchers = append(n.watchers, f)
}

// Open implements owner.Records.
func (n *simNode) Open(name string) (owner.Start, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return owner.Start{Room: &amphiv1.Room{Name: name}, Durable: slices.Collect(maps.Values(n.durable)), Template: &amphiv1.Template{
		Limits: &amphiv1.RoomLimits{MessageHistory: 1 << 20},
		Roles:  []*amphiv1.Role{{Name: "one", Permissions: &amphiv1.Permissions{SendBroadcast: true, WriteStore: []string{""}}}}}}, nil
}

// Running implements owner.Records.
func (n *simNode) Running(string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

// Keep implements owner.Records.
func (n *simNode) Keep(cmd *amphiv1.RegistryCommand) {
	n.later(func() {
		if s := cmd.GetPutSession(); s != nil {
			n.running = s.GetEndedMs() == 0
		}
		if p := cmd.GetPlaceRoom(); p != nil && n.placed.GetEpoch() == p.GetIfEpoch() && n.placed.GetNode() == p.GetNode() {
			n.placed = &amphiv1.Placement{Node: p.GetNode(), Epoch: p.GetIfEpoch()}
			n.refill = time.Now().Add(3 * time.Second)
		}
	}, nil)
}

// Commit implements owner.Records.
func (n *simNode) Commit(cmd *amphiv1.RegistryCommand, done func(error)) {
	n.later(func() {
		e := cmd.GetPutStore().GetEntry()
		if n.durable[e.GetKey()].GetRevision() < e.GetRevision() {
			n.durable[e.GetKey()] = e
		}
	}, done)
}

// later changes the registry when this life of the node reaches it.
func (n *simNode) later(f func(), done func(error)) {
	n.mu.Lock()
	life := n.owner
	n.mu.Unlock()
	n.wg.Go(func() {
		for {
			<-time.After(40 * time.Millisecond)
			n.mu.Lock()
			gone := !n.alive || n.owner != life
			reached := !gone && !n.unreachable[n.id]
			if reached {
				f()
			}
			n.mu.Unlock()
			if gone {
				return
			}
			if reached {
				break
			}
		}
		if done != nil {
			done(nil)
		}
	})
}

// registry renews leases, gives away the room of a dead node and tells nodes of placements.
func (s *sim) registry() {
	for {
		select {
		case <-s.done:
			return
		case <-time.After(100 * time.Millisecond):
		}
		s.mu.Lock()
		now := time.Now()
		var reachable []string
		for _, n := range s.nodes {
			if n.alive && !s.unreachable[n.id] {
				s.renewed[n.id] = now
				n.lease = now.Add(leaseFor)
			}
			if now.Sub(s.renewed[n.id]) < deadAfter {
				reachable = append(reachable, n.id)
			}
		}
		// Without a quorum nothing is decided.
		if 2*len(reachable) > len(s.nodes) && !s.unreachable["registry"] {
			s.place(now, reachable)
		}
		for _, n := range s.nodes {
			if n.alive && !s.unreachable[n.id] && n.view != s.placed {
				placed, watchers := s.placed, n.watchers
				s.wg.Go(func() {
					<-time.After(s.delay(120))
					s.mu.Lock()
					// Placements are learned of in order.
					if placed.GetEpoch() >= n.view.GetEpoch() && n.alive && placed == s.placed {
						n.view = placed
					}
					s.mu.Unlock()
					for _, f := range watchers {
						f(theRoom)
					}
				})
			}
		}
		s.mu.Unlock()
	}
}

// place moves the room from a dead owner to its standby, or to anybody, and names another standby in time.
func (s *sim) place(now time.Time, reachable []string) {
	p := s.placed
	switch {
	case !slices.Contains(reachable, p.GetNode()):
		to := p.GetStandby()
		if !slices.Contains(reachable, to) {
			to = reachable[s.rand.IntN(len(reachable))]
		}
		s.placed = &amphiv1.Placement{Node: to, Epoch: p.GetEpoch() + 1}
		s.refill = now.Add(500 * time.Millisecond)
	case p.GetStandby() != "" && !slices.Contains(reachable, p.GetStandby()):
		s.placed = &amphiv1.Placement{Node: p.GetNode(), Epoch: p.GetEpoch()}
		s.refill = now.Add(500 * time.Millisecond)
	case p.GetStandby() == "" && now.After(s.refill):
		others := slices.DeleteFunc(slices.Clone(reachable), func(id string) bool { return id == p.GetNode() })
		if len(others) > 0 {
			s.placed = &amphiv1.Placement{Node: p.GetNode(), Standby: others[s.rand.IntN(len(others))], Epoch: p.GetEpoch()}
		}
	}
}

func (s *sim) delay(most int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(1+s.rand.IntN(most)) * time.Millisecond
}

// Send implements exchange.Carrier.
func (n *simNode) Send(to, _ string, msg []byte) error {
	if to == n.id {
		return n.take(n.id, msg)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.alive || n.cut[n.id+">"+to] || n.rand.Float64() < n.loss {
		return nil
	}
	key := n.id + ">" + to
	line := n.lines[key]
	if line == nil {
		line = make(chan parcel, 1<<16)
		n.lines[key] = line
		n.wg.Go(func() { n.node(to).carry(n.id, line) })
	}
	line <- parcel{msg, time.Now().Add(time.Duration(1+n.rand.IntN(20)) * time.Millisecond)}
	return nil
}

// carry delivers in order; what a paused node says or would hear waits.
func (n *simNode) carry(from string, line chan parcel) {
	for {
		var p parcel
		select {
		case <-n.done:
			return
		case p = <-line:
		}
		<-time.After(time.Until(p.at))
		for waits := true; waits; {
			n.mu.Lock()
			waits = n.paused[from] || n.paused[n.id]
			n.mu.Unlock()
			if waits {
				<-time.After(50 * time.Millisecond)
			}
		}
		n.mu.Lock()
		lost := !n.alive || n.cut[from+">"+n.id]
		n.mu.Unlock()
		if !lost {
			// Refusals are the receiver's to count.
			_ = n.take(from, p.msg)
		}
	}
}

// take does as signal.Server does with what comes from a node.
func (n *simNode) take(from string, msg []byte) error {
	m, err := exchange.Decode(msg)
	if err != nil {
		return err
	}
	n.mu.Lock()
	own, set, keeper := n.owner, n.set, n.keeper
	if m.GetEvents() != nil || m.GetState() != nil {
		if was := n.acting[m.GetEpoch()]; was != "" && was != from {
			n.t.Errorf("%s acts as the owner at epoch %d, and so did %s", from, m.GetEpoch(), was)
		}
		n.acting[m.GetEpoch()] = from
	}
	n.mu.Unlock()
	switch {
	case exchange.Upwards(m):
		return own.Deliver(from, m)
	case m.GetStandbyUpdate() != nil:
		return keeper.Deliver(from, m)
	}
	return set.Deliver(from, m)
}

// witness is a replica's follower that looks whether events come without gaps and never twice.
type witness struct {
	node *simNode

	mu    sync.Mutex // guards the fields below
	seq   uint64
	rep   *room.Replica
	peers map[string]bool
}

func (w *witness) Reset(rep *room.Replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq, w.rep = rep.Seq(), rep
}

func (w *witness) Applied(_ *room.Replica, ev *amphiv1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ev.GetSeq() != w.seq+1 {
		w.node.t.Errorf("%s: event %d after %d", w.node.id, ev.GetSeq(), w.seq)
	}
	w.seq = ev.GetSeq()
}

func (w *witness) present() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.peers))
}

func (w *witness) add(peer string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.peers == nil {
		w.peers = map[string]bool{}
	}
	w.peers[peer] = true
}

func (*witness) Moved(string)                  {}
func (*witness) Tick(*room.Replica, time.Time) {}
func (*witness) Stopped()                      {}
