package layer

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/descriptor/descriptortest"
)

// plain makes packets of encodings without spatial layers, as VP8 has them.
type plain struct {
	grid   *descriptor.Structure
	number uint64
}

func newPlain() *plain { return &plain{grid: descriptor.Grid(1, 4)} }

// frame makes the only packet of the next frame.
func (pl *plain) frame(encoding int8, temporal uint8, key, switchUp bool) Packet {
	pl.number++
	f := &descriptor.Frame{Structure: pl.grid, Number: pl.number, Active: pl.grid.All(), Temporal: temporal, First: true, Last: true}
	f.Present = 0xf << temporal & 0xf
	f.Required = f.Present
	if switchUp {
		f.Switch = 1 << temporal
	}
	return Packet{Encoding: encoding, Keyframe: key, Timestamp: uint32(pl.number), Frame: f}
}

func TestEncodingSwitchWaitsForKeyframe(t *testing.T) {
	t.Parallel()
	var s Selector
	pl := newPlain()
	if got := s.Select(pl.frame(0, 0, true, false)); got != Drop {
		t.Fatalf("without a target: %v", got)
	}
	s.SetTarget(0, Layer{Top, Top})
	for _, st := range []struct {
		name     string
		do       func()
		encoding int8
		key      bool
		want     Action
	}{
		{"no keyframe yet", nil, 0, false, Drop},
		{"other encoding", nil, 1, true, Drop},
		{"starts", nil, 0, true, Switch},
		{"goes on", nil, 0, false, Forward},
		{"another keyframe", nil, 0, true, Turn},
		{"up: keeps the old one", func() { s.SetTarget(1, Layer{Top, Top}) }, 0, false, Forward},
		{"up: not a keyframe", nil, 1, false, Drop},
		{"up: keyframe", nil, 1, true, Switch},
		{"old one ends", nil, 0, false, Drop},
		{"pause", func() { s.SetTarget(-1, None()) }, 1, false, Drop},
		{"resume needs a keyframe", func() { s.SetTarget(1, Layer{Top, Top}) }, 1, false, Drop},
		{"resumed", nil, 1, true, Switch},
		{"reset", func() { s.Reset() }, 1, false, Drop},
	} {
		if st.do != nil {
			st.do()
		}
		if got := s.Select(pl.frame(st.encoding, 0, st.key, false)); got != st.want {
			t.Fatalf("%s: %v, want %v", st.name, got, st.want)
		}
	}
	if enc, waiting := s.Waiting(); !waiting || enc != 1 {
		t.Fatalf("waiting %d, %v", enc, waiting)
	}
}

func TestTemporalSteps(t *testing.T) {
	t.Parallel()
	var s Selector
	pl := newPlain()
	s.SetTarget(0, Layer{0, Top})
	s.Select(pl.frame(0, 0, true, false))
	under := pl.frame(0, 1, false, false)
	if got := s.Select(under); got != Forward {
		t.Fatalf("a frame: %v", got)
	}
	s.SetTarget(0, Layer{0, 0})
	if got := s.Select(under); got != Forward {
		t.Fatalf("the rest of a frame under way: %v", got)
	}
	step := func(name string, temporal uint8, key, up bool, want Action, now int8) {
		t.Helper()
		if got := s.Select(pl.frame(0, temporal, key, up)); got != want {
			t.Fatalf("%s: %v, want %v", name, got, want)
		}
		if _, l := s.Current(); l.Temporal != now {
			t.Fatalf("%s: at %+v, want temporal layer %d", name, l, now)
		}
	}
	step("down", 1, false, false, Skip, 0)
	s.SetTarget(0, Layer{0, 2})
	step("up without a switching point", 2, false, false, Skip, 0)
	step("up by one", 1, false, true, Turn, 1)
	step("two steps at once", 2, false, false, Skip, 1)
	step("keyframe", 0, true, false, Turn, 2)
	step("all of it", 2, false, false, Forward, 2)
	if _, waiting := s.Waiting(); waiting {
		t.Fatal("waits for a keyframe")
	}
}

