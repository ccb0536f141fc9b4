package main

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
)

// Two programs of one room at once, from one template: one wide with all roles, one upright with the speakers alone; each with
// its own layout, which the API changes while they run.
func TestTwoProgramsOfOneRoom(t *testing.T) {
	t.Parallel()
	node := startNodeWith(t, Config{CompositorPath: fakeCompositor(t), CompositorCores: 64})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	templates := amphiv1connect.NewTemplateServiceClient(http.DefaultClient, node.URL(), manager(t))
	streams := amphiv1connect.NewStreamServiceClient(http.DefaultClient, node.URL(), manager(t))
	nodes := amphiv1connect.NewNodeServiceClient(http.DefaultClient, node.URL(), manager(t))
	res, err := templates.GetTemplate(ctx, connect.NewRequest(&amphiv1.GetTemplateRequest{Name: "live-event"}))
	if err != nil {
		t.Fatal(err)
	}
	two := res.Msg
	two.Streams = append(two.GetStreams(), &amphiv1.StreamSettings{
		Name: "tall", OpenPlayback: true, Roles: []string{"speaker"}, Width: 360, Height: 640, Layout: amphiv1.LayoutKind_LAYOUT_KIND_ACTIVE_SPEAKER,
		LayoutOptions: &amphiv1.LayoutOptions{Margin: 30},
	})
	if _, err := templates.SetTemplate(ctx, connect.NewRequest(&amphiv1.SetTemplateRequest{Template: two})); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"host", "speaker"} {
		publish := &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic", Muted: true}
		if _, err := join(ctx, t, node, role, role).Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: publish}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"main", "tall"} {
		if _, err := streams.StartStream(ctx, connect.NewRequest(&amphiv1.StartStreamRequest{Room: devRoom, Stream: name})); err != nil {
			t.Fatal(err)
		}
	}
	status := func(name string) *amphiv1.StreamStatus {
		res, err := nodes.GetNode(ctx, connect.NewRequest(&amphiv1.GetNodeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range res.Msg.GetStreams() {
			if s.GetStream().GetName() == name {
				return s
			}
		}
		return nil
	}
	until := func(what string, f func() bool) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !f() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s does not come true", what)
			}
		}
	}
	live := amphiv1.StreamState_STREAM_STATE_LIVE
	until("both are live, each with its own roles", func() bool {
		wide, tall := status("main"), status("tall")
		return wide.GetStream().GetState() == live && tall.GetStream().GetState() == live && wide.GetTiles() == 2 && tall.GetTiles() == 1
	})
	wide, tall := status("main"), status("tall")
	if len(wide.GetVariants()) != 3 || len(tall.GetVariants()) != 1 || tall.GetVariants()[0].GetHeight() != 640 || wide.GetExpectedCores() < 0.3 {
		t.Errorf("%v and %v", wide, tall)
	}
	for path, want := range map[string]string{"main": "360p/index.m3u8", "tall": "360p/index.m3u8"} {
		if code, body := get(t, node.URL()+"/v1/hls/"+devRoom+"/"+path+"/index.m3u8"); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	var logo bytes.Buffer
	if err := png.Encode(&logo, image.NewGray(image.Rect(0, 0, 64, 32))); err != nil {
		t.Fatal(err)
	}
	if _, err := streams.PutPicture(ctx, connect.NewRequest(&amphiv1.PutPictureRequest{Name: "us", Data: logo.Bytes()})); err != nil {
		t.Fatal(err)
	}
	if key, data, ok := node.picture("us"); !ok || !strings.HasPrefix(key, "us@") || !bytes.Equal(data, logo.Bytes()) {
		t.Errorf("the picture is %q of %d bytes", key, len(data))
	}
	set, err := streams.SetLayout(ctx, connect.NewRequest(&amphiv1.SetLayoutRequest{
		Room: devRoom, LayoutOptions: &amphiv1.LayoutOptions{MaxTiles: 1, Logo: &amphiv1.Logo{Picture: "us"}}}))
	if err != nil || set.Msg.GetLayout() != amphiv1.LayoutKind_LAYOUT_KIND_AUTO || set.Msg.GetLayoutOptions().GetMaxTiles() != 1 {
		t.Fatalf("%v, %v", set, err)
	}
	until("one tile", func() bool { return status("main").GetTiles() == 1 })
	if o := status("tall").GetStream().GetLayoutOptions(); o.GetMaxTiles() != 0 {
		t.Errorf("the other one was changed: %v", o)
	}
	list, err := streams.ListStreams(ctx, connect.NewRequest(&amphiv1.ListStreamsRequest{Room: devRoom}))
	if err != nil || len(list.Msg.GetStreams()) != 2 || list.Msg.GetStreams()[1].GetLayoutOptions().GetMargin() != 30 {
		t.Errorf("%v, %v", list, err)
	}
}
