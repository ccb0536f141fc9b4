//go:build cgo

package program

import (
	"fmt"
	"image"
	"net"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/label"
	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/mix"
	"github.com/amphi-sfu/amphi/hls/wire"
)

const canvasW, canvasH = 640, 360

// easel is a program without clocks.
type easel struct {
	t     *testing.T
	p     *Program
	sheet *sheet
}

func newEasel(t *testing.T) *easel {
	t.Helper()
	fonts, err := label.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := av.NewCanvas(canvasW, canvasH)
	if err != nil {
		t.Fatal(err)
	}
	p := &Program{cfg: Config{Fonts: fonts}, start: &wire.Start{Width: canvasW, Height: canvasH}, clock: newClock(time.Now().UnixNano()), out: newSender(nil)}
	p.inputs = newInputs(p)
	p.scenes = newScenes(p)
	e := &easel{t: t, p: p, sheet: &sheet{canvas: c}}
	t.Cleanup(e.sheet.close)
	return e
}

// input adds a video input that shows a plain colour of some size; a zero size
// shows nothing.
func (e *easel) input(id uint32, size image.Point, k av.YUV) *input {
	e.t.Helper()
	in := newInput(e.p, &wire.AddInput{ID: id, Kind: wire.Video}, nil, func() {})
	e.p.inputs.byID[id] = in
	e.p.inputs.order = append(e.p.inputs.order, in)
	e.show(in, size, k)
	e.t.Cleanup(in.free)
	return in
}

func (e *easel) show(in *input, size image.Point, k av.YUV) {
	e.t.Helper()
	if size == (image.Point{}) {
		return
	}
	c, err := av.NewCanvas(size.X, size.Y)
	if err != nil {
		e.t.Fatal(err)
	}
	c.Fill(c.Bounds(), k)
	in.frames.Push(&c.Frame, 0)
	in.advance(e.p.clock.now())
}

// paint paints a scene as the clock would.
func (e *easel) paint(w *wire.Scene) {
	e.t.Helper()
	if err := w.Validate(); err != nil {
		e.t.Fatal(err)
	}
	if failed := e.sheet.paint(e.p.scenes.make(w, e.p.scenes.kept)); failed != 0 {
		e.t.Fatalf("%d tiles failed", failed)
	}
}

func (e *easel) want(name string, x, y int, want av.YUV) {
	e.t.Helper()
	got := e.sheet.canvas.At(x, y)
	d := func(a, b uint8) bool { return max(a, b)-min(a, b) <= 3 }
	if !d(got.Y, want.Y) || !d(got.U, want.U) || !d(got.V, want.V) {
		e.t.Errorf("%s: %v at %d,%d, want %v", name, got, x, y, want)
	}
}

func TestPaintScene(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	red, blue, background := av.YUV{Y: 90, U: 90, V: 200}, av.YUV{Y: 80, U: 190, V: 100}, av.FromRGB(0x20, 0x40, 0x60)
	e.input(1, image.Pt(320, 180), red)
	e.input(2, image.Pt(180, 320), blue)
	scene := &wire.Scene{Background: "#204060", Tiles: []wire.Tile{
		{Input: 1, X: 0, Y: 0, W: 300, H: 360},
		{Input: 2, X: 300, Y: 0, W: 320, H: 180, Fit: wire.Contain, Speaking: true},
		{Input: 3, X: 300, Y: 180, W: 320, H: 180, Placeholder: wire.Placeholder{Initials: "X", Colour: "#808080"}},
		{Input: 2, X: 20, Y: 20, W: 80, H: 60}, // picture in picture, over the first
	}}
	e.paint(scene)
	e.want("background", 630, 100, background)
	e.want("cover", 2, 180, red)
	e.want("cover", 298, 358, red)
	e.want("bars", 320, 90, av.YUV{Y: 16, U: 128, V: 128})
	e.want("contained", 460, 90, blue)
	e.want("border", 302, 90, speaking())
	e.want("border", 460, 178, speaking())
	ground := uint8(0x80 * 45 / 100) // the placeholder's colour, darkened
	e.want("placeholder", 310, 190, av.FromRGB(ground, ground, ground))
	e.want("disc", 460-30, 270-30, av.FromRGB(0x80, 0x80, 0x80))
	e.want("in picture", 60, 50, blue)

	// A new picture below: what lies above is painted again.
	green := av.YUV{Y: 120, U: 60, V: 80}
	e.show(e.p.inputs.byID[1], image.Pt(640, 360), green)
	if failed := e.sheet.paint(e.p.scenes.now.Load()); failed != 0 {
		t.Fatal(failed)
	}
	e.paint(scene)
	e.want("below", 200, 200, green)
	e.want("above", 60, 50, blue)

	// The same scene with a tile moved, muted and switched off.
	scene.Tiles[1].Speaking = false
	scene.Tiles[1].Placeholder = wire.Placeholder{Always: true, Colour: "#ffffff"}
	scene.Tiles = scene.Tiles[:3]
	e.paint(scene)
	e.want("gone", 60, 50, green)
	grey := uint8(255 * 45 / 100)
	e.want("no border", 302, 90, av.FromRGB(grey, grey, grey))

	// The input goes: its tile shows the placeholder, the others stay.
	e.p.inputs.remove(1)
	e.paint(scene)
	if at := e.sheet.canvas.At(150, 20); at == green {
		t.Error("a removed input is still on screen")
	}
}

func TestPaintOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	one, two := av.YUV{Y: 90, U: 90, V: 200}, av.YUV{Y: 80, U: 190, V: 100}
	e.input(1, image.Pt(320, 180), one)
	in := e.input(2, image.Pt(320, 180), two)
	sc := e.p.scenes.make(&wire.Scene{Tiles: []wire.Tile{{Input: 1, W: 320, H: 180}, {Input: 2, X: 320, W: 320, H: 180}}}, nil)
	e.sheet.paint(sc)
	mark := av.YUV{Y: 235, U: 128, V: 128}
	e.sheet.canvas.Fill(e.sheet.canvas.Bounds(), mark)
	e.sheet.paint(sc)
	e.want("nothing changed", 100, 100, mark)
	e.show(in, image.Pt(320, 180), two)
	e.sheet.paint(sc)
	e.want("unchanged", 100, 100, mark)
	e.want("changed", 420, 100, two)
}

func TestLabels(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	grey := av.YUV{Y: 120, U: 128, V: 128}
	e.input(1, image.Pt(320, 180), grey)
	tile := wire.Tile{Input: 1, W: 640, H: 360, Label: "Ada Lovelace"}
	white := func() (n int) {
		for y := 300; y < 360; y++ {
			for x := range 200 {
				if e.sheet.canvas.At(x, y).Y > 200 {
					n++
				}
			}
		}
		return n
	}
	e.paint(&wire.Scene{Tiles: []wire.Tile{tile}})
	plain := white()
	if plain < 100 {
		t.Fatalf("%d white pixels in a name", plain)
	}
	e.want("above the name", 100, 200, grey)
	tile.Muted = true
	e.paint(&wire.Scene{Tiles: []wire.Tile{tile}})
	if n := white(); n <= plain {
		t.Errorf("no microphone: %d white pixels, %d without", n, plain)
	}
	tile.Label, tile.Muted = "", false
	e.paint(&wire.Scene{Tiles: []wire.Tile{tile}})
	if n := white(); n != 0 {
		t.Errorf("%d white pixels without a name", n)
	}
	tile.Label, tile.W, tile.H = "Too small for a name", 20, 20
	e.paint(&wire.Scene{Tiles: []wire.Tile{tile}})
}

// Drawings are kept from scene to scene, and forgotten with the last that has them.
func TestDrawingsAreCached(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	w := &wire.Scene{Tiles: []wire.Tile{{W: 320, H: 180, Label: "Ada"}, {X: 320, W: 320, H: 180, Label: "Ada"}}}
	a, b := e.p.scenes.make(w, nil), e.p.scenes.make(w, nil)
	if a.tiles[0].plate == nil || a.tiles[0].plate != b.tiles[0].plate || a.tiles[0].plate != a.tiles[1].plate {
		t.Error("drawn again")
	}
	e.p.scenes.make(&wire.Scene{}, nil)
	if n := len(e.p.scenes.drawn); n != 0 {
		t.Errorf("%d drawings kept", n)
	}
}

func TestStalePictureIsLetGo(t *testing.T) {
	t.Parallel()
	e := newEasel(t)
	in := e.input(1, image.Pt(320, 180), av.YUV{Y: 90, U: 90, V: 200})
	in.advance(in.last + staleAfter)
	if in.shown == nil {
		t.Fatal("too early")
	}
	v := in.version
	in.advance(in.last + staleAfter + 1)
	if in.shown != nil || in.version == v {
		t.Fatal("a picture of somebody who is not there")
	}
}

func TestProgramNeedsAStart(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}, nil); err == nil {
		t.Error("a program without fonts")
	}
	fonts, err := label.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		frame []byte
		fails bool
	}{
		"nothing at all":  {nil, false},
		"something else":  {wire.AppendForceKeyframe(nil), true},
		"a useless Start": {[]byte{0, 0, 0, 3, byte(wire.TypeStart), '{', '}'}, true},
	} {
		node, child := net.Pipe()
		p, err := New(Config{Fonts: fonts}, child)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context()) }()
		if len(c.frame) > 0 {
			if _, err := node.Write(c.frame); err != nil {
				t.Fatal(err)
			}
		}
		_ = node.Close()
		if err := <-ended; (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHungUp(t *testing.T) {
	t.Parallel()
	conn, child, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Close()
	_, err = conn.Write([]byte{1})
	if !hungUp(fmt.Errorf("writing: %w", err)) {
		t.Errorf("%v", err)
	}
	_ = conn.Close()
	if _, err := conn.Write([]byte{1}); hungUp(err) || hungUp(nil) || hungUp(av.ErrMemory) {
		t.Error("our own end is closed, that is another thing")
	}
}

func TestGrid(t *testing.T) {
	t.Parallel()
	p := &Program{grid: mix.Grid{FPS: 30, PartTicks: 15, GOPTicks: 60}, start: &wire.Start{AudioBitrate: 64_000}}
	a, err := newAudio(p)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	for tick := int64(0); tick < 9000; tick += 15 {
		from := a.begin(tick)
		if at := mix.SampleAt(p.grid.TickTime(tick)); from < at || from >= at+1024 || from%1024 != 0 {
			t.Fatalf("tick %d is sample %d, sound begins at %d", tick, at, from)
		}
		if a.mixed() > from {
			t.Fatalf("mixed up to %d, sent from %d", a.mixed(), from)
		}
	}
}
