package bwe

import "time"

const (
	minHistory = 256
	maxHistory = 8192
	// historyAge is how long a packet that nobody reported is remembered.
	historyAge = 1200 * time.Millisecond
)

type fate uint8

const (
	inFlight fate = iota
	arrived
	lost
)

// sentPacket is one packet in the history. Times are the sender's and the
// receiver's clock.
type sentPacket struct {
	sent    time.Duration
	arrival time.Duration
	size    uint16
	probe   uint8 // cluster id, 0 for none
	fate    fate
}

// history is a ring of sent packets by transport-wide sequence; it grows only as
// far as packets are in flight.
type history struct {
	ring  []sentPacket
	first uint64 // oldest sequence held
	next  uint64 // sequence of the next packet
}

func (h *history) add(p sentPacket) uint64 {
	if h.ring == nil {
		h.ring = make([]sentPacket, minHistory)
	}
	if h.next-h.first == uint64(len(h.ring)) {
		if oldest := h.at(h.first); p.sent-oldest.sent < historyAge && len(h.ring) < maxHistory {
			h.grow()
		} else {
			h.first++
		}
	}
	seq := h.next
	h.next++
	*h.at(seq) = p
	return seq
}

func (h *history) at(seq uint64) *sentPacket { return &h.ring[seq&uint64(len(h.ring)-1)] }

func (h *history) grow() {
	bigger := make([]sentPacket, 2*len(h.ring))
	for seq := h.first; seq < h.next; seq++ {
		bigger[seq&uint64(len(bigger)-1)] = *h.at(seq)
	}
	h.ring = bigger
}

// lookup finds the packet with the wire sequence seq, the newest one there can be.
func (h *history) lookup(seq uint16) (uint64, bool) {
	if h.next == 0 {
		return 0, false
	}
	newest := h.next - 1
	full := newest - uint64(uint16(newest)-seq)
	return full, full >= h.first && full <= newest
}
