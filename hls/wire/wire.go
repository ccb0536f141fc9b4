// Package wire is the language between a node and its compositor child process:
// length-prefixed frames on a unix stream socket, control as JSON, media as
// fixed binary headers in front of the bytes.
//
// A frame is [u32 length, big endian][u8 type][body]; length counts type and body.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// FD is the file descriptor on which the compositor finds its end of the socket.
const FD = 3

// Type says what a frame's body is. Values are on the wire: only append.
type Type uint8

// Frames from the node to the compositor.
const (
	TypeStart         Type = 1  // Start, JSON; first and once
	TypeAddInput      Type = 2  // AddInput, JSON
	TypeRemoveInput   Type = 3  // u32 input
	TypeScene         Type = 4  // Scene, JSON; the whole picture, replaces the last
	TypeAudioMix      Type = 5  // AudioMix, JSON; the whole mix, replaces the last
	TypeRTP           Type = 6  // u32 input, RTP packet (RFC 3550)
	TypeSenderReport  Type = 7  // u32 input, u32 SSRC, u64 NTP, u32 RTP
	TypeForceKeyframe Type = 8  // empty: an IDR of every variant on the next tick
	TypePicture       Type = 9  // u8 length of the key, key, PNG or JPEG; without data: forget it
	TypeIdle          Type = 10 // u32 bits: these variants get one picture a part
)

// Frames from the compositor to the node.
const (
	TypeReady           Type = 65 // Ready, JSON; answers Start
	TypeVideoAU         Type = 66 // u8 variant, u8 flags (1 = IDR), i64 tick, i64 UNIX ns, H.264 Annex B
	TypeAudioAU         Type = 67 // i64 samples, i64 UNIX ns, AAC-LC raw data block
	TypeStats           Type = 68 // Stats, JSON; about once a second, so also the heartbeat
	TypeKeyframeRequest Type = 69 // u32 input, u32 SSRC (0 when none was seen yet)
)

// Limits on the body of a frame, in bytes. A longer frame ends the connection.
const (
	MaxControl = 256 << 10
	MaxRTP     = 4 + 1500
	MaxPicture = 1 + maxPictureKey + 2<<20
	MaxVideoAU = videoHead + 4<<20
	MaxAudioAU = audioHead + 8<<10
)

const (
	frameHead = 5
	videoHead = 18
	audioHead = 16
)

// ErrTooLong is returned for a frame above the limit of its type.
var ErrTooLong = errors.New("frame too long")

// ErrUnknownType is returned for a frame type that this version does not know.
var ErrUnknownType = errors.New("unknown frame type")

// ErrMalformed is returned for a body that is not what its type says.
var ErrMalformed = errors.New("malformed frame")

// limit returns the greatest body length of a type, and false for unknown types.
func limit(t Type) (int, bool) {
	switch t {
	case TypeStart, TypeAddInput, TypeScene, TypeAudioMix, TypeReady, TypeStats:
		return MaxControl, true
	case TypeRemoveInput:
		return 4, true
	case TypeRTP:
		return MaxRTP, true
	case TypeSenderReport:
		return 20, true
	case TypePicture:
		return MaxPicture, true
	case TypeIdle:
		return 4, true
	case TypeForceKeyframe:
		return 0, true
	case TypeVideoAU:
		return MaxVideoAU, true
	case TypeAudioAU:
		return MaxAudioAU, true
	case TypeKeyframeRequest:
		return 8, true
	case TypeTranscode:
		return MaxControl, true
	case TypeSourceVideo:
		return sourceHead + 4<<20, true
	case TypeSourceAudio:
		return sourceHead + 8<<10, true
	case TypeTargetVideo:
		return targetHead + 4<<20, true
	case TypeTargetAudio:
		return targetHead + maxOpus, true
	}
	return 0, false
}

// Frame is one frame as read. Body aliases the Reader's buffer until its next call.
type Frame struct {
	Type Type
	Body []byte
}

// Reader splits a byte stream into frames. Not for concurrent use.
type Reader struct {
	r    io.Reader
	buf  []byte // unread bytes are buf[start:end]
	s, e int
}

// NewReader returns a Reader that keeps at most one frame and 64 KiB beyond it.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: r, buf: make([]byte, 64<<10)}
}

// Next returns the next frame. It returns io.EOF when the stream ended between
// frames, io.ErrUnexpectedEOF inside one, and ErrTooLong or ErrUnknownType
// (wrapped) when the stream can't be followed any more.
func (r *Reader) Next() (Frame, error) {
	if err := r.fill(frameHead); err != nil {
		return Frame{}, err
	}
	n := int(binary.BigEndian.Uint32(r.buf[r.s:])) - 1
	t := Type(r.buf[r.s+4])
	most, ok := limit(t)
	if !ok {
		return Frame{}, fmt.Errorf("reading frame type %d: %w", t, ErrUnknownType)
	}
	if n < 0 || n > most {
		return Frame{}, fmt.Errorf("reading frame type %d of %d bytes: %w", t, n, ErrTooLong)
	}
	if err := r.fill(frameHead + n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	f := Frame{Type: t, Body: r.buf[r.s+frameHead : r.s+frameHead+n : r.s+frameHead+n]}
	r.s += frameHead + n
	return f, nil
}

// Buffered tells whether Next would return a whole frame without reading.
func (r *Reader) Buffered() bool {
	if r.e-r.s < frameHead {
		return false
	}
	return r.e-r.s >= 4+int(binary.BigEndian.Uint32(r.buf[r.s:]))
}

// fill makes at least n bytes available from r.s on.
func (r *Reader) fill(n int) error {
	if r.e-r.s >= n {
		return nil
	}
	if r.s+n > len(r.buf) {
		to := r.buf
		if n > len(to) {
			to = make([]byte, n+n/2)
		}
		r.e = copy(to, r.buf[r.s:r.e])
		r.s, r.buf = 0, to
	}
	for r.e-r.s < n {
		k, err := r.r.Read(r.buf[r.e:])
		r.e += k
		if r.e-r.s >= n {
			return nil
		}
		if errors.Is(err, io.EOF) && r.e > r.s {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// open appends a frame's head with the length still missing.
func open(dst []byte, t Type) []byte { return append(dst, 0, 0, 0, 0, byte(t)) }

// seal writes the length of the frame that begins at from.
func seal(dst []byte, from int) []byte {
	binary.BigEndian.PutUint32(dst[from:], uint32(len(dst)-from-4))
	return dst
}

func appendJSON(dst []byte, t Type, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("encoding frame type %d: %w", t, err)
	}
	if len(b) > MaxControl {
		return dst, fmt.Errorf("encoding frame type %d of %d bytes: %w", t, len(b), ErrTooLong)
	}
	from := len(dst)
	return seal(append(open(dst, t), b...), from), nil
}

// malformed says which type had a body that can't be.
func malformed(t Type, why string) error {
	return fmt.Errorf("decoding frame type %d: %s: %w", t, why, ErrMalformed)
}
