// Package descriptor reads and rewrites the dependency descriptor, the RTP header
// extension that says what a frame of a layered stream depends on and which decode
// targets need it (AV1 RTP payload format, appendix A; it serves every codec). Who
// forwards layers by it never looks at the payload, which may be encrypted end to end.
package descriptor

import (
	"bytes"
	"errors"
	"math/bits"

	"github.com/amphi-sfu/amphi/media/seq"
)

// URI names the header extension in SDP.
const URI = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"

// Limits.
const (
	// MaxSize is the longest descriptor accepted, in bytes: what an element of the
	// two-byte form holds (RFC 8285 section 4.3).
	MaxSize = 255
	// MaxTargets, MaxSpatial and MaxTemporal are those of the format.
	MaxTargets  = 32
	MaxSpatial  = 4
	MaxTemporal = 8
	maxTemplate = 64
	// MaxDiffs bounds the frames that one frame depends on: AV1 has seven references
	// and a layer below.
	MaxDiffs = 8
)

// Errors of State.Parse.
var (
	ErrShort     = errors.New("dependency descriptor too short")
	ErrLong      = errors.New("dependency descriptor too long")
	ErrStructure = errors.New("dependency descriptor of an unknown structure")
	ErrTemplate  = errors.New("dependency descriptor with a template that does not exist")
	ErrDiffs     = errors.New("dependency descriptor with too many dependencies")
)

// Size is that of a picture in pixels.
type Size struct {
	Width, Height int
}

// Target is a decode target: the layers up to one spatial and one temporal layer.
type Target struct {
	Spatial, Temporal uint8
}

// Structure is a template dependency structure. It does not change once it was parsed, so it
// may be shared.
type Structure struct {
	// Targets are the decode targets, by the bit that stands for them in masks.
	Targets []Target
	// Sizes are those of the spatial layers, low to high; empty when not told.
	Sizes []Size
	// Spatial and Temporal are the numbers of layers.
	Spatial, Temporal uint8
	// Chains is the number of chains, ProtectedBy the chain of each target.
	Chains      uint8
	ProtectedBy []uint8
	// Contains are, for each target, those that somebody who gets it gets as well. In the
	// modes with KEY in their names lower spatial layers are not among them.
	Contains []uint32

	offset    uint8
	templates []template
	raw       []byte // from the template id offset on
	bits      int
}

// All is the mask of all decode targets.
func (s *Structure) All() uint32 { return uint32(uint64(1)<<len(s.Targets) - 1) }

// Offset is the id of the first template, Templates how many there are.
func (s *Structure) Offset() uint8 { return s.offset }

// Templates is how many templates there are.
func (s *Structure) Templates() int { return len(s.templates) }

type template struct {
	spatial, temporal uint8
	targets
	deps
}

// targets says what a frame is to each decode target, as masks.
type targets struct {
	// Present are those that the frame is a part of, Switch those that can be switched to
	// at it, Required those later frames of which may need it (Switch included).
	Present, Switch, Required uint32
}

// deps are the frames that a frame depends on, as differences of frame numbers.
type deps struct {
	Diffs [MaxDiffs]uint16
	Count uint8
}

func (d *deps) add(v uint16) bool {
	if int(d.Count) == len(d.Diffs) {
		return false
	}
	d.Diffs[d.Count] = v
	d.Count++
	return true
}

// Frame is what one packet says about its frame. The zero value stands for a packet
// without a descriptor.
type Frame struct {
	Structure *Structure
	// Number is the frame number, unwrapped; never 0 with a descriptor.
	Number uint64
	// Active is the mask of the decode targets that the publisher sends.
	Active uint32
	targets
	deps
	Spatial, Temporal uint8
	// First and Last say which packets of the frame this is.
	First, Last bool

	flags  byte // the five of the extended fields, from bit 4 down
	maskAt uint16
	endAt  uint16
}

// Flags of the extended fields.
const (
	hasStructure = 0x10
	hasMask      = 0x08
	hasDTIs      = 0x04
	hasDiffs     = 0x02
	hasChains    = 0x01
)

// HasStructure says that the packet carries the structure itself.
func (f *Frame) HasStructure() bool { return f.flags&hasStructure != 0 }

// Independent says that the frame needs no other one.
func (f *Frame) Independent() bool { return f.Structure != nil && f.Count == 0 }

// State follows the descriptors of one RTP stream. The zero value is ready. Not safe for
// concurrent use.
type State struct {
	structure, before *Structure
	since             uint64 // frame that brought the structure first
	active            uint32
	told              uint64 // frame that told active
	numbers           seq.Unwrapper
	anew              bool
}

// Structure is the newest structure, nil before the first.
func (s *State) Structure() *Structure { return s.structure }

