package signal

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/ws"
)

// cluster is servers over one registry, joined by pipes of bytes, with a directory that the test keeps.
type cluster struct {
	t        *testing.T
	registry *fakeRegistry
	nodes    map[string]*world

	mu       sync.Mutex // guards the fields below
	placed   *amphiv1.Placement
	frozen   map[string]bool
	dead     map[string]bool
	watchers []func(string)
	lines    map[string]chan []byte
	wg       sync.WaitGroup
}

// seat is a node's place in the cluster.
type clusterSeat struct {
	*cluster
	node string
}

func newCluster(t *testing.T, placed *amphiv1.Placement, nodes ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, registry: newRegistry(), nodes: map[string]*world{}, placed: placed,
		frozen: map[string]bool{}, dead: map[string]bool{}, lines: map[string]chan []byte{}}
	t.Cleanup(func() {
		c.mu.Lock()
		for _, line := range c.lines {
			close(line)
		}
		c.lines = nil
		c.mu.Unlock()
		c.wg.Wait()
	})
	servers := map[string]*Server{}
	for _, id := range nodes {
		s, err := New(Config{Node: id, WebSocket: ws.Config{Silence: 2 * patience}},
			Deps{Registry: c.registry, Directory: clusterSeat{c, id}, Carrier: clusterSeat{c, id}})
		if err != nil {
			t.Fatal(err)
		}
		servers[id] = s
	}
	for _, id := range nodes {
		c.nodes[id] = start(t, servers[id], c.registry)
	}
	return c
}

// Owner implements exchange.Directory.
func (s clusterSeat) Owner(string) (*amphiv1.Placement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.placed == nil {
		return nil, proto.Errorf(proto.Unavailable, "nobody owns the room")
	}
	return s.placed, nil
}

// Leased implements exchange.Directory.
func (s clusterSeat) Leased() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.frozen[s.node]
}

// Watch implements exchange.Directory.
func (s clusterSeat) Watch(f func(string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, f)
}

// Send implements exchange.Carrier. What a dead node says or would hear is lost.
func (s clusterSeat) Send(to, _ string, msg []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead[s.node] || s.dead[to] {
		return nil
	}
	if s.lines == nil || s.nodes[to] == nil {
		return errors.New("no line")
	}
	line := s.lines[s.node+">"+to]
	if line == nil {
		line = make(chan []byte, 1<<16)
		s.lines[s.node+">"+to] = line
		s.wg.Go(func() {
			for b := range line {
				_ = s.nodes[to].Deliver(s.node, b)
			}
		})
	}
	select {
	case line <- msg:
		return nil
	default:
		return errCut
	}
}

// change changes the directory, or what works, and tells everybody.
func (c *cluster) change(f func()) {
	c.mu.Lock()
	f()
	watchers := c.watchers
	c.mu.Unlock()
	for _, w := range watchers {
		w("")
	}
}

// kill cuts a node off for good, and gives its rooms to another.
func (c *cluster) kill(node string, to *amphiv1.Placement) {
	c.change(func() { c.dead[node], c.frozen[node] = true, true })
	c.change(func() { c.placed = to })
}

func setStore(key, value string, durable bool) *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_SetStore{SetStore: &amphiv1.SetStore{Key: key, Value: &value, Durable: durable}}}
}

// TestStandbyGoesOn kills the owner: what was answered is there, in one order, nobody is disconnected, and the room goes on.
func TestStandbyGoesOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1}, "no_a", "no_b", "no_c")
	ann, bob := c.nodes["no_b"].enter(t, "steward", "Ann"), c.nodes["no_c"].enter(t, "singer", "Bob")
	gone := c.nodes["no_a"].enter(t, "singer", "Gone")
	ann.event("gone", func(e *amphiv1.Event) bool { return e.GetPeerJoined().GetPeer().GetId() == gone.self })
	for i := range 20 {
		for _, b := range []*browser{ann, bob} {
			if ans := b.do(say(fmt.Sprint("before ", i))); ans.GetError() != nil {
				t.Fatal(ans.GetError())
			}
		}
	}
	if ans := ann.do(setStore("k", "1", true)); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	hand := &amphiv1.Command{Body: &amphiv1.Command_RaiseHand{RaiseHand: &amphiv1.RaiseHand{Raised: true}}}
	if ans := bob.do(hand); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	id := bob.id()
	c.change(func() { c.dead["no_a"] = true })
	bob.send(command(id, say("meanwhile")))
	c.kill("no_a", &amphiv1.Placement{Node: "no_b", Epoch: 2})
	if ans := bob.answer(id); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	if ans := ann.do(say("after")); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	bob.hears("after")
	if d := cmp.Diff(ann.chats(), bob.chats()); d != "" {
		t.Errorf("the two heard another order: %s", d)
	}
	if n := len(bob.chats()); n != 42 {
		t.Errorf("%d messages: %v", n, bob.chats())
	}
	late := c.nodes["no_c"].enter(t, "singer", "Late")
	state := late.seen[1].GetJoined().GetState()
	raised, store := false, ""
	for _, p := range state.GetPeers() {
		raised = raised || p.GetId() == bob.self && p.GetHandRaisedMs() != 0
	}
	for _, e := range state.GetStore() {
		store += e.GetKey() + "=" + e.GetValue()
	}
	if !raised || store != "k=1" || len(state.GetPeers()) != 4 {
		t.Errorf("after the takeover: %v", state)
	}
	if s := c.nodes["no_b"].Stats(); s.Replica.Resets != 1 {
		t.Errorf("the replica was reset: %+v", s.Replica)
	}
}

// TestAnswersWaitForTheStandby cuts the standby off: nothing is answered or told until the directory lets the owner go on
// alone; another standby gets everything.
func TestAnswersWaitForTheStandby(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1}, "no_a", "no_b", "no_c")
	asked := make(chan *amphiv1.PlaceRoom, 1)
	c.registry.refuse = func(cmd *amphiv1.RegistryCommand) error {
		if p := cmd.GetPlaceRoom(); p != nil {
			asked <- p
		}
		return nil
	}
	ann := c.nodes["no_a"].enter(t, "steward", "Ann")
	c.change(func() { c.dead["no_b"] = true })
	id := ann.id()
	ann.send(command(id, say("waits")))
	if p := <-asked; p.GetNode() != "no_a" || p.GetStandby() != "" || p.GetIfEpoch() != 1 || p.GetRoom() != "hall" {
		t.Errorf("asked for %v", p)
	}
	if err := (management{c.nodes["no_a"].Server}).View(t.Context(), "hall", func(rep *room.Replica) {
		if m := rep.Snapshot().GetMessages(); len(m) != 0 {
			t.Errorf("was told %v", m)
		}
	}); err != nil {
		t.Error(err)
	}
	c.change(func() { c.placed = &amphiv1.Placement{Node: "no_a", Epoch: 1} })
	if ans := ann.answer(id); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	c.change(func() { c.placed = &amphiv1.Placement{Node: "no_a", Standby: "no_c", Epoch: 1} })
	if ans := ann.do(say("to the new one")); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	if s := c.nodes["no_c"].Stats().Standby; s.Rooms != 1 || s.Wholes == 0 {
		t.Errorf("the new standby: %+v", s)
	}
}
