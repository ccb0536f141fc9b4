package av

/*
#include "av.h"
*/
import "C"

import (
	"errors"
	"image"
	"time"
	"unsafe"
)

// ErrMemory is returned when libav could not allocate.
var ErrMemory = errors.New("out of memory")

// Canvas is the picture that is painted and then encoded: 4:2:0, limited range,
// BT.601 matrix with BT.709 primaries, as browsers send their cameras.
type Canvas struct {
	Frame
}

// NewCanvas returns a black canvas; both sides even.
func NewCanvas(w, h int) (*Canvas, error) {
	f := C.amphi_canvas(C.int(w), C.int(h))
	if f == nil {
		return nil, ErrMemory
	}
	return &Canvas{Frame{f}}, nil
}

// Bounds is the canvas as a rectangle at 0,0.
func (c *Canvas) Bounds() image.Rectangle {
	w, h := c.Size()
	return image.Rect(0, 0, w, h)
}

// rect makes r even and keeps it on the canvas.
func (c *Canvas) rect(r image.Rectangle) C.amphi_rect {
	r = Even(r).Intersect(c.Bounds())
	return C.amphi_rect{C.int(r.Min.X), C.int(r.Min.Y), C.int(r.Dx()), C.int(r.Dy())}
}

// Even rounds all four coordinates down to even ones, as 4:2:0 needs.
func Even(r image.Rectangle) image.Rectangle {
	return image.Rectangle{
		Min: image.Pt(r.Min.X&^1, r.Min.Y&^1),
		Max: image.Pt(r.Max.X&^1, r.Max.Y&^1),
	}
}

// YUV is one colour of a canvas.
type YUV struct{ Y, U, V uint8 }

// Fill paints a rectangle, clipped to the canvas.
func (c *Canvas) Fill(r image.Rectangle, k YUV) {
	C.amphi_fill(c.f, c.rect(r), C.int(k.Y), C.int(k.U), C.int(k.V))
}

// At returns the colour of a pixel on the canvas (for tests and diagnosis).
func (f *Frame) At(x, y int) YUV {
	at := func(plane, x, y int) uint8 {
		return *(*uint8)(unsafe.Add(unsafe.Pointer(f.f.data[plane]), y*int(f.f.linesize[plane])+x))
	}
	return YUV{at(0, x, y), at(1, x/2, y/2), at(2, x/2, y/2)}
}

// Bitmap is a picture with alpha, in a canvas's colours. Sides are even; U, V and
// UVA have half of them.
type Bitmap struct {
	W, H      int
	Y, A      []uint8
	U, V, UVA []uint8
}

// NewBitmap returns a transparent bitmap; odd sides grow by one.
func NewBitmap(w, h int) *Bitmap {
	w, h = (w+1)&^1, (h+1)&^1
	n := w * h
	return &Bitmap{
		W: w, H: h, Y: make([]uint8, n), A: make([]uint8, n),
		U: make([]uint8, n/4), V: make([]uint8, n/4), UVA: make([]uint8, n/4),
	}
}

// Blend paints a bitmap with its upper left corner at p (rounded to even) over
// the canvas, touching nothing outside clip.
func (c *Canvas) Blend(b *Bitmap, p image.Point, clip image.Rectangle) {
	if len(b.Y) == 0 {
		return
	}
	u := func(s []uint8) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(&s[0])) }
	C.amphi_blend(c.f, c.rect(clip), C.int(p.X&^1), C.int(p.Y&^1), C.int(b.W), C.int(b.H), u(b.Y), u(b.U), u(b.V), u(b.A), u(b.UVA))
}

// Mix weighs c's own picture against another's of the same size within r: with 256 all is its own, with 0 the other's.
func (c *Canvas) Mix(other *Canvas, r image.Rectangle, weight int) {
	if w, h := other.Size(); image.Rect(0, 0, w, h) != c.Bounds() {
		return
	}
	C.amphi_mix(c.f, other.f, c.rect(r), C.int(min(max(weight, 0), 256)))
}

// Scaler keeps what libswscale needs to know between pictures of one size.
type Scaler struct{ s C.amphi_scaler }

// Paint scales rectangle from of src into rectangle to of c. Both are made even;
// to must lie on the canvas and from on the picture, or nothing is painted.
func (s *Scaler) Paint(c *Canvas, to image.Rectangle, src *Frame, from image.Rectangle) error {
	w, h := src.Size()
	to, from = Even(to), Even(from)
	if to.Empty() || from.Empty() || !to.In(c.Bounds()) || !from.In(image.Rect(0, 0, w, h)) {
		return errors.New("painting outside the picture")
	}
	r := func(r image.Rectangle) C.amphi_rect {
		return C.amphi_rect{C.int(r.Min.X), C.int(r.Min.Y), C.int(r.Dx()), C.int(r.Dy())}
	}
	return fault("scaling", C.amphi_scale(&s.s, src.f, r(from), c.f, r(to)))
}

// CPU is the thread time spent in Paint.
func (s *Scaler) CPU() time.Duration { return time.Duration(s.s.ns) }

// Close frees what the scaler keeps; it may be used again.
func (s *Scaler) Close() {
	C.amphi_scaler_free(&s.s)
}

// FromPicture converts a picture with straight alpha to the canvas's colours.
func FromPicture(p *image.NRGBA) *Bitmap {
	b := NewBitmap(p.Rect.Dx(), p.Rect.Dy())
	w, h := p.Rect.Dx(), p.Rect.Dy()
	// Chroma is the mean of four pixels, each counting by its alpha.
	type sum struct{ u, v, a, n int }
	row := make([]sum, b.W/2)
	for y := range h {
		for x := range w {
			i := p.PixOffset(p.Rect.Min.X+x, p.Rect.Min.Y+y)
			k, a := FromRGB(p.Pix[i], p.Pix[i+1], p.Pix[i+2]), int(p.Pix[i+3])
			b.Y[y*b.W+x], b.A[y*b.W+x] = k.Y, uint8(a)
			s := &row[x/2]
			s.u += int(k.U) * a
			s.v += int(k.V) * a
			s.a += a
			s.n++
		}
		if y%2 == 1 || y == h-1 {
			for x, s := range row {
				o := y/2*(b.W/2) + x
				if s.a > 0 {
					b.U[o], b.V[o], b.UVA[o] = uint8(s.u/s.a), uint8(s.v/s.a), uint8(s.a/s.n)
				}
			}
			clear(row)
		}
	}
	return b
}

// FromRGB converts a colour by the BT.601 matrix to limited range.
func FromRGB(r, g, b uint8) YUV {
	R, G, B := int(r), int(g), int(b)
	return YUV{
		uint8((66*R + 129*G + 25*B + 128 + 16<<8) >> 8),
		uint8((-38*R - 74*G + 112*B + 128 + 128<<8) >> 8),
		uint8((112*R - 94*G - 18*B + 128 + 128<<8) >> 8),
	}
}
