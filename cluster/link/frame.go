package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxMessage is how long a message may be, in bytes: a whole room's state and its envelope.
const MaxMessage = 64<<20 + 1<<10

// frameType is the first byte of a frame. ONLY APPEND: both ends may be of different versions.
type frameType byte

const (
	message frameType = 1 + iota
	call              // body: 4 bytes of how long the caller waits, in milliseconds, then the message
	answer
	failure // body: an encoded amphi.v1.Error
	beat    // id: the sender's clock; body: the clock last heard from the other side, and for how long it was held
	afterLastType
)

const (
	headerLen   = 14
	beatLen     = 16
	callPrefix  = 4
	maxFailure  = 64 << 10
	maxOneAlloc = 1 << 20
)

// frame on the wire: type (1 byte), kind (1), length of the body (4), id (8), body; numbers big-endian.
type frame struct {
	typ  frameType
	kind byte
	id   uint64 // of a call and its answer; of a beat the sender's clock in nanoseconds
	body []byte
}

// size is what a frame costs in a queue, in bytes.
func (f frame) size() int { return headerLen + len(f.body) }

var errFrame = errors.New("bad frame")

func (f frame) header() [headerLen]byte {
	var h [headerLen]byte
	h[0], h[1] = byte(f.typ), f.kind
	binary.BigEndian.PutUint32(h[2:], uint32(len(f.body)))
	binary.BigEndian.PutUint64(h[6:], f.id)
	return h
}

// readFrame reads one frame. The error is errFrame for what no node of this protocol sends, else the reader's.
func readFrame(r io.Reader) (frame, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	f := frame{typ: frameType(h[0]), kind: h[1], id: binary.BigEndian.Uint64(h[6:])}
	length := int64(binary.BigEndian.Uint32(h[2:]))
	low, high := int64(0), int64(MaxMessage)
	switch f.typ {
	case message, answer:
	case call:
		low, high = callPrefix, MaxMessage+callPrefix
	case failure:
		high = maxFailure
	case beat:
		low, high = beatLen, beatLen
	default:
		return frame{}, fmt.Errorf("%w: type %d", errFrame, f.typ)
	}
	if length < low || length > high {
		return frame{}, fmt.Errorf("%w: %d bytes in type %d", errFrame, length, f.typ)
	}
	if length <= maxOneAlloc {
		f.body = make([]byte, length)
		_, err := io.ReadFull(r, f.body)
		return f, unexpected(err)
	}
	// Memory grows with what has arrived, not with what was announced.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, length); err != nil {
		return frame{}, unexpected(err)
	}
	f.body = body.Bytes()
	return f, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