// Active is the mask of the decode targets that are being sent.
func (s *State) Active() uint32 { return s.active }

// Renumber says that the frame numbers begin anew with the next descriptor that is read: however
// low its number, it is above all before.
func (s *State) Renumber() { s.anew = true }

// Parse reads the descriptor raw into f. What it says about the stream is kept for the packets
// that follow. After an error f is of no use. A packet that repeats the structure, and one
// without, allocate nothing.
func (s *State) Parse(raw []byte, f *Frame) error {
	*f = Frame{}
	if len(raw) < 3 {
		return ErrShort
	}
	if len(raw) > MaxSize {
		return ErrLong
	}
	number := uint16(raw[1])<<8 | uint16(raw[2])
	r := bitReader{b: raw, at: 24}
	if len(raw) > 3 {
		f.flags = byte(r.bits(5))
	}
	structure := s.structure
	if f.flags&hasStructure != 0 {
		var err error
		if structure, err = s.readStructure(&r); err != nil {
			return err
		}
	}
	if structure == nil {
		return ErrStructure
	}
	f.maskAt = uint16(r.at)
	mask := uint32(0)
	if f.flags&hasMask != 0 {
		mask = r.bits(len(structure.Targets))
	}
	if s.anew {
		s.anew = false
		f.Number = s.numbers.Above(number)
	} else {
		f.Number = s.numbers.Unwrap(number)
	}
	if f.flags&hasStructure == 0 && f.Number < s.since && s.before != nil {
		structure = s.before // it was under way before the newest structure
	}
	f.Structure = structure
	f.First, f.Last = raw[0]&0x80 != 0, raw[0]&0x40 != 0
	if err := f.define(&r, raw[0]&0x3f); err != nil {
		return err
	}
	if r.failed {
		return ErrShort
	}
	f.endAt = uint16(r.at)
	s.learn(f, mask)
	return nil
}

// learn keeps what f says about the frames after it.
func (s *State) learn(f *Frame, mask uint32) {
	if f.HasStructure() && f.Number >= s.since {
		changed := f.Structure != s.structure
		if changed {
			s.before, s.structure, s.since = s.structure, f.Structure, f.Number
		}
		if changed || f.Number >= s.told {
			s.active, s.told = f.Structure.All(), f.Number
		}
	}
	if f.flags&hasMask != 0 && f.Number >= s.told && f.Structure == s.structure {
		s.active, s.told = mask, f.Number
	}
	f.Active = s.active
	if f.Structure != s.structure {
		f.Active = f.Structure.All()
	}
}

// define reads the frame's dependency definition.
func (f *Frame) define(r *bitReader, id uint8) error {
	st := f.Structure
	index := int(id-st.offset) & (maxTemplate - 1)
	if index >= len(st.templates) {
		return ErrTemplate
	}
	t := &st.templates[index]
	f.Spatial, f.Temporal, f.targets, f.deps = t.spatial, t.temporal, t.targets, t.deps
	if f.flags&hasDTIs != 0 {
		f.targets = readTargets(r, len(st.Targets))
	}
	if f.flags&hasDiffs != 0 {
		f.deps = deps{}
		for n := r.bits(2); n != 0; n = r.bits(2) {
			if !f.add(uint16(r.bits(4*int(n)) + 1)) {
				return ErrDiffs
			}
		}
	}
	if f.flags&hasChains != 0 {
		for range st.Chains {
			r.bits(8)
		}
	}
	return nil
}

// readTargets reads the decode target indications of a frame or template.
func readTargets(r *bitReader, n int) targets {
	var t targets
	for i := range n {
		bit := uint32(1) << i
		switch r.bits(2) {
		case 1: // discardable
			t.Present |= bit
		case 2:
			t.Present |= bit
			t.Switch |= bit
			t.Required |= bit
		case 3:
			t.Present |= bit
			t.Required |= bit
		}
	}
	return t
}

// readStructure reads a structure, or finds that it is the one that is known.
func (s *State) readStructure(r *bitReader) (*Structure, error) {
	start := r.at
	if old := s.structure; old != nil && sameBits(r.b, start, old.raw, old.bits) {
		r.at = start + old.bits
		return old, nil
	}
	st, err := parseStructure(r)
	if err != nil {
		return nil, err
	}
	st.bits = r.at - start
	w := bitWriter{}
	w.copy(r.b, start, r.at)
	st.raw = w.b
	return st, nil
}

// sameBits says that bits [at, at+n) of b are the first n of raw.
func sameBits(b []byte, at int, raw []byte, n int) bool {
	x, y := bitReader{b: b, at: at}, bitReader{b: raw}
	for n > 0 {
		k := min(n, 24)
		if x.bits(k) != y.bits(k) || x.failed {
			return false
		}
		n -= k
	}
	return true
}

