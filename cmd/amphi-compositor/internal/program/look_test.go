//go:build cgo

package program

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"testing"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// plain is a picture of one colour.
func plain(t testing.TB, w, h int, c color.NRGBA) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw.Draw(img, img.Rect, image.NewUniform(c), image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBackdropLogoAndHighlight(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	red, blue := color.NRGBA{220, 20, 20, 255}, color.NRGBA{20, 20, 220, 128}
	ground, grey := yuv(red), av.YUV{Y: 120, U: 128, V: 128}
	in := e.input(1, image.Pt(320, 180), grey)
	if !e.p.scenes.keep(wire.Picture{Key: "wall@1", Data: plain(t, 100, 100, red)}) || !e.p.scenes.keep(wire.Picture{Key: "logo@1", Data: plain(t, 200, 100, blue)}) {
		t.Fatal("pictures refused")
	}
	w := &wire.Scene{
		Background: "#000000", Picture: "wall@1", Highlight: "#ffffff",
		Logo:  &wire.Logo{Picture: "logo@1", X: 280, Y: 10, W: 160, H: 40, Right: true},
		Tiles: []wire.Tile{{Input: 1, W: 400, H: 360, Speaking: true}},
	}
	e.paint(w)
	e.want("backdrop", 600, 300, ground)
	e.want("border", 2, 100, av.YUV{Y: 235, U: 128, V: 128})
	e.want("tile", 200, 180, grey)
	over := func(k av.YUV) av.YUV {
		b := yuv(blue)
		return av.YUV{Y: k.Y/2 + b.Y/2, U: k.U/2 + b.U/2, V: k.V/2 + b.V/2}
	}
	// It is 80 pixels wide and at the right of its 160: half on the tile, half on the backdrop.
	e.want("left of the logo", 350, 20, grey)
	e.want("logo on the tile", 380, 20, over(grey))
	e.want("logo on the backdrop", 420, 20, over(ground))
	// The tile goes on below: what is blended is not blended twice.
	white := av.YUV{Y: 200, U: 128, V: 128}
	e.show(in, image.Pt(320, 180), white)
	e.paint(w)
	e.show(in, image.Pt(320, 180), grey)
	if failed := e.sheet.paint(e.p.scenes.make(w, e.p.scenes.kept)); failed != 0 {
		t.Error(failed)
	}
	e.want("logo on the tile later", 380, 20, over(grey))
	e.want("logo on the backdrop later", 420, 20, over(ground))
	// Pictures that are not there, or no pictures, leave the colour.
	for _, key := range []string{"none@1", "junk@1"} {
		e.p.scenes.keep(wire.Picture{Key: "junk@1", Data: []byte("junk")})
		e.paint(&wire.Scene{Background: "#000000", Picture: key, Logo: &wire.Logo{Picture: key, W: 20, H: 20}})
		e.want(key, 10, 10, av.YUV{Y: 16, U: 128, V: 128})
	}
}

// A logo over tiles of which one changes: the same scene is painted on, tile by tile.
func TestLogoOverChangingTiles(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	grey, white := av.YUV{Y: 120, U: 128, V: 128}, av.YUV{Y: 200, U: 128, V: 128}
	in := e.input(1, image.Pt(320, 180), grey)
	e.input(2, image.Pt(320, 180), white)
	e.p.scenes.keep(wire.Picture{Key: "l", Data: plain(t, 40, 40, color.NRGBA{0, 0, 0, 128})})
	sc := e.p.scenes.make(&wire.Scene{
		Logo:  &wire.Logo{Picture: "l", X: 300, Y: 100, W: 40, H: 40},
		Tiles: []wire.Tile{{Input: 1, W: 320, H: 360}, {Input: 2, X: 320, W: 320, H: 360}},
	}, e.p.scenes.kept)
	for range 5 {
		e.show(in, image.Pt(320, 180), grey)
		if failed := e.sheet.paint(sc); failed != 0 {
			t.Fatal(failed)
		}
	}
	e.want("left", 310, 120, av.YUV{Y: 68, U: 128, V: 128})
	e.want("right", 330, 120, av.YUV{Y: 108, U: 128, V: 128})
}

func TestPicturesAreBounded(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	for i := range wire.MaxPictures + 1 {
		if ok := e.p.scenes.keep(wire.Picture{Key: string(rune('a' + i)), Data: []byte{1}}); ok != (i < wire.MaxPictures) {
			t.Errorf("picture %d: %v", i, ok)
		}
	}
	e.p.scenes.keep(wire.Picture{Key: "a"})
	if !e.p.scenes.keep(wire.Picture{Key: "z", Data: []byte{1}}) {
		t.Error("no room after one was forgotten")
	}
}

// A tile that is new fades in over the old picture, one that stays is not touched, and at the end nothing of the old is left.
func TestFade(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := opened(t, &out, wire.Variant{Name: "v", Width: canvasW, Height: canvasH, Bitrate: 500_000})
	v, black := p.video, av.YUV{Y: 16, U: 128, V: 128}
	scene := func(w *wire.Scene) {
		t.Helper()
		if err := w.Validate(); err != nil {
			t.Fatal(err)
		}
		p.scenes.now.Store(p.scenes.make(w, nil))
	}
	var last *sheet
	step := func(tick int64, level mix.Level) (left, right uint8) {
		s := v.sheet(t.Context())
		v.paint(s, tick, last, level)
		last = s
		s.refs = 1
		v.release(s)
		return s.canvas.At(20, 20).Y, s.canvas.At(620, 20).Y
	}
	colour := func(x int, c string) wire.Tile {
		return wire.Tile{X: x, W: 320, H: 360, Placeholder: wire.Placeholder{Colour: c, Always: true}}
	}
	scene(&wire.Scene{Tiles: []wire.Tile{colour(0, "#ffffff")}})
	bright, _ := step(0, mix.Normal)
	scene(&wire.Scene{FadeMS: 200, Tiles: []wire.Tile{colour(0, "#ffffff"), colour(320, "#ffffff")}})
	before := black.Y
	for tick := int64(1); tick <= 6; tick++ {
		left, right := step(tick, mix.Normal)
		if left != bright || right <= before {
			t.Errorf("tick %d: %d and %d after %d", tick, left, right, before)
		}
		if tick == 3 { // who speaks changes meanwhile: the fade goes on
			again := []wire.Tile{colour(0, "#ffffff"), colour(320, "#ffffff")}
			again[0].Speaking = true
			scene(&wire.Scene{FadeMS: 200, Tiles: again})
		}
		before = right
	}
	if before >= bright {
		t.Errorf("the fade was over with %d", before)
	}
	if _, right := step(7, mix.Normal); right != bright {
		t.Errorf("after the fade %d, want %d", right, bright)
	}
	// Back at once where time is short.
	scene(&wire.Scene{FadeMS: 200, Tiles: []wire.Tile{colour(0, "#ffffff")}})
	if _, right := step(8, mix.Normal+1); right != black.Y {
		t.Errorf("under overload %d", right)
	}
}

// The tick of a fade over the whole of a 720p canvas, beside one without.
func BenchmarkFade(b *testing.B) {
	var canvases [2]*av.Canvas
	for i := range canvases {
		c, err := av.NewCanvas(1280, 720)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Free()
		canvases[i] = c
	}
	for b.Loop() {
		canvases[0].Mix(canvases[1], canvases[0].Bounds(), 100)
	}
}
