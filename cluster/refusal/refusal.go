// Package refusal counts what a port of the cluster refuses, by reason, and logs it at most once a second.
package refusal

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// every is how often a line is logged, at most.
const every = time.Second

// Counter may be used from many goroutines. Reasons are few and fixed: they become labels of metrics.
type Counter struct {
	log     *slog.Logger
	message string
	now     func() time.Time

	mu     sync.Mutex // guards the fields below
	totals map[string]uint64
	fresh  map[string]uint64 // since the last line
	logged time.Time
}

// New makes a counter whose lines say message.
func New(log *slog.Logger, message string) *Counter {
	return &Counter{log: log, message: message, now: time.Now, totals: map[string]uint64{}, fresh: map[string]uint64{}}
}

// Add counts one refusal; from and err are those of the line, when there is one.
func (c *Counter) Add(reason, from string, err error) {
	c.mu.Lock()
	c.totals[reason]++
	c.fresh[reason]++
	now := c.now()
	if now.Sub(c.logged) < every {
		c.mu.Unlock()
		return
	}
	c.logged = now
	fresh := c.fresh
	c.fresh = map[string]uint64{}
	c.mu.Unlock()
	attributes := []any{"from", from, "err", err}
	for _, r := range slices.Sorted(maps.Keys(fresh)) {
		attributes = append(attributes, r, fresh[r])
	}
	c.log.Warn(c.message, attributes...)
}

// Totals are the counts since the start, by reason.
func (c *Counter) Totals() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.totals)
}
