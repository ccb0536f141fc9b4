package link

import "sync"

// queue holds frames in order, bounded in bytes. A single frame larger than the limit passes when nothing else waits.
type queue struct {
	ready chan struct{} // has room for one: there is something to take
	room  chan struct{} // has room for one: something was released

	mu     sync.Mutex // guards the fields below
	frames []frame
	bytes  int // of frames here and of those taken and not yet released
	limit  int
	closed bool
}

func newQueue(limit int) *queue {
	return &queue{ready: make(chan struct{}, 1), room: make(chan struct{}, 1), limit: limit}
}

// push appends f unless there is no room for it, or the queue is closed.
func (q *queue) push(f frame) bool {
	q.mu.Lock()
	if q.closed || q.bytes > 0 && q.bytes+f.size() > q.limit {
		q.mu.Unlock()
		return false
	}
	q.frames = append(q.frames, f)
	q.bytes += f.size()
	q.mu.Unlock()
	signal(q.ready)
	return true
}

// take answers all that waits; each must be released when it is done with.
func (q *queue) take() []frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	frames := q.frames
	q.frames = nil
	return frames
}

func (q *queue) release(f frame) {
	q.mu.Lock()
	q.bytes -= f.size()
	q.mu.Unlock()
	signal(q.room)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.frames = true, nil
}

// queued is the number of bytes that wait.
func (q *queue) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// signal leaves a token unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