// TestLateFrames: what comes late is decided as its frame was, or as the layer is.
func TestLateFrames(t *testing.T) {
	t.Parallel()
	var s Selector
	pl := newPlain()
	s.SetTarget(0, Layer{0, 1})
	s.Select(pl.frame(0, 0, true, false))
	a, b, c := pl.frame(0, 1, false, true), pl.frame(0, 2, false, false), pl.frame(0, 1, false, true)
	missing := pl.frame(0, 1, false, true)
	for _, p := range []Packet{a, b, c, pl.frame(0, 0, false, false)} {
		s.Select(p)
	}
	unknown := pl.frame(0, 2, false, false)
	unknown.Frame.Number = 0
	for i, st := range []struct {
		p    Packet
		want Action
	}{{a, Forward}, {b, Skip}, {c, Forward}, {missing, Forward}, {missing, Forward}, {unknown, Skip}} {
		if got := s.Select(st.p); got != st.want {
			t.Fatalf("late packet %d: %v, want %v", i, got, st.want)
		}
	}
}

// source makes one encoding's packets, with descriptors.
type source struct {
	encoding int8
	stream   *descriptortest.Stream
	state    descriptor.State
	ts       uint32
}

// picture makes the packets of the next picture.
func (s *source) picture(t *rapid.T, key bool) []Packet {
	s.ts += 3000
	var list []Packet
	for _, f := range s.stream.Picture(key) {
		n := rapid.IntRange(1, 2).Draw(t, "packets")
		for i := range n {
			first := i == 0
			got := &descriptor.Frame{}
			structure := first && key && f.Spatial == 0
			if err := s.state.Parse(f.Descriptor(first, i == n-1, structure, rapid.Bool().Draw(t, "custom")), got); err != nil {
				t.Fatal(err)
			}
			list = append(list, Packet{Encoding: s.encoding, Keyframe: structure, Timestamp: s.ts, Frame: got})
		}
	}
	return list
}

// TestForwardsWhatDecodes: through all modes, targets, losses and late packets, nothing is
// forwarded that needs what was left out, and no frame in part.
func TestForwardsWhatDecodes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		modes := descriptortest.Modes()
		sources := make([]*source, rapid.IntRange(1, 2).Draw(t, "encodings"))
		for i := range sources {
			sources[i] = &source{
				encoding: int8(i),
				stream:   descriptortest.New(modes[rapid.IntRange(0, len(modes)-1).Draw(t, "mode")], nearWrap(t), rapid.Uint8().Draw(t, "offset")),
			}
		}
		var s Selector
		d := &decoder{t: t}
		encoding, target := int8(0), Layer{Top, Top}
		s.SetTarget(encoding, target)
		var late []Packet
		feed := func(p Packet) { d.take(p, s.Select(p)) }
		wantKey := true
		for i := range rapid.IntRange(5, 80).Draw(t, "pictures") {
			if rapid.IntRange(0, 9).Draw(t, "retarget") == 0 {
				encoding = int8(rapid.IntRange(-1, len(sources)-1).Draw(t, "encoding"))
				target = Layer{int8(rapid.IntRange(0, 3).Draw(t, "spatial")), int8(rapid.IntRange(0, 3).Draw(t, "temporal"))}
				s.SetTarget(encoding, target)
				if encoding < 0 {
					d.stop()
				}
			}
			for _, src := range sources {
				key := i == 0 || wantKey && rapid.IntRange(0, 2).Draw(t, "answered") == 0 || rapid.IntRange(0, 30).Draw(t, "key") == 0
				for _, p := range src.picture(t, key) {
					switch rapid.IntRange(0, 15).Draw(t, "fate") {
					case 2:
						if !p.Keyframe {
							continue // never comes
						}
					case 0:
						if !p.Keyframe {
							late = append(late, p)
							continue
						}
					case 1:
						feed(p)
						if len(late) > 0 {
							feed(late[0])
							late = late[1:]
						}
						continue
					}
					feed(p)
				}
			}
			_, wantKey = s.Waiting()
		}
	})
}

// nearWrap draws a frame number, mostly one from which a short stream gets past the highest.
func nearWrap(t *rapid.T) uint16 {
	if rapid.IntRange(0, 3).Draw(t, "anywhere") == 0 {
		return rapid.Uint16().Draw(t, "number")
	}
	return -rapid.Uint16Range(0, 200).Draw(t, "before the wrap")
}

// decoder keeps what a receiver has.
type decoder struct {
	t        *rapid.T
	encoding int8
	on       bool
	begun    uint64
	sent     map[uint64]bool
	left     map[uint64]bool
}

func (d *decoder) stop() { d.on = false }

