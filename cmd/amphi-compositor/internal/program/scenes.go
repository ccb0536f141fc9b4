//go:build cgo

package program

import (
	"context"
	"image"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/label"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// scene is a wire.Scene ready to be painted. Read-only once made.
type scene struct {
	serial     uint64
	background av.YUV
	backdrop   *av.Bitmap // nil: the colour alone
	highlight  av.YUV
	logo       *logo // nil: none
	fade       time.Duration
	tiles      []tile
}

// tile is one rectangle of a scene.
type tile struct {
	in          *input // nil: the placeholder
	at          image.Rectangle
	contain     bool
	speaking    bool
	placeholder *av.Bitmap
	plate       *av.Bitmap // nil: none
	plateAt     image.Point
	under       []int // earlier tiles that this one overlaps
}

// scenes makes scenes away from the clocks: drawing text may take longer than a
// tick. The video clock takes the newest one when it is done.
type scenes struct {
	p    *Program
	wake chan struct{}
	now  atomic.Pointer[scene]

	mu     sync.Mutex // guards the fields below
	wanted *wire.Scene
	kept   []wire.Picture // at most wire.MaxPictures

	// Of run.
	serial uint64
	drawn  map[drawing]*av.Bitmap
}

// drawing identifies a bitmap.
type drawing struct {
	text, colour string
	w, h         int
	muted, plate bool
	picture      string // its key, where it is no drawing of ours
	opacity      int
}

func newScenes(p *Program) *scenes {
	s := &scenes{p: p, wake: make(chan struct{}, 1), wanted: new(wire.Scene), drawn: make(map[drawing]*av.Bitmap)}
	s.now.Store(&scene{background: av.YUV{Y: 16, U: 128, V: 128}, highlight: speaking()})
	return s
}

// want replaces the scene.
func (s *scenes) want(w *wire.Scene) {
	s.mu.Lock()
	s.wanted = w
	s.mu.Unlock()
	s.changed()
}

// changed says that the scene's inputs came or went.
func (s *scenes) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *scenes) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		s.mu.Lock()
		w, kept := s.wanted, slices.Clone(s.kept)
		s.mu.Unlock()
		s.now.Store(s.make(w, kept))
	}
}

// make prepares a scene. Drawings that it doesn't use are forgotten.
func (s *scenes) make(w *wire.Scene, kept []wire.Picture) *scene {
	s.serial++
	sc := &scene{
		serial: s.serial, background: yuv(label.Colour(orBlack(w.Background), "")), highlight: speaking(),
		fade: time.Duration(w.FadeMS) * time.Millisecond, tiles: make([]tile, len(w.Tiles)),
	}
	if w.Highlight != "" {
		sc.highlight = yuv(label.Colour(w.Highlight, ""))
	}
	used := make(map[drawing]*av.Bitmap)
	sc.backdrop = s.backdrop(w, kept, used)
	for i := range w.Tiles {
		sc.tiles[i] = s.tile(&w.Tiles[i], used)
		for k := range i {
			if sc.tiles[k].at.Overlaps(sc.tiles[i].at) {
				sc.tiles[i].under = append(sc.tiles[i].under, k)
			}
		}
	}
	sc.logo = s.logo(w, kept, used, sc.tiles)
	s.drawn = used
	return sc
}

func orBlack(colour string) string {
	if colour == "" {
		return "#000000"
	}
	return colour
}

func (s *scenes) tile(w *wire.Tile, used map[drawing]*av.Bitmap) tile {
	t := tile{
		at:      av.Even(image.Rect(w.X, w.Y, w.X+w.W, w.Y+w.H)),
		contain: w.Fit == wire.Contain, speaking: w.Speaking,
	}
	if in := s.p.inputs.find(w.Input); in != nil && in.kind == wire.Video && !w.Placeholder.Always {
		t.in = in
	}
	width, height := t.at.Dx(), t.at.Dy()
	name := w.Placeholder.Initials
	if name == "" {
		name = w.Label
	}
	colour := label.Colour(w.Placeholder.Colour, name)
	t.placeholder = s.draw(used, drawing{text: w.Placeholder.Initials, colour: w.Placeholder.Colour + name, w: width, h: height},
		func() *label.Picture { return s.p.cfg.Fonts.Placeholder(width, height, w.Placeholder.Initials, colour) })
	if w.Label == "" && !w.Muted {
		return t
	}
	size := min(max(height/11, 24), 40) &^ 1
	margin := max(size/3, 4) &^ 1
	if width < 2*size || height < 2*size {
		return t
	}
	t.plate = s.draw(used, drawing{text: w.Label, w: width, h: size, muted: w.Muted, plate: true},
		func() *label.Picture { return s.p.cfg.Fonts.Plate(w.Label, w.Muted, size, width-2*margin) })
	t.plateAt = image.Pt(t.at.Min.X+margin, t.at.Max.Y-margin-size)
	return t
}

// draw returns a drawing of the last scene, or a new one.
func (s *scenes) draw(used map[drawing]*av.Bitmap, key drawing, picture func() *label.Picture) *av.Bitmap {
	b, ok := used[key]
	if !ok {
		b, ok = s.drawn[key]
	}
	if !ok {
		if p := picture(); p != nil {
			b = av.FromPicture(p)
		}
	}
	used[key] = b
	return b
}
