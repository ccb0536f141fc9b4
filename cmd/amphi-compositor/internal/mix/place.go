package mix

import "image"

// Place says which part of a picture of size src goes to which rectangle of the
// canvas, for a tile that it covers (cropping) or that contains it (with
// bars). Both rectangles have even coordinates; to lies in tile and canvas.
// ok is false when nothing of it can be seen.
func Place(src image.Point, tile, canvas image.Rectangle, contain bool) (to, from image.Rectangle, ok bool) {
	tile = even(tile)
	if src.X < 2 || src.Y < 2 || tile.Empty() {
		return image.Rectangle{}, image.Rectangle{}, false
	}
	from = image.Rectangle{Max: src}
	to = tile
	wide := src.X*tile.Dy() > src.Y*tile.Dx() // the picture is flatter than the tile
	switch {
	case contain && wide:
		h := max(src.Y*tile.Dx()/src.X&^1, 2)
		to.Min.Y += (tile.Dy() - h) / 2 &^ 1
		to.Max.Y = to.Min.Y + h
	case contain:
		w := max(src.X*tile.Dy()/src.Y&^1, 2)
		to.Min.X += (tile.Dx() - w) / 2 &^ 1
		to.Max.X = to.Min.X + w
	case wide:
		w := max(src.Y*tile.Dx()/tile.Dy()&^1, 2)
		from.Min.X = (src.X - w) / 2 &^ 1
		from.Max.X = from.Min.X + w
	default:
		h := max(src.X*tile.Dy()/tile.Dx()&^1, 2)
		from.Min.Y = (src.Y - h) / 2 &^ 1
		from.Max.Y = from.Min.Y + h
	}
	from = even(from)
	return clip(to, from, canvas)
}

// clip cuts off what lies beyond the canvas, from the picture in proportion.
func clip(to, from, canvas image.Rectangle) (image.Rectangle, image.Rectangle, bool) {
	seen := even(to.Intersect(canvas))
	if seen.Empty() {
		return image.Rectangle{}, image.Rectangle{}, false
	}
	if seen == to {
		return to, from, true
	}
	cut := image.Rect(
		from.Min.X+(seen.Min.X-to.Min.X)*from.Dx()/to.Dx(),
		from.Min.Y+(seen.Min.Y-to.Min.Y)*from.Dy()/to.Dy(),
		from.Max.X-(to.Max.X-seen.Max.X)*from.Dx()/to.Dx(),
		from.Max.Y-(to.Max.Y-seen.Max.Y)*from.Dy()/to.Dy(),
	)
	cut = even(cut)
	return seen, cut, !cut.Empty()
}

func even(r image.Rectangle) image.Rectangle {
	r.Min.X &^= 1
	r.Min.Y &^= 1
	r.Max.X &^= 1
	r.Max.Y &^= 1
	return r
}
