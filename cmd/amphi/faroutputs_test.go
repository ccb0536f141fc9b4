package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal"
)

// The owner has no compositor: what is made of its stream, a recording and a cue, is made where the stream is, and goes on at the
// stream's next origin when that one ends.
func TestARecordingFollowsItsStream(t *testing.T) {
	t.Parallel()
	fake := fakeCompositor(t)
	c := startClusterWith(t, 3, func(cfg *Config) {
		cfg.CompositorPath, cfg.Storage.Dir = fake, t.TempDir()
		if cfg.ID == "n1" {
			cfg.CompositorPath = "/nowhere/compositor"
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*clusterPatience)
	defer cancel()
	owner := c.nodes[0]
	c.goLive(ctx, join(ctx, t, owner.Node, "host", "Host"))
	first := c.origin(owner)
	records := amphiv1connect.NewRecordingServiceClient(http.DefaultClient, owner.URL(), manager(t))
	started, err := records.StartRecording(ctx, connect.NewRequest(&amphiv1.StartRecordingRequest{Room: devRoom}))
	if err != nil {
		t.Fatal(err)
	}
	id := started.Msg.GetId()
	recordsAt := func(n *clusterNode) bool {
		for _, o := range n.outputs.status() {
			if o.GetOutput().GetId() == id && o.GetOutput().GetBytes() > 20_000 {
				return true
			}
		}
		return false
	}
	// known is the output's state in the room.
	known := func() (state amphiv1.OutputState) {
		list, err := records.ListRecordings(ctx, connect.NewRequest(&amphiv1.ListOutputsRequest{Room: devRoom}))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Msg.GetOutputs() {
			if o.GetId() == id {
				state = o.GetState()
			}
		}
		return state
	}
	c.until("the origin records", func() bool { return recordsAt(first) })
	c.until("the room knows", func() bool { return known() == amphiv1.OutputState_OUTPUT_STATE_ACTIVE })
	if recordsAt(owner) || len(owner.outputs.status()) > 0 {
		t.Error("the owner records")
	}
	streams := amphiv1connect.NewStreamServiceClient(http.DefaultClient, owner.URL(), manager(t))
	if _, err := streams.SendTimedMetadata(ctx, connect.NewRequest(&amphiv1.SendTimedMetadataRequest{Room: devRoom, Metadata: &amphiv1.TimedMetadata{Type: "quiz", Text: "who?"}})); err != nil {
		t.Fatal(err)
	}
	w := watcher{t, owner}
	c.until("the cue is in the playlist", func() bool {
		_, list, err := w.get("720p/index.m3u8")
		return err == nil && strings.Contains(list, "#EXT-X-DATERANGE") && strings.Contains(list, "quiz")
	})
	chatter := join(ctx, t, owner.Node, "host", "Chatter")
	say := func(text string) {
		t.Helper()
		if _, err := chatter.Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_Send{Send: &amphiv1.SendMessage{Type: "chat", Text: text}}}); err != nil {
			t.Fatal(err)
		}
	}
	say("before")
	c.end(first)
	var second *clusterNode
	c.until("the next origin records", func() bool {
		for _, n := range c.nodes {
			if !n.dead && recordsAt(n) {
				second = n
			}
		}
		return second != nil
	})
	if second == owner {
		t.Fatal("a node without compositor records")
	}
	c.until("the room knows again", func() bool { return known() == amphiv1.OutputState_OUTPUT_STATE_ACTIVE })
	say("after")
	if _, err := records.PauseRecording(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom, Id: id})); err != nil {
		t.Fatal(err)
	}
	c.until("it is paused", func() bool { return known() == amphiv1.OutputState_OUTPUT_STATE_PAUSED })
	if _, err := records.StopRecording(ctx, connect.NewRequest(&amphiv1.OutputRequest{Room: devRoom, Id: id})); err != nil {
		t.Fatal(err)
	}
	c.until("another part, with what was said", func() bool {
		there := map[amphiv1.AssetType]bool{}
		owner.registry.Read(func(r *amphiv1.Registry) {
			for _, a := range r.GetAssets() {
				if a.GetOutputId() == id && a.GetPart() >= 2 && a.GetNode() == second.cfg.ID && a.GetState() == amphiv1.AssetState_ASSET_STATE_READY {
					there[a.GetType()] = true
				}
			}
		})
		return there[amphiv1.AssetType_ASSET_TYPE_PROGRAM] && there[amphiv1.AssetType_ASSET_TYPE_CHAT]
	})
}

// An owner that dies between the end of an output and its word to the node that makes it leaves that one without a master.
func TestOutputsThatNobodyWantsEnd(t *testing.T) {
	t.Parallel()
	o := newOutputs(slog.New(slog.DiscardHandler))
	o.told = func(string, string, *amphiv1.Output) {}
	ended := map[string]bool{}
	for id, by := range map[string]string{"stray": "dead", "taken": "dead", "own": "", "asked": "heir"} {
		_, stop := context.WithCancel(t.Context())
		o.made[id] = &made{room: devRoom, output: &amphiv1.Output{Id: id, Stream: "main"}, by: by, cancel: func() { stop(); ended[id] = true }}
	}
	now := time.Now()
	o.owned(devRoom, "main", "heir", now)
	o.owned(devRoom, "main", "heir", now.Add(straying))
	o.owned(devRoom, "other", "heir", now.Add(time.Hour))
	if len(ended) > 0 {
		t.Fatalf("ended at once: %v", ended)
	}
	// The heir asks for two in time.
	if err := o.startFor("heir", signal.OutputStart{Room: devRoom, Output: o.made["taken"].output}); err != nil {
		t.Fatal(err)
	}
	if err := o.startFor("heir", signal.OutputStart{Room: devRoom, Output: o.made["own"].output}); err != nil {
		t.Fatal(err)
	}
	o.owned(devRoom, "main", "heir", now.Add(2*straying))
	if len(ended) != 1 || !ended["stray"] {
		t.Errorf("ended %v, want what only the dead owner wanted", ended)
	}
}
