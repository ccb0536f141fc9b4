package hls

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/layout"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/media/codec"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Two programs of one room by real compositors: one wide, one upright with a layout of its own, which changes while it runs without
// a gap in its playlist. They share the room's tracks.
func TestTwoProgramsByRealCompositors(t *testing.T) {
	t.Parallel()
	r := &room{}
	cam := &encoding{codec: codec.ByPayloadType(102), ssrc: 7, w: 320, h: 180}
	r.set("cam", cam)
	path := buildCompositor(t)
	s := runOrigin(t, r, func(c *Config) { c.CompositorPath, c.CompositorEnv = path, nil })
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		camera(ctx, t, cam)
	}()
	t.Cleanup(func() { cancel(); <-sent })
	stage := Stage{Peers: []StagePeer{{ID: "p", Name: "Pia", Video: StageTrack{ID: "cam"}}, {ID: "q", Name: "Quin"}}}
	for name, settings := range map[string]Settings{
		"wide": {Width: 320, Height: 180, Variants: []packager.Variant{{Name: "v", Bitrate: 300_000}}},
		"tall": {Width: 180, Height: 320, Variants: []packager.Variant{{Name: "v", Bitrate: 300_000}}, Layout: layout.ActiveSpeaker},
	} {
		settings.Segment = time.Second
		s.start(StartRequest{Room: "demo", Stream: name, Settings: settings, Stage: stage})
	}
	for name, size := range map[string]string{"wide": "320x180", "tall": "180x320"} {
		eventually(t, "a colourful picture of "+name, func() bool { return s.colours("/v1/hls/demo/"+name+"/v/") > 20 })
		if _, body := s.get("/v1/hls/demo/" + name + "/index.m3u8"); !strings.Contains(body, "RESOLUTION="+size) {
			t.Errorf("%s: %s", name, body)
		}
	}
	before := s.Programs()[0].Composer.Pictures
	for i := range 8 {
		mode := []layout.Mode{layout.Grid, layout.Single, layout.PictureInPicture, layout.ActiveSpeaker}[i%4]
		o := &amphiv1.LayoutOptions{Margin: uint32(20 * i), FadeMs: new(uint32(200)), Background: fmt.Sprintf("#2020%02d", i), PinnedPeer: "p"}
		if err := s.SetLayout("demo", "tall", mode, o); err != nil {
			t.Fatal(err)
		}
		at := before + int64(10*i)
		eventually(t, "the next pictures", func() bool { return s.Programs()[0].Composer.Pictures > at })
	}
	eventually(t, "the picture after all changes", func() bool {
		return s.Programs()[0].Composer.Pictures > before+120 && s.colours("/v1/hls/demo/tall/v/") > 20
	})
	for _, st := range s.Programs() {
		if st.Malformed != 0 || st.Packager.Gaps != 0 || st.Packager.Filled != 0 || st.Composer.Exits != 0 || len(st.Composer.Compositor.Drops) > 0 {
			t.Errorf("%s: %d malformed, %+v, %d exits, drops %v", st.Stream, st.Malformed, st.Packager, st.Composer.Exits, st.Composer.Compositor.Drops)
		}
		for i, seg := range s.playlist("/v1/hls/demo/" + st.Stream + "/v/index.m3u8").Segments {
			if seg.Discontinuity || i > 0 && seg.Duration != time.Second { // the first one may begin within the grid
				t.Errorf("%s: segment of %v, discontinuity %v", st.Stream, seg.Duration, seg.Discontinuity)
			}
		}
	}
}
