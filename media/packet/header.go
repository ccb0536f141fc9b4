package packet

import (
	"encoding/binary"
	"errors"
)

// Errors of ParseHeader and Header.Body.
var (
	ErrShort   = errors.New("rtp packet too short")
	ErrVersion = errors.New("rtp version is not 2")
	ErrPadding = errors.New("rtp padding longer than the payload")
	ErrLong    = errors.New("rtp header extensions too long")
)

const (
	fixedHeader    = 12
	profileOneByte = 0xBEDE
	profileTwoByte = 0x1000
)

// MaxExtensions is the longest block of header extensions accepted, in bytes: elements are
// looked for one by one, several times per packet. The longest in use describe the layers of
// AV1 in less than 256.
const MaxExtensions = 512

// Header is the parsed fixed header of an RTP packet (RFC 3550 section 5.1) and
// where its extensions are. It aliases the packet it was parsed from.
type Header struct {
	PayloadType    uint8
	Marker         bool
	Padding        bool
	SequenceNumber uint16
	Timestamp      uint32
	SSRC           uint32
	// Size is the length of header, CSRCs and extensions, in bytes.
	Size int

	profile    uint16
	extensions []byte
}

// ParseHeader parses the header of an RTP packet; it may still be encrypted,
// SRTP leaves headers readable. It allocates nothing.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < fixedHeader {
		return Header{}, ErrShort
	}
	if b[0]>>6 != 2 {
		return Header{}, ErrVersion
	}
	h := Header{
		PayloadType:    b[1] & 0x7f,
		Marker:         b[1]&0x80 != 0,
		Padding:        b[0]&0x20 != 0,
		SequenceNumber: binary.BigEndian.Uint16(b[2:]),
		Timestamp:      binary.BigEndian.Uint32(b[4:]),
		SSRC:           binary.BigEndian.Uint32(b[8:]),
		Size:           fixedHeader + 4*int(b[0]&0x0f),
	}
	if len(b) < h.Size {
		return Header{}, ErrShort
	}
	if b[0]&0x10 == 0 {
		return h, nil
	}
	if len(b) < h.Size+4 {
		return Header{}, ErrShort
	}
	h.profile = binary.BigEndian.Uint16(b[h.Size:])
	n := 4 * int(binary.BigEndian.Uint16(b[h.Size+2:]))
	start := h.Size + 4
	if len(b) < start+n {
		return Header{}, ErrShort
	}
	if n > MaxExtensions {
		return Header{}, ErrLong
	}
	h.extensions = b[start : start+n]
	h.Size = start + n
	return h, nil
}

// Body returns the payload of the decrypted packet b that h was parsed from,
// without padding.
func (h *Header) Body(b []byte) ([]byte, error) {
	end := len(b)
	if end < h.Size {
		return nil, ErrShort
	}
	if h.Padding {
		if end == h.Size {
			return nil, ErrPadding
		}
		pad := int(b[end-1])
		if pad == 0 || pad > end-h.Size {
			return nil, ErrPadding
		}
		end -= pad
	}
	return b[h.Size:end], nil
}

// Extension returns the bytes of the header extension element with the given id
// (RFC 8285, one- and two-byte form), nil when there is none. Malformed elements
// end the search.
func (h *Header) Extension(id uint8) []byte {
	if id == 0 || len(h.extensions) == 0 {
		return nil
	}
	switch {
	case h.profile == profileOneByte:
		return oneByteElement(h.extensions, id)
	case h.profile&0xfff0 == profileTwoByte:
		return twoByteElement(h.extensions, id)
	}
	return nil
}

func oneByteElement(b []byte, id uint8) []byte {
	for len(b) > 0 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		got, n := b[0]>>4, int(b[0]&0x0f)+1
		if got == 15 || len(b) < 1+n {
			return nil
		}
		if got == id {
			return b[1 : 1+n]
		}
		b = b[1+n:]
	}
	return nil
}

func twoByteElement(b []byte, id uint8) []byte {
	for len(b) > 0 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		if len(b) < 2 {
			return nil
		}
		got, n := b[0], int(b[1])
		if len(b) < 2+n {
			return nil
		}
		if got == id {
			return b[2 : 2+n]
		}
		b = b[2+n:]
	}
	return nil
}
