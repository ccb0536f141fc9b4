package signal

import (
	"context"
	"sync"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// maxKept is how many durable changes may wait.
	maxKept = 4096
	// maxLanes is how many are written at the same time.
	maxLanes = 64
)

// kept is a durable change; done, if not nil, is told what became of it.
type kept struct {
	cmd  *amphiv1.RegistryCommand
	done func(error)
}

// lanes are durable changes that wait to be written: those of one lane in order, those of several at the same time, as a
// registry of several nodes takes its time for each.
type lanes struct {
	ready chan struct{} // holds a token when a lane has work and nobody to do it

	mu      sync.Mutex // guards the fields below
	waiting map[string][]kept
	working map[string]bool
	count   int
}

func newLanes() lanes {
	return lanes{ready: make(chan struct{}, 1), waiting: map[string][]kept{}, working: map[string]bool{}}
}

// put adds a change without blocking; false: too many wait.
func (l *lanes) put(lane string, k kept) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count >= maxKept {
		return false
	}
	l.count++
	l.waiting[lane] = append(l.waiting[lane], k)
	l.wake()
	return true
}

func (l *lanes) wake() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and waits for what is being written.
func (l *lanes) run(ctx context.Context, write func(context.Context, kept)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.ready:
		}
		for lane := l.begin(); lane != ""; lane = l.begin() {
			wg.Go(func() {
				defer l.end(lane)
				for ctx.Err() == nil {
					k, ok := l.next(lane)
					if !ok {
						return
					}
					write(ctx, k)
				}
			})
		}
	}
}

// begin finds a lane with work and nobody to do it; empty: none, or enough are at work.
func (l *lanes) begin() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.working) >= maxLanes {
		return ""
	}
	for lane := range l.waiting {
		if !l.working[lane] {
			l.working[lane] = true
			return lane
		}
	}
	return ""
}

func (l *lanes) end(lane string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.working, lane)
	l.wake()
}

func (l *lanes) next(lane string) (kept, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.waiting[lane]
	if len(list) == 0 {
		delete(l.waiting, lane)
		return kept{}, false
	}
	l.waiting[lane] = list[1:]
	l.count--
	return list[0], true
}

// flush writes what waits, one after the other.
func (l *lanes) flush(ctx context.Context, write func(context.Context, kept)) {
	l.mu.Lock()
	names := make([]string, 0, len(l.waiting))
	for lane := range l.waiting {
		names = append(names, lane)
	}
	l.mu.Unlock()
	for _, lane := range names {
		for k, ok := l.next(lane); ok; k, ok = l.next(lane) {
			write(ctx, k)
		}
	}
}
