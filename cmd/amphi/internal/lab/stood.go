package lab

import (
	"context"
	"sync"
	"time"
)

const (
	// standEvery is how often the lab looks whether it runs, standLeast from when on it counts as having stood still.
	standEvery = 2 * time.Millisecond
	standLeast = 10 * time.Millisecond
)

// stood notes when the lab's own process, which all peers live in, stood still: what came meanwhile it saw later.
type stood struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex // guards the field below
	times [][2]time.Time
}

// beginStood looks until end.
func beginStood(ctx context.Context) *stood {
	ctx, stop := context.WithCancel(ctx)
	s := &stood{stop: stop}
	s.wg.Go(func() {
		tick := time.NewTicker(standEvery)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now := time.Now()
			s.note(last.Add(standEvery), now)
			last = now
		}
	})
	return s
}

func (s *stood) end() {
	s.stop()
	s.wg.Wait()
}

// note takes when the lab should have run, and when it did.
func (s *stood) note(due, at time.Time) {
	if at.Sub(due) < standLeast {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, [2]time.Time{due, at})
}

// within is for how long it stood still between two times.
func (s *stood) within(from, to time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum time.Duration
	for _, t := range s.times {
		begin, end := t[0], t[1]
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		sum += max(0, end.Sub(begin))
	}
	return sum
}
