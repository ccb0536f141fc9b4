//go:build cgo

package program

import (
	"bytes"
	"image"
	"slices"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/label"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// logo is a picture on top of all tiles.
type logo struct {
	bitmap *av.Bitmap
	at     image.Rectangle
	over   []int // tiles that it lies on
}

// keep takes a picture that scenes may name, or forgets one. It answers false when there are too many.
func (s *scenes) keep(p wire.Picture) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.DeleteFunc(s.kept, func(have wire.Picture) bool { return have.Key == p.Key })
	if len(p.Data) == 0 {
		return true
	}
	if len(s.kept) >= wire.MaxPictures {
		return false
	}
	s.kept = append(s.kept, wire.Picture{Key: p.Key, Data: bytes.Clone(p.Data)})
	return true
}

// picture draws a kept picture by f, once for all scenes that use it in this size. Nil when there is none, or
// none that can be read.
func (s *scenes) picture(key drawing, kept []wire.Picture, used map[drawing]*av.Bitmap, f func(data []byte) (*label.Picture, error)) *av.Bitmap {
	i := slices.IndexFunc(kept, func(p wire.Picture) bool { return p.Key == key.picture })
	if i < 0 {
		return nil
	}
	return s.draw(used, key, func() *label.Picture {
		p, err := f(kept[i].Data)
		if err != nil {
			s.p.inputs.drop(dropRefused, 1)
			return nil
		}
		return p
	})
}

// backdrop is the picture behind everything, as large as the canvas.
func (s *scenes) backdrop(w *wire.Scene, kept []wire.Picture, used map[drawing]*av.Bitmap) *av.Bitmap {
	if w.Picture == "" {
		return nil
	}
	width, height := s.p.start.Width, s.p.start.Height
	return s.picture(drawing{picture: w.Picture, w: width, h: height}, kept, used,
		func(data []byte) (*label.Picture, error) { return label.Cover(data, width, height) })
}

func (s *scenes) logo(w *wire.Scene, kept []wire.Picture, used map[drawing]*av.Bitmap, tiles []tile) *logo {
	l := w.Logo
	if l == nil {
		return nil
	}
	opacity := l.Opacity
	if opacity == 0 {
		opacity = 100
	}
	b := s.picture(drawing{picture: l.Picture, w: l.W, h: l.H, opacity: opacity}, kept, used,
		func(data []byte) (*label.Picture, error) { return label.Within(data, l.W&^1, l.H&^1, opacity) })
	if b == nil {
		return nil
	}
	x, y := l.X, l.Y
	if l.Right {
		x += l.W - b.W
	}
	if l.Bottom {
		y += l.H - b.H
	}
	x, y = max(x, 0)&^1, max(y, 0)&^1
	out := &logo{bitmap: b, at: image.Rect(x, y, x+b.W, y+b.H)}
	for i := range tiles {
		if tiles[i].at.Overlaps(out.at) {
			out.over = append(out.over, i)
		}
	}
	return out
}
