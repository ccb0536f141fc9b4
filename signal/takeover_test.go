package signal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

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
	return newClusterWith(t, placed, func(string, *Deps) {}, nodes...)
}

func newClusterWith(t *testing.T, placed *amphiv1.Placement, with func(node string, d *Deps), nodes ...string) *cluster {
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
		deps := Deps{Registry: c.registry, Directory: clusterSeat{c, id}, Carrier: clusterSeat{c, id}}
		with(id, &deps)
		s, err := New(Config{Node: id, WebSocket: ws.Config{Silence: 2 * patience}}, deps)
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

// TestRoomGoesOnFromReplicas kills an owner that had no standby: the room goes on from what the other nodes know, durable
// values included that only the registry has.
func TestRoomGoesOnFromReplicas(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &amphiv1.Placement{Node: "no_a", Epoch: 1}, "no_a", "no_b", "no_c")
	ann, bob := c.nodes["no_b"].enter(t, "steward", "Ann"), c.nodes["no_c"].enter(t, "singer", "Bob")
	for i := range 5 {
		if ans := bob.do(say(fmt.Sprint("before ", i))); ans.GetError() != nil {
			t.Fatal(ans.GetError())
		}
	}
	if ans := ann.do(setStore("k", "1", true)); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	written := &amphiv1.StoreEntry{Key: "only written", Value: "2", Revision: 1000, Durable: true}
	err := c.registry.Propose(t.Context(), &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutStore{PutStore: &amphiv1.PutStore{Room: "hall", Entry: written}}})
	if err != nil {
		t.Fatal(err)
	}
	c.kill("no_a", &amphiv1.Placement{Node: "no_b", Epoch: 2})
	if ans := ann.do(say("after")); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	bob.hears("after")
	late := c.nodes["no_c"].enter(t, "singer", "Late")
	state := late.seen[1].GetJoined().GetState()
	values := map[string]string{}
	for _, e := range state.GetStore() {
		values[e.GetKey()] = e.GetValue()
	}
	if d := cmp.Diff(map[string]string{"k": "1", "only written": "2"}, values); d != "" {
		t.Error(d)
	}
	if n := len(state.GetPeers()); n != 3 || len(state.GetMessages()) != 6 {
		t.Errorf("%d peers, messages %v", n, state.GetMessages())
	}
	if s := c.nodes["no_c"].Stats(); s.Replica.Resets != 1 {
		t.Errorf("a replica that knew everything was reset: %+v", s.Replica)
	}
}

// TestFrozenRoom takes the owner's lease: people come, go and mute themselves, the rest is refused for now; with the lease all
// goes on.
func TestFrozenRoom(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1}, "no_a", "no_b", "no_c")
	ann := c.nodes["no_c"].enter(t, "steward", "Ann")
	publish := &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic"}}}
	track := ann.do(publish).GetResult().GetPublish().GetTrack().GetId()
	// The standby is gone with the quorum.
	c.change(func() { c.frozen["no_a"], c.dead["no_b"] = true, true })
	if ans := ann.do(say("too early")); proto.Code(ans.GetError().GetCode()) != proto.Unavailable || !ans.GetError().GetRetryable() {
		t.Errorf("a message: %v", ans)
	}
	if ans := ann.do(setStore("k", "1", false)); proto.Code(ans.GetError().GetCode()) != proto.Unavailable {
		t.Errorf("a value: %v", ans)
	}
	bob := c.nodes["no_a"].enter(t, "singer", "Bob")
	ann.event("bob", func(e *amphiv1.Event) bool { return e.GetPeerJoined().GetPeer().GetId() == bob.self })
	muted := true
	mute := &amphiv1.Command{Body: &amphiv1.Command_UpdateTrack{UpdateTrack: &amphiv1.UpdateTrack{TrackId: track, Muted: &muted}}}
	if ans := ann.do(mute); ans.GetError() != nil {
		t.Errorf("muting oneself: %v", ans)
	}
	bob.event("the mute", func(e *amphiv1.Event) bool { return e.GetTrackUpdated().GetTrack().GetMuted() })
	if bob.do(&amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}}).GetError() != nil {
		t.Error("could not leave")
	}
	if !slices.Contains(ann.modes(), amphiv1.RoomMode_ROOM_MODE_FROZEN) {
		t.Errorf("modes %v", ann.modes())
	}
	c.change(func() { c.frozen["no_a"], c.dead["no_b"] = false, false })
	if ans := ann.do(say("now")); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	if mode := ann.modes(); mode[len(mode)-1] != amphiv1.RoomMode_ROOM_MODE_NORMAL {
		t.Errorf("modes %v", mode)
	}
}

func (b *browser) modes() (list []amphiv1.RoomMode) {
	for _, m := range b.seen {
		if m.GetModeChanged() != nil {
			list = append(list, m.GetModeChanged().GetMode())
		}
	}
	return list
}

