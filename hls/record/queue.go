package record

import (
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// item is what a recording's goroutine is to do. One of the fields is set; lost may be in front of any.
type item struct {
	lost bool // parts in front of this one are missing
	part *packager.Part
	note []byte
	at   time.Time // of the note
	do   action
}

type action uint8

const (
	pause action = iota + 1
	resume
	stop
	ended // the stream has
)

// queue stands between the program, which never waits, and the disk, which may. Wishes are always taken, parts and notes within bounds.
type queue struct {
	limit int64
	ready chan struct{} // has room for one

	mu      sync.Mutex // guards the fields below
	items   []item
	bytes   int64
	lost    bool
	dropped int64
}

// maxItems bounds the queue besides its bytes.
const maxItems = 4096

func newQueue(limit int64) *queue { return &queue{limit: limit, ready: make(chan struct{}, 1)} }

// push adds an item; false when there is no room.
func (q *queue) push(i item) bool {
	size := int64(len(i.note))
	if i.part != nil {
		size = int64(len(i.part.Data))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i.do == 0 && (q.bytes+size > q.limit || len(q.items) >= maxItems) {
		q.lost = q.lost || i.part != nil
		q.dropped++
		return false
	}
	i.lost, q.lost = q.lost, false
	q.items = append(q.items, i)
	q.bytes += size
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// take takes everything that is there.
func (q *queue) take() (items []item, dropped int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items, q.items, q.bytes = q.items, nil, 0
	return items, q.dropped
}