func (d *decoder) take(p Packet, a Action) {
	f := p.Frame
	switch a {
	case Drop:
		return
	case Switch:
		d.encoding, d.on, d.begun = p.Encoding, true, f.Number
		d.sent, d.left = map[uint64]bool{}, map[uint64]bool{}
		if f.Count != 0 && !p.Keyframe {
			d.t.Fatalf("begins with frame %d, which needs others", f.Number)
		}
	case Skip:
		if d.on && p.Encoding == d.encoding && d.sent[f.Number] {
			d.t.Fatalf("frame %d is forwarded in part", f.Number)
		}
		if d.on {
			d.left[f.Number] = true
		}
		return
	}
	if !d.on || p.Encoding != d.encoding {
		d.t.Fatalf("%v of encoding %d while at %d", a, p.Encoding, d.encoding)
	}
	if d.left[f.Number] {
		d.t.Fatalf("frame %d is left out in part", f.Number)
	}
	if d.sent[f.Number] {
		return // what it needed and was missing then may have come too late since
	}
	for _, diff := range f.Diffs[:f.Count] {
		need := f.Number - uint64(diff)
		if d.left[need] || need < d.begun {
			d.t.Fatalf("frame %d (S%d T%d) needs %d, which was left out", f.Number, f.Spatial, f.Temporal, need)
		}
	}
	d.sent[f.Number] = true
}

// TestReachesTarget: in every mode, from every layer to every other, with a keyframe
// where one is asked for and only there, everything of the target arrives and nothing else.
func TestReachesTarget(t *testing.T) {
	t.Parallel()
	for _, m := range descriptortest.Modes() {
		for from := range m.Spatial * m.Temporal {
			for to := range m.Spatial * m.Temporal {
				reach(t, m, Layer{int8(from / m.Temporal), int8(from % m.Temporal)}, Layer{int8(to / m.Temporal), int8(to % m.Temporal)})
			}
		}
	}
}

func reach(t *testing.T, m descriptortest.Mode, from, to Layer) {
	t.Helper()
	stream := descriptortest.New(m, 7, 0)
	var state descriptor.State
	var s Selector
	s.SetTarget(0, from)
	ts, keys := uint32(0), 0
	var got []string
	picture := func(key bool) {
		ts += 3000
		got = got[:0]
		for _, f := range stream.Picture(key) {
			d := &descriptor.Frame{}
			structure := key && f.Spatial == 0
			if err := state.Parse(f.Descriptor(true, true, structure, false), d); err != nil {
				t.Fatal(err)
			}
			switch s.Select(Packet{Keyframe: structure, Timestamp: ts, Frame: d}) {
			case Forward, Switch, Turn:
				got = append(got, f.Targets)
			}
		}
	}
	index := func(l Layer) int { return int(l.Spatial)*m.Temporal + int(l.Temporal) }
	check := func(l Layer) {
		t.Helper()
		for range 8 {
			picture(false)
			for _, targets := range got {
				if targets[index(l)] == '-' {
					t.Fatalf("%v, %+v to %+v: a frame of %s at %+v", m, from, to, targets, l)
				}
			}
			if (m.Temporal == 1 || l.Temporal == int8(m.Temporal)-1) && len(got) == 0 {
				t.Fatalf("%v, %+v to %+v: nothing forwarded at %+v", m, from, to, l)
			}
		}
		if _, now := s.Current(); now != l {
			t.Fatalf("%v, %+v to %+v: at %+v, want %+v", m, from, to, now, l)
		}
	}
	picture(true)
	check(from)
	s.SetTarget(0, to)
	for range 8 {
		key := false
		if _, waiting := s.Waiting(); waiting {
			key, keys = true, keys+1
		}
		picture(key)
	}
	check(to)
	want := 0
	if to.Spatial > from.Spatial || to.Spatial < from.Spatial && (m.Key || m.Simulcast) {
		want = 1
	}
	if keys > 1 || keys > want {
		t.Fatalf("%v, %+v to %+v: %d keyframes, want %d", m, from, to, keys, want)
	}
}

func TestSelectAllocatesNothing(t *testing.T) {
	var s Selector
	s.SetTarget(0, Layer{0, 1})
	pl := newPlain()
	frames := []Packet{pl.frame(0, 0, true, false), pl.frame(0, 2, false, false), pl.frame(0, 1, false, true)}
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range frames {
			s.Select(p)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
	if !slices.Contains([]Action{Skip}, s.Select(frames[1])) {
		t.Fatal("a frame above the target is forwarded")
	}
}

func BenchmarkSelect(b *testing.B) {
	var s Selector
	s.SetTarget(0, Layer{0, Top})
	pl := newPlain()
	s.Select(pl.frame(0, 0, true, false))
	p := pl.frame(0, 0, false, false)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%8 == 0 {
			p.Frame.Number++
			p.Timestamp += 3000
		}
		s.Select(p)
	}
}
