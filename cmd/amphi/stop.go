package main

import (
	"context"
	"os/signal"
	"syscall"
)

// untilStopped is done at the first SIGINT or SIGTERM. A second one ends the process at
// once, because the handler is taken away with the first.
func untilStopped() (context.Context, func()) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
