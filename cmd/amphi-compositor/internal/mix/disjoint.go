package mix

import "image"

// maxPieces of a cut-up area; beyond it the whole is simpler.
const maxPieces = 64

// Disjoint cuts rectangles, which may lie over each other, into even ones that do not and cover the same. When that
// takes too many it answers bounds.
func Disjoint(list []image.Rectangle, bounds image.Rectangle) []image.Rectangle {
	var out []image.Rectangle
	for _, r := range list {
		pieces := []image.Rectangle{even(r).Intersect(bounds)}
		for _, have := range out {
			var left []image.Rectangle
			for _, p := range pieces {
				left = subtract(left, p, have)
			}
			pieces = left
		}
		for _, p := range pieces {
			if !p.Empty() {
				out = append(out, p)
			}
		}
		if len(out) > maxPieces {
			return []image.Rectangle{bounds}
		}
	}
	return out
}

// subtract appends what of r does not lie in cut.
func subtract(dst []image.Rectangle, r, cut image.Rectangle) []image.Rectangle {
	c := r.Intersect(cut)
	if c.Empty() {
		return append(dst, r)
	}
	for _, p := range [4]image.Rectangle{
		image.Rect(r.Min.X, r.Min.Y, r.Max.X, c.Min.Y), image.Rect(r.Min.X, c.Max.Y, r.Max.X, r.Max.Y),
		image.Rect(r.Min.X, c.Min.Y, c.Min.X, c.Max.Y), image.Rect(c.Max.X, c.Min.Y, r.Max.X, c.Max.Y),
	} {
		if !p.Empty() {
			dst = append(dst, p)
		}
	}
	return dst
}
