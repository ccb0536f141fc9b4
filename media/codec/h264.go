package codec

import "encoding/binary"

// NAL unit types of H.264 and of RFC 6184 section 5.2.
const (
	nalIDR   = 5
	nalSPS   = 7
	nalSTAPA = 24
	nalFUA   = 28
	maxNALs  = 64
)

// H264Payload is what the payload of a packet of H.264 tells.
type H264Payload struct {
	// Keyframe says that the packet begins a keyframe. The packet with the parameter set
	// does, and so does one that begins an IDR picture, for encoders that sent the set
	// long ago; the caller, who knows what came before, drops the second of both.
	Keyframe bool
	// Size is that of a sequence parameter set in the packet, zero when there is none.
	Size Size
}

// ParseH264 reads the payload format of RFC 6184 (packetization mode 1). Where frames
// begin is not in the payload: the caller finds it from timestamps and markers.
func ParseH264(b []byte) (v H264Payload, err error) {
	if len(b) < 2 {
		return v, ErrPayload
	}
	switch t := b[0] & 0x1f; {
	case t >= 1 && t <= 23:
		v.unit(b)
		return v, nil
	case t == nalSTAPA:
		return v, v.aggregate(b[1:])
	case t == nalFUA:
		v.Keyframe = b[1]&0x80 != 0 && b[1]&0x1f == nalIDR
		return v, nil
	}
	return v, ErrPayload
}

// aggregate reads the units of a STAP-A.
func (v *H264Payload) aggregate(b []byte) error {
	for range maxNALs {
		if len(b) == 0 {
			return nil
		}
		if len(b) < 2 {
			return ErrPayload
		}
		n := int(binary.BigEndian.Uint16(b))
		if n == 0 || len(b) < 2+n {
			return ErrPayload
		}
		v.unit(b[2 : 2+n])
		b = b[2+n:]
	}
	return ErrPayload
}

func (v *H264Payload) unit(nal []byte) {
	switch nal[0] & 0x1f {
	case nalIDR:
		v.Keyframe = true
	case nalSPS:
		v.Keyframe = true
		if size := spsSize(nal[1:]); size != (Size{}) {
			v.Size = size
		}
	}
}

// spsSize reads the picture size from a sequence parameter set (H.264 section
// 7.3.2.1.1), zero when it cannot be understood.
func spsSize(rbsp []byte) Size {
	r := bitReader{b: rbsp}
	profile := r.bits(8)
	r.bits(16) // constraint flags, level
	r.ue()     // seq_parameter_set_id
	chroma := uint32(1)
	switch profile {
	case 100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135:
		chroma = r.ue()
		if chroma == 3 {
			r.bits(1)
		}
		r.ue()
		r.ue()
		r.bits(1)
		if r.bits(1) == 1 {
			return Size{} // scaling lists: no live encoder sends them
		}
	}
	r.ue() // log2_max_frame_num_minus4
	switch r.ue() {
	case 0:
		r.ue()
	case 1:
		r.bits(1)
		r.ue()
		r.ue()
		n := r.ue()
		if n > 255 {
			return Size{}
		}
		for range n {
			r.ue()
		}
	}
	r.ue() // max_num_ref_frames
	r.bits(1)
	width := (r.ue() + 1) * 16
	height := (r.ue() + 1) * 16
	if frameOnly := r.bits(1); frameOnly == 0 {
		height *= 2
		r.bits(1)
	}
	r.bits(1) // direct_8x8_inference_flag
	if r.bits(1) == 1 {
		unitX, unitY := uint32(2), uint32(2)
		if chroma == 0 || chroma == 3 {
			unitX, unitY = 1, 1
		}
		left, right, top, bottom := r.ue(), r.ue(), r.ue(), r.ue()
		width -= unitX * (left + right)
		height -= unitY * (top + bottom)
	}
	if r.failed || width == 0 || height == 0 || width > 16384 || height > 16384 {
		return Size{}
	}
	return Size{Width: int(width), Height: int(height)}
}

// bitReader reads a raw byte sequence payload, passing over emulation prevention bytes
// unless it is plain.
type bitReader struct {
	b      []byte
	plain  bool
	at     int
	bit    uint
	zeros  int
	failed bool
}

func (r *bitReader) bits(n int) uint32 {
	var v uint32
	for range n {
		if r.bit == 0 && r.zeros == 2 && !r.plain && r.at < len(r.b) && r.b[r.at] == 3 {
			r.at++
			r.zeros = 0
		}
		if r.at >= len(r.b) {
			r.failed = true
			return 0
		}
		v = v<<1 | uint32(r.b[r.at]>>(7-r.bit)&1)
		if r.bit++; r.bit == 8 {
			if r.b[r.at] == 0 {
				r.zeros++
			} else {
				r.zeros = 0
			}
			r.bit = 0
			r.at++
		}
	}
	return v
}

// ue reads an Exp-Golomb code (H.264 section 9.1).
func (r *bitReader) ue() uint32 {
	n := 0
	for r.bits(1) == 0 {
		if n++; n > 31 || r.failed {
			r.failed = true
			return 0
		}
	}
	return 1<<n - 1 + r.bits(n)
}