// TestEdgeGoesOnWithoutOwner cuts an edge off: a client comes back with its token, people mute themselves, and the owner
// hears of both afterwards.
func TestEdgeGoesOnWithoutOwner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &amphiv1.Placement{Node: "no_a", Epoch: 1}, "no_a", "no_b")
	ann, bob := c.nodes["no_a"].enter(t, "steward", "Ann"), c.nodes["no_b"].enter(t, "singer", "Bob")
	publish := &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic"}}}
	track := bob.do(publish).GetResult().GetPublish().GetTrack().GetId()
	c.change(func() { c.dead["no_a"] = true })
	bob.until("the mode", func(m *amphiv1.ServerMessage) bool {
		return m.GetModeChanged().GetMode() == amphiv1.RoomMode_ROOM_MODE_NO_OWNER
	})
	again := c.nodes["no_b"].dial(t, true)
	again.send(&amphiv1.ClientMessage{Id: again.id(), Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: bob.resume, LastSeq: bob.seq}}})
	again.seq = bob.seq
	j := again.joined(again.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil }))
	if j.GetPeerId() != bob.self || !j.GetResumed() {
		t.Fatalf("joined with %v", j)
	}
	muted := true
	mute := &amphiv1.Command{Body: &amphiv1.Command_UpdateTrack{UpdateTrack: &amphiv1.UpdateTrack{TrackId: track, Muted: &muted}}}
	if ans := again.do(mute); ans.GetError() != nil {
		t.Errorf("muting oneself: %v", ans)
	}
	id := again.id()
	again.send(command(id, say("in time")))
	c.change(func() { c.dead["no_a"] = false })
	if ans := again.answer(id); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	ann.event("the mute", func(e *amphiv1.Event) bool { return e.GetTrackUpdated().GetTrack().GetMuted() })
	for _, m := range ann.seen {
		if m.GetEvent().GetPeerLeft() != nil {
			t.Error("somebody was seen to leave")
		}
	}
}

// TestDurableValuesAreAnsweredWhenWritten holds the registry up: only who wrote a durable value waits, and learns if it was
// refused.
func TestDurableValuesAreAnsweredWhenWritten(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	w := newWorld(t, func(_ *Config, d *Deps) {
		d.Registry.(*fakeRegistry).refuse = func(cmd *amphiv1.RegistryCommand) error {
			switch cmd.GetPutStore().GetEntry().GetKey() {
			case "slow":
				<-hold
			case "bad":
				return proto.Errorf(proto.LimitExceeded, "too many")
			}
			return nil
		}
	})
	ann := w.enter(t, "steward", "Ann")
	first, second := ann.id(), ann.id()
	ann.send(command(first, setStore("slow", "1", true)))
	ann.send(command(second, setStore("slow", "2", true)))
	if ans := ann.do(setStore("quick", "3", true)); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	if ans := ann.do(say("meanwhile")); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	if ans := ann.do(setStore("bad", "4", true)); proto.Code(ans.GetError().GetCode()) != proto.LimitExceeded {
		t.Errorf("a refused value: %v", ans)
	}
	for _, m := range ann.seen {
		if id := m.GetAnswer().GetRequestId(); id == first || id == second {
			t.Error("answered before it was written")
		}
	}
	close(hold)
	if a, b := ann.answer(first), ann.answer(second); a.GetError() != nil || b.GetError() != nil {
		t.Errorf("%v, %v", a, b)
	}
	w.registry.Read(func(reg *amphiv1.Registry) {
		got := map[string]string{}
		for _, e := range reg.GetStore()["hall"].GetEntries() {
			got[e.GetKey()] = e.GetValue()
		}
		if d := cmp.Diff(map[string]string{"slow": "2", "quick": "3"}, got); d != "" {
			t.Error(d)
		}
	})
}

