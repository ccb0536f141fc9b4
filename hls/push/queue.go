package push

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// What waits for a target at most. Beyond, whole groups of pictures are dropped, the oldest first.
const (
	maxQueued      = 5 * time.Second
	maxQueuedBytes = 16 << 20
)

// backwards is how far a time may lie behind the last one of its kind; then it is a new time line's.
const backwards = 10 * time.Second

// unit is one access unit on its way to a target.
type unit struct {
	video bool
	key   bool // video only: decodes by itself
	at    time.Time
	data  []byte // Annex B or an AAC raw data block
	// config is the AudioSpecificConfig that audio units of its run need.
	config []byte
}

// queue holds what a target has not taken yet. It always begins with a keyframe, or with what follows one that was
// taken. Safe for concurrent use; it never blocks its writer.
type queue struct {
	mu       sync.Mutex // guards the fields below
	units    []*unit
	bytes    int
	config   []byte
	waiting  bool // for a keyframe: nothing before it is of use
	shedding bool // that keyframe ends what is dropped for the target's sake
	live     bool // somebody takes; else only the last group is kept
	was      bool // somebody has been taking
	drops    int64
	lastTime [2]time.Time // of audio and video, to keep time from running backwards
	isOver   bool

	more chan struct{} // has a token when something was added
	over chan struct{} // closed with the program
}

func newQueue() *queue {
	return &queue{waiting: true, more: make(chan struct{}, 1), over: make(chan struct{})}
}

// begin says that another compositor delivers: it begins with a keyframe.
func (q *queue) begin(config []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.config = bytes.Clone(config)
	q.waiting = true
}

func (q *queue) video(at time.Time, annexB []byte) {
	q.add(&unit{video: true, key: hasIDR(annexB), at: at, data: bytes.Clone(annexB)})
}

func (q *queue) audio(at time.Time, data []byte) {
	q.add(&unit{at: at, data: bytes.Clone(data)})
}

func (q *queue) add(u *unit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isOver {
		return
	}
	u.config = q.config
	if q.waiting && !u.key {
		if q.shedding {
			q.drop(u)
		}
		return
	}
	last := &q.lastTime[0]
	if u.video {
		last = &q.lastTime[1]
	}
	if d := u.at.Sub(*last); d <= 0 && d > -backwards {
		return // a picture or sound that was there already
	}
	*last = u.at
	if u.key {
		q.waiting, q.shedding = false, false
		if !q.live {
			q.dropAll()
		}
	}
	q.units = append(q.units, u)
	q.bytes += len(u.data)
	if u.at.Sub(q.units[0].at) > maxQueued || q.bytes > maxQueuedBytes {
		q.shed()
	}
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// shed drops all before the last keyframe that waits; without one, all, up to the next one.
func (q *queue) shed() {
	for i := len(q.units) - 1; i > 0; i-- {
		if q.units[i].key {
			q.dropFirst(i)
			return
		}
	}
	q.dropAll()
	q.waiting, q.shedding = true, true
}

func (q *queue) dropAll() { q.dropFirst(len(q.units)) }

func (q *queue) dropFirst(n int) {
	for _, u := range q.units[:n] {
		q.drop(u)
		q.bytes -= len(u.data)
	}
	q.units = slices.Delete(q.units, 0, n)
}

// drop counts a unit that the target will not have.
func (q *queue) drop(u *unit) {
	if u.video && q.was {
		q.drops++
	}
}

func (q *queue) dropped() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drops
}

// online says that units are taken from now on.
func (q *queue) online() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.live, q.was = true, true
}

// offline says that nobody takes: what begins with the last keyframe is kept for the next connection, which need not
// wait for another one then.
func (q *queue) offline() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.live = false
	for i := len(q.units) - 1; i >= 0; i-- {
		if q.units[i].key {
			q.dropFirst(i)
			return
		}
	}
	q.dropAll()
	q.waiting, q.shedding = true, true
}

// close says that nothing follows.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.isOver {
		q.isOver = true
		close(q.over)
	}
}

func (q *queue) closed() <-chan struct{} { return q.over }

func (q *queue) isClosed() bool {
	select {
	case <-q.over:
		return true
	default:
		return false
	}
}

// waitKey waits until there is something to begin with; false when there will be nothing.
func (q *queue) waitKey(ctx context.Context) bool {
	for {
		q.mu.Lock()
		n := len(q.units)
		q.mu.Unlock()
		if n > 0 {
			return true
		}
		select {
		case <-q.more:
		case <-q.over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

var errGone = errors.New("target closed the connection")

// take is the next unit, nil when the program has ended. It returns an error when the target is gone or ctx ends.
func (q *queue) take(ctx context.Context, gone <-chan struct{}) (*unit, error) {
	for {
		q.mu.Lock()
		if len(q.units) > 0 {
			u := q.units[0]
			q.units = slices.Delete(q.units, 0, 1)
			q.bytes -= len(u.data)
			q.mu.Unlock()
			return u, nil
		}
		over := q.isOver
		q.mu.Unlock()
		if over {
			return nil, nil
		}
		select {
		case <-q.more:
		case <-q.over:
		case <-gone:
			return nil, errGone
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hasIDR says whether the first slice of an access unit in Annex B format is one of an IDR picture.
func hasIDR(b []byte) bool {
	for {
		i := bytes.Index(b, []byte{0, 0, 1})
		if i < 0 || i+3 >= len(b) {
			return false
		}
		b = b[i+3:]
		switch b[0] & 0x1f {
		case 5:
			return true
		case 1, 2:
			return false
		}
	}
}
