//go:build !race

package media

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// attempts is how often a claim about real time is tried on a machine that has no time for it.
const attempts = 3

// A machine has no time for tests of timing when a goroutine that wants to wake up every
// pulse is kept waiting for starvedOnce at one time, or for more than one part in starvedPart
// of all the time.
const (
	pulse       = 5 * time.Millisecond
	starvedOnce = 50 * time.Millisecond
	starvedPart = 5
)

// health is how the machine treated a goroutine that has next to nothing to do.
type health struct {
	lasted, late, worst time.Duration
}

func (h health) starved() bool { return h.worst > starvedOnce || h.late > h.lasted/starvedPart }

func (h health) String() string {
	return fmt.Sprintf("woken late by %v of %v in all, by %v at worst", h.late, h.lasted, h.worst)
}

// note counts one wait for a pulse.
func (h *health) note(took time.Duration) {
	h.lasted += took
	if late := took - pulse; late > 0 {
		h.late += late
		h.worst = max(h.worst, late)
	}
}

// measureHealth watches the machine until stop is called, which returns what it saw.
func measureHealth() (stop func() health) {
	end, seen := make(chan struct{}), make(chan health, 1)
	go func() {
		var h health
		timer := time.NewTimer(pulse)
		defer timer.Stop()
		for last := time.Now(); ; {
			select {
			case <-end:
				seen <- h
				return
			case <-timer.C:
				now := time.Now()
				h.note(now.Sub(last))
				last = now
				timer.Reset(pulse)
			}
		}
	}()
	return func() health {
		close(end)
		return <-seen
	}
}

// attempt is a testing.TB whose failure is not yet that of the test.
type attempt struct {
	testing.TB
	mu       sync.Mutex // guards the fields below
	failures []string
	cleanups []func()
}

func (a *attempt) Helper()                      {}
func (a *attempt) Error(args ...any)            { a.fail(fmt.Sprint(args...)) }
func (a *attempt) Errorf(f string, args ...any) { a.fail(fmt.Sprintf(f, args...)) }
func (a *attempt) Fatal(args ...any)            { a.fail(fmt.Sprint(args...)); runtime.Goexit() }
func (a *attempt) Fatalf(f string, args ...any) { a.fail(fmt.Sprintf(f, args...)); runtime.Goexit() }
func (a *attempt) Fail()                        { a.fail("failed") }
func (a *attempt) FailNow()                     { a.fail("failed"); runtime.Goexit() }
func (a *attempt) Failed() bool                 { return len(a.failed()) > 0 }

func (a *attempt) fail(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, text)
}

func (a *attempt) failed() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.failures)
}

// Cleanup is called at the end of the attempt, not of the test.
func (a *attempt) Cleanup(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cleanups = append(a.cleanups, f)
}

func (a *attempt) run(f func(t testing.TB)) {
	ended := make(chan struct{})
	go func() { // of its own, as Fatal ends it
		defer close(ended)
		defer a.clean()
		f(a)
	}()
	<-ended
}

func (a *attempt) clean() {
	for {
		a.mu.Lock()
		n := len(a.cleanups)
		if n == 0 {
			a.mu.Unlock()
			return
		}
		f := a.cleanups[n-1]
		a.cleanups = a.cleanups[:n-1]
		a.mu.Unlock()
		f()
	}
}

// onHealthyMachine runs a test of real time. What fails while the machine had time for it has
// failed; what fails while it had not proves nothing and is tried again, a few times.
func onHealthyMachine(t *testing.T, f func(t testing.TB)) {
	t.Helper()
	for n := 1; ; n++ {
		a := &attempt{TB: t}
		stop := measureHealth()
		a.run(f)
		h := stop()
		failures := a.failed()
		if len(failures) == 0 {
			return
		}
		if n < attempts && h.starved() {
			t.Logf("attempt %d, on a starved machine (%v), failed: %q", n, h, failures)
			continue
		}
		for _, text := range failures {
			t.Errorf("attempt %d (machine %v): %s", n, h, text)
		}
		return
	}
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	var order []string
	a := &attempt{TB: t}
	a.run(func(t testing.TB) {
		t.Cleanup(func() { order = append(order, "first") })
		t.Cleanup(func() { order = append(order, "second") })
		t.Errorf("wrong: %d", 1)
		t.Fatal("fatal")
		order = append(order, "went on")
	})
	if got := a.failed(); !slices.Equal(got, []string{"wrong: 1", "fatal"}) || !slices.Equal(order, []string{"second", "first"}) || t.Failed() {
		t.Errorf("failures %q, order %q", got, order)
	}
	var calm, once, often health
	for range 1000 {
		calm.note(pulse + time.Millisecond/2)
		once.note(pulse)
		often.note(2 * pulse)
	}
	once.note(pulse + starvedOnce + 1)
	if calm.starved() || !once.starved() || !often.starved() {
		t.Errorf("calm: %v; once: %v; often: %v", calm, once, often)
	}
}
