package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/amphi-sfu/amphi/cluster"
	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// directory is what signalling asks of either implementation.
type directory interface {
	Read(f func(*pb.Registry))
	Propose(ctx context.Context, cmd *pb.RegistryCommand) error
	Owner(room string) (*pb.Placement, error)
	Leased() bool
	Watch(f func(room string))
	Nodes() []*pb.ClusterNode
	Send(node, room string, msg []byte) error
}

// TestConformance asks the same of Local and of Cluster, on its own and at a follower of three.
func TestConformance(t *testing.T) {
	t.Parallel()
	local := func(t *testing.T) (directory, func() directory) {
		dir := t.TempDir()
		first := openAs(t, dir, "eu1.1")
		return first, func() directory {
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			return openAs(t, dir, "eu1.1")
		}
	}
	alone := func(t *testing.T) (directory, func() directory) {
		w := newWorld(t, nil)
		w.dir = t.TempDir()
		m := w.start("eu1.1", 1)
		w.leased("eu1.1")
		return m, func() directory {
			w.stop("eu1.1")
			m := w.start("eu1.1", 1)
			w.leased("eu1.1")
			return m
		}
	}
	follower := func(t *testing.T) (directory, func() directory) {
		w := newWorld(t, nil)
		w.dir = t.TempDir()
		ids := w.three()
		follows := ids[0]
		if w.leader() == follows {
			follows = ids[1]
		}
		return w.node(follows), func() directory {
			w.kill(follows)
			m := w.start(follows, 3)
			w.leased(follows)
			return m
		}
	}
	for name, open := range map[string]func(*testing.T) (directory, func() directory){"local": local, "cluster of one": alone, "cluster of three": follower} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, reopen := open(t)
			conforms(t, d)
			var before *pb.Registry
			d.Read(func(r *pb.Registry) { before = gproto.Clone(r).(*pb.Registry) })
			d = reopen()
			d.Read(func(r *pb.Registry) {
				for room, rec := range before.GetRooms() {
					if !gproto.Equal(rec, r.GetRooms()[room]) {
						t.Errorf("after a restart %s is %v, want %v", room, r.GetRooms()[room], rec)
					}
				}
				if r.GetOriginFloor() != before.GetOriginFloor() || len(r.GetOrigins()) != len(before.GetOrigins()) {
					t.Errorf("after a restart there are the streams %v above %d", r.GetOrigins(), r.GetOriginFloor())
				}
				if !gproto.Equal(before.GetStore()["demo"], r.GetStore()["demo"]) {
					t.Errorf("after a restart the store is %v", r.GetStore())
				}
			})
		})
	}
}

