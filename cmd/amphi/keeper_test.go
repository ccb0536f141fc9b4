package main

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

// mute is a registry without quorum.
type mute struct{ signal.Registry }

func (mute) Propose(ctx context.Context, _ *amphiv1.RegistryCommand) error {
	<-ctx.Done()
	return proto.Errorf(proto.Unavailable, "no leader")
}

// A node ends although nobody takes its records; who waits for one of them ends first.
func TestKeeperEndsWithoutQuorum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(mute{}, slog.New(slog.DiscardHandler))
		leaving, leave := context.WithCancel(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		ended, waited := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			_ = k.run(ctx, leaving)
		}()
		k.put(putAsset(&amphiv1.Asset{Id: "a"}))
		go func() {
			defer close(waited)
			if k.wait(putAsset(&amphiv1.Asset{Id: "b"})) {
				t.Error("a record counts as written that is not")
			}
		}()
		time.Sleep(time.Hour) // it goes on trying
		select {
		case <-waited:
			t.Fatal("it has given up")
		default:
		}
		leave()
		began := time.Now()
		<-waited
		cancel()
		<-ended
		if d := time.Since(began); d > 2*lastWrites {
			t.Errorf("it ended after %v", d)
		}
	})
}
