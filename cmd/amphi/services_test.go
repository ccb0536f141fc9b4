package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

// recorder makes services that note when they stop.
type recorder struct {
	mu      sync.Mutex // guards the field below
	stopped []string
}

func (r *recorder) service(name string) service {
	return service{name, func(ctx context.Context) error {
		<-ctx.Done()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.stopped = append(r.stopped, name)
		return ctx.Err()
	}}
}

func TestServicesStopInReverseOrder(t *testing.T) {
	t.Parallel()
	var r recorder
	ctx, cancel := context.WithCancel(t.Context())
	err := runAll(ctx, []service{r.service("media"), r.service("signal"), r.service("http")}, cancel)
	if err != nil {
		t.Fatalf("a clean stop returned %v", err)
	}
	if want := []string{"http", "signal", "media"}; !slices.Equal(r.stopped, want) {
		t.Fatalf("stopped in the order %v, want %v", r.stopped, want)
	}
}

func TestOneFailureStopsAll(t *testing.T) {
	t.Parallel()
	var r recorder
	broken := errors.New("broken")
	err := runAll(t.Context(), []service{r.service("media"), {"signal", func(context.Context) error { return broken }}}, func() {})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v, want the failure", err)
	}
	if !slices.Equal(r.stopped, []string{"media"}) {
		t.Fatalf("media was not stopped: %v", r.stopped)
	}
}

func TestPortsLieBesideHTTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ address, want string }{
		{":7880", ":7882"}, {"127.0.0.1:0", "127.0.0.1:0"}, {"[::1]:9000", "[::1]:9002"},
		{"localhost:65535", ""}, {"7880", ""}, {":http", ""},
	} {
		got, err := beside(c.address, mediaOffset)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("beside(%q) = %q, %v; want %q", c.address, got, err, c.want)
		}
	}
}
