package signal

import (
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Guide tells which nodes clients should use. Safe for concurrent use; quick.
type Guide interface {
	// Elsewhere is the URL of the node that a client of this level, which has reached this node by host, should use
	// for the room; empty: this one. Level 0 is a client that comes back: it is only sent away from a node that
	// takes nobody. Region is where the client would be served, empty if it did not say.
	Elsewhere(room string, level uint32, host, region string) (url string)
	// Backups are URLs of nodes at which a client of this level can resume when this node is lost, the best first.
	Backups(room string, level uint32) []string
}

// maxRegion bounds the name of the region that a client asks for, in bytes.
const maxRegion = 64

// guided is the error that sends a client on, nil where it is right here. Who was sent here stays.
func (s *Server) guided(record *amphiv1.Room, role, host, region string, redirected bool) error {
	if s.deps.Guide == nil || redirected {
		return nil
	}
	if len(region) > maxRegion {
		return proto.Errorf(proto.InvalidArgument, "the region's name is longer than %d bytes", maxRegion)
	}
	url := s.deps.Guide.Elsewhere(key(record.GetName()), s.levelOf(record, role), host, region)
	if url == "" {
		return nil
	}
	err := proto.Errorf(proto.Redirected, "another node serves this client: %s", url)
	err.Details = map[string]string{"url": url}
	return err
}

// levelOf is that of a role by the room's template, 0 for no role.
func (s *Server) levelOf(record *amphiv1.Room, name string) uint32 {
	if name == "" {
		return 0
	}
	template, err := s.records.template(record.GetTemplate())
	if err != nil {
		return 0
	}
	for _, role := range template.GetRoles() {
		if role.GetName() == name {
			return proto.Level(role)
		}
	}
	return 0
}

// backups is where a peer's client may go when this node is lost.
func (e *edge) backups(peerID string) []string {
	if e.server.deps.Guide == nil {
		return nil
	}
	return e.server.deps.Guide.Backups(e.room.Name(), proto.Level(e.rep.RoleOf(peerID)))
}
