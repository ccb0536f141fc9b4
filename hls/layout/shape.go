package layout

import "slices"

type rect struct{ x, y, w, h int }

// even rounds to what 4:2:0 pictures need, inwards.
func (r rect) even() rect {
	x, y := (r.x+1)&^1, (r.y+1)&^1
	return rect{x, y, max(2, (r.x+r.w-x)&^1), max(2, (r.y+r.h-y)&^1)}
}

// gap between tiles.
func (a *Arranger) gap() int {
	side := min(a.width, a.height)
	switch g := a.options.Gap; {
	case g < 0:
		return 0
	case g > 0:
		return side * g / 1000 &^ 1
	}
	return max(4, side/90) &^ 1
}

// grid gives everybody a tile of the same size.
func (a *Arranger) grid(p *painter, s Stage) {
	a.slots = seats(a.slots, a.visible(s, a.slots, a.options.atMost(MaxTiles), ""))
	n, g := len(a.slots), a.gap()
	if n == 1 {
		p.add(a.slots[0], Camera, rect{0, 0, a.w, a.h})
		return
	}
	cols, w, h := a.gridShape(n, g)
	rows := (n + cols - 1) / cols
	top := (a.h - rows*h - (rows-1)*g) / 2 &^ 1
	for i, id := range a.slots {
		row, col := i/cols, i%cols
		inRow := min(cols, n-row*cols)
		left := (a.w - inRow*w - (inRow-1)*g) / 2 &^ 1
		p.add(id, Camera, rect{left + col*(w+g), top + row*(h+g), w, h})
	}
}

// Tiles are between these shapes, width to height.
const (
	widest   = 16.0 / 9
	tightest = 4.0 / 3
)

// gridShape finds the number of columns that makes tiles largest.
func (a *Arranger) gridShape(n, g int) (cols, w, h int) {
	best := 0
	for c := 1; c <= n; c++ {
		rows := (n + c - 1) / c
		cw, ch := (a.w-(c-1)*g)/c, (a.h-(rows-1)*g)/rows
		tw, th := shape(cw, ch)
		if tw*th > best {
			best, cols, w, h = tw*th, c, tw, th
		}
	}
	return cols, w, h
}

// shape is the largest tile of an allowed shape within a cell.
func shape(cw, ch int) (w, h int) {
	w = min(cw, int(float64(ch)*widest))
	h = min(ch, int(float64(w)/tightest))
	return max(2, w&^1), max(2, h&^1)
}

// large puts one picture in most of the canvas and the others in a strip beside or,
// in portrait, below it.
func (a *Arranger) large(p *painter, id string, source Source, s Stage) {
	skip := id
	if source == Screen {
		skip = ""
	}
	a.strip = seats(a.strip, a.visible(s, a.strip, a.options.atMost(maxStrip+1)-1, skip))
	g := a.gap()
	if len(a.strip) == 0 {
		p.add(id, source, rect{0, 0, a.w, a.h})
		return
	}
	if a.w >= a.h {
		sw := a.w / 5
		n := max(1, len(a.strip))
		sh := min(sw*9/16, (a.h-(n-1)*g)/n) &^ 1
		if source == Screen {
			p.add(id, source, rect{0, 0, a.w - sw - g, a.h})
		} else { // a camera keeps its shape
			h := min(a.h, (a.w-sw-g)*9/16)
			p.add(id, source, rect{0, (a.h - h) / 2, a.w - sw - g, h})
		}
		top := (a.h - len(a.strip)*sh - (len(a.strip)-1)*g) / 2 &^ 1
		for i, who := range a.strip {
			p.add(who, Camera, rect{a.w - sw, top + i*(sh+g), sw, sh})
		}
		return
	}
	cols := min(len(a.strip), 3)
	rows := 0
	sw, sh := 0, 0
	if cols > 0 {
		rows = (len(a.strip) + cols - 1) / cols
		sw = (a.w - 2*g) / 3 &^ 1
		sh = sw
	}
	p.add(id, source, rect{0, 0, a.w, a.h - rows*(sh+g)})
	for i, who := range a.strip {
		row, col := i/cols, i%cols
		inRow := min(cols, len(a.strip)-row*cols)
		left := (a.w - inRow*sw - (inRow-1)*g) / 2 &^ 1
		p.add(who, Camera, rect{left + col*(sw+g), a.h - (rows-row)*(sh+g) + g, sw, sh})
	}
}

// inset fills the canvas with a screen or who speaks, and puts one other on top.
func (a *Arranger) inset(p *painter, s Stage) {
	big, source := a.main, Camera
	if a.screen != "" {
		big, source = a.screen, Screen
	}
	p.add(big, source, rect{0, 0, a.w, a.h})
	if a.options.MaxTiles == 1 {
		return
	}
	small := a.main
	if source == Camera {
		// Who was last large keeps the inset: it is first in the strip.
		a.strip = seats(a.strip, a.visible(s, a.strip, maxStrip, big))
		small = ""
		if len(a.strip) > 0 {
			small = slices.MaxFunc(a.strip, func(x, y string) int { return a.spoke[x].Compare(a.spoke[y]) })
		}
	}
	g := 2 * a.gap() // from the edges of the large one
	w := a.w / 4
	h := w * 9 / 16
	if a.h > a.w {
		w = a.w / 3
		h = w * 4 / 3
	}
	p.add(small, Camera, rect{a.w - w - g, a.h - h - g, w, h})
}
