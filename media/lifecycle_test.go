package media

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/media/udp"
)

// crowd makes endpoints of a router from several goroutines, which begin when start is closed.
func crowd(t *testing.T, wg *sync.WaitGroup, start <-chan struct{}, r *Router) {
	t.Helper()
	for range 4 {
		wg.Go(func() {
			<-start
			for range 3 {
				if _, err := r.NewEndpoint(EndpointConfig{ID: "peer"}); err != nil && !errors.Is(err, ErrClosed) {
					t.Errorf("NewEndpoint: %v", err)
				}
			}
		})
	}
}

// forgotten checks that nothing of any endpoint is left.
func forgotten(t *testing.T, e *Engine) {
	t.Helper()
	e.mu.Lock()
	endpoints := len(e.endpoints)
	e.mu.Unlock()
	for _, w := range e.workers {
		w.call(func() {
			if n := w.load.Load(); endpoints != 0 || len(w.endpoints) != 0 || n != 0 {
				t.Errorf("%d endpoints are left, %d with their worker, whose load is %d", endpoints, len(w.endpoints), n)
			}
		})
	}
}

func TestRouterClosesWhileEndpointsAreMade(t *testing.T) {
	t.Parallel()
	e := startEngine(t, Config{})
	for range 200 {
		r := e.Router("room")
		start := make(chan struct{})
		var wg sync.WaitGroup
		crowd(t, &wg, start, r)
		wg.Go(func() {
			<-start
			if err := r.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		close(start)
		wg.Wait()
	}
	forgotten(t, e)
}

func TestEngineClosesWhileEndpointsAreMade(t *testing.T) {
	t.Parallel()
	for range 20 {
		e, err := New(Config{UDPAddr: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		r := e.Router("room")
		ran := make(chan struct{})
		e.workers[0].post(func() { close(ran) })
		<-ran
		start := make(chan struct{})
		var wg sync.WaitGroup
		crowd(t, &wg, start, r)
		close(start)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		wg.Wait()
		forgotten(t, e)
	}
}

func TestReaderRestsAfterAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		began, calls := time.Now(), 0
		e.readSocket(scriptedReader(func() ([]udp.Datagram, error) {
			if calls++; calls > 20 {
				return nil, net.ErrClosed
			}
			return nil, errors.New("persistent")
		}))
		if took := time.Since(began); took < 20*readPause {
			t.Errorf("20 failed reads took %v", took)
		}
	})
}

// scriptedReader gives what the function says, and never knows of more.
type scriptedReader func() ([]udp.Datagram, error)

func (r scriptedReader) ReadBatch() ([]udp.Datagram, error) { return r() }

func (r scriptedReader) Await(time.Duration) bool { return false }
