// Package ring keeps the recent packets of one encoding, shared by all its
// subscribers: retransmissions are answered and newcomers started from it.
package ring

import (
	"sync"

	"github.com/amphi-sfu/amphi/media/packet"
)

// Verdict is what Put made of a packet.
type Verdict uint8

// Verdicts.
const (
	Stored Verdict = iota
	Duplicate
	TooOld
)

// Ring holds the newest packets by extended sequence number. It is safe for
// concurrent use.
type Ring struct {
	mu       sync.Mutex // guards the fields below
	slots    []*packet.Packet
	highest  uint64
	keyframe uint64 // first packet of the newest keyframe, 0 when there is none
	started  bool
}

// New returns a ring of size packets, rounded up to a power of two, at least 16.
func New(size int) *Ring {
	n := 16
	for n < size {
		n *= 2
	}
	return &Ring{slots: make([]*packet.Packet, n)}
}

// Put stores p, retaining it, and lets go of the packet whose place it takes.
// Duplicates, and packets older than all that the ring can hold, are refused.
func (r *Ring) Put(p *packet.Packet) Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := uint64(len(r.slots))
	if r.started && p.ExtSeq+size <= r.highest {
		return TooOld
	}
	slot := &r.slots[p.ExtSeq&(size-1)]
	if old := *slot; old != nil {
		if old.ExtSeq == p.ExtSeq {
			return Duplicate
		}
		old.Release()
	}
	p.Retain()
	*slot = p
	if p.Keyframe && p.ExtSeq > r.keyframe {
		r.keyframe = p.ExtSeq
	}
	if !r.started || p.ExtSeq > r.highest {
		r.started, r.highest = true, p.ExtSeq
	}
	return Stored
}

// Packet returns packet ext with a reference for the caller, nil when the ring
// does not hold it.
func (r *Ring) Packet(ext uint64) *packet.Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.packetLocked(ext)
}

func (r *Ring) packetLocked(ext uint64) *packet.Packet {
	p := r.slots[ext&uint64(len(r.slots)-1)]
	if p == nil || p.ExtSeq != ext {
		return nil
	}
	p.Retain()
	return p
}

// HasTimestamp says whether one of the newest n packets has the RTP timestamp ts.
func (r *Ring) HasTimestamp(ts uint32, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range min(uint64(n), uint64(len(r.slots)), r.highest) {
		ext := r.highest - i
		if p := r.slots[ext&uint64(len(r.slots)-1)]; p != nil && p.ExtSeq == ext && p.Timestamp == ts {
			return true
		}
	}
	return false
}

// SinceKeyframe appends to dst the newest keyframe and all that followed it,
// with references for the caller, when that is at most limit packets and nothing
// of it is missing. Otherwise it returns dst as it was.
func (r *Ring) SinceKeyframe(dst []*packet.Packet, limit int) []*packet.Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keyframe == 0 || r.keyframe+uint64(len(r.slots)) <= r.highest {
		return dst
	}
	if r.highest-r.keyframe >= uint64(limit) {
		return dst
	}
	start := len(dst)
	for ext := r.keyframe; ext <= r.highest; ext++ {
		p := r.packetLocked(ext)
		if p == nil {
			for _, q := range dst[start:] {
				q.Release()
			}
			return dst[:start]
		}
		dst = append(dst, p)
	}
	return dst
}

// Keyframe returns the first packet of the newest keyframe, when SinceKeyframe with the same limit
// would return something.
func (r *Ring) Keyframe(limit int) (ext uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keyframe == 0 || r.highest-r.keyframe >= uint64(min(limit, len(r.slots))) {
		return 0, false
	}
	for ext := r.keyframe; ext <= r.highest; ext++ {
		if p := r.slots[ext&uint64(len(r.slots)-1)]; p == nil || p.ExtSeq != ext {
			return 0, false
		}
	}
	return r.keyframe, true
}

// Newest appends to dst the newest packets, at most limit and without a gap, with references
// for the caller.
func (r *Ring) Newest(dst []*packet.Packet, limit int) []*packet.Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started {
		return dst
	}
	first := r.highest + 1
	for range limit {
		p := r.slots[(first-1)&uint64(len(r.slots)-1)]
		if p == nil || p.ExtSeq != first-1 {
			break
		}
		first--
	}
	for ext := first; ext <= r.highest; ext++ {
		dst = append(dst, r.packetLocked(ext))
	}
	return dst
}

// Highest returns the highest number stored, 0 before the first.
func (r *Ring) Highest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.highest
}

// Clear lets go of all packets.
func (r *Ring) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range r.slots {
		if p != nil {
			p.Release()
			r.slots[i] = nil
		}
	}
	r.keyframe = 0
}
