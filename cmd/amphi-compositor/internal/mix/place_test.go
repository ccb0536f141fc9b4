package mix_test

import (
	"image"
	"testing"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
)

func TestPlace(t *testing.T) {
	t.Parallel()
	canvas := image.Rect(0, 0, 1280, 720)
	for name, c := range map[string]struct {
		src      image.Point
		tile     image.Rectangle
		contain  bool
		to, from image.Rectangle
	}{
		"same shape":       {image.Pt(640, 360), image.Rect(0, 0, 1280, 720), false, image.Rect(0, 0, 1280, 720), image.Rect(0, 0, 640, 360)},
		"portrait covers":  {image.Pt(360, 640), image.Rect(0, 0, 640, 360), false, image.Rect(0, 0, 640, 360), image.Rect(0, 218, 360, 420)},
		"portrait inside":  {image.Pt(360, 640), image.Rect(0, 0, 640, 360), true, image.Rect(218, 0, 420, 360), image.Rect(0, 0, 360, 640)},
		"wide covers":      {image.Pt(1280, 720), image.Rect(0, 0, 400, 400), false, image.Rect(0, 0, 400, 400), image.Rect(280, 0, 1000, 720)},
		"wide inside":      {image.Pt(1280, 720), image.Rect(0, 0, 400, 400), true, image.Rect(0, 88, 400, 312), image.Rect(0, 0, 1280, 720)},
		"half off the top": {image.Pt(640, 360), image.Rect(0, -360, 1280, 360), false, image.Rect(0, 0, 1280, 360), image.Rect(0, 180, 640, 360)},
		"odd tile":         {image.Pt(640, 360), image.Rect(1, 1, 641, 361), false, image.Rect(0, 0, 640, 360), image.Rect(0, 0, 640, 360)},
	} {
		to, from, ok := mix.Place(c.src, c.tile, canvas, c.contain)
		if !ok || to != c.to || from != c.from {
			t.Errorf("%s: %v from %v (%v), want %v from %v", name, to, from, ok, c.to, c.from)
		}
	}
	if _, _, ok := mix.Place(image.Pt(640, 360), image.Rect(2000, 0, 2100, 100), canvas, false); ok {
		t.Error("shows what is off the canvas")
	}
}

// Wherever a tile is, nothing is painted outside of it, of the canvas or of the picture,
// and 4:2:0 allows all coordinates.
func TestPlaceStaysInside(t *testing.T) {
	t.Parallel()
	canvas := image.Rect(0, 0, 640, 360)
	n := func(t *rapid.T, name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
	rapid.Check(t, func(t *rapid.T) {
		src := image.Pt(n(t, "w", 1, 4096), n(t, "h", 1, 4096))
		x, y := n(t, "x", -700, 700), n(t, "y", -700, 700)
		tile := image.Rect(x, y, x+n(t, "tw", 2, 800), y+n(t, "th", 2, 800))
		to, from, ok := mix.Place(src, tile, canvas, rapid.Bool().Draw(t, "contain"))
		if !ok {
			return
		}
		grown := image.Rect(tile.Min.X-1, tile.Min.Y-1, tile.Max.X, tile.Max.Y)
		if to.Empty() || from.Empty() || !to.In(canvas) || !to.In(grown) || !from.In(image.Rectangle{Max: src}) {
			t.Fatalf("%v from %v", to, from)
		}
		for _, r := range []image.Rectangle{to, from} {
			if (r.Min.X|r.Min.Y|r.Max.X|r.Max.Y)&1 != 0 {
				t.Fatalf("odd: %v", r)
			}
		}
	})
}
