package main

import (
	"context"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// usagePeriod is how often the node looks at its own use of the machine.
const usagePeriod = 2 * time.Second

// usage watches what this process uses.
type usage struct {
	mu    sync.Mutex // guards the fields below
	cores float64
	last  time.Duration
	at    time.Time
}

func newUsage() *usage { return &usage{last: cpuTime(), at: time.Now()} }

func (u *usage) run(ctx context.Context) error {
	tick := time.NewTicker(usagePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			u.sample(cpuTime(), now)
		}
	}
}

func (u *usage) sample(total time.Duration, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if passed := now.Sub(u.at); passed > 0 {
		u.cores = float64(total-u.last) / float64(passed)
	}
	u.last, u.at = total, now
}

// CPU is how many cores the process used over the last period.
func (u *usage) CPU() float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cores
}

// cpuTime is what this process used so far, user and system.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// residentBytes is the process's resident memory, or 0 where the system doesn't tell.
func residentBytes() uint64 {
	f, err := os.Open("/proc/self/statm")
	if err != nil {
		return 0
	}
	defer f.Close()
	var buf [128]byte
	n, err := f.Read(buf[:])
	if err != nil {
		return 0
	}
	return parseResident(buf[:n]) * uint64(os.Getpagesize())
}

// parseResident reads the second number of /proc/self/statm, in pages.
func parseResident(statm []byte) uint64 {
	var value uint64
	field := 0
	for _, b := range statm {
		switch {
		case b == ' ':
			if field == 1 {
				return value
			}
			field++
			value = 0
		case b >= '0' && b <= '9':
			value = value*10 + uint64(b-'0')
		default:
			return 0
		}
	}
	return 0
}

func goroutines() uint64 { return uint64(runtime.NumGoroutine()) }
