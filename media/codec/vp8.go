package codec

import (
	"encoding/binary"
	"errors"

	"github.com/amphi-sfu/amphi/media/packet"
)

// ErrPayload is returned for a payload that is not what its codec prescribes.
var ErrPayload = errors.New("malformed payload")

// Size is that of a picture in pixels; zero when unknown.
type Size struct {
	Width, Height int
}

// ParseVP8 reads the payload descriptor of RFC 7741 section 4.2, and the header of the
// frame where it begins, into p. The size is that of a keyframe, zero otherwise.
func ParseVP8(p *packet.Packet) (Size, error) {
	b := p.Payload
	if len(b) < 1 {
		return Size{}, ErrPayload
	}
	first := b[0]
	at := 1
	if first&0x80 != 0 {
		n, err := vp8Extension(p, b)
		if err != nil {
			return Size{}, err
		}
		at = n
	}
	if at >= len(b) {
		return Size{}, ErrPayload
	}
	p.StartOfFrame = first&0x10 != 0 && first&0x07 == 0
	if !p.StartOfFrame || b[at]&0x01 != 0 {
		return Size{}, nil
	}
	// An uncompressed chunk of ten bytes begins a keyframe (RFC 6386 section 9.1).
	if len(b) < at+10 || b[at+3] != 0x9d || b[at+4] != 0x01 || b[at+5] != 0x2a {
		return Size{}, ErrPayload
	}
	p.Keyframe = true
	return Size{
		Width:  int(binary.LittleEndian.Uint16(b[at+6:]) & 0x3fff),
		Height: int(binary.LittleEndian.Uint16(b[at+8:]) & 0x3fff),
	}, nil
}

// vp8Extension reads the optional fields and returns where the frame's data begins.
func vp8Extension(p *packet.Packet, b []byte) (int, error) {
	if len(b) < 2 {
		return 0, ErrPayload
	}
	flags, at := b[1], 2
	if flags&0x80 != 0 {
		if len(b) < at+1 {
			return 0, ErrPayload
		}
		p.VP8.PictureIDAt = uint8(at)
		p.VP8.PictureID = uint16(b[at] & 0x7f)
		if b[at]&0x80 != 0 {
			if len(b) < at+2 {
				return 0, ErrPayload
			}
			p.VP8.LongID = true
			p.VP8.PictureID = binary.BigEndian.Uint16(b[at:]) & 0x7fff
			at++
		}
		at++
	}
	if flags&0x40 != 0 {
		if len(b) < at+1 {
			return 0, ErrPayload
		}
		p.VP8.TL0At = uint8(at)
		p.VP8.TL0PicIdx = b[at]
		at++
	}
	if flags&0x30 != 0 {
		if len(b) < at+1 {
			return 0, ErrPayload
		}
		if flags&0x20 != 0 {
			p.Temporal = b[at] >> 6
			p.SwitchUp = b[at]&0x20 != 0
		}
		at++
	}
	return at, nil
}

// RewriteVP8 adds the deltas to the counters in payload, which is a copy of that
// of a packet whose descriptor v locates. A 7-bit picture id wraps at 7 bits.
func RewriteVP8(payload []byte, v packet.VP8, picture uint16, tl0 uint8) {
	if v.PictureIDAt != 0 {
		id := v.PictureID + picture
		if v.LongID {
			binary.BigEndian.PutUint16(payload[v.PictureIDAt:], 0x8000|id&0x7fff)
		} else {
			payload[v.PictureIDAt] = byte(id) & 0x7f
		}
	}
	if v.TL0At != 0 {
		payload[v.TL0At] = v.TL0PicIdx + tl0
	}
}
