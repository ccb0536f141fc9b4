// Package descriptortest makes layered streams with dependency descriptors, in the
// scalability modes of W3C's webrtc-svc, for tests of those who forward them.
package descriptortest

import (
	"fmt"
	"slices"
)

// Mode is a scalability mode.
type Mode struct {
	Spatial, Temporal int
	// Key: upper spatial layers need lower ones in key pictures only.
	Key bool
	// Shift, with Key: each spatial layer is in its temporal pattern one picture ahead of the one below.
	Shift bool
	// Simulcast: spatial layers do not need each other at all (the S modes).
	Simulcast bool
}

// String returns the name of the mode.
func (m Mode) String() string {
	s := fmt.Sprintf("L%dT%d", m.Spatial, m.Temporal)
	switch {
	case m.Simulcast:
		return "S" + s[1:]
	case m.Shift:
		return s + "_KEY_SHIFT"
	case m.Key && m.Spatial > 1:
		return s + "_KEY"
	}
	return s
}

// Modes returns all modes of up to three spatial and three temporal layers.
func Modes() []Mode {
	var list []Mode
	for s := 1; s <= 3; s++ {
		for t := 1; t <= 3; t++ {
			list = append(list, Mode{Spatial: s, Temporal: t})
			if s > 1 {
				list = append(list, Mode{Spatial: s, Temporal: t, Key: true}, Mode{Spatial: s, Temporal: t, Simulcast: true})
			}
			if s > 1 && t > 1 {
				list = append(list, Mode{Spatial: s, Temporal: t, Key: true, Shift: true})
			}
		}
	}
	return list
}

// Frame is one frame of a stream.
type Frame struct {
	Number            uint16
	Spatial, Temporal int
	// Key says that the frame belongs to a key picture.
	Key bool
	// Needs are the frames that it depends on, as differences of numbers.
	Needs []int
	// Targets has for each decode target what the frame is to it: '-', 'D', 'S' or 'R'.
	Targets string

	stream *Stream
}

// Stream makes the pictures of one encoding.
type Stream struct {
	mode      Mode
	offset    uint8
	number    uint16
	picture   int       // since the key picture
	last      [4][4]int // number, by layers, of the newest frame; 0 for none
	count     int       // frames so far
	templates []Frame
}

// New makes a stream whose first frame has the number given; offset is its first template's id.
func New(m Mode, number uint16, offset uint8) *Stream {
	s := &Stream{mode: m, offset: offset & 63, number: number}
	s.collect()
	return s
}

// Targets is the number of decode targets.
func (s *Stream) Targets() int { return s.mode.Spatial * s.mode.Temporal }

// collect finds the templates: one per kind of frame.
func (s *Stream) collect() {
	probe := &Stream{mode: s.mode}
	for i := range 2 * 4 {
		for _, f := range probe.Picture(i == 0) {
			if !slices.ContainsFunc(s.templates, f.like) {
				s.templates = append(s.templates, f)
			}
		}
	}
	slices.SortStableFunc(s.templates, func(a, b Frame) int { return (a.Spatial-b.Spatial)*8 + a.Temporal - b.Temporal })
}

func (f *Frame) like(o Frame) bool {
	return f.Spatial == o.Spatial && f.Temporal == o.Temporal && f.Targets == o.Targets && slices.Equal(f.Needs, o.Needs)
}

// Picture makes the frames of the next picture, low to high; the first is to be a key picture.
func (s *Stream) Picture(key bool) []Frame {
	if key {
		s.picture = 0
	}
	pattern := [...][]int{{0}, {0, 1}, {0, 2, 1, 2}}[s.mode.Temporal-1]
	var list []Frame
	for sp := range s.mode.Spatial {
		s.count++
		at := s.picture
		if s.mode.Shift && !key {
			at += sp - 1
		}
		temporal := pattern[at%len(pattern)]
		f := Frame{Number: s.number, Spatial: sp, Temporal: temporal, Key: key, stream: s}
		s.number++
		if !key {
			f.Needs = append(f.Needs, s.count-s.reference(sp, temporal))
		}
		if sp > 0 && !s.mode.Simulcast && (key || !s.mode.Key) {
			f.Needs = append(f.Needs, 1)
		}
		for n := range s.Targets() {
			f.Targets += string(s.indication(n/s.mode.Temporal, n%s.mode.Temporal, f))
		}
		s.last[sp][temporal] = s.count
		list = append(list, f)
	}
	s.picture++
	return list
}

