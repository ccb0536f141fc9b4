package hls

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/hls/layout"
	"github.com/amphi-sfu/amphi/hls/wire"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// A layout's options reach the compositor as one scene, with the pictures that it names.
func TestLayoutOptions(t *testing.T) {
	t.Parallel()
	c := &composer{}
	l := testLoop(t, &room{}, c)
	l.settings.Background = "#101010"
	version := "@1"
	l.pictures = func(name string) (string, []byte, bool) { return name + version, []byte(name), name != "gone" }
	stage := Stage{}
	for _, id := range []string{"a", "b", "c"} {
		stage.Peers = append(stage.Peers, StagePeer{ID: id, Name: id, Audio: StageTrack{ID: id + "-mic"}})
	}
	stage.Speakers = []string{"a"}
	l.setStage(stage)
	l.step(l.started)
	s := c.desired.Scene
	if s.Background != "#101010" || s.FadeMS != defaultFade || s.Logo != nil || s.Picture != "" || len(s.Tiles) != 3 || s.Tiles[0].Label != "a" || !s.Tiles[0].Speaking {
		t.Errorf("without options: %+v", s)
	}
	l.setLayout(layout.ActiveSpeaker, &amphiv1.LayoutOptions{
		PinnedPeer: "c", MaxTiles: 2, Gap: new(uint32(0)), Margin: 50, Fit: amphiv1.TileFit_TILE_FIT_CONTAIN, Names: new(false), Highlight: noHighlight,
		Background: "#202020", BackgroundPicture: "wall", FadeMs: new(uint32(0)),
		Logo: &amphiv1.Logo{Picture: "logo", Corner: amphiv1.Corner_CORNER_BOTTOM_RIGHT, Size: 200, Margin: new(uint32(50)), Opacity: 80},
	})
	l.step(l.started.Add(time.Second))
	s = c.desired.Scene
	if s.Background != "#202020" || s.Picture != "wall@1" || s.FadeMS != 0 || s.Highlight != "" || len(s.Tiles) != 2 {
		t.Errorf("with options: %+v", s)
	}
	for _, tile := range s.Tiles {
		if tile.Label != "" || tile.Speaking || tile.Fit != wire.Contain || tile.X < 36 {
			t.Errorf("%+v", tile)
		}
	}
	if s.Tiles[0].Placeholder.Initials != "C" {
		t.Errorf("%q is large", s.Tiles[0].Placeholder.Initials)
	}
	if d := cmp.Diff(&wire.Logo{Picture: "logo@1", X: 1280 - 36 - 576, Y: 720 - 36 - 144, W: 576, H: 144, Opacity: 80, Right: true, Bottom: true}, s.Logo); d != "" {
		t.Error(d)
	}
	if len(c.desired.Pictures) != 2 || string(c.desired.Pictures[0].Data) != "wall" {
		t.Errorf("%d pictures", len(c.desired.Pictures))
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	// Another picture of the same name, one that is gone, a peer that is not there.
	version = "@2"
	l.setLayout(layout.ActiveSpeaker, &amphiv1.LayoutOptions{PinnedPeer: "z", BackgroundPicture: "gone", Logo: &amphiv1.Logo{Picture: "logo"}})
	l.step(l.started.Add(2 * time.Second))
	if s = c.desired.Scene; s.Picture != "" || s.Logo.Picture != "logo@2" || len(c.desired.Pictures) != 1 || s.Tiles[0].Placeholder.Initials != "C" {
		t.Errorf("%+v with %d pictures", s, len(c.desired.Pictures))
	}
	if st := l.stats(); st.Settings.Options.GetPinnedPeer() != "z" {
		t.Errorf("%v", st.Settings.Options)
	}
}

// Pictures that are not there are told once, not with every step.
func TestMissingPicturesAreToldOnce(t *testing.T) {
	t.Parallel()
	l := testLoop(t, &room{}, &composer{})
	var said strings.Builder
	l.log = slog.New(slog.NewTextHandler(&said, nil))
	there := false
	l.pictures = func(name string) (string, []byte, bool) { return name, []byte(name), there }
	l.setLayout(layout.Auto, &amphiv1.LayoutOptions{BackgroundPicture: "wall", Logo: &amphiv1.Logo{Picture: "us"}})
	steps := func(want int) {
		t.Helper()
		for range 5 {
			l.step(l.started)
		}
		if got := strings.Count(said.String(), "no such picture"); got != want {
			t.Errorf("told %d times instead of %d:\n%s", got, want, said.String())
		}
	}
	steps(2)
	there = true
	steps(2)
	there = false
	steps(4)
}

// Whatever options and canvas say, the compositor accepts the scene.
func TestLogosAreOnTheCanvas(t *testing.T) {
	t.Parallel()
	for _, side := range [][2]int{{1280, 720}, {720, 1280}, {144, 144}, {1920, 144}} {
		for corner := range int32(5) {
			for _, size := range []uint32{0, 10, 500} {
				for _, margin := range []uint32{0, 200} {
					l := logo(&amphiv1.Logo{Corner: amphiv1.Corner(corner), Size: size, Margin: &margin}, "k", side[0], side[1])
					scene := wire.Scene{Logo: l}
					if err := scene.Validate(); err != nil || l.X+l.W > side[0] || l.Y+l.H > side[1] {
						t.Errorf("%v: %+v %v", side, l, err)
					}
				}
			}
		}
	}
}
