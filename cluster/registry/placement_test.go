package registry_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func putNode(id string, incarnation uint64) *pb.RegistryCommand {
	return &pb.RegistryCommand{Body: &pb.RegistryCommand_PutNode{PutNode: &pb.ClusterNode{Id: id, Incarnation: incarnation}}}
}

func place(room, node, standby string, epoch uint64) *pb.RegistryCommand {
	return &pb.RegistryCommand{Body: &pb.RegistryCommand_PlaceRoom{PlaceRoom: &pb.PlaceRoom{
		Room: room, Node: node, Standby: standby, IfEpoch: epoch,
	}}}
}

func moveRooms(c *pb.MoveRooms) *pb.RegistryCommand {
	return &pb.RegistryCommand{Body: &pb.RegistryCommand_MoveRooms{MoveRooms: c}}
}

func want(t *testing.T, m *registry.Machine, room, node, standby string, epoch uint64) {
	t.Helper()
	got := m.View().GetPlacements()[room]
	if w := (&pb.Placement{Node: node, Standby: standby, Epoch: epoch}); !gproto.Equal(got, w) {
		t.Errorf("%s is at %v, want %v", room, got, w)
	}
}

// three is a machine with the rooms r1 and r2 and the nodes a, b and c.
func three(t *testing.T) *registry.Machine {
	m := registry.New()
	must(t, m, putRoom("r1"), putRoom("R2"), putNode("a", 1), putNode("b", 1), putNode("c", 1))
	return m
}

func TestPlaceRoom(t *testing.T) {
	t.Parallel()
	m := three(t)
	must(t, m, place("R1", "a", "b", 0))
	want(t, m, "r1", "a", "b", 1)
	if got := m.Changed(); !slices.Equal(got, []string{"r1"}) {
		t.Errorf("changed: %v", got)
	}
	refused(t, m, place("r1", "b", "", 0), proto.Conflict)
	refused(t, m, place("r1", "x", "", 1), proto.Conflict)
	refused(t, m, place("r1", "a", "a", 1), proto.Conflict)
	refused(t, m, place("r1", "a", "x", 1), proto.Conflict)
	refused(t, m, place("nowhere", "a", "", 0), proto.NotFound)
	// Another standby is no other owner.
	must(t, m, place("r1", "a", "c", 1))
	want(t, m, "r1", "a", "c", 1)
	must(t, m, place("r1", "c", "", 1))
	want(t, m, "r1", "c", "", 2)
	if len(m.Changed()) != 1 {
		t.Errorf("changed: %v", m.Changed())
	}
	must(t, m, putRoom("r1"))
	if len(m.Changed()) != 0 {
		t.Errorf("changed by another command: %v", m.Changed())
	}
}

func TestMoveRoomsOfADeadNode(t *testing.T) {
	t.Parallel()
	m := three(t)
	must(t, m, putRoom("r3"), putRoom("r4"), place("r1", "a", "b", 0), place("r2", "a", "", 0), place("r3", "b", "a", 0), place("r4", "a", "b", 0))
	dead := &pb.MoveRooms{From: "a", Down: true, Incarnation: 1, Rooms: []*pb.PlaceRoom{
		{Room: "r1", Node: "b", Standby: "c", IfEpoch: 1},
		{Room: "r2", Node: "c", IfEpoch: 7}, // not as it was taken to be
		{Room: "r3", Node: "c", IfEpoch: 1}, // not the dead node's
		{Room: "nowhere", Node: "c"},
	}}
	wrong := gproto.Clone(dead).(*pb.MoveRooms)
	wrong.Incarnation = 2
	refused(t, m, moveRooms(wrong), proto.Conflict)
	refused(t, m, moveRooms(&pb.MoveRooms{From: "x"}), proto.NotFound)
	must(t, m, moveRooms(dead))
	want(t, m, "r1", "b", "c", 2)
	want(t, m, "r2", "", "", 1)
	want(t, m, "r3", "b", "", 1)
	want(t, m, "r4", "", "b", 1)
	if got := m.Changed(); !slices.Equal(got, []string{"r1", "r2", "r3", "r4"}) {
		t.Errorf("changed: %v", got)
	}
	// The node that is down gets nothing until it has registered with a higher incarnation.
	refused(t, m, place("r2", "a", "", 1), proto.Conflict)
	refused(t, m, place("r2", "b", "a", 1), proto.Conflict)
	refused(t, m, putNode("a", 1), proto.Conflict)
	must(t, m, moveRooms(&pb.MoveRooms{From: "b", Rooms: []*pb.PlaceRoom{{Room: "r1", Node: "a", IfEpoch: 2}, {Room: "r3", Node: "c", Standby: "a", IfEpoch: 1}}}))
	want(t, m, "r1", "b", "c", 2)
	want(t, m, "r3", "c", "", 2)
	must(t, m, putNode("a", 2), place("r2", "a", "", 1))
	want(t, m, "r2", "a", "", 2)
	// The entry that killed the earlier life is too late for this one.
	refused(t, m, moveRooms(dead), proto.Conflict)
}

