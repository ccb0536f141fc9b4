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

// VP8Payload is what a VP8 payload tells.
type VP8Payload struct {
	Temporal uint8
	// SwitchUp says that a receiver of lower temporal layers only may go on with this
	// frame (the Y bit).
	SwitchUp        bool
	Start, Keyframe bool
	// Size is that of a keyframe, zero otherwise.
	Size     Size
	Counters packet.Counters
}

// ParseVP8 reads the payload descriptor of RFC 7741 section 4.2, and the header of the
// frame where it begins.
func ParseVP8(b []byte) (v VP8Payload, err error) {
	if len(b) < 1 {
		return v, ErrPayload
	}
	first := b[0]
	at := 1
	if first&0x80 != 0 {
		if at, err = v.extension(b); err != nil {
			return v, err
		}
	}
	if at >= len(b) {
		return v, ErrPayload
	}
	v.Start = first&0x10 != 0 && first&0x07 == 0
	if !v.Start || b[at]&0x01 != 0 {
		return v, nil
	}
	// An uncompressed chunk of ten bytes begins a keyframe (RFC 6386 section 9.1).
	if len(b) < at+10 || b[at+3] != 0x9d || b[at+4] != 0x01 || b[at+5] != 0x2a {
		return v, ErrPayload
	}
	v.Keyframe = true
	v.Size = Size{
		Width:  int(binary.LittleEndian.Uint16(b[at+6:]) & 0x3fff),
		Height: int(binary.LittleEndian.Uint16(b[at+8:]) & 0x3fff),
	}
	return v, nil
}

// extension reads the optional fields and returns where the frame's data begins.
func (v *VP8Payload) extension(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, ErrPayload
	}
	flags, at := b[1], 2
	if flags&0x80 != 0 {
		if len(b) < at+1 {
			return 0, ErrPayload
		}
		v.Counters.PictureIDAt = uint8(at)
		v.Counters.PictureID = uint16(b[at] & 0x7f)
		if b[at]&0x80 != 0 {
			if len(b) < at+2 {
				return 0, ErrPayload
			}
			v.Counters.LongID = true
			v.Counters.PictureID = binary.BigEndian.Uint16(b[at:]) & 0x7fff
			at++
		}
		at++
	}
	if flags&0x40 != 0 {
		if len(b) < at+1 {
			return 0, ErrPayload
		}
		v.Counters.TL0At = uint8(at)
		v.Counters.TL0PicIdx = b[at]
		at++
	}
	if flags&0x30 != 0 {
		if len(b) < at+1 {
			return 0, ErrPayload
		}
		if flags&0x20 != 0 {
			v.Temporal = b[at] >> 6
			v.SwitchUp = b[at]&0x20 != 0
		}
		at++
	}
	return at, nil
}

// RewriteCounters adds the deltas to the counters in payload, which is a copy of that
// of a packet whose descriptor c locates. A 7-bit picture id wraps at 7 bits.
func RewriteCounters(payload []byte, c packet.Counters, picture uint16, tl0 uint8) {
	if c.PictureIDAt != 0 {
		id := c.PictureID + picture
		if c.LongID {
			binary.BigEndian.PutUint16(payload[c.PictureIDAt:], 0x8000|id&0x7fff)
		} else {
			payload[c.PictureIDAt] = byte(id) & 0x7f
		}
	}
	if c.TL0At != 0 {
		payload[c.TL0At] = c.TL0PicIdx + tl0
	}
}
