package registry_test

import (
	"fmt"
	"testing"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func TestPutOrigin(t *testing.T) {
	t.Parallel()
	m := registry.New()
	must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutTemplate{PutTemplate: &pb.Template{Name: "t"}}})
	must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutRoom{PutRoom: &pb.Room{Name: "Hall", Template: "t"}}})
	for _, id := range []string{"a", "b"} {
		must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutNode{PutNode: &pb.ClusterNode{Id: id, Incarnation: 1}}})
	}
	put := func(o *pb.StreamOrigin) error {
		return m.Apply(&pb.RegistryCommand{Body: &pb.RegistryCommand_PutOrigin{PutOrigin: o}})
	}
	for i, c := range []struct {
		o    *pb.StreamOrigin
		want proto.Code
	}{
		{&pb.StreamOrigin{Room: "hall", Stream: "main", Node: "a", Epoch: 2}, proto.Conflict},
		{&pb.StreamOrigin{Room: "hall", Stream: "main", Node: "a", Epoch: 1}, ""},
		{&pb.StreamOrigin{Room: "HALL", Stream: "main", Node: "a", Epoch: 1, FirstMsn: 7}, ""},
		{&pb.StreamOrigin{Room: "hall", Stream: "main", Node: "b", Epoch: 1}, proto.Conflict},
		{&pb.StreamOrigin{Room: "hall", Stream: "main", Node: "b", Epoch: 2}, ""},
		{&pb.StreamOrigin{Room: "hall", Stream: "main", Node: "a", Epoch: 2}, proto.Conflict},
		{&pb.StreamOrigin{Room: "hall", Stream: "main", Node: "c", Epoch: 3}, proto.NotFound},
		{&pb.StreamOrigin{Room: "none", Stream: "main", Node: "a", Epoch: 1}, proto.NotFound},
		{&pb.StreamOrigin{Room: "hall", Node: "a", Epoch: 1}, proto.InvalidArgument},
	} {
		if got := proto.CodeOf(put(c.o)); got != c.want {
			t.Errorf("%d: %v: %q, want %q", i, c.o, got, c.want)
		}
	}
	if o := registry.Restore(m.Snapshot()).View().GetOrigins()[registry.OriginKey("Hall", "main")]; o.GetNode() != "b" || o.GetEpoch() != 2 {
		t.Errorf("restored: %v", o)
	}
	for i := range registry.MaxOrigins {
		_ = put(&pb.StreamOrigin{Room: "hall", Stream: fmt.Sprint("s", i), Node: "a", Epoch: 1})
	}
	if n := len(m.View().GetOrigins()); n != registry.MaxOrigins {
		t.Errorf("%d origins", n)
	}
	must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: "hall"}})
	if n := len(m.View().GetOrigins()); n != 0 {
		t.Errorf("%d origins of a room that is gone", n)
	}
}

// hall is a machine with the room "Hall" and the nodes a and b.
func hall(t *testing.T) *registry.Machine {
	t.Helper()
	m := registry.New()
	must(t, m, putRoom("Hall"), putNode("a", 1), putNode("b", 1))
	return m
}

func putOrigin(stream, node string, epoch uint64) *pb.RegistryCommand {
	return &pb.RegistryCommand{Body: &pb.RegistryCommand_PutOrigin{PutOrigin: &pb.StreamOrigin{Room: "hall", Stream: stream, Node: node, Epoch: epoch}}}
}

func forgetOrigin(stream string, epoch uint64) *pb.RegistryCommand {
	return &pb.RegistryCommand{Rules: registry.Rules, Body: &pb.RegistryCommand_ForgetOrigin{
		ForgetOrigin: &pb.ForgetOrigin{Room: "HALL", Stream: stream, Epoch: epoch}}}
}

func deleteRoom(name string, rules uint32) *pb.RegistryCommand {
	return &pb.RegistryCommand{Rules: rules, Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: name}}
}

func TestForgetOrigin(t *testing.T) {
	t.Parallel()
	m := hall(t)
	for i := range uint64(registry.MaxOrigins) {
		must(t, m, putOrigin(fmt.Sprint("s", i), "a", 1))
	}
	must(t, m, putOrigin("s3", "b", 2))
	refused(t, m, putOrigin("new", "a", 1), proto.LimitExceeded)
	refused(t, m, forgetOrigin("new", 1), proto.NotFound)
	refused(t, m, forgetOrigin("s3", 1), proto.Conflict)
	must(t, m, forgetOrigin("s3", 2))
	refused(t, m, putOrigin("new", "a", 1), proto.Conflict)
	refused(t, m, putOrigin("new", "a", 2), proto.Conflict)
	refused(t, m, putOrigin("new", "a", 4), proto.Conflict)
	m = registry.Restore(gproto.Clone(m.Snapshot()).(*pb.Registry))
	must(t, m, putOrigin("new", "a", 3))
	only := putOrigin("new", "b", 4)
	only.OnlyNew = true
	refused(t, m, only, proto.Conflict)
	// One that has a record goes on from its own epoch.
	must(t, m, putOrigin("s4", "b", 2))
	if list := registry.RoomOrigins(m.View(), "Hall"); len(list) != registry.MaxOrigins || list[0].GetStream() != "new" {
		t.Errorf("the room has %v", list)
	}
}