func parseStructure(r *bitReader) (*Structure, error) {
	st := &Structure{offset: uint8(r.bits(6))}
	st.Targets = make([]Target, r.bits(5)+1)
	if err := st.readLayers(r); err != nil {
		return nil, err
	}
	for i := range st.templates {
		st.templates[i].targets = readTargets(r, len(st.Targets))
	}
	for i := range st.templates {
		t := &st.templates[i]
		for r.flag() {
			if !t.add(uint16(r.bits(4) + 1)) {
				return nil, ErrDiffs
			}
		}
	}
	if st.Chains = uint8(r.nonSymmetric(len(st.Targets) + 1)); st.Chains > 0 {
		st.ProtectedBy = make([]uint8, len(st.Targets))
		for i := range st.ProtectedBy {
			st.ProtectedBy[i] = uint8(r.nonSymmetric(int(st.Chains)))
		}
		for range len(st.templates) * int(st.Chains) {
			r.bits(4)
		}
	}
	st.nameTargets()
	if r.flag() {
		st.Sizes = make([]Size, st.Spatial)
		for i := range st.Sizes {
			st.Sizes[i] = Size{Width: int(r.bits(16)) + 1, Height: int(r.bits(16)) + 1}
		}
	}
	if r.failed {
		return nil, ErrShort
	}
	return st, nil
}

// readLayers reads the layers of the templates.
func (s *Structure) readLayers(r *bitReader) error {
	var t template
	for {
		s.templates = append(s.templates, t)
		s.Spatial, s.Temporal = max(s.Spatial, t.spatial+1), max(s.Temporal, t.temporal+1)
		switch r.bits(2) {
		case 1:
			t.temporal++
		case 2:
			t.spatial, t.temporal = t.spatial+1, 0
		case 3:
			return nil
		}
		if r.failed {
			return ErrShort
		}
		if t.spatial >= MaxSpatial || t.temporal >= MaxTemporal || len(s.templates) >= maxTemplate {
			return ErrTemplate
		}
	}
}

// nameTargets finds the layers of the decode targets, the highest of what belongs to them,
// and which of them contain which.
func (s *Structure) nameTargets() {
	s.Contains = make([]uint32, len(s.Targets))
	for i := range s.Contains {
		s.Contains[i] = s.All()
	}
	for i := range s.templates {
		t := &s.templates[i]
		for n := range s.Targets {
			if t.Present&(1<<n) == 0 {
				s.Contains[n] &^= t.Present
				continue
			}
			target := &s.Targets[n]
			target.Spatial = max(target.Spatial, t.spatial)
			target.Temporal = max(target.Temporal, t.temporal)
		}
	}
}

// Grid is the structure of streams without descriptors: each spatial layer needs those below
// and each temporal layer those below. The target of layers s and t is number s*temporal+t.
// Both numbers are at most 4.
func Grid(spatial, temporal int) *Structure {
	st := &Structure{Spatial: uint8(spatial), Temporal: uint8(temporal)}
	for s := range spatial {
		for t := range temporal {
			st.Targets = append(st.Targets, Target{Spatial: uint8(s), Temporal: uint8(t)})
			var within uint32
			for i, o := range st.Targets {
				if int(o.Spatial) <= s && int(o.Temporal) <= t {
					within |= 1 << i
				}
			}
			st.Contains = append(st.Contains, within)
		}
	}
	return st
}

// Best returns the target among those of mask that comes nearest to spatial and temporal
// layers: the highest ones that do not exceed them, spatial first, else the lowest there
// are. It is -1 when the mask is empty.
func (s *Structure) Best(mask uint32, spatial, temporal int8) int8 {
	best := int8(-1)
	for m := mask & s.All(); m != 0; m &= m - 1 {
		i := int8(bits.TrailingZeros32(m))
		if best < 0 || s.nearer(s.Targets[i], s.Targets[best], spatial, temporal) {
			best = i
		}
	}
	return best
}

func (s *Structure) nearer(a, b Target, spatial, temporal int8) bool {
	if a.Spatial != b.Spatial {
		return closer(int8(a.Spatial), int8(b.Spatial), spatial)
	}
	return a.Temporal != b.Temporal && closer(int8(a.Temporal), int8(b.Temporal), temporal)
}

// closer says that a comes nearer to want than b, from below if it can.
func closer(a, b, want int8) bool {
	if (a <= want) != (b <= want) {
		return a <= want
	}
	return (a > b) == (a <= want)
}

// Equal says that two structures are the same but for the ids of their templates.
func (s *Structure) Equal(o *Structure) bool {
	return s == o || s.bits == o.bits && bytes.Equal(s.raw[1:], o.raw[1:]) && (s.raw[0]^o.raw[0])&0x03 == 0
}
