package main

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

// TestANodeThatIsAloneIsReadyForWork starts a node as `amphi serve` without a cluster does: with its configuration's key rooms of the
// preset templates can be made. Started again, it ends the session that the one before left open, and takes a key that is new.
func TestANodeThatIsAloneIsReadyForWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The key of manager, made by nobody else here.
	run := func(cfg Config, work func(ctx context.Context, node *Node)) {
		cfg.Logger, cfg.HTTPAddr, cfg.Data = slog.New(slog.NewTextHandler(testWriter{t}, nil)), "127.0.0.1:0", dir
		node, err := NewNode(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- node.Run(ctx, func() { close(ready) }) }()
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			http.DefaultClient.CloseIdleConnections()
		}()
		<-ready
		work(ctx, node)
	}
	run(Config{Keys: []*amphiv1.ApiKey{{Id: devKey, Secret: devSecret}}}, func(ctx context.Context, node *Node) {
		rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, node.URL(), manager(t))
		if _, err := rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Name: "first", Template: "live-event"})); err != nil {
			t.Fatal(err)
		}
		err := node.registry.Propose(ctx, &amphiv1.RegistryCommand{Id: proto.NewID(proto.RequestPrefix), Body: &amphiv1.RegistryCommand_PutSession{
			PutSession: &amphiv1.Session{Id: "s_left", Room: "first", StartedMs: 1}}})
		if err != nil {
			t.Fatal(err)
		}
	})
	run(Config{Keys: []*amphiv1.ApiKey{{Id: devKey, Secret: "another secret, which is not taken"}, {Id: "second", Secret: devSecret}}}, func(ctx context.Context, node *Node) {
		rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, node.URL(), manager(t))
		if _, err := rooms.GetRoom(ctx, connect.NewRequest(&amphiv1.GetRoomRequest{Room: "first"})); err != nil {
			t.Errorf("the first key, after a restart: %v", err)
		}
		node.registry.Read(func(r *amphiv1.Registry) {
			if all := r.GetSessions(); r.GetKeys()["second"] == nil || len(all) != 1 || all[0].GetEndedMs() == 0 {
				t.Errorf("%d keys, sessions %v", len(r.GetKeys()), all)
			}
		})
	})
}
