// Package red reads and writes the payload format for redundant audio (RFC 2198): one
// frame, and before it some that were sent earlier already. Nothing is allocated.
package red

import "errors"

const (
	// MaxBlocks is how many frames a packet may carry; senders use two or three.
	MaxBlocks = 8
	// MaxOffset is how far back a redundant frame may be, in timestamp units, and MaxFrame
	// how long it may be, in bytes: what the fields of a header hold.
	MaxOffset = 1<<14 - 1
	MaxFrame  = 1<<10 - 1
	// HeaderSize is the header of a redundant frame, PrimarySize that of the newest one, in bytes.
	HeaderSize  = 4
	PrimarySize = 1
)

// ErrMalformed is returned for a payload whose headers do not fit what follows.
var ErrMalformed = errors.New("malformed redundant audio")

// Block is one frame of a packet.
type Block struct {
	PayloadType uint8
	// Offset is subtracted from the packet's timestamp; 0 for the newest frame.
	Offset uint16
	// Data aliases what was parsed.
	Data []byte
}

// Parse appends the frames of a payload to dst as they come: the newest one is the last.
func Parse(payload []byte, dst []Block) ([]Block, error) {
	start := len(dst)
	var sizes [MaxBlocks]int
	b := payload
	for {
		n := len(dst) - start
		if len(b) < PrimarySize || n == MaxBlocks {
			return dst[:start], ErrMalformed
		}
		if b[0]&0x80 == 0 {
			dst = append(dst, Block{PayloadType: b[0]})
			b = b[PrimarySize:]
			break
		}
		if len(b) < HeaderSize {
			return dst[:start], ErrMalformed
		}
		sizes[n] = int(b[2]&0x03)<<8 | int(b[3])
		dst = append(dst, Block{PayloadType: b[0] & 0x7f, Offset: uint16(b[1])<<6 | uint16(b[2])>>2})
		b = b[HeaderSize:]
	}
	blocks := dst[start:]
	for i := range blocks[:len(blocks)-1] {
		if sizes[i] > len(b) {
			return dst[:start], ErrMalformed
		}
		blocks[i].Data, b = b[:sizes[i]:sizes[i]], b[sizes[i]:]
	}
	blocks[len(blocks)-1].Data = b
	return dst, nil
}

// Append writes a payload of the given blocks, the newest one last, after dst. Offsets and
// sizes must be within MaxOffset and MaxFrame; the newest block's may be any size.
func Append(dst []byte, blocks []Block) []byte {
	for i, b := range blocks {
		if i == len(blocks)-1 {
			dst = append(dst, b.PayloadType&0x7f)
			break
		}
		n := len(b.Data)
		dst = append(dst, 0x80|b.PayloadType, byte(b.Offset>>6), byte(b.Offset<<2)|byte(n>>8), byte(n))
	}
	for _, b := range blocks {
		dst = append(dst, b.Data...)
	}
	return dst
}
