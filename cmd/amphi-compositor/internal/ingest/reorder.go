package ingest

import "time"

// window is how many packets a stream may hold back, a power of two: two seconds of
// a 5 Mbit/s stream, or one large keyframe of a screen.
const window = 1024

// held is one packet that waits for its turn.
type held struct {
	used    bool
	marker  bool
	pt      uint8
	seq     uint16
	ts      uint32
	arrived time.Duration
	payload []byte
}

// reorder puts packets back in the order of their sequence numbers, and waits
// for missing ones no longer than it is told.
type reorder struct {
	started bool
	next    uint16
	count   int
	slots   [window]held
	// given are those that were waited for in vain last, with when their successor came.
	given      [16]uint16
	givenSince [16]time.Duration
	gaveUp     int // in all
}

// verdict says what became of a packet that was pushed.
type verdict uint8

const (
	accepted verdict = iota
	late             // older than what was given out, or a second copy
	jumped           // so far ahead that everything held was thrown away
)

func (r *reorder) push(p held) verdict {
	if !r.started {
		r.started, r.next = true, p.seq
	}
	d := int16(p.seq - r.next)
	v := accepted
	switch {
	case d < 0 && d > -window:
		return late
	case d < 0 || d >= window:
		clear(r.slots[:])
		r.count, r.next, r.gaveUp = 0, p.seq, 0
		v = jumped
	}
	s := &r.slots[p.seq%window]
	if s.used {
		return late
	}
	*s = p
	s.used = true
	r.count++
	return v
}

// pop gives out the next packet. lost is the number of packets given up before
// it: those missing for longer than hold since their successor came.
func (r *reorder) pop(now, hold time.Duration) (p held, lost int, ok bool) {
	if r.count == 0 {
		return held{}, 0, false
	}
	for s := &r.slots[r.next%window]; !s.used; s = &r.slots[r.next%window] {
		first, skip := r.first()
		if now-first.arrived < hold {
			return held{}, 0, false
		}
		for range skip {
			i := r.gaveUp % len(r.given)
			r.given[i], r.givenSince[i] = r.next, first.arrived
			r.gaveUp++
			r.next++
		}
		lost += skip
	}
	s := &r.slots[r.next%window]
	p = *s
	*s = held{}
	r.count--
	r.next++
	return p, lost, true
}

// missed tells how long after its successor a packet came that was given up; ok is false for all others, such as second copies.
func (r *reorder) missed(seq uint16, now time.Duration) (after time.Duration, ok bool) {
	for i := range min(r.gaveUp, len(r.given)) {
		if r.given[i] == seq {
			return now - r.givenSince[i], true
		}
	}
	return 0, false
}

// first is the earliest packet held, and how many are missing before it.
func (r *reorder) first() (p *held, skip int) {
	for i := range window {
		if s := &r.slots[(r.next+uint16(i))%window]; s.used {
			return s, i
		}
	}
	return nil, 0
}

// deadline is when pop gives up on what is missing; ok is false when nothing is
// held or the next packet is there.
func (r *reorder) deadline(hold time.Duration) (at time.Duration, ok bool) {
	if r.count == 0 || r.slots[r.next%window].used {
		return 0, false
	}
	p, _ := r.first()
	return p.arrived + hold, true
}
