package label

import (
	"hash/fnv"
	"image"
	"image/color"
	"image/draw"
	"math"
	"strconv"

	"golang.org/x/image/vector"
)

// Pictures have straight (not premultiplied) alpha.
type Picture = image.NRGBA

// Plate draws a name on a dark rounded plate, with a crossed-out microphone
// before it when muted. height is the plate's, in pixels; the picture is as
// wide as it needs to be, at most limit. Nil when there is nothing to say.
func (f *Fonts) Plate(name string, muted bool, height, limit int) *Picture {
	height = max(height, 12) &^ 1
	pad := height * 3 / 8
	icon := 0
	if muted {
		icon = height * 3 / 4
	}
	text := f.lay(name, float64(height)*0.58, limit-2*pad-icon)
	if len(text.runs) == 0 && !muted {
		return nil
	}
	w := 2*pad + icon + text.width.Ceil()
	if len(text.runs) == 0 {
		w = 2*pad + icon/2
	}
	w = (w + 1) &^ 1
	if w > limit {
		return nil
	}
	img := image.NewNRGBA(image.Rect(0, 0, w, height))
	shape(img, color.NRGBA{A: 150}, roundRect(0, 0, float32(w), float32(height), float32(height)/4))
	if muted {
		microphone(img, float32(pad)*0.8, float32(height)*0.2, float32(height)*0.6)
	}
	text.draw(img, pad+icon, int(float64(height)*0.71), color.White)
	return img
}

// Placeholder draws initials on a disc, on a plain ground: a tile without picture.
func (f *Fonts) Placeholder(w, h int, initials string, ground color.NRGBA) *Picture {
	w, h = max(w&^1, 2), max(h&^1, 2)
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw.Draw(img, img.Rect, image.NewUniform(darker(ground, 0.45)), image.Point{}, draw.Src)
	r := float32(min(w, h)) * 0.27
	cx, cy := float32(w)/2, float32(h)/2
	disc := img.SubImage(image.Rect(int(cx-r)-1, int(cy-r)-1, int(cx+r)+2, int(cy+r)+2)).(*Picture)
	dx, dy := float32(disc.Rect.Min.X), float32(disc.Rect.Min.Y)
	shape(disc, ground, roundRect(cx-r-dx, cy-r-dy, cx+r-dx, cy+r-dy, r))
	if initials != "" {
		size := float64(r) * 0.95
		text := f.lay(initials, size, int(2*r))
		text.draw(img, int(cx)-text.width.Round()/2, int(float64(cy)+size*0.36), color.White)
	}
	return img
}

// Colour reads "#rrggbb". Anything else gives a colour of its own to each text,
// the same every time.
func Colour(s, text string) color.NRGBA {
	if len(s) == 7 && s[0] == '#' {
		if v, err := strconv.ParseUint(s[1:], 16, 32); err == nil {
			return color.NRGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(text)) // a hash takes everything
	hue := float64(h.Sum32()%360) / 60
	channel := func(shift float64) uint8 {
		k := math.Mod(shift+hue, 6)
		return uint8(70 + 110*max(0, min(k, 4-k, 1)))
	}
	return color.NRGBA{channel(5), channel(3), channel(1), 255}
}

func darker(c color.NRGBA, by float64) color.NRGBA {
	m := func(v uint8) uint8 { return uint8(float64(v) * by) }
	return color.NRGBA{m(c.R), m(c.G), m(c.B), 255}
}

// outline adds a closed path to a rasterizer.
type outline func(*vector.Rasterizer)

// shape fills paths with one colour, with smooth edges.
func shape(img *Picture, c color.NRGBA, paths ...outline) {
	z := vector.NewRasterizer(img.Rect.Dx(), img.Rect.Dy())
	for _, p := range paths {
		p(z)
	}
	z.Draw(img, img.Rect, image.NewUniform(c), image.Point{})
}

func roundRect(x0, y0, x1, y1, r float32) outline {
	return func(z *vector.Rasterizer) {
		k := r * 0.5523 // a cubic's best quarter circle
		z.MoveTo(x0+r, y0)
		z.LineTo(x1-r, y0)
		z.CubeTo(x1-r+k, y0, x1, y0+r-k, x1, y0+r)
		z.LineTo(x1, y1-r)
		z.CubeTo(x1, y1-r+k, x1-r+k, y1, x1-r, y1)
		z.LineTo(x0+r, y1)
		z.CubeTo(x0+r-k, y1, x0, y1-r+k, x0, y1-r)
		z.LineTo(x0, y0+r)
		z.CubeTo(x0, y0+r-k, x0+r-k, y0, x0+r, y0)
		z.ClosePath()
	}
}

// slash is a straight stroke.
func slash(x0, y0, x1, y1, thick float32) outline {
	return func(z *vector.Rasterizer) {
		dx, dy := x1-x0, y1-y0
		n := float32(math.Hypot(float64(dx), float64(dy)))
		ox, oy := -dy/n*thick/2, dx/n*thick/2
		z.MoveTo(x0+ox, y0+oy)
		z.LineTo(x1+ox, y1+oy)
		z.LineTo(x1-ox, y1-oy)
		z.LineTo(x0-ox, y0-oy)
		z.ClosePath()
	}
}

// microphone draws a crossed-out microphone, size pixels high, at x, y.
func microphone(img *Picture, x, y, size float32) {
	white, red := color.NRGBA{235, 235, 235, 255}, color.NRGBA{235, 64, 52, 255}
	w := size * 0.36
	cx := x + size*0.36
	shape(img, white, roundRect(cx-w/2, y, cx+w/2, y+size*0.62, w/2-0.01))
	bar := size * 0.09
	shape(img, white, roundRect(cx-bar/2, y+size*0.62, cx+bar/2, y+size*0.96, bar/2))
	shape(img, white, roundRect(cx-size*0.24, y+size*0.88, cx+size*0.24, y+size, bar/2))
	shape(img, red, slash(x, y+size*0.02, x+size*0.72, y+size*0.98, size*0.12))
}
