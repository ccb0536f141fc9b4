package trunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame of the control connection: kind (1 byte), length of the body (3 bytes), body.
const (
	frameHeader = 4
	// MaxMessage is the longest message, in bytes.
	MaxMessage = 1 << 20
)

// Kinds of frames.
const (
	frameHello   = 1 // the first of each end
	frameMessage = 2 // as the caller of Message gave it
	frameBye     = 3 // the end, with a reason for people
)

// version is that of the frames and records; ends of different versions have no trunk.
const version = 1

const (
	helloSize = 15
	maxReason = 200
)

// Errors of frames.
var (
	errFrameTooLong = errors.New("trunk: frame too long")
	errBadHello     = errors.New("trunk: the other end's hello makes no sense")
	errVersion      = errors.New("trunk: the other end speaks another version")
)

// hello is what each end says first.
type hello struct {
	conn uint32 // to be in the records sent to this end
	boot uint64 // differs from one run of a node to the next
	port uint16 // UDP port of this end's records
}

func (h hello) append(dst []byte) []byte {
	dst = append(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, h.conn)
	dst = binary.BigEndian.AppendUint64(dst, h.boot)
	return binary.BigEndian.AppendUint16(dst, h.port)
}

func parseHello(b []byte) (hello, error) {
	if len(b) < 1 {
		return hello{}, errBadHello
	}
	if b[0] != version {
		return hello{}, errVersion
	}
	if len(b) != helloSize {
		return hello{}, errBadHello
	}
	return hello{binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint64(b[5:]), binary.BigEndian.Uint16(b[13:])}, nil
}

// appendFrame appends one frame to dst.
func appendFrame(dst []byte, kind byte, body []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(kind)<<24|uint32(len(body)))
	return append(dst, body...)
}

// readFrame reads one frame with a body of at most limit bytes; nothing is allocated for more
// than has been announced within it.
func readFrame(r io.Reader, limit int) (kind byte, body []byte, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("reading a frame: %w", err)
	}
	v := binary.BigEndian.Uint32(head[:])
	kind, n := byte(v>>24), int(v&0xffffff)
	switch kind {
	case frameHello:
		limit = min(limit, helloSize*4) // later versions may say more
	case frameBye:
		limit = min(limit, maxReason)
	case frameMessage:
	default:
		return 0, nil, fmt.Errorf("trunk: frame of unknown kind %d", kind)
	}
	if n > limit {
		return 0, nil, errFrameTooLong
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("reading a frame: %w", err)
	}
	return kind, body, nil
}
