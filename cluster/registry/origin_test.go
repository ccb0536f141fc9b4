package registry_test

import (
	"fmt"
	"testing"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
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
