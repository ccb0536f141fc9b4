package meter

import (
	"sync"
	"time"
)

// Beats foresees when streams that send at a steady pace, as microphones do, send next, so
// that what comes together may leave together. The zero value is ready; it is safe for
// concurrent use.
type Beats struct {
	mu   sync.Mutex // guards the fields below
	list []beat
}

type beat struct {
	stream    uint32
	timestamp uint32
	arrival   int64
	due       int64 // when the next packet is to come
}

const (
	// slowestBeat is the longest pace that counts: Opus frames have 120 ms at most.
	slowestBeat = int64(120 * time.Millisecond)
	// beatLate is how long after it was due a packet is still expected.
	beatLate = int64(200 * time.Microsecond)
)

// Soon takes the arrival of a packet of a stream, in nanoseconds, with its RTP timestamp,
// and says whether a packet of another one is to come within the time given. A stream's next
// packet is due after as much time as its last two were apart by timestamp.
func (b *Beats) Soon(stream, timestamp, rate uint32, arrival int64, within time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	soon, known := false, false
	for i := 0; i < len(b.list); i++ {
		x := &b.list[i]
		switch {
		case x.stream == stream:
			known = true
			x.take(timestamp, rate, arrival)
		case arrival-x.arrival > 2*slowestBeat: // it has ended, or pauses
			last := len(b.list) - 1
			b.list[i] = b.list[last]
			b.list = b.list[:last]
			i--
		case x.due != 0 && x.due-arrival <= int64(within) && arrival-x.due <= beatLate:
			soon = true
		}
	}
	if !known {
		b.list = append(b.list, beat{stream: stream, timestamp: timestamp, arrival: arrival})
	}
	return soon
}

func (x *beat) take(timestamp, rate uint32, arrival int64) {
	x.due = 0
	passed := int64(int32(timestamp-x.timestamp)) * int64(time.Second) / int64(max(rate, 1))
	if passed > 0 && passed <= slowestBeat {
		x.due = arrival + passed
	}
	x.timestamp, x.arrival = timestamp, arrival
}
