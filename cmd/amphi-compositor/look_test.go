//go:build cgo

package main

import (
	"bytes"
	"image"
	"image/png"
	"testing"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// testLooks changes all that a layout can change, with fades, and watches a tile that stays.
func testLooks(t *testing.T, c clips) {
	st := startStage(t, "", newStart(2))
	first := st.first()
	var wall bytes.Buffer
	if err := png.Encode(&wall, image.NewGray(image.Rect(0, 0, 640, 200))); err != nil {
		t.Fatal(err)
	}
	b, err := wire.AppendPicture(nil, wire.Picture{Key: "wall@1", Data: wall.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	st.write(b)
	st.announce(1)
	st.send(1, c.vp8, 0, 0)
	st.announce(2)
	st.send(2, c.h264, 0, 0)
	st.mix(1001, 1002)
	calm, other := quarter(0, 1), quarter(3, 2)
	logos := []*wire.Logo{nil, {Picture: "wall@1", X: 1000, Y: 20, W: 200, H: 60, Right: true}, {Picture: "wall@1", X: 800, Y: 500, W: 300, H: 60, Opacity: 50}}
	look := wire.Scene{Tiles: []wire.Tile{calm}}
	for i := range 24 {
		look.FadeMS = 100 * (i % 4)
		look.Logo = logos[i%3]
		look.Highlight = []string{"", "#ffcc00"}[i%2]
		look.Tiles = []wire.Tile{calm}
		look.Tiles[0].Speaking = i%2 == 0
		if i%4 > 0 {
			moved := other
			moved.X, moved.Y = 640, 360*(i%2)
			look.Tiles = append(look.Tiles, moved)
		}
		if i >= 20 {
			look.Picture = "wall@1"
		}
		b, err := wire.AppendScene(nil, &look)
		if err != nil {
			t.Fatal(err)
		}
		st.wait(first + 60 + int64(10*i))
		st.write(b)
	}
	end := first + 330
	st.wait(end)
	st.continuous()
	s := st.look(0, tileRect(calm))
	report(t, st, s, first+75, first+255)
	if m := s[0].motion(first+75, first+255); m.blank > 0 || m.longest > stuck {
		t.Errorf("the calm tile: %+v", m)
	}
	if d := st.figures().Drops; d["control_refused"] > 0 || d["unscalable"] > 0 {
		t.Errorf("drops %v", d)
	}
	if err := st.exit(); err != nil {
		t.Errorf("after EOF: %v", err)
	}
}
