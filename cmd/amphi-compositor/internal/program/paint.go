//go:build cgo

package program

import (
	"image"
	"image/color"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
)

// sheet is one canvas and what is painted on it. Several go round between the
// clock and the encoders, so that a slow picture doesn't stop the next.
type sheet struct {
	canvas  *av.Canvas
	serial  uint64   // of the scene
	painted []stamp  // per tile
	refs    int      // encoders that still read it; guarded by video.mu
	scalers []scaler // per tile
}

// stamp says which picture a tile shows.
type stamp struct {
	in      *input
	version uint64
}

type scaler struct{ av.Scaler }

func yuv(c color.NRGBA) av.YUV { return av.FromRGB(c.R, c.G, c.B) }

// speaking is the colour of the border around who speaks.
func speaking() av.YUV { return av.FromRGB(64, 200, 110) }

// paint brings the sheet to the scene and its inputs' newest pictures, touching
// only what changed. It returns how many pictures could not be scaled.
func (s *sheet) paint(sc *scene) (failed int) {
	all := s.serial != sc.serial
	if all {
		s.serial = sc.serial
		s.painted = make([]stamp, len(sc.tiles))
		for len(s.scalers) < len(sc.tiles) {
			s.scalers = append(s.scalers, scaler{})
		}
		s.canvas.Fill(s.canvas.Bounds(), sc.background)
	}
	touched := make([]bool, 0, 16)
	for i := range sc.tiles {
		t := &sc.tiles[i]
		want := stamp{in: t.in}
		if t.in != nil {
			want.version = t.in.version
		}
		dirty := all || s.painted[i] != want
		for _, k := range t.under {
			dirty = dirty || touched[k]
		}
		touched = append(touched, dirty)
		if !dirty {
			continue
		}
		s.painted[i] = want
		if !s.tile(i, t) {
			failed++
		}
	}
	return failed
}

// tile paints one tile: picture or placeholder, border, name.
func (s *sheet) tile(i int, t *tile) (ok bool) {
	ok = true
	shown := false
	if t.in != nil && t.in.shown != nil {
		w, h := t.in.shown.Size()
		to, from, visible := mix.Place(image.Pt(w, h), t.at, s.canvas.Bounds(), t.contain)
		if visible {
			if to != t.at {
				s.canvas.Fill(t.at, av.YUV{Y: 16, U: 128, V: 128}) // bars
			}
			ok = s.scalers[i].Paint(s.canvas, to, t.in.shown, from) == nil
			shown = ok
		}
	}
	if !shown && t.placeholder != nil {
		s.canvas.Blend(t.placeholder, t.at.Min, t.at)
	}
	if t.speaking {
		s.border(t.at)
	}
	if t.plate != nil {
		s.canvas.Blend(t.plate, t.plateAt, t.at)
	}
	return ok
}

func (s *sheet) border(r image.Rectangle) {
	n := max(r.Dy()/90&^1, 4)
	if r.Dx() < 4*n || r.Dy() < 4*n {
		return
	}
	k := speaking()
	s.canvas.Fill(image.Rect(r.Min.X, r.Min.Y, r.Max.X, r.Min.Y+n), k)
	s.canvas.Fill(image.Rect(r.Min.X, r.Max.Y-n, r.Max.X, r.Max.Y), k)
	s.canvas.Fill(image.Rect(r.Min.X, r.Min.Y, r.Min.X+n, r.Max.Y), k)
	s.canvas.Fill(image.Rect(r.Max.X-n, r.Min.Y, r.Max.X, r.Max.Y), k)
}

func (s *sheet) close() {
	for i := range s.scalers {
		s.scalers[i].Close()
	}
	s.canvas.Free()
}
