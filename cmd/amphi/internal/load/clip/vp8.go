package clip

// descriptor is the length of what Describe writes.
const descriptor = 4

// Describe writes the VP8 payload descriptor (RFC 7741 section 4.2) with a 15-bit picture id, and then the
// payload, into buf, which it returns.
func Describe(buf []byte, picture uint16, p Payload) []byte {
	first := byte(0x80) // X: an extension follows
	if p.First {
		first |= 0x10 // S: start of partition 0
	}
	buf = append(buf[:0], first, 0x80, 0x80|byte(picture>>8)&0x7f, byte(picture))
	return append(buf, p.Data...)
}

// parse finds the length of the descriptor, and whether the packet begins a keyframe.
func parse(b []byte) (n int, startsKey, ok bool) {
	if len(b) < 1 {
		return 0, false, false
	}
	first := b[0]
	n = 1
	if first&0x80 != 0 {
		if len(b) < 2 {
			return 0, false, false
		}
		ext := b[1]
		n++
		if ext&0x80 != 0 { // picture id
			if len(b) <= n {
				return 0, false, false
			}
			if b[n]&0x80 != 0 {
				n++
			}
			n++
		}
		if ext&0x40 != 0 { // TL0PICIDX
			n++
		}
		if ext&0x30 != 0 { // TID, KEYIDX
			n++
		}
	}
	if len(b) <= n {
		return 0, false, false
	}
	return n, first&0x1f == 0x10 && b[n]&1 == 0, true
}

// StartsKeyframe tells whether a received VP8 packet is the first of a keyframe.
func StartsKeyframe(vp8 []byte) bool {
	_, starts, ok := parse(vp8)
	return ok && starts
}

// keyframe reads the frame tag (RFC 6386 section 9.1).
func keyframe(frame []byte) bool { return len(frame) > 0 && frame[0]&1 == 0 }

// header writes a plausible VP8 frame header, which is what an SFU looks at.
func header(frame []byte, isKey bool, width, height int) {
	if !isKey {
		frame[0] = frame[0]&^0x0f | 0x11
		return
	}
	frame[0] = frame[0]&^0x0f | 0x10
	copy(frame[3:], []byte{0x9d, 0x01, 0x2a, byte(width), byte(width >> 8), byte(height), byte(height >> 8)})
}