func TestARestartedNodeHasNothing(t *testing.T) {
	t.Parallel()
	m := three(t)
	must(t, m, putRoom("r3"), place("r1", "a", "b", 0), place("r2", "a", "", 0), place("r3", "b", "a", 0))
	refused(t, m, putNode("a", 0), proto.Conflict)
	must(t, m, putNode("a", 1)) // more news of the same life
	want(t, m, "r1", "a", "b", 1)
	must(t, m, putNode("a", 2))
	want(t, m, "r1", "b", "", 2)
	want(t, m, "r2", "a", "", 2)
	want(t, m, "r3", "b", "", 1)
	must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteNode{DeleteNode: "b"}})
	want(t, m, "r1", "", "", 2)
	refused(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteNode{DeleteNode: "b"}}, proto.NotFound)
}

func TestADeletedRoomsEpochIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	m := three(t)
	must(t, m, place("r1", "a", "b", 0), place("r1", "b", "", 1), place("r1", "a", "", 2),
		&pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: "r1"}}, putRoom("r1"))
	if len(m.View().GetPlacements()) != 0 {
		t.Errorf("placements %v", m.View().GetPlacements())
	}
	m = registry.Restore(gproto.Clone(m.Snapshot()).(*pb.Registry))
	must(t, m, place("r1", "a", "", 0))
	want(t, m, "r1", "a", "", 4)
}

func placements(t *rapid.T) *pb.RegistryCommand {
	node := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	room := rapid.SampledFrom([]string{"r1", "r2", "r3"})
	epoch := rapid.Uint64Range(0, 6)
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return putRoom(room.Draw(t, "room"))
	case 1:
		return &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: room.Draw(t, "room")}}
	case 2, 3:
		return putNode(node.Draw(t, "node"), rapid.Uint64Range(0, 5).Draw(t, "incarnation"))
	case 4:
		return &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteNode{DeleteNode: node.Draw(t, "node")}}
	case 5, 6, 7:
		return place(room.Draw(t, "room"), node.Draw(t, "node"), rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "standby"), epoch.Draw(t, "epoch"))
	}
	c := &pb.MoveRooms{From: node.Draw(t, "from"), Down: rapid.Bool().Draw(t, "down"), Incarnation: rapid.Uint64Range(0, 5).Draw(t, "incarnation")}
	for range rapid.IntRange(0, 3).Draw(t, "rooms") {
		c.Rooms = append(c.Rooms, &pb.PlaceRoom{
			Room: room.Draw(t, "room"), Node: node.Draw(t, "node"), Standby: node.Draw(t, "standby"), IfEpoch: epoch.Draw(t, "epoch"),
		})
	}
	return moveRooms(c)
}

