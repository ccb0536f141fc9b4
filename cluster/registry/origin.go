package registry

import (
	"maps"
	"strings"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// MaxOrigins bounds the streams of one room that the registry knows the origin of.
const MaxOrigins = 16

// OriginKey is the key of a stream in Registry.origins.
func OriginKey(room, stream string) string { return RoomKey(room) + "/" + stream }

// putOrigin names the node that makes a stream, or what its program began with. Two that choose at once do not both succeed.
func (m *Machine) putOrigin(o *pb.StreamOrigin) error {
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
	switch {
	case o.GetEpoch() == old.GetEpoch()+1, old != nil && o.GetEpoch() == old.GetEpoch() && o.GetNode() == old.GetNode():
	default:
		return proto.Errorf(proto.Conflict, "the stream is at epoch %d", old.GetEpoch())
	}
	if m.reg.GetNodes()[o.GetNode()] == nil {
		return missing("node", o.GetNode())
	}
	if old == nil {
		n := 0
		for k := range m.reg.GetOrigins() {
			if strings.HasPrefix(k, RoomKey(o.GetRoom())+"/") {
				n++
			}
		}
		if n >= MaxOrigins {
			return full("streams", MaxOrigins)
		}
	}
	m.reg.Origins[key] = copied(o)
	return nil
}

// forgetOrigins is for a room that goes.
func (m *Machine) forgetOrigins(room string) {
	maps.DeleteFunc(m.reg.Origins, func(key string, _ *pb.StreamOrigin) bool { return strings.HasPrefix(key, RoomKey(room)+"/") })
}
