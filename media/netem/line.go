package netem

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Line runs one direction of a link in real time: what Send takes, deliver gets
// when it is due.
type Line[T any] struct {
	deliver func(T)
	start   time.Time
	wake    chan struct{}

	mu   sync.Mutex // guards the fields below
	link *Link[T]
}

// NewLine makes a Line. deliver is called from the goroutine of Run, one packet
// at a time, in order of arrival; while it blocks, later packets are late.
func NewLine[T any](p Params, seed uint64, deliver func(T)) (*Line[T], error) {
	if deliver == nil {
		return nil, errors.New("netem: no receiver")
	}
	link, err := New[T](p, seed)
	if err != nil {
		return nil, err
	}
	return &Line[T]{deliver: deliver, start: time.Now(), wake: make(chan struct{}, 1), link: link}, nil
}

// Send puts a packet of size bytes into the link. It never blocks and may be
// called concurrently; v must stay unchanged until it is delivered.
func (l *Line[T]) Send(size int, v T) {
	l.mu.Lock()
	l.link.Send(time.Since(l.start), size, v)
	l.mu.Unlock()
	l.kick()
}

// Set changes the parameters from now on.
func (l *Line[T]) Set(p Params) error {
	l.mu.Lock()
	err := l.link.Set(time.Since(l.start), p)
	l.mu.Unlock()
	l.kick()
	return err
}

// Stats returns the counters and the present wait before the bottleneck.
func (l *Line[T]) Stats() (s Stats, queue time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link.advance(time.Since(l.start))
	return l.link.Stats(), l.link.QueueDelay()
}

func (l *Line[T]) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends, which is not an error; what is then under way is lost.
func (l *Line[T]) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait := l.deliverDue()
		if wait == 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-timer.C:
		}
	}
	return nil
}

// deliverDue delivers what is due and returns how long nothing more will be.
func (l *Line[T]) deliverDue() time.Duration {
	for {
		l.mu.Lock()
		now := time.Since(l.start)
		v, ok := l.link.Receive(now)
		next, more := l.link.Next()
		l.mu.Unlock()
		if ok {
			l.deliver(v)
			continue
		}
		if !more {
			return time.Hour
		}
		return max(next-now, 0)
	}
}
