package mix

import "time"

// maxQueue bounds the decoded frames that wait for their time: the longest
// playout delay at 60 frames a second.
const maxQueue = 16

// Queue holds decoded frames until their playout time. The zero value is ready.
type Queue[F any] struct {
	frames [maxQueue]struct {
		frame F
		due   time.Duration
	}
	n int
}

// Push adds a frame. When the queue is full it returns the oldest one, which will
// never be shown; the caller frees it.
func (q *Queue[F]) Push(f F, due time.Duration) (dropped F, full bool) {
	if q.n == maxQueue {
		dropped, full = q.frames[0].frame, true
		q.shift(1)
	}
	q.frames[q.n].frame, q.frames[q.n].due = f, due
	q.n++
	return dropped, full
}

// Take returns the newest frame that is due, and hands those before it to drop.
// Frames come in decoding order: a due one shows even after one that isn't.
func (q *Queue[F]) Take(at time.Duration, drop func(F)) (f F, ok bool) {
	last := -1
	for i := range q.n {
		if q.frames[i].due <= at {
			last = i
		}
	}
	if last < 0 {
		return f, false
	}
	for i := range last {
		drop(q.frames[i].frame)
	}
	f = q.frames[last].frame
	q.shift(last + 1)
	return f, true
}

// Clear hands all frames to drop.
func (q *Queue[F]) Clear(drop func(F)) {
	for i := range q.n {
		drop(q.frames[i].frame)
	}
	q.shift(q.n)
}

// Len is the number of frames that wait.
func (q *Queue[F]) Len() int { return q.n }

func (q *Queue[F]) shift(k int) {
	copy(q.frames[:], q.frames[k:q.n])
	clear(q.frames[q.n-k : q.n])
	q.n -= k
}