// TestPlacementProperties: an epoch of a room never falls, and belongs to one node for ever; it rises only with the node
// (or its next life); a node that is unknown or down has nothing; Changed is what has changed.
func TestPlacementProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := registry.New()
		for _, c := range []*pb.RegistryCommand{putNode("a", 1), putNode("b", 1), putNode("c", 1), putRoom("r1"), putRoom("r2")} {
			if err := m.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		highest, owner := map[string]uint64{}, map[string]string{}
		for range rapid.IntRange(1, 60).Draw(t, "n") {
			before := m.Snapshot()
			c := placements(t)
			if m.Apply(c) != nil && !gproto.Equal(before, m.Snapshot()) {
				t.Fatalf("%v was refused but changed something", c)
			}
			after := m.View()
			for _, room := range []string{"r1", "r2", "r3"} {
				p, old := after.GetPlacements()[room], before.GetPlacements()[room]
				if !gproto.Equal(p, old) && !slices.Contains(m.Changed(), room) {
					t.Fatalf("%v: %s went from %v to %v, changed %v", c, room, old, p, m.Changed())
				}
				if p == nil {
					continue
				}
				if p.GetEpoch() < highest[room] {
					t.Fatalf("%v: the epoch of %s fell from %d to %d", c, room, highest[room], p.GetEpoch())
				}
				highest[room] = p.GetEpoch()
				for _, n := range []string{p.GetNode(), p.GetStandby()} {
					if n != "" && (after.GetNodes()[n] == nil || after.GetNodes()[n].GetDown()) {
						t.Fatalf("%v: %s, unknown or down, has %s", c, n, room)
					}
				}
				if p.GetNode() != "" && p.GetNode() == p.GetStandby() {
					t.Fatalf("%v: %s is its own standby", c, p.GetNode())
				}
				key := fmt.Sprint(room, p.GetEpoch())
				if o, ok := owner[key]; ok && p.GetNode() != "" && p.GetNode() != o {
					t.Fatalf("%v: epoch %d of %s was %s's and is %s's", c, p.GetEpoch(), room, o, p.GetNode())
				} else if p.GetNode() != "" {
					owner[key] = p.GetNode()
				}
			}
		}
	})
}

func hosts() []registry.Host {
	return []registry.Host{
		{ID: "a", Region: "eu", Zone: "1"}, {ID: "b", Region: "eu", Zone: "1"}, {ID: "c", Region: "eu", Zone: "2", Load: 3},
		{ID: "d", Region: "us", Zone: "1"}, {ID: "e", Region: "us", Zone: "2", Draining: true},
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ asking, region, node, standby string }{
		{"a", "eu", "a", "c"}, {"a", "us", "d", ""}, {"c", "eu", "c", "a"}, {"d", "us", "d", ""}, {"e", "us", "d", ""}, {"x", "asia", "a", "c"}, {"", "us", "d", ""},
	} {
		if node, standby := registry.Choose(hosts(), c.asking, c.region); node != c.node || standby != c.standby {
			t.Errorf("%s in %s: %s with %s, want %s with %s", c.asking, c.region, node, standby, c.node, c.standby)
		}
	}
	if node, _ := registry.Choose(nil, "a", "eu"); node != "" {
		t.Errorf("without hosts: %s", node)
	}
}

