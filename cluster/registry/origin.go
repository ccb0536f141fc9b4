package registry

import (
	"cmp"
	"slices"
	"strings"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// MaxOrigins bounds the streams of one room that the registry knows the origin of.
const MaxOrigins = 16

// OriginKey is the key of a stream in Registry.origins.
func OriginKey(room, stream string) string { return RoomKey(room) + "/" + stream }

// RoomOrigins are the records of a room's streams, by the streams' names.
func RoomOrigins(reg *pb.Registry, room string) []*pb.StreamOrigin {
	var list []*pb.StreamOrigin
	for key, o := range reg.GetOrigins() {
		if strings.HasPrefix(key, RoomKey(room)+"/") {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *pb.StreamOrigin) int { return cmp.Compare(a.GetStream(), b.GetStream()) })
	return list
}

// putOrigin names the node that makes a stream, or what its program began with. Two that choose at once do not both succeed.
func (m *Machine) putOrigin(cmd *pb.RegistryCommand, o *pb.StreamOrigin) error {
	if m.reg.GetRooms()[RoomKey(o.GetRoom())] == nil {
		return missing("room", o.GetRoom())
	}
	if err := validName("a stream's name", o.GetStream()); err != nil {
		return err
	}
	if err := fits(o, MaxNode); err != nil {
		return err
	}
	key := OriginKey(o.GetRoom(), o.GetStream())
	old := m.reg.GetOrigins()[key]
	at := old.GetEpoch()
	if old == nil {
		at = m.reg.GetOriginFloor()
	}
	switch {
	case cmd.GetOnlyNew() && old != nil:
		return exists("stream")
	case o.GetEpoch() == at+1, old != nil && o.GetEpoch() == at && o.GetNode() == old.GetNode():
	default:
		return proto.Errorf(proto.Conflict, "the stream is at epoch %d", at)
	}
	if m.reg.GetNodes()[o.GetNode()] == nil {
		return missing("node", o.GetNode())
	}
	if old == nil && len(RoomOrigins(m.reg, o.GetRoom())) >= MaxOrigins {
		return full("streams", MaxOrigins)
	}
	m.reg.Origins[key] = copied(o)
	return nil
}

// forgetOrigin drops the record of a stream that has ended, as who proposes it knows, to make place for another one's.
func (m *Machine) forgetOrigin(f *pb.ForgetOrigin) error {
	key := OriginKey(f.GetRoom(), f.GetStream())
	old := m.reg.GetOrigins()[key]
	switch {
	case old == nil:
		return missing("stream", f.GetStream())
	case old.GetEpoch() != f.GetEpoch():
		return proto.Errorf(proto.Conflict, "the stream is at epoch %d", old.GetEpoch())
	}
	m.dropOrigin(key, old)
	return nil
}

// forgetOrigins is for a room that goes.
func (m *Machine) forgetOrigins(cmd *pb.RegistryCommand, room string) {
	for _, o := range RoomOrigins(m.reg, room) {
		key := OriginKey(room, o.GetStream())
		if cmd.GetRules() < 1 {
			delete(m.reg.Origins, key)
			continue
		}
		m.dropOrigin(key, o)
	}
}

// dropOrigin makes whatever has the name next begin above the epoch.
func (m *Machine) dropOrigin(key string, o *pb.StreamOrigin) {
	delete(m.reg.Origins, key)
	m.reg.OriginFloor = max(m.reg.GetOriginFloor(), o.GetEpoch())
}