// The epochs of a deleted room's streams are not used again, whatever name a room has; but where the log of an earlier version
// is read again it comes to what that version came to.
func TestADeletedRoomsStreamsEpochs(t *testing.T) {
	t.Parallel()
	m := hall(t)
	must(t, m, putOrigin("main", "a", 1), putOrigin("main", "b", 2), putOrigin("other", "b", 1), deleteRoom("hall", registry.Rules), putRoom("Hall"))
	refused(t, m, putOrigin("main", "a", 1), proto.Conflict)
	must(t, m, putOrigin("main", "a", 3))
	if f := m.View().GetOriginFloor(); f != 2 {
		t.Errorf("the floor is %d", f)
	}
	m = hall(t)
	must(t, m, putOrigin("main", "a", 1), putOrigin("main", "b", 2), deleteRoom("hall", 0), putRoom("Hall"), putOrigin("main", "a", 1))
	if f := m.View().GetOriginFloor(); f != 0 {
		t.Errorf("the floor is %d", f)
	}
}

// TestOriginProperties: what is refused changes nothing, a stream's epoch never falls nor is another node's later, whatever was forgotten or
// deleted, and records are bounded.
func TestOriginProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := registry.New()
		apply := func(c *pb.RegistryCommand) bool {
			before := m.Snapshot()
			err := m.Apply(c)
			if err != nil && !gproto.Equal(before, m.Snapshot()) {
				t.Fatalf("%v was refused but changed something", c)
			}
			return err == nil
		}
		apply(putRoom("hall"))
		apply(putNode("a", 1))
		apply(putNode("b", 1))
		highest, node := map[string]uint64{}, map[string]string{}
		for range rapid.IntRange(1, 80).Draw(t, "n") {
			stream := fmt.Sprint("s", rapid.IntRange(0, registry.MaxOrigins+2).Draw(t, "stream"))
			if rapid.Bool().Draw(t, "few") {
				stream = "s0"
			}
			r := m.View()
			old := r.GetOrigins()[registry.OriginKey("hall", stream)]
			switch rapid.IntRange(0, 11).Draw(t, "kind") {
			case 0:
				apply(deleteRoom("hall", registry.Rules))
			case 1, 2, 3:
				apply(forgetOrigin(stream, max(1, old.GetEpoch())))
			case 4:
				m = registry.Restore(gproto.Clone(m.Snapshot()).(*pb.Registry))
			case 5, 6:
				apply(putRoom("hall"))
			default:
				epoch := old.GetEpoch() + 1
				if old == nil {
					epoch = r.GetOriginFloor() + 1
				}
				if rapid.IntRange(0, 3).Draw(t, "wrong") == 0 {
					epoch = rapid.Uint64Range(0, epoch+1).Draw(t, "epoch")
				}
				at := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node")
				if !apply(putOrigin(stream, at, epoch)) {
					continue
				}
				if epoch < highest[stream] || epoch == highest[stream] && at != node[stream] {
					t.Fatalf("%s is at epoch %d of %s after epoch %d of %s", stream, epoch, at, highest[stream], node[stream])
				}
				highest[stream], node[stream] = epoch, at
			}
			if n := len(m.View().GetOrigins()); n > registry.MaxOrigins {
				t.Fatalf("%d records", n)
			}
		}
	})
}

// A snapshot, and a command, of the version before forget_origin are read by this one.
func TestOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	m := hall(t)
	must(t, m, putOrigin("main", "a", 1))
	data, err := gproto.Marshal(m.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	old := &pb.Registry{}
	if err := gproto.Unmarshal(data, old); err != nil {
		t.Fatal(err)
	}
	if rules, behind := registry.Common(old); rules != 0 || behind != "a" {
		t.Errorf("the rules of nodes that tell none: %d, %q", rules, behind)
	}
	if _, err := registry.Ruled(old, forgetOrigin("main", 1)); proto.CodeOf(err) != proto.Unavailable {
		t.Errorf("a command that some node does not know: %v", err)
	}
	if cmd, err := registry.Ruled(old, deleteRoom("hall", registry.Rules)); err != nil || cmd.GetRules() != 0 {
		t.Errorf("with an earlier node: %v, %v", cmd, err)
	}
	m = registry.Restore(old)
	for _, id := range []string{"a", "b"} {
		must(t, m, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutNode{PutNode: &pb.ClusterNode{Id: id, Incarnation: 2, Rules: registry.Rules}}})
	}
	cmd, err := registry.Ruled(m.View(), deleteRoom("hall", 0))
	if err != nil || cmd.GetRules() != registry.Rules {
		t.Fatalf("when all know: %v, %v", cmd, err)
	}
	must(t, m, cmd, putRoom("hall"), putOrigin("main", "b", 2))
}