// TestTakeover moves many rooms of one node: to the living standby where there is one, else spread over the region,
// each with a new standby in another zone; always the same.
func TestTakeover(t *testing.T) {
	t.Parallel()
	reg := &pb.Registry{Nodes: map[string]*pb.ClusterNode{"x": {Id: "x", Region: "eu", Incarnation: 4}}, Placements: map[string]*pb.Placement{}}
	for i := range 300 {
		reg.Placements[fmt.Sprintf("with%03d", i)] = &pb.Placement{Node: "x", Standby: "e", Epoch: 2}
		reg.Placements[fmt.Sprintf("solo%03d", i)] = &pb.Placement{Node: "x", Epoch: 1}
		reg.Placements[fmt.Sprintf("gone%03d", i)] = &pb.Placement{Node: "x", Standby: "y", Epoch: 3}
		reg.Placements[fmt.Sprintf("others%03d", i)] = &pb.Placement{Node: "a", Standby: "x", Epoch: 1}
	}
	c := registry.Takeover(reg, "x", hosts())
	if !c.GetDown() || c.GetIncarnation() != 4 || len(c.GetRooms()) != 900 {
		t.Fatalf("down %v, incarnation %d, %d rooms", c.GetDown(), c.GetIncarnation(), len(c.GetRooms()))
	}
	count := map[string]int{}
	for _, p := range c.GetRooms() {
		if had := reg.GetPlacements()[p.GetRoom()]; had.GetStandby() == "e" {
			if p.GetNode() != "e" || p.GetStandby() != "d" {
				t.Fatalf("%v", p)
			}
			continue
		}
		count[p.GetNode()]++
		if p.GetNode() == "c" == (p.GetStandby() == "c") {
			t.Fatalf("not in another zone: %v", p)
		}
	}
	// c, alone in its zone, has the copies of what the others own.
	if count["a"] != 300 || count["b"] != 300 {
		t.Errorf("%v is not even", count)
	}
	for range 5 {
		again := slices.Clone(hosts())
		slices.Reverse(again)
		if !gproto.Equal(c, registry.Takeover(reg, "x", again)) {
			t.Fatal("another order of hosts gives another takeover")
		}
	}
	if c := registry.Handover(reg, "x", "SOLO001", hosts()); len(c.GetRooms()) != 1 || c.GetDown() {
		t.Errorf("handover of one: %v", c)
	}
	if c := registry.Takeover(reg, "x", nil); len(c.GetRooms()) != 0 || !c.GetDown() {
		t.Errorf("without hosts: %v", c)
	}
}

func TestStandbys(t *testing.T) {
	t.Parallel()
	reg := &pb.Registry{Placements: map[string]*pb.Placement{
		"r1": {Node: "a", Epoch: 1}, "r2": {Node: "b", Epoch: 5}, "r3": {Node: "a", Standby: "b", Epoch: 1}, "r4": {Node: "d", Epoch: 1}, "r5": {Epoch: 2},
	}}
	got := registry.Standbys(reg, hosts())
	if len(got) != 2 || len(got[0].GetRooms()) != 1 || !gproto.Equal(got[1], &pb.MoveRooms{From: "b", Rooms: []*pb.PlaceRoom{
		{Room: "r2", Node: "b", Standby: "c", IfEpoch: 5},
	}}) {
		t.Errorf("got %v", got)
	}
	if got := registry.Standbys(reg, hosts()[:1]); len(got) != 0 {
		t.Errorf("with one host: %v", got)
	}
}

// BenchmarkTakeover is a node of 100 that dies with 20,000 rooms: the plan, and the entry in the log.
func BenchmarkTakeover(b *testing.B) {
	reg := &pb.Registry{Nodes: map[string]*pb.ClusterNode{}, Placements: map[string]*pb.Placement{}, Rooms: map[string]*pb.Room{}}
	var all []registry.Host
	for i := range 100 {
		id := fmt.Sprint("n", i)
		reg.Nodes[id] = &pb.ClusterNode{Id: id, Region: fmt.Sprint("r", i%5), Incarnation: 1}
		all = append(all, registry.Host{ID: id, Region: fmt.Sprint("r", i%5), Zone: fmt.Sprint(i % 7)})
	}
	for i := range 100000 {
		p := &pb.Placement{Node: fmt.Sprint("n", i%100), Epoch: 1}
		if i%5 == 0 {
			p = &pb.Placement{Node: "n0", Epoch: 1}
		}
		reg.Placements[fmt.Sprint("room", i)] = p
	}
	b.Run("plan", func(b *testing.B) {
		for b.Loop() {
			registry.Takeover(reg, "n0", all[1:])
		}
	})
	c := moveRooms(registry.Takeover(reg, "n0", all[1:]))
	b.Run("apply", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			m := registry.Restore(&pb.Registry{Nodes: maps.Clone(reg.GetNodes()), Placements: maps.Clone(reg.GetPlacements())})
			b.StartTimer()
			if err := m.Apply(c); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(gproto.Size(c)), "bytes/entry")
	})
}
