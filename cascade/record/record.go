// Package record is the form of what two nodes send each other by UDP: one RTP packet, or a
// few words about such packets, encrypted and authenticated under keys that both ends draw
// from their TLS connection. It is pure: bytes in, bytes out. DESIGN.md has the format.
package record

import (
	"encoding/binary"
	"errors"
)

// Sizes in bytes.
const (
	// HeaderSize is the length of the header, TagSize that of the tag behind the payload.
	HeaderSize = 22
	TagSize    = 16
	Overhead   = HeaderSize + TagSize
	// MaxPayload is the longest payload, so that a record of it is at most 2,048 bytes: the
	// limits of use of a key in RFC 9001 appendix B are computed for that.
	MaxPayload = 2048 - Overhead
)

// MaxNumber is the highest packet number; label and extended sequence fill their fields.
const (
	MaxNumber = 1<<48 - 1
	MaxExt    = 1<<48 - 1
)

// Type says what a record carries. On the wire its two top bits are 01, so that a record is
// neither RTP, STUN nor DTLS (RFC 7983) and none can be taken for another.
type Type uint8

// The types.
const (
	// Media is an RTP packet sent for the first time, Repair one sent again on request.
	Media  Type = 0x41
	Repair Type = 0x42
	// Probe asks for an Echo of its payload.
	Probe Type = 0x43
	Echo  Type = 0x44
	// Report tells which records came, and when; Request asks for RTP packets that are
	// missing; Gone says of such packets that they will not come.
	Report  Type = 0x45
	Request Type = 0x46
	Gone    Type = 0x47
	// Padding is only there to be counted.
	Padding Type = 0x48
)

// String is the type's name, for logs.
func (t Type) String() string {
	switch t {
	case Media:
		return "media"
	case Repair:
		return "repair"
	case Probe:
		return "probe"
	case Echo:
		return "echo"
	case Report:
		return "report"
	case Request:
		return "request"
	case Gone:
		return "gone"
	case Padding:
		return "padding"
	default:
		return "unknown"
	}
}

// Header is what stands in the clear before a record's payload, authenticated with it.
type Header struct {
	Type Type
	// Phase is the running number of the key, modulo 256.
	Phase uint8
	// Number is the packet number, 0..MaxNumber: never the same twice under one connection.
	Number uint64
	// Label and Ext name an RTP packet: the receiver's handle of its stream, and its
	// sequence number extended to 48 bits. Both are 0 where the payload is none.
	Label uint32
	Ext   uint64
	// Conn is the connection id, which the receiver of the record has chosen.
	Conn uint32
}

// Errors of Parse and Open. Their texts are names of drop reasons.
var (
	ErrTruncated = errors.New("truncated")          // shorter than a header and a tag
	ErrOversize  = errors.New("oversize")           // longer than a record may be
	ErrType      = errors.New("unknown_type")       // no record at all, or of a type unknown here
	ErrConn      = errors.New("unknown_connection") // of a connection that is not, or no longer, there
	ErrPhase     = errors.New("wrong_key_phase")    // neither the present key nor a neighbour
	ErrReplayed  = errors.New("replayed")           // its packet number has been seen
	ErrTooOld    = errors.New("too_old")            // its packet number is below the window
	ErrForged    = errors.New("forged")             // the tag is wrong
)

// Parse reads a header without checking that it is genuine.
func Parse(b []byte) (Header, error) {
	switch {
	case len(b) < Overhead:
		return Header{}, ErrTruncated
	case len(b) > MaxPayload+Overhead:
		return Header{}, ErrOversize
	case b[0] < byte(Media) || b[0] > byte(Padding):
		return Header{}, ErrType
	}
	return Header{
		Type:   Type(b[0]),
		Phase:  b[1],
		Number: uint48(b[2:]),
		Label:  binary.BigEndian.Uint32(b[8:]),
		Ext:    uint48(b[12:]),
		Conn:   binary.BigEndian.Uint32(b[18:]),
	}, nil
}

// put writes the header into b.
func (h Header) put(b []byte) {
	b[0], b[1] = byte(h.Type), h.Phase
	putUint48(b[2:], h.Number)
	binary.BigEndian.PutUint32(b[8:], h.Label)
	putUint48(b[12:], h.Ext)
	binary.BigEndian.PutUint32(b[18:], h.Conn)
}

func uint48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

func putUint48(b []byte, v uint64) {
	binary.BigEndian.PutUint16(b, uint16(v>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(v))
}
