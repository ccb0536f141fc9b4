package registry_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

func revoke(node string, before int64) *pb.RegistryCommand {
	return &pb.RegistryCommand{TimeMs: 7, Rules: registry.Rules, Body: &pb.RegistryCommand_RevokeNode{
		RevokeNode: &pb.Revocation{Node: node, IssuedBeforeMs: before}}}
}

func TestRevokeNode(t *testing.T) {
	t.Parallel()
	m := registry.New()
	refused(t, m, revoke("", 5000), proto.InvalidArgument)
	refused(t, m, revoke("a", 0), proto.InvalidArgument)
	refused(t, m, revoke("a", -1), proto.InvalidArgument)
	must(t, m, revoke("a", 5000))
	if !slices.Equal(m.Changed(), []string{""}) {
		t.Errorf("changed: %q", m.Changed())
	}
	must(t, m, revoke("a", 4000)) // what counts no more never counts again
	m = registry.Restore(gproto.Clone(m.Snapshot()).(*pb.Registry))
	if got := registry.Revoked(m.View()); len(got) != 1 || !got["a"].Equal(time.UnixMilli(5000)) {
		t.Errorf("revoked: %v", got)
	}
	must(t, m, revoke("a", 6000))
	for i := range registry.MaxRevoked - 1 {
		must(t, m, revoke(fmt.Sprint("n", i), 1))
	}
	refused(t, m, revoke("b", 5000), proto.LimitExceeded)
	must(t, m, revoke("a", 7000))
	if r := m.View().GetRevoked()["a"]; r.GetIssuedBeforeMs() != 7000 || r.GetDecidedMs() != 7 {
		t.Errorf("%v", r)
	}
	old := &pb.Registry{Nodes: map[string]*pb.ClusterNode{"a": {Id: "a"}}}
	if _, err := registry.Ruled(old, revoke("a", 1)); proto.CodeOf(err) != proto.Unavailable {
		t.Errorf("while a node does not know of it: %v", err)
	}
}
