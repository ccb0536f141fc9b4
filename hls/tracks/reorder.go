package tracks

import (
	"time"

	"github.com/amphi-sfu/amphi/media/packet"
)

// maxHeld is how many packets of one track may wait for one that is missing: a second of 15 Mbit/s.
const maxHeld = 2048

// beginning is how long the first packet waits for earlier ones, in nanoseconds.
const beginning = int64(100 * time.Millisecond)

// reorder puts packets back in order. It owns a reference to each packet that it holds, and gives it away with the packet.
type reorder struct {
	started bool
	next    uint64
	held    []*packet.Packet // by number
	late    int64
}

// push takes a packet and the caller's reference to it.
func (r *reorder) push(p *packet.Packet) {
	i := len(r.held)
	for i > 0 && r.held[i-1].ExtSeq > p.ExtSeq {
		i--
	}
	if r.started && p.ExtSeq < r.next || i > 0 && r.held[i-1].ExtSeq == p.ExtSeq {
		r.late++
		p.Release()
		return
	}
	r.held = append(r.held, nil)
	copy(r.held[i+1:], r.held[i:])
	r.held[i] = p
}

// pop gives out the next packet, and how many are missing in front of it; those have been waited for until now, in nanoseconds of
// arrival times, for longer than wait. It returns nil when there is none yet.
func (r *reorder) pop(now, wait int64) (p *packet.Packet, missing uint64) {
	if len(r.held) == 0 {
		return nil, 0
	}
	p = r.held[0]
	if !r.started {
		if now-p.ArrivalNS < min(wait, beginning) {
			return nil, 0
		}
		r.started, r.next = true, p.ExtSeq
	}
	if missing = p.ExtSeq - r.next; missing > 0 && now-p.ArrivalNS < wait && len(r.held) < maxHeld {
		return nil, 0
	}
	r.held[0] = nil
	r.held = r.held[1:]
	r.next = p.ExtSeq + 1
	return p, missing
}

// release gives back what is held.
func (r *reorder) release() {
	for _, p := range r.held {
		p.Release()
	}
	r.held = nil
}
