package exchange

import "sync"

// maxInbox bounds an Inbox: a room's whole audience may come at once.
const maxInbox = 1 << 16

// Inbox hands work to one goroutine, in order. It takes no more room than what waits in it. Put may be called from
// any goroutine; the rest is for the one that works.
type Inbox[T any] struct {
	ready chan struct{} // holds a token when something waits

	mu    sync.Mutex // guards the field below
	items []T
}

// NewInbox makes an empty Inbox.
func NewInbox[T any]() *Inbox[T] { return &Inbox[T]{ready: make(chan struct{}, 1)} }

// Put adds v without blocking; false: the inbox is full.
func (b *Inbox[T]) Put(v T) bool {
	b.mu.Lock()
	full := len(b.items) >= maxInbox
	if !full {
		b.items = append(b.items, v)
	}
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return !full
}

// Ready is readable when something may wait.
func (b *Inbox[T]) Ready() <-chan struct{} { return b.ready }

// Take empties the inbox into a slice that is the caller's.
func (b *Inbox[T]) Take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

// Empty tells whether nothing waits.
func (b *Inbox[T]) Empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items) == 0
}
