package trunk

import "sync"

// maxOutbox is how many bytes of frames wait for one control connection at most.
const maxOutbox = 8 << 20

// outbox holds frames until the control connection takes them, in order.
type outbox struct {
	mu     sync.Mutex // guards the fields below
	frames [][]byte
	bytes  int
	closed bool
	wake   chan struct{}
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

// put queues a frame; false when there is no room, or nobody takes them any more.
func (o *outbox) put(frame []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.bytes+len(frame) > maxOutbox {
		return false
	}
	o.frames = append(o.frames, frame)
	o.bytes += len(frame)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns all that waits.
func (o *outbox) take() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames := o.frames
	o.frames, o.bytes = nil, 0
	return frames
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.frames = true, nil
}
