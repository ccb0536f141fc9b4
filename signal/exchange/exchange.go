// Package exchange is what a room's owner and its replicas on other nodes have between them: encoded
// RoomMessages, whatever carries them, and who the owner is (PROTOCOL.md section 6).
package exchange

import (
	"fmt"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// MaxMessage bounds one encoded RoomMessage: a state of some ten thousand peers.
const MaxMessage = 64 << 20

// Carrier brings encoded RoomMessages to other nodes.
type Carrier interface {
	// Send queues msg, which it may keep, for node, in order per room. It must not block; an error means
	// that msg is lost. The protocol heals losses by attaching again.
	Send(node, room string, msg []byte) error
}

// Directory knows who decides. Safe for concurrent use.
type Directory interface {
	// Owner answers which node owns the room, at which epoch, and which has the copy; nobody may change the answer. An
	// error has a code: "unavailable" where nobody owns the room yet. It is asked for every message, so it must be quick.
	Owner(room string) (*amphiv1.Placement, error)
	// Leased tells whether this node may decide now for the rooms that it owns.
	Leased() bool
	// Watch has f called whenever a room's placement has changed, or with "" when that of any room may have, or the
	// lease. f does not block.
	Watch(f func(room string))
}

// Encode makes bytes of a message.
func Encode(m *amphiv1.RoomMessage) ([]byte, error) {
	b, err := protobuf.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding a room message: %w", err)
	}
	return b, nil
}

// Decode parses and checks a message from another node.
func Decode(b []byte) (*amphiv1.RoomMessage, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("a room message of %d bytes is too long", len(b))
	}
	m := &amphiv1.RoomMessage{}
	if err := protobuf.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("decoding a room message: %w", err)
	}
	if !proto.ValidRoomName(m.GetRoom()) {
		return nil, fmt.Errorf("decoding a room message: invalid room name")
	}
	return m, nil
}

// Upwards tells whether the message goes to the owner, from a replica or the standby.
func Upwards(m *amphiv1.RoomMessage) bool {
	switch m.GetBody().(type) {
	case *amphiv1.RoomMessage_Attach, *amphiv1.RoomMessage_Detach, *amphiv1.RoomMessage_Request,
		*amphiv1.RoomMessage_StandbyAck, *amphiv1.RoomMessage_ReplicaState:
		return true
	}
	return false
}
