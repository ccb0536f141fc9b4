//go:build cgo

package program

import (
	"image"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
)

// fade lets a scene take over from the one before, where the two differ. The old picture stands still meanwhile; tiles that
// stay where they are go on.
type fade struct {
	from       *av.Canvas // the picture before; nil until the first fade
	where      []image.Rectangle
	begin, end int64 // ticks; over when the tick is end
}

// change begins a fade from what was shown last to next. Without memory for it there is none.
func (f *fade) change(before, next *scene, last *av.Canvas, tick, ticks int64) {
	if ticks <= 0 {
		f.end = tick
		return
	}
	where := differences(before, next, last.Bounds())
	if len(where) == 0 {
		return // and one that goes on goes on
	}
	if tick < f.end {
		where = append(where, f.where...)
	}
	if f.from == nil {
		c, err := av.NewCanvas(last.Bounds().Dx(), last.Bounds().Dy())
		if err != nil {
			return
		}
		f.from = c
	}
	f.from.Mix(last, f.from.Bounds(), 0)
	f.where = mix.Disjoint(where, last.Bounds())
	f.begin, f.end = tick, tick+ticks
}

// apply puts what is left of the old picture over a newly painted one; false when the fade is over.
func (f *fade) apply(c *av.Canvas, tick int64) bool {
	if tick >= f.end {
		return false
	}
	weight := int((tick - f.begin + 1) * 256 / (f.end - f.begin + 1)) // of the new one
	for _, r := range f.where {
		c.Mix(f.from, r, weight)
	}
	return true
}

func (f *fade) close() {
	if f.from != nil {
		f.from.Free()
	}
}

// face is what a tile shows, apart from names and borders, which change without a fade.
type face struct {
	in          *input
	at          image.Rectangle
	contain     bool
	placeholder *av.Bitmap // only where it is seen for sure
}

func (t *tile) face() face {
	f := face{in: t.in, at: t.at, contain: t.contain}
	if t.in == nil {
		f.placeholder = t.placeholder
	}
	return f
}

// differences lists where two scenes differ.
func differences(a, b *scene, canvas image.Rectangle) []image.Rectangle {
	if a.background != b.background || a.backdrop != b.backdrop {
		return []image.Rectangle{canvas}
	}
	var out []image.Rectangle
	had := make(map[face]bool, len(a.tiles))
	for i := range a.tiles {
		had[a.tiles[i].face()] = true
	}
	for i := range b.tiles {
		if f := b.tiles[i].face(); had[f] {
			delete(had, f)
		} else {
			out = append(out, f.at)
		}
	}
	for f := range had {
		out = append(out, f.at)
	}
	for _, l := range [2][2]*logo{{a.logo, b.logo}, {b.logo, a.logo}} {
		if l[0] != nil && (l[1] == nil || l[0].bitmap != l[1].bitmap || l[0].at != l[1].at) {
			out = append(out, l[0].at)
		}
	}
	return out
}
