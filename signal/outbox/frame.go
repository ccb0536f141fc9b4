package outbox

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Encoding is how a client's messages look on its WebSocket.
type Encoding uint8

// The encodings, one per subprotocol.
const (
	JSON   Encoding = iota // amphi.v1.json: protojson in text frames
	Binary                 // amphi.v1.pb: protobuf in binary frames
)

// Subprotocol is the name by which clients ask for the encoding (PROTOCOL.md section 2).
func (e Encoding) Subprotocol() string {
	if e == Binary {
		return "amphi.v1.pb"
	}
	return "amphi.v1.json"
}

// Decode parses one message of a client. Unknown fields are ignored.
func (e Encoding) Decode(b []byte) (*amphiv1.ClientMessage, error) {
	m := &amphiv1.ClientMessage{}
	if e == Binary {
		if err := proto.Unmarshal(b, m); err != nil {
			return nil, fmt.Errorf("decoding a protobuf message: %w", err)
		}
		return m, nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("decoding a JSON message: %w", err)
	}
	return m, nil
}

// Frame is one message on its way to any number of clients. It is encoded once per encoding that somebody
// asks for. Safe for concurrent use; the message must not change any more.
type Frame struct {
	msg   *amphiv1.ServerMessage
	once  [2]sync.Once
	bytes [2][]byte
	class Class
	key   string
}

// NewFrame wraps a message whose class follows from its kind.
func NewFrame(m *amphiv1.ServerMessage) *Frame {
	class, key := classOf(m)
	return &Frame{msg: m, class: class, key: key}
}

// Bytes is the message in encoding e; callers share it and must not write to it.
func (f *Frame) Bytes(e Encoding) []byte {
	f.once[e].Do(func() { f.bytes[e] = encode(e, f.msg) })
	return f.bytes[e]
}

// encode cannot fail for messages made here: it would need invalid UTF-8, which decoding refused.
// Should it happen all the same, the receiver gets an empty message, which it ignores.
func encode(e Encoding, m *amphiv1.ServerMessage) []byte {
	var b []byte
	var err error
	if e == Binary {
		b, err = proto.Marshal(m)
	} else {
		b, err = protojson.Marshal(m)
	}
	if err != nil && e == JSON {
		return []byte("{}")
	}
	return b
}

// classOf tells which messages may replace an older one of their kind in the queue.
func classOf(m *amphiv1.ServerMessage) (Class, string) {
	switch b := m.GetBody().(type) {
	case *amphiv1.ServerMessage_Speakers:
		return Speakers, ""
	case *amphiv1.ServerMessage_Quality:
		return Quality, ""
	case *amphiv1.ServerMessage_Slots:
		return Slots, ""
	case *amphiv1.ServerMessage_SlotsNeeded:
		return SlotsNeeded, ""
	case *amphiv1.ServerMessage_Counts:
		return Counts, ""
	case *amphiv1.ServerMessage_Interest:
		return Interest, b.Interest.GetTrackId()
	}
	return Keep, ""
}
