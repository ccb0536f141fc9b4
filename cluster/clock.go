package cluster

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the time since the machine started, with the time that it slept: a lease must run out also in a
// machine that is suspended. Steps of the wall clock do not change it.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		// Not on any Linux of this century; without a clock no lease is safe.
		panic(err)
	}
	return time.Duration(t.Nano())
}
