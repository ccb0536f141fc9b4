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

// Directory knows who decides.
type Directory interface {
	// Owner answers the node that owns the room and its epoch. Safe for concurrent use; must be quick, as it
	// is asked every 2 s for every room.
	Owner(room string) (node string, epoch uint64, err error)
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

// Upwards tells whether the message goes from a replica to the owner.
func Upwards(m *amphiv1.RoomMessage) bool {
	switch m.GetBody().(type) {
	case *amphiv1.RoomMessage_Attach, *amphiv1.RoomMessage_Detach, *amphiv1.RoomMessage_Request:
		return true
	}
	return false
}