// reference is the newest frame of the layer that a frame of a temporal layer may use.
func (s *Stream) reference(spatial, temporal int) int {
	newest := 0
	for t := range max(temporal, 1) {
		newest = max(newest, s.last[spatial][t])
	}
	return newest
}

// indication is what a frame is to the decode target of two layers.
func (s *Stream) indication(spatial, temporal int, f Frame) byte {
	switch {
	case spatial < f.Spatial || temporal < f.Temporal || s.mode.Simulcast && spatial != f.Spatial:
		return '-'
	case spatial > f.Spatial && f.Key:
		return 'S'
	case spatial > f.Spatial && s.mode.Key:
		return '-'
	case spatial > f.Spatial:
		return 'R'
	case f.Temporal > 0 && temporal == f.Temporal:
		return 'D'
	}
	return 'S'
}

// Descriptor is that of a packet of the frame. structure puts in the template structure, and
// custom says what the frame needs in full instead of by a template.
func (f *Frame) Descriptor(first, last, structure, custom bool) []byte {
	s := f.stream
	var w writer
	index := slices.IndexFunc(s.templates, func(t Frame) bool { return f.like(t) })
	if custom {
		index = slices.IndexFunc(s.templates, func(t Frame) bool { return t.Spatial == f.Spatial && t.Temporal == f.Temporal })
	}
	w.flag(first)
	w.flag(last)
	w.bits((index+int(s.offset))&63, 6)
	w.bits(int(f.Number), 16)
	if !structure && !custom {
		return w.b
	}
	w.flag(structure)
	w.flag(false)
	w.flag(custom)
	w.flag(custom)
	w.flag(false)
	if structure {
		s.structure(&w)
	}
	if custom {
		for _, d := range f.Targets {
			w.indication(d)
		}
		for _, n := range f.Needs {
			size := 1
			for (n-1)>>(4*size) != 0 {
				size++
			}
			w.bits(size, 2)
			w.bits(n-1, 4*size)
		}
		w.bits(0, 2)
	}
	return w.b
}

// structure writes the template dependency structure.
func (s *Stream) structure(w *writer) {
	w.bits(int(s.offset), 6)
	w.bits(s.Targets()-1, 5)
	for i, t := range s.templates {
		next := 3
		if i+1 < len(s.templates) {
			switch n := s.templates[i+1]; {
			case n.Spatial > t.Spatial:
				next = 2
			case n.Temporal > t.Temporal:
				next = 1
			default:
				next = 0
			}
		}
		w.bits(next, 2)
	}
	for _, t := range s.templates {
		for _, d := range t.Targets {
			w.indication(d)
		}
	}
	for _, t := range s.templates {
		for _, n := range t.Needs {
			w.flag(true)
			w.bits(n-1, 4)
		}
		w.flag(false)
	}
	width := 0
	for n := s.Targets() + 1; n > 1<<width; {
		width++
	}
	// ns(n) of zero: no chains.
	m := 1<<width - (s.Targets() + 1)
	if m > 0 {
		width--
	}
	w.bits(0, width)
	w.flag(true)
	for i := range s.mode.Spatial {
		shift := s.mode.Spatial - 1 - i
		w.bits(1280>>shift-1, 16)
		w.bits(720>>shift-1, 16)
	}
}

type writer struct {
	b    []byte
	free int
}

func (w *writer) bits(v, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.free == 0 {
			w.b, w.free = append(w.b, 0), 8
		}
		w.free--
		w.b[len(w.b)-1] |= byte(v>>i&1) << w.free
	}
}

func (w *writer) flag(f bool) {
	if f {
		w.bits(1, 1)
	} else {
		w.bits(0, 1)
	}
}

func (w *writer) indication(d rune) {
	w.bits(map[rune]int{'-': 0, 'D': 1, 'S': 2, 'R': 3}[d], 2)
}
