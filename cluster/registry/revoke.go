package registry

import (
	"time"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// MaxRevoked bounds the nodes of which certificates count no more.
const MaxRevoked = 5000

// revokeNode makes certificates of a node count no more. What counts no more never counts again.
func (m *Machine) revokeNode(cmd *pb.RegistryCommand, r *pb.Revocation) error {
	if err := validName("a node's id", r.GetNode()); err != nil {
		return err
	}
	old := m.reg.GetRevoked()[r.GetNode()]
	switch {
	case r.GetIssuedBeforeMs() <= 0:
		return proto.Errorf(proto.InvalidArgument, "the certificates of which time count no more is not said")
	case old.GetIssuedBeforeMs() >= r.GetIssuedBeforeMs():
		return nil
	case old == nil && len(m.reg.GetRevoked()) >= MaxRevoked:
		return full("revoked nodes", MaxRevoked)
	}
	m.reg.Revoked[r.GetNode()] = &pb.Revocation{Node: r.GetNode(), IssuedBeforeMs: r.GetIssuedBeforeMs(), DecidedMs: cmd.GetTimeMs()}
	m.changed = append(m.changed, "")
	return nil
}

// Revoked are the times before which certificates of nodes must have been issued to count no more.
func Revoked(reg *pb.Registry) map[string]time.Time {
	before := make(map[string]time.Time, len(reg.GetRevoked()))
	for node, r := range reg.GetRevoked() {
		before[node] = time.UnixMilli(r.GetIssuedBeforeMs())
	}
	return before
}
