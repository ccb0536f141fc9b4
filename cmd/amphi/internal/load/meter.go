package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// meter reads what the server's process costs. With pid 0 only the generator itself is read.
type meter struct {
	pid int

	idle  sample // publishers only
	start sample // of the measurement
	stop  sample
}

// sample is one reading.
type sample struct {
	at      time.Time
	cpu     time.Duration // user and system time of the server
	rss     uint64
	own     time.Duration // the generator's CPU time
	packets uint64
}

func (m *meter) read(packets uint64) (sample, error) {
	s := sample{at: time.Now(), packets: packets}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return s, fmt.Errorf("reading own CPU time: %w", err)
	}
	s.own = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	if m.pid == 0 {
		return s, nil
	}
	var err error
	if s.cpu, s.rss, err = process(m.pid); err != nil {
		return s, fmt.Errorf("reading the server's process: %w", err)
	}
	return s, nil
}

func (m *meter) beforeJoins() (err error) {
	m.idle, err = m.read(0)
	return err
}

func (m *meter) begin(packets uint64) (err error) {
	m.start, err = m.read(packets)
	return err
}

func (m *meter) end(packets uint64) (err error) {
	m.stop, err = m.read(packets)
	return err
}

// process reads CPU time and resident memory of a process.
func process(pid int) (cpu time.Duration, rss uint64, err error) {
	if cpu, err = processClock(pid); err != nil {
		return 0, 0, err
	}
	statm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, 0, err
	}
	rss, err = parseStatm(statm, os.Getpagesize())
	return cpu, rss, err
}

// processClock is the user and system time of a process. Its clock has the resolution of the
// scheduler, where proc(5) has ticks of 10 ms; clock_getcpuclockid(3) makes its id like this.
func processClock(pid int) (time.Duration, error) {
	const scheduler = 2
	var ts syscall.Timespec
	id := ^uintptr(pid)<<3 | scheduler
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0, fmt.Errorf("reading the clock of process %d: %w", pid, errno)
	}
	return time.Duration(ts.Nano()), nil
}

// parseStatm finds the resident size, in pages the second number of proc(5)'s statm.
func parseStatm(statm []byte, page int) (rss uint64, err error) {
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		return 0, fmt.Errorf("%q is no process status", statm)
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 50)
	if err != nil {
		return 0, fmt.Errorf("reading a process status: %w", err)
	}
	return pages * uint64(page), nil
}
