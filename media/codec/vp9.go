package codec

import "github.com/amphi-sfu/amphi/media/packet"

// VP9Payload is what a VP9 payload descriptor tells.
type VP9Payload struct {
	Spatial, Temporal uint8
	// Start and End say that the packet is the first or the last of its layer frame.
	Start, End bool
	// Inter says that the frame needs frames of earlier pictures.
	Inter bool
	// SwitchUp says that frames of higher temporal layers that follow need nothing of
	// those layers from before this picture.
	SwitchUp bool
	// NotForUpper says that no higher spatial layer of the picture needs the frame.
	NotForUpper bool
	// Layers is the number of spatial layers, and Sizes theirs, where the packet says so.
	Layers   uint8
	Sizes    [maxSpatial]Size
	Counters packet.Counters
}

// ParseVP9 reads the payload descriptor of RFC 9628 section 4.2. It does not look at the
// frame itself.
func ParseVP9(b []byte) (v VP9Payload, err error) {
	r := byteReader{b: b}
	first := r.next()
	v.Inter, v.Start, v.End = first&0x40 != 0, first&0x08 != 0, first&0x04 != 0
	v.NotForUpper = first&0x01 != 0
	if first&0x80 != 0 {
		v.Counters.PictureIDAt, v.Counters.Gaps = uint8(r.at), true
		id := r.next()
		v.Counters.PictureID = uint16(id & 0x7f)
		if id&0x80 != 0 {
			v.Counters.LongID = true
			v.Counters.PictureID = v.Counters.PictureID<<8 | uint16(r.next())
		}
	}
	flexible := first&0x10 != 0
	if first&0x20 != 0 {
		layers := r.next()
		v.Temporal, v.SwitchUp, v.Spatial = layers>>5, layers&0x10 != 0, layers>>1&0x07
		if !flexible {
			v.Counters.TL0At = uint8(r.at)
			v.Counters.TL0PicIdx = r.next()
		}
	}
	if flexible && v.Inter {
		for n := 1; r.next()&0x01 != 0; n++ {
			if n == 3 {
				return v, ErrPayload
			}
		}
	}
	if first&0x02 != 0 {
		v.scalability(&r)
	}
	if r.failed || r.at >= len(b) {
		return v, ErrPayload
	}
	return v, nil
}

// scalability reads the scalability structure.
func (v *VP9Payload) scalability(r *byteReader) {
	head := r.next()
	v.Layers = head>>5 + 1
	if head&0x10 != 0 {
		for i := range v.Layers {
			size := Size{Width: int(r.next())<<8 | int(r.next())}
			size.Height = int(r.next())<<8 | int(r.next())
			if int(i) < len(v.Sizes) {
				v.Sizes[i] = size
			}
		}
	}
	if head&0x08 == 0 {
		return
	}
	for range r.next() {
		for range r.next() >> 2 & 0x03 {
			r.next()
		}
	}
}

// byteReader reads bytes; reading past the end gives zeros and sets failed.
type byteReader struct {
	b      []byte
	at     int
	failed bool
}

func (r *byteReader) next() byte {
	if r.at >= len(r.b) {
		r.failed = true
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

// leb128 reads the variable-length integer of AV1 section 4.10.5, of at most 32 bits.
func (r *byteReader) leb128() int {
	v := uint64(0)
	for i := range 8 {
		b := r.next()
		v |= uint64(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			break
		}
	}
	return int(min(v, 1<<31-1))
}
