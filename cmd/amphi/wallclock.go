package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// clockOffsetFile is the environment variable that names a file with milliseconds, which are added to the node's wall
	// clock: a rehearsal of clocks that are wrong.
	clockOffsetFile = "AMPHI_CLOCK_OFFSET_FILE"
	// offsetAgain is how often that file is read at most, maxOffset what it may hold.
	offsetAgain = 100 * time.Millisecond
	maxOffset   = 10 * 365 * 24 * time.Hour
)

// steppedClock is the machine's wall clock and what a file adds to it. It may be used from many goroutines.
type steppedClock struct {
	file string

	mu     sync.Mutex // guards the fields below
	offset time.Duration
	read   time.Time
}

// wallClock is the machine's, or with a file one that steps as the file says.
func wallClock(file string) (func() time.Time, error) {
	if file == "" {
		return time.Now, nil
	}
	c := &steppedClock{file: file, read: time.Now()}
	var err error
	if c.offset, err = readOffset(file); err != nil {
		return nil, fmt.Errorf("reading the clock's offset: %w", err)
	}
	return c.now, nil
}

// now has no monotonic reading, so that steps show in differences as well.
func (c *steppedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.read) >= offsetAgain {
		c.read = now
		// A file that makes no sense for a moment leaves the clock as it is.
		if d, err := readOffset(c.file); err == nil {
			c.offset = d
		}
	}
	return now.Round(0).Add(c.offset)
}

func readOffset(file string) (time.Duration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, err
	}
	if limit := maxOffset.Milliseconds(); ms > limit || ms < -limit {
		return 0, fmt.Errorf("%d ms are more than ten years", ms)
	}
	return time.Duration(ms) * time.Millisecond, nil
}