// TestHandover moves a room to its standby while people speak: every message is there once, in one order.
func TestHandover(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1}, "no_a", "no_b", "no_c")
	clients := []*browser{c.nodes["no_a"].enter(t, "steward", "Ann"), c.nodes["no_b"].enter(t, "singer", "Bob"), c.nodes["no_c"].enter(t, "singer", "Cleo")}
	const each = 30
	var wg sync.WaitGroup
	for n, b := range clients {
		wg.Go(func() {
			for i := range each {
				if ans := b.do(say(fmt.Sprint(i, " of ", n))); ans.GetError() != nil {
					t.Errorf("client %d: %v", n, ans.GetError())
				}
			}
			for len(b.chats()) < each*len(clients) {
				if _, err := b.read(); err != nil {
					t.Errorf("client %d: %v", n, err)
					return
				}
			}
		})
	}
	err := c.nodes["no_a"].Handover(t.Context(), "Hall", func(context.Context) error { return errors.New("not now") })
	if err == nil || err.Error() != "not now" {
		t.Errorf("a failed move: %v", err)
	}
	err = c.nodes["no_a"].Handover(t.Context(), "Hall", func(context.Context) error {
		c.change(func() { c.placed = &amphiv1.Placement{Node: "no_b", Standby: "no_c", Epoch: 2} })
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	wg.Wait()
	for n := 1; n < len(clients); n++ {
		if d := cmp.Diff(clients[0].chats(), clients[n].chats()); d != "" {
			t.Errorf("client %d heard another order: %s", n, d)
		}
	}
	if n := len(clients[0].chats()); n != each*len(clients) {
		t.Errorf("%d messages", n)
	}
	if err := c.nodes["no_a"].Handover(t.Context(), "Hall", nil); proto.CodeOf(err) != proto.NotFound {
		t.Errorf("handing over what another node has: %v", err)
	}
}

// planner makes plans that name their members; told are what relays are told.
type planner struct {
	mu   sync.Mutex // guards the field below
	told []string
}

func (p *planner) Plan(_ string, before *amphiv1.RelayPlan, members []string, homes map[string]string) *amphiv1.RelayPlan {
	plan := &amphiv1.RelayPlan{Nodes: members, Homes: map[string]uint32{}}
	for peer, node := range homes {
		plan.Homes[peer] = uint32(slices.Index(members, node))
	}
	if before != nil && slices.Equal(before.GetNodes(), members) && maps.Equal(before.GetHomes(), plan.GetHomes()) {
		return nil
	}
	return plan
}

func (p *planner) Update(room string, plan *amphiv1.RelayPlan, tracks []RelayTrack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprint(room, " ", plan.GetNodes())
	for _, t := range tracks {
		line += fmt.Sprint(" ", t.Kind, " ", t.Source, " at ", plan.GetHomes()[t.PeerID])
	}
	p.told = append(p.told, line)
}

func (p *planner) Close(room string) { p.Update(room, nil, nil) }

func (p *planner) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.told) == 0 {
		return ""
	}
	return p.told[len(p.told)-1]
}

// TestPlansReachRelays has a publisher on a second node: every node's relays learn the plan and the track, also from an owner
// that took over.
func TestPlansReachRelays(t *testing.T) {
	t.Parallel()
	relays := map[string]*planner{"no_a": {}, "no_b": {}}
	c := newClusterWith(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1}, func(node string, d *Deps) {
		d.Planner, d.Relays = relays[node], relays[node]
	}, "no_a", "no_b")
	c.nodes["no_a"].enter(t, "steward", "Ann")
	bob := c.nodes["no_b"].enter(t, "singer", "Bob")
	publish := func(source string) {
		cmd := &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_VIDEO, Source: source}}}
		if ans := bob.do(cmd); ans.GetError() != nil {
			t.Fatal(ans.GetError())
		}
	}
	publish("camera")
	want := func(node, line string) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for relays[node].last() != line {
			if time.Now().After(deadline) {
				t.Fatalf("relays of %s were told %q, not %q", node, relays[node].last(), line)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	want("no_a", "hall [no_a no_b] video camera at 1")
	want("no_b", "hall [no_a no_b] video camera at 1")
	c.kill("no_a", &amphiv1.Placement{Node: "no_b", Epoch: 2})
	want("no_b", "hall [no_b] video camera at 0")
}

// TestDisabledRoomGoesOn: a room that is disabled takes nobody new, but a session that runs goes on, also at another owner.
func TestDisabledRoomGoesOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &amphiv1.Placement{Node: "no_a", Standby: "no_b", Epoch: 1}, "no_a", "no_b", "no_c")
	ann, bob := c.nodes["no_b"].enter(t, "steward", "Ann"), c.nodes["no_c"].enter(t, "singer", "Bob")
	ann.event("bob", func(e *amphiv1.Event) bool { return e.GetPeerJoined().GetPeer().GetId() == bob.self })
	disable := &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{Name: "Hall", Template: "concert", Disabled: true}}}
	if err := c.registry.Propose(t.Context(), disable); err != nil {
		t.Fatal(err)
	}
	if ans := ann.do(say("disabled")); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	c.kill("no_a", &amphiv1.Placement{Node: "no_b", Epoch: 2})
	if ans := ann.do(say("after")); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	bob.hears("after")
	again := c.nodes["no_c"].dial(t, true)
	again.send(&amphiv1.ClientMessage{Id: 1, Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: bob.resume, LastSeq: bob.seq}}})
	if j := again.joined(again.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil })); j.GetPeerId() != bob.self {
		t.Errorf("came back as %v", j)
	}
	if ans := ann.do(&amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{}}}); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	late := c.nodes["no_b"].dial(t, true)
	late.send(hello(token(t, "singer")))
	if _, code := late.ends(); code != proto.RoomDisabled {
		t.Errorf("a disabled room was entered: %s", code)
	}
}
