package mix

import (
	"image"
	"testing"

	"pgregory.net/rapid"
)

func TestDisjoint(t *testing.T) {
	t.Parallel()
	bounds := image.Rect(0, 0, 40, 24)
	rapid.Check(t, func(t *rapid.T) {
		var list []image.Rectangle
		want := map[image.Point]bool{}
		for range rapid.IntRange(0, 8).Draw(t, "n") {
			x, y := 2*rapid.IntRange(-3, 22).Draw(t, "x"), 2*rapid.IntRange(-3, 14).Draw(t, "y")
			r := image.Rect(x, y, x+2*rapid.IntRange(0, 12).Draw(t, "w"), y+2*rapid.IntRange(0, 12).Draw(t, "h"))
			list = append(list, r)
			for x := r.Min.X; x < r.Max.X; x++ {
				for y := r.Min.Y; y < r.Max.Y; y++ {
					if p := image.Pt(x, y); p.In(bounds) {
						want[p] = true
					}
				}
			}
		}
		got := map[image.Point]bool{}
		for _, r := range Disjoint(list, bounds) {
			if even(r) != r || r.Empty() {
				t.Fatalf("piece %v", r)
			}
			for x := r.Min.X; x < r.Max.X; x++ {
				for y := r.Min.Y; y < r.Max.Y; y++ {
					if got[image.Pt(x, y)] {
						t.Fatalf("%d,%d twice", x, y)
					}
					got[image.Pt(x, y)] = true
				}
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d points instead of %d of %v", len(got), len(want), list)
		}
		for p := range want {
			if !got[p] {
				t.Fatalf("%v is missing", p)
			}
		}
	})
	var many []image.Rectangle
	for i := range 80 {
		many = append(many, image.Rect(4*i, 0, 4*i+2, 2))
	}
	if got := Disjoint(many, image.Rect(0, 0, 400, 2)); len(got) != 1 {
		t.Errorf("%d pieces", len(got))
	}
}
