// Package outbox is the bounded queue between a room and one client, with the rules of PROTOCOL.md section 2:
// what is only of interest in its newest form is replaced in the queue, everything else is kept, and a client
// that lets it overflow is given up.
package outbox

import (
	"sync"

	"github.com/amphi-sfu/amphi/proto"
)

// Bounds of one queue. What the writer has taken already does not count.
const (
	MaxMessages = 1024
	MaxBytes    = 4 << 20
)

// Class tells what a message does to older ones in the queue.
type Class uint8

// Keep is never replaced; the others replace an older message of the same class and key.
const (
	Keep Class = iota
	Speakers
	Quality
	Slots
	SlotsNeeded
	Counts
	Interest
	classes
)

// End is how a connection is to be closed.
type End struct {
	// Reason is nil for a client that left.
	Reason *proto.Error
}

type item struct {
	bytes []byte // nil once it was replaced
	class Class
	key   string
}

// Queue holds the messages for one client. Safe for concurrent use; it never blocks.
type Queue struct {
	enc   Encoding
	ready chan struct{} // holds a token when there is something to take

	mu     sync.Mutex // guards the fields below
	items  []item
	live   int
	size   int
	queued [classes]int
	end    *End
}

// New makes an empty queue for a client with encoding enc.
func New(enc Encoding) *Queue {
	return &Queue{enc: enc, ready: make(chan struct{}, 1)}
}

// Encoding is that of the client.
func (q *Queue) Encoding() Encoding { return q.enc }

// Push appends a message. When the queue overflows, it is emptied and ends with slow_client, and Push returns
// false; it returns false without effect after the end.
func (q *Queue) Push(f *Frame) bool {
	b := f.Bytes(q.enc)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end != nil {
		return false
	}
	if f.class != Keep && q.queued[f.class] > 0 {
		q.dropOlderLocked(f.class, f.key)
	}
	if q.live >= MaxMessages || q.size+len(b) > MaxBytes {
		q.items, q.live, q.size = nil, 0, 0
		q.endLocked(&End{Reason: proto.Errorf(proto.SlowClient, "the client does not read fast enough")})
		return false
	}
	q.items = append(q.items, item{b, f.class, f.key})
	q.live++
	q.size += len(b)
	q.queued[f.class]++
	q.wake()
	return true
}

// dropOlderLocked takes the older message of the class and key out. The newer one goes to the end: it may
// speak of what the messages between them introduce.
func (q *Queue) dropOlderLocked(class Class, key string) {
	for i := range q.items {
		it := &q.items[i]
		if it.bytes != nil && it.class == class && it.key == key {
			q.live--
			q.size -= len(it.bytes)
			q.queued[class]--
			it.bytes = nil
			q.compactLocked()
			return
		}
	}
}

// compactLocked keeps replaced messages from filling the slice of a client that has stopped reading.
func (q *Queue) compactLocked() {
	if len(q.items) < 2*q.live+16 {
		return
	}
	kept := q.items[:0]
	for _, it := range q.items {
		if it.bytes != nil {
			kept = append(kept, it)
		}
	}
	clear(q.items[len(kept):])
	q.items = kept
}

// Close ends the queue: what is in it is still delivered, then the connection is closed for the reason given.
// Only the first end counts.
func (q *Queue) Close(end End) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end == nil {
		q.endLocked(&end)
	}
}

func (q *Queue) endLocked(end *End) {
	q.end = end
	q.wake()
}

// wake leaves a token for the writer; one is enough.
func (q *Queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Ready is readable when Take may have something.
func (q *Queue) Ready() <-chan struct{} { return q.ready }

// Take appends all messages in order to dst and empties the queue. The end is given with the last messages.
func (q *Queue) Take(dst [][]byte) ([][]byte, *End) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.bytes != nil {
			dst = append(dst, it.bytes)
		}
	}
	if cap(q.items) > 64 {
		q.items = nil
	} else {
		clear(q.items)
		q.items = q.items[:0]
	}
	q.live, q.size = 0, 0
	q.queued = [classes]int{}
	return dst, q.end
}

// Len is the number of messages that wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.live
}
