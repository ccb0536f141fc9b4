package main

import (
	"context"
	"errors"
	"sync"
)

// service is something that lives in Run.
type service struct {
	name string
	run  func(context.Context) error
}

// runAll runs the services until ctx is done or one of them ends, and then stops them one
// after the other, the last first: who is listed later may lean on who is listed earlier
// until its own end. It returns the first error.
func runAll(ctx context.Context, services []service, ready func()) error {
	type ending struct {
		index int
		err   error
	}
	var (
		wg      sync.WaitGroup
		endings = make(chan ending, len(services))
		stops   = make([]context.CancelFunc, len(services))
		done    = make([]chan struct{}, len(services))
	)
	for i, s := range services {
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		stops[i], done[i] = stop, make(chan struct{})
		wg.Go(func() {
			defer close(done[i])
			endings <- ending{i, s.run(own)}
		})
	}
	ready()
	var first error
	select {
	case <-ctx.Done():
	case e := <-endings:
		first = e.err
		if first == nil {
			first = errors.New(services[e.index].name + " ended by itself")
		}
	}
	for i := len(services) - 1; i >= 0; i-- {
		stops[i]()
		<-done[i]
	}
	wg.Wait()
	close(endings)
	for e := range endings {
		if first == nil && e.err != nil && !errors.Is(e.err, context.Canceled) {
			first = e.err
		}
	}
	return first
}