func openAs(t *testing.T, dir, id string) *cluster.Local {
	t.Helper()
	l, err := cluster.NewLocal(cluster.Config{Dir: dir, Node: &pb.ClusterNode{Id: id}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func conforms(t *testing.T, d directory) {
	t.Helper()
	ctx := context.Background()
	code := func(what string, cmd *pb.RegistryCommand, want proto.Code) {
		t.Helper()
		if got := proto.CodeOf(d.Propose(ctx, cmd)); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	code("a room", putRoom("Demo", "1"), "")
	code("an invalid room", putRoom("a/b", ""), proto.InvalidArgument)
	only := putRoom("demo", "2")
	only.OnlyNew = true
	code("a room that is there", only, proto.Conflict)
	code("an empty command", &pb.RegistryCommand{}, proto.InvalidMessage)
	code("a command too large", putRoom("demo", string(make([]byte, 21<<20))), proto.MessageTooLarge)
	first := putRoom("demo", "3")
	first.Id = "an-id"
	code("with an id", first, "")
	code("meanwhile", putRoom("demo", "4"), "")
	code("repeated", first, "")
	code("a durable value", &pb.RegistryCommand{Body: &pb.RegistryCommand_PutStore{PutStore: &pb.PutStore{
		Room: "demo", Entry: &pb.StoreEntry{Key: "k", Value: "v"},
	}}}, "")
	d.Read(func(r *pb.Registry) {
		if got := r.GetRooms()["demo"].GetMetadata(); got != "4" {
			t.Errorf("a repeated command was carried out: %q", got)
		}
	})
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := d.Propose(ended, putRoom("late", "")); err != nil && !proto.CodeOf(err).Retryable() {
		t.Errorf("after the caller has gone: %v", err)
	}

	streams(t, d)

	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 10 {
				room := fmt.Sprintf("r%d-%d", w, i)
				if err := d.Propose(ctx, putRoom(room, "")); err != nil {
					t.Error(err)
				}
				d.Read(func(r *pb.Registry) {
					if r.GetRooms()[room] == nil {
						t.Errorf("%s cannot be read", room)
					}
				})
			}
		})
	}
	wg.Wait()
	owns(t, d)
}

// streams begins, forgets and deletes streams: the epochs of a name go on.
func streams(t *testing.T, d directory) {
	t.Helper()
	node := d.Nodes()[0].GetId()
	put := func(epoch uint64) proto.Code {
		return proto.CodeOf(d.Propose(t.Context(), &pb.RegistryCommand{Body: &pb.RegistryCommand_PutOrigin{
			PutOrigin: &pb.StreamOrigin{Room: "show", Stream: "main", Node: node, Epoch: epoch}}}))
	}
	forget := func(epoch uint64) *pb.RegistryCommand {
		return &pb.RegistryCommand{Body: &pb.RegistryCommand_ForgetOrigin{ForgetOrigin: &pb.ForgetOrigin{Room: "show", Stream: "main", Epoch: epoch}}}
	}
	for _, cmd := range []*pb.RegistryCommand{putRoom("show", ""), {Body: &pb.RegistryCommand_PutNode{PutNode: &pb.ClusterNode{Id: node, Rules: registry.Rules}}}} {
		// A node of a cluster is known already, in a later life.
		if err := d.Propose(t.Context(), cmd); err != nil && proto.CodeOf(err) != proto.Conflict {
			t.Fatal(err)
		}
	}
	var got []proto.Code
	got = append(got, put(1), put(2), proto.CodeOf(d.Propose(t.Context(), forget(1))), proto.CodeOf(d.Propose(t.Context(), forget(2))), put(1), put(3))
	for _, cmd := range []*pb.RegistryCommand{{Body: &pb.RegistryCommand_DeleteRoom{DeleteRoom: "show"}}, putRoom("show", "")} {
		got = append(got, proto.CodeOf(d.Propose(t.Context(), cmd)))
	}
	got = append(got, put(3), put(4))
	if want := []proto.Code{"", "", proto.Conflict, "", proto.Conflict, "", "", "", proto.Conflict, ""}; !slices.Equal(got, want) {
		t.Errorf("streams: %q, want %q", got, want)
	}
}

// owns asks for owners; the node that asks gets the room.
func owns(t *testing.T, d directory) {
	t.Helper()
	until(t, newWorld(t, nil).wait, "it has a lease", d.Leased)
	d.Watch(func(string) {})
	nodes := d.Nodes()
	if len(nodes) == 0 {
		t.Fatal("there are no nodes")
	}
	var p *pb.Placement
	until(t, newWorld(t, nil).wait, "the room has an owner", func() bool {
		var err error
		p, err = d.Owner("Demo")
		if err != nil && !proto.CodeOf(err).Retryable() {
			t.Fatal(err)
		}
		return err == nil
	})
	if p.GetEpoch() != 1 || !hasNode(nodes, p.GetNode()) {
		t.Errorf("placed at %v", p)
	}
	if err := d.Send("nobody", "demo", nil); err == nil {
		t.Error("sent to nobody")
	}
}

func hasNode(nodes []*pb.ClusterNode, id string) bool {
	for _, n := range nodes {
		if n.GetId() == id {
			return true
		}
	}
	return false
}
