package wire

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes one goroutine at a time to some 50 µs; a timer of the runtime is up to 1 ms late.
type alarm struct {
	fd   int // the file's; file.Fd would make it blocking
	file *os.File
	buf  [8]byte
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a timer: %w", err)
	}
	return &alarm{fd: fd, file: os.NewFile(uintptr(fd), "timer")}, nil
}

// set makes wait return after d, instead of when it was to return before.
func (a *alarm) set(d time.Duration) error {
	value := unix.NsecToTimespec(max(d, 1).Nanoseconds())
	return unix.TimerfdSettime(a.fd, 0, &unix.ItimerSpec{Value: value}, nil)
}

// wait returns when the alarm rings, or with an error when it is closed.
func (a *alarm) wait() error {
	_, err := a.file.Read(a.buf[:])
	return err
}

func (a *alarm) close() error { return a.file.Close() }
