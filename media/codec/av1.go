package codec

// AV1Payload is what the payload of a packet of AV1 tells.
type AV1Payload struct {
	// Keyframe says that the packet begins a coded video sequence.
	Keyframe bool
	// Size is that of a sequence header in it, zero otherwise.
	Size Size
}

// obuSequenceHeader is the type of the only OBU that is looked into (AV1 section 6.2.2).
const obuSequenceHeader = 1

// ParseAV1 reads the aggregation header of the AV1 RTP payload format, section 4.4, and
// the size of the picture where a coded video sequence begins. Where frames begin is not in
// the payload: the caller finds it from timestamps.
func ParseAV1(b []byte) (v AV1Payload, err error) {
	r := byteReader{b: b}
	head := r.next()
	if len(b) < 2 || head&0x88 == 0x88 { // a sequence cannot begin within an OBU
		return v, ErrPayload
	}
	v.Keyframe = head&0x08 != 0
	if !v.Keyframe {
		return v, nil
	}
	count := int(head >> 4 & 0x03) // elements; 0: all have a length
	for n := 1; r.at < len(b) && n < maxNALs; n++ {
		size := len(b) - r.at
		if n != count {
			if size = r.leb128(); r.failed || size > len(b)-r.at {
				return v, ErrPayload
			}
		}
		if obu := b[r.at : r.at+size]; len(obu) > 0 && obu[0]>>3&0x0f == obuSequenceHeader {
			v.Size = sequenceSize(obu)
			return v, nil
		}
		r.at += size
	}
	return v, nil
}

// sequenceSize reads the largest picture size from a sequence header OBU (AV1 section 5.5),
// zero when it cannot be understood.
func sequenceSize(obu []byte) Size {
	r := byteReader{b: obu}
	head := r.next()
	if head&0x04 != 0 {
		r.next()
	}
	if head&0x02 != 0 {
		r.leb128()
	}
	b := bitReader{b: obu[min(r.at, len(obu)):], plain: true}
	b.bits(4) // seq_profile, still_picture
	if reduced := b.bits(1); reduced == 1 {
		b.bits(5)
	} else {
		operatingPoints(&b)
	}
	w, h := int(b.bits(4))+1, int(b.bits(4))+1
	size := Size{Width: int(b.bits(w)) + 1, Height: int(b.bits(h)) + 1}
	if b.failed {
		return Size{}
	}
	return size
}

// operatingPoints passes over what precedes the size in a sequence header.
func operatingPoints(b *bitReader) {
	model, delay := false, 0
	if b.bits(1) == 1 { // timing_info_present_flag
		b.bits(32)
		b.bits(32)
		if b.bits(1) == 1 { // equal_picture_interval
			b.ue() // uvlc has the form of Exp-Golomb
		}
		if model = b.bits(1) == 1; model {
			delay = int(b.bits(5)) + 1
			b.bits(32)
			b.bits(10)
		}
	}
	initial := b.bits(1) == 1
	for range b.bits(5) + 1 {
		b.bits(12)
		if level := b.bits(5); level > 7 {
			b.bits(1)
		}
		if model && b.bits(1) == 1 {
			b.bits(delay)
			b.bits(delay)
			b.bits(1)
		}
		if initial && b.bits(1) == 1 {
			b.bits(4)
		}
	}
}
