package descriptor

// bitReader reads big-endian bit fields; reading past the end sets failed.
type bitReader struct {
	b      []byte
	at     int // bits read
	failed bool
}

func (r *bitReader) bits(n int) uint32 {
	if r.at+n > 8*len(r.b) {
		r.failed = true
		return 0
	}
	var v uint32
	for n > 0 {
		free := 8 - r.at&7
		take := min(free, n)
		v = v<<take | uint32(r.b[r.at>>3])>>(free-take)&(1<<take-1)
		r.at += take
		n -= take
	}
	return v
}

func (r *bitReader) flag() bool { return r.bits(1) == 1 }

// nonSymmetric reads ns(n) of the AV1 specification, section 4.10.7.
func (r *bitReader) nonSymmetric(n int) uint32 {
	w := 0
	for x := n; x != 0; x >>= 1 {
		w++
	}
	m := uint32(1)<<w - uint32(n)
	v := r.bits(w - 1)
	if v < m {
		return v
	}
	return v<<1 - m + r.bits(1)
}

// bitWriter appends bit fields to a slice.
type bitWriter struct {
	b    []byte
	free int // unused bits of the last byte
}

func (w *bitWriter) bits(v uint32, n int) {
	for n > 0 {
		if w.free == 0 {
			w.b = append(w.b, 0)
			w.free = 8
		}
		take := min(w.free, n)
		part := byte(v >> (n - take) & (1<<take - 1))
		w.b[len(w.b)-1] |= part << (w.free - take)
		w.free -= take
		n -= take
	}
}

// copy appends bits [from, to) of b.
func (w *bitWriter) copy(b []byte, from, to int) {
	r := bitReader{b: b, at: from}
	for r.at < to && !r.failed {
		n := min(24, to-r.at)
		w.bits(r.bits(n), n)
	}
}
