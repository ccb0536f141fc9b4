package netem

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLineDeliversOnTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var out []got
		l, err := NewLine(Params{Delay: 30 * ms, Rate: 1e6}, 1, func(v int) {
			out = append(out, got{time.Since(start), v})
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		for i := range 5 {
			l.Send(1250, i)
		}
		<-time.After(20 * ms)
		if _, q := l.Stats(); q != 30*ms {
			t.Errorf("queue %v after 20 ms, want 30 ms", q)
		}
		if err := l.Set(Params{Delay: 30 * ms, Rate: 10e6}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{40 * ms, 50 * ms, 51 * ms, 52 * ms, 53 * ms}
		if len(out) != len(want) {
			t.Fatalf("delivered %v", out)
		}
		for i := range want {
			if out[i].v != i || (out[i].at-want[i]).Abs() > time.Microsecond {
				t.Errorf("packet %d delivered as %+v, want at %v", i, out[i], want[i])
			}
		}
	})
}

func TestLineNeedsAReceiver(t *testing.T) {
	t.Parallel()
	if _, err := NewLine[int](Params{}, 1, nil); err == nil {
		t.Error("no receiver was accepted")
	}
	if _, err := NewLine(Params{Loss: 2}, 1, func(int) {}); err == nil {
		t.Error("bad parameters were accepted")
	}
}
