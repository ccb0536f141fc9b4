package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
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

// process reads CPU time and resident memory of a process; proc(5).
func process(pid int) (cpu time.Duration, rss uint64, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseStat(stat, os.Getpagesize())
}

// parseStat finds utime, stime (in ticks of 10 ms, which Linux fixes for user space) and rss (in pages).
func parseStat(stat []byte, page int) (cpu time.Duration, rss uint64, err error) {
	// The name in brackets may hold anything, brackets too.
	_, rest, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	fields := bytes.Fields(rest)
	const utime, stime, resident = 14 - 3, 15 - 3, 24 - 3
	if !ok || len(fields) <= resident {
		return 0, 0, fmt.Errorf("%q is no process status", stat)
	}
	var values [3]uint64
	for i, f := range []int{utime, stime, resident} {
		if values[i], err = strconv.ParseUint(string(fields[f]), 10, 63); err != nil {
			return 0, 0, fmt.Errorf("reading a process status: %w", err)
		}
	}
	return time.Duration(values[0]+values[1]) * 10 * time.Millisecond, values[2] * uint64(page), nil
}
