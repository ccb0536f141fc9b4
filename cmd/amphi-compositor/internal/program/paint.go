//go:build cgo

package program

import (
	"image"
	"image/color"
	"slices"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
)

// sheet is one canvas and what is painted on it. Several go round between the
// clock and the encoders, so that a slow picture doesn't stop the next.
type sheet struct {
	canvas  *av.Canvas
	serial  uint64   // of the scene
	stale   bool     // something else lies over what was painted
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

// speaking is the colour of the border around who speaks, where the scene names none.
func speaking() av.YUV { return av.FromRGB(64, 200, 110) }

// paint brings the sheet to the scene and its inputs' newest pictures, touching
// only what changed. It returns how many pictures could not be scaled.
func (s *sheet) paint(sc *scene) (failed int) {
	all := s.serial != sc.serial || s.stale
	if all {
		s.serial, s.stale = sc.serial, false
		s.painted = make([]stamp, len(sc.tiles))
		for len(s.scalers) < len(sc.tiles) {
			s.scalers = append(s.scalers, scaler{})
		}
		s.ground(sc, s.canvas.Bounds())
	}
	var buf [16]bool
	dirty := s.dirty(sc, buf[:0], all)
	logo := sc.logo != nil && (all || slices.ContainsFunc(sc.logo.over, func(i int) bool { return dirty[i] }))
	if logo && !all {
		// It is blended, so all below it is painted anew first.
		s.ground(sc, sc.logo.at)
		for _, i := range sc.logo.over {
			dirty[i] = true
		}
		spread(sc, dirty)
	}
	for i := range sc.tiles {
		if !dirty[i] {
			continue
		}
		t := &sc.tiles[i]
		s.painted[i] = t.stamp()
		if !s.tile(i, t, sc) {
			failed++
		}
	}
	if logo {
		s.canvas.Blend(sc.logo.bitmap, sc.logo.at.Min, sc.logo.at)
	}
	return failed
}

func (t *tile) stamp() stamp {
	if t.in == nil {
		return stamp{}
	}
	return stamp{in: t.in, version: t.in.version}
}

// dirty appends which tiles must be painted.
func (s *sheet) dirty(sc *scene, dst []bool, all bool) []bool {
	for i := range sc.tiles {
		dst = append(dst, all || s.painted[i] != sc.tiles[i].stamp())
	}
	spread(sc, dst)
	return dst
}

// spread adds the tiles that lie on dirty ones.
func spread(sc *scene, dirty []bool) {
	for i := range sc.tiles {
		for _, k := range sc.tiles[i].under {
			dirty[i] = dirty[i] || dirty[k]
		}
	}
}

// ground paints what is behind the tiles.
func (s *sheet) ground(sc *scene, r image.Rectangle) {
	s.canvas.Fill(r, sc.background)
	if sc.backdrop != nil {
		s.canvas.Blend(sc.backdrop, image.Point{}, r)
	}
}

// tile paints one tile: picture or placeholder, border, name.
func (s *sheet) tile(i int, t *tile, sc *scene) (ok bool) {
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
		s.border(t.at, sc.highlight)
	}
	if t.plate != nil {
		s.canvas.Blend(t.plate, t.plateAt, t.at)
	}
	return ok
}

func (s *sheet) border(r image.Rectangle, k av.YUV) {
	n := max(r.Dy()/90&^1, 4)
	if r.Dx() < 4*n || r.Dy() < 4*n {
		return
	}
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
