package hls

import (
	"context"
	"testing"

	"github.com/amphi-sfu/amphi/media"
)

// *media.Encoding is an Encoding.
var _ Encoding = (*media.Encoding)(nil)

func TestEngineWithoutTrack(t *testing.T) {
	t.Parallel()
	e, err := media.New(media.Config{UDPAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	if track, ok := Engine(e).Track("demo", "nothing"); ok || track != nil {
		t.Errorf("a track that isn't there: %v", track)
	}
	if _, ok := e.LookupRouter("demo"); ok || len(e.Stats().Routers) != 0 {
		t.Error("asking for a track made a router")
	}
	r := e.Router("demo")
	if found, ok := e.LookupRouter("demo"); !ok || found != r {
		t.Error("a router that is there is not found")
	}
	if track, ok := Engine(e).Track("demo", "nothing"); ok || track != nil {
		t.Errorf("a track that isn't there: %v", track)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
