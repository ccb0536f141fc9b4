// Package seq keeps RTP sequence numbers: it unwraps 16-bit numbers, and maps
// the numbers of changing sources onto one continuous output sequence.
package seq

// Unwrapper extends 16-bit sequence numbers to 64 bits that never repeat
// (RFC 3550 appendix A.1). The zero value is ready. Not safe for concurrent use.
type Unwrapper struct {
	highest uint64
	started bool
}

// Unwrap returns the extended number nearest to the highest seen; its low 16 bits are s.
func (u *Unwrapper) Unwrap(s uint16) uint64 {
	if !u.started {
		u.started = true
		// One full cycle of room below, for packets that come before the first.
		u.highest = 1<<16 | uint64(s)
		return u.highest
	}
	diff := int16(s - uint16(u.highest))
	ext := u.highest + uint64(int64(diff))
	if diff > 0 {
		u.highest = ext
	}
	return ext
}

// Above returns the lowest extended number above the highest seen whose low 16 bits are s: the
// sender has begun to count anew.
func (u *Unwrapper) Above(s uint16) uint64 {
	if !u.started {
		return u.Unwrap(s)
	}
	u.highest += 1 + uint64(s-uint16(u.highest+1))
	return u.highest
}

// Highest returns the highest number seen, 0 before the first.
func (u *Unwrapper) Highest() uint64 { return u.highest }

// Meta is what a span of output packets has in common besides the offset of the
// sequence: a retransmission made from it and the source packet is byte-identical.
type Meta struct {
	// Source tells which encoding the packets come from.
	Source uint32
	// Timestamp, Picture, TL0 and Frame (the frame number of a dependency descriptor) are
	// added to those of the source, wrapping, and so is Template to the ids of its templates.
	Timestamp      uint32
	Picture, Frame uint16
	TL0, Template  uint8
	// Spatial is the highest spatial layer forwarded, Targets the mask of decode targets, 0
	// for all.
	Spatial uint8
	Targets uint32
}

// spanCount bounds how far back a retransmission is found: with a frame dropped
// between every two forwarded ones it is 64 frames, two seconds at 30 fps.
const spanCount = 64

type span struct {
	first, last uint64 // source numbers, inclusive; last < first: nothing yet
	delta       uint64 // output = source - delta, wrapping
	meta        Meta
}

// Map turns sequence numbers of changing sources, some of whose packets are
// deliberately skipped, into one output sequence without gaps of its own making.
// Two packets never get the same output number unless they are the same packet.
// Not safe for concurrent use.
type Map struct {
	made  int             // spans made so far; the newest is spans[(made-1)%spanCount]
	next  uint64          // output number after the highest given or reserved
	spans [spanCount]span // last, so that the first ones share a cache line with what is above
}

// NewMap returns a Map whose first output number is start. It should be below
// 2^15 in its low 16 bits, or receivers may guess the SRTP rollover wrongly (RFC 3711
// section 3.3.1).
func NewMap(start uint64) *Map { return &Map{next: start} }

// Next returns the output number after the highest given so far.
func (m *Map) Next() uint64 { return m.next }

// Switch makes source packet ext the next output packet, with meta from then on.
// Packets of other sources, or older ones, are not forwarded any more.
func (m *Map) Switch(ext uint64, meta Meta) {
	m.push(span{first: ext, last: ext - 1, delta: ext - m.next, meta: meta})
}

// Change gives source packet ext and those after it another meta, whose Source is the same. It
// is false, and changes nothing, when a later packet was forwarded already.
func (m *Map) Change(ext uint64, meta Meta) bool {
	if m.made == 0 {
		return false
	}
	cur := m.newest()
	empty := cur.last+1 == cur.first
	switch {
	case cur.meta == meta:
		return true
	case ext < cur.first || !empty && ext <= cur.last:
		return false
	case empty && ext == cur.first:
		cur.meta = meta
		return true
	}
	// What is missing before ext may still come: reserve its numbers.
	cur.last = ext - 1
	m.next = max(m.next, cur.last-cur.delta+1)
	m.push(span{first: ext, last: ext - 1, delta: cur.delta, meta: meta})
	return true
}

// Meta returns the newest meta, zero before the first Switch.
func (m *Map) Meta() Meta {
	if m.made == 0 {
		return Meta{}
	}
	return m.newest().meta
}

// Forward returns the output number of source packet ext and what to add to its
// fields. It is false for packets from before the source's start and for skipped ones.
func (m *Map) Forward(ext uint64) (uint64, Meta, bool) {
	if m.made == 0 {
		return 0, Meta{}, false
	}
	cur := m.newest()
	if ext >= cur.first {
		if ext+1 > cur.last+1 {
			cur.last = ext
		}
		out := ext - cur.delta
		m.next = max(m.next, out+1)
		return out, cur.meta, true
	}
	source := cur.meta.Source
	for i := 1; i < min(m.made, spanCount); i++ {
		s := &m.spans[(m.made-1-i)%spanCount]
		if s.meta.Source != source {
			return 0, Meta{}, false
		}
		if ext > s.last && s.last+1 != s.first {
			return 0, Meta{}, false
		}
		if ext >= s.first && ext <= s.last {
			return ext - s.delta, s.meta, true
		}
	}
	return 0, Meta{}, false
}

// Skip leaves source packet ext out, so that the next one follows without a gap.
// A packet older than the newest forwarded cannot be skipped any more: its number
// is reserved, and a receiver that asks for it is answered.
// pictures and tl0 are subtracted from those counters of all later packets.
func (m *Map) Skip(ext uint64, pictures uint16, tl0 uint8) {
	if m.made == 0 {
		return
	}
	cur := m.newest()
	if ext < cur.first || ext <= cur.last && cur.last+1 != cur.first {
		return
	}
	meta := cur.meta
	meta.Picture -= pictures
	meta.TL0 -= tl0
	if ext == cur.first { // nothing forwarded in this span: move it
		cur.first, cur.last, cur.delta, cur.meta = ext+1, ext, cur.delta+1, meta
		return
	}
	// What is missing between the newest and ext may still come: reserve its numbers.
	cur.last = ext - 1
	m.next = max(m.next, cur.last-cur.delta+1)
	m.push(span{first: ext + 1, last: ext, delta: cur.delta + 1, meta: meta})
}

// Extend returns the full output number for its low 16 bits: the nearest one below Next.
func (m *Map) Extend(out uint16) uint64 { return m.next - 1 - uint64(uint16(m.next-1)-out) }

// Lookup finds the source packet behind output number out, as a receiver names it.
func (m *Map) Lookup(out uint16) (uint64, Meta, bool) {
	ext64 := m.Extend(out)
	for i := range min(m.made, spanCount) {
		s := &m.spans[(m.made-1-i)%spanCount]
		if s.last+1 == s.first {
			continue
		}
		if src := ext64 + s.delta; src >= s.first && src <= s.last {
			return src, s.meta, true
		}
	}
	return 0, Meta{}, false
}

func (m *Map) newest() *span { return &m.spans[(m.made-1)%spanCount] }

func (m *Map) push(s span) {
	m.spans[m.made%spanCount] = s
	m.made++
}
