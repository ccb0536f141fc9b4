package descriptor

// Edit is how a descriptor changes on its way to one receiver.
type Edit struct {
	// Number is added to the frame number and Templates to the ids of templates, wrapping:
	// the numbers of another stream go on where those of the one before ended, and its
	// templates are not mistaken for them.
	Number    uint16
	Templates uint8
	// Active is the mask of decode targets that the receiver gets of those the publisher
	// sends, 0 for all.
	Active uint32
}

// Append appends the descriptor raw, which was parsed to f, with an edit. The first packet
// of a frame that needs no other one always carries the structure, and the first
// packet of any frame the mask, when the edit has one: what the receiver has to know
// must not depend on a frame that it is not sent. The result depends on nothing else, so a
// packet sent twice is the same twice. At most MaxSize bytes are appended.
func (f *Frame) Append(dst, raw []byte, e Edit) []byte {
	start := len(dst)
	number := uint16(f.Number) + e.Number
	id := (raw[0] + e.Templates) & 0x3f
	dst = append(dst, raw[0]&0xc0|id, byte(number>>8), byte(number))
	insert := f.First && f.Independent() && !f.HasStructure()
	mask := e.Active != 0 && f.First
	if len(raw) == 3 && !insert && !mask {
		return dst
	}
	flags := f.flags
	if insert {
		flags |= hasStructure
	}
	if mask {
		flags |= hasMask
	}
	w := bitWriter{b: dst}
	w.bits(uint32(flags), 5)
	st := f.Structure
	if flags&hasStructure != 0 {
		w.bits(uint32(st.offset+e.Templates)&0x3f, 6)
		w.copy(st.raw, 6, st.bits)
	}
	rest := int(f.maskAt)
	switch {
	case mask:
		w.bits(f.Active&e.Active, len(st.Targets))
	case f.flags&hasMask != 0:
		w.copy(raw, rest, rest+len(st.Targets))
	case insert && f.Active != st.All():
		// The structure would set all targets active again.
		w.b[start+3] |= hasMask << 3
		w.bits(f.Active, len(st.Targets))
	}
	if f.flags&hasMask != 0 {
		rest += len(st.Targets)
	}
	w.copy(raw, rest, int(f.endAt))
	if len(w.b)-start > MaxSize { // a long structure into a long descriptor: rather without
		return append(w.b[:start+3], raw[3:]...)
	}
	return w.b
}
