// Package layer decides, packet by packet, which encoding and which spatial and temporal
// layers of a track are forwarded to one subscriber. It is pure: no clock, no I/O.
package layer

import "github.com/amphi-sfu/amphi/media/descriptor"

// Layer names what can be selected of a track, low to high. Spatial is the index of the
// encoding where a track has several, else the spatial layer within the only one. None
// stands for nothing at all.
type Layer struct {
	Spatial  int8
	Temporal int8
}

// Top is above the highest temporal layer that there can be.
const Top = 7

// None selects nothing.
func None() Layer { return Layer{Spatial: -1, Temporal: -1} }

// Packet is what the Selector has to know about a packet.
type Packet struct {
	// Encoding is the index of the RTP stream.
	Encoding int8
	// Keyframe: the packet begins a picture at which a receiver can begin.
	Keyframe bool
	// Timestamp tells pictures apart.
	Timestamp uint32
	// Frame is what the frame belongs to and needs. Without a Structure, as for audio, all
	// packets of an encoding are forwarded.
	Frame *descriptor.Frame
}

// Action says what to do with a packet.
type Action uint8

// Actions.
const (
	// Drop: the packet belongs to an encoding that is not being forwarded.
	Drop Action = iota
	// Forward the packet.
	Forward
	// Switch: forward the packet, which is the first of another encoding.
	Switch
	// Turn: forward the packet, which is the first after a keyframe or at another layer of
	// the same encoding.
	Turn
	// Skip the packet: it belongs to the encoding being forwarded, but to a frame
	// that is not, so the output sequence has to close up.
	Skip
)

// Selector selects the packets of one track for one subscriber. The zero value
// forwards nothing; not safe for concurrent use.
//
// Within an encoding it follows one decode target of the frames' structure. It moves to
// another one where a picture begins and all that the other one needs was forwarded, or
// where the descriptor says so, or at a keyframe. A frame is forwarded if it
// belongs to the target and nothing that it depends on was left out.
type Selector struct {
	set      bool
	encoding int8 // wanted, -1 for none
	target   Layer
	current  int8 // the encoding being forwarded, -1 for none
	begun    bool // something of current was forwarded
	turn     bool // the next packet forwarded is a turn

	structure *descriptor.Structure
	active    uint32
	at        int8   // decode target being forwarded
	wanted    int8   // decode target to be forwarded
	intact    uint32 // decode targets of which nothing needed was left out
	key       uint64 // newest keyframe
	frame     uint64 // frame decided last, and how
	forward   bool
	timestamp uint32
	past      history
}

// SetTarget says which encoding should be forwarded and which layers of it. Going to another
// encoding waits for a keyframe of it, and keeps the current one until then; -1 stops at once.
func (s *Selector) SetTarget(encoding int8, l Layer) {
	if !s.set {
		s.current, s.set = -1, true
	}
	if encoding < 0 {
		encoding, l, s.current = -1, None(), -1
	}
	if s.encoding == encoding && s.target == l {
		return
	}
	s.encoding, s.target = encoding, l
	s.choose()
}

// Reset forgets what is being forwarded, as when the track changes: the next
// packet has to be a keyframe.
func (s *Selector) Reset() { s.current, s.set = -1, true }

// Target returns what should be forwarded.
func (s *Selector) Target() (encoding int8, l Layer) {
	if !s.set {
		return -1, None()
	}
	return s.encoding, s.target
}

// Current returns what is being forwarded. What reached the target counts as the target's
// temporal layer, though the stream may not have so many.
func (s *Selector) Current() (encoding int8, l Layer) {
	if !s.set || s.current < 0 {
		return -1, None()
	}
	if s.structure == nil {
		return s.current, Layer{Spatial: 0, Temporal: s.target.Temporal}
	}
	t := s.structure.Targets[s.at]
	l = Layer{Spatial: int8(t.Spatial), Temporal: int8(t.Temporal)}
	if s.at == s.wanted && s.current == s.encoding {
		l.Temporal = s.target.Temporal
	}
	return s.current, l
}

// Shape returns the highest spatial layer being forwarded within the current encoding, and
// the decode targets that the subscriber gets, 0 when that is all of them.
func (s *Selector) Shape() (spatial uint8, targets uint32) {
	if s.structure == nil {
		return 0, 0
	}
	targets = s.structure.Contains[s.at]
	if targets == s.structure.All() {
		targets = 0
	}
	return s.structure.Targets[s.at].Spatial, targets
}

// Waiting returns the encoding a keyframe of which is needed, and whether one is.
func (s *Selector) Waiting() (int8, bool) {
	if !s.set || s.encoding < 0 {
		return 0, false
	}
	if s.current != s.encoding {
		return s.encoding, true
	}
	if s.structure == nil || s.intact&(1<<s.at) == 0 {
		return s.encoding, s.structure != nil
	}
	t := s.structure.Targets
	return s.encoding, s.intact&(1<<s.wanted) == 0 && t[s.wanted].Spatial != t[s.at].Spatial
}

// Select decides about one packet. Packets come in order of arrival.
func (s *Selector) Select(p Packet) Action {
	if !s.set {
		return Drop
	}
	if p.Encoding != s.current {
		if s.encoding < 0 || p.Encoding != s.encoding || !p.Keyframe || p.Frame.Structure != nil && p.Frame.Number == 0 {
			return Drop
		}
		s.begin(p)
	}
	f := p.Frame
	if f.Structure == nil {
		if s.structure != nil {
			return s.skip() // of a stream with layers, but nothing is known of it
		}
		return s.pass()
	}
	if f.Number == s.frame && f.Number != 0 && (s.forward || s.begun || !f.First) {
		if s.forward {
			return s.pass()
		}
		return s.skip()
	}
	if s.decide(p) {
		return s.pass()
	}
	return s.skip()
}

// pass forwards a packet.
func (s *Selector) pass() Action {
	switch {
	case !s.begun:
		s.begun, s.turn = true, false
		return Switch
	case s.turn:
		s.turn = false
		return Turn
	}
	return Forward
}

// skip leaves a packet out, of the output if it has begun.
func (s *Selector) skip() Action {
	if !s.begun {
		return Drop
	}
	return Skip
}

// begin starts forwarding an encoding at a keyframe.
func (s *Selector) begin(p Packet) {
	s.current, s.begun, s.turn = p.Encoding, false, false
	s.structure, s.intact, s.frame = nil, 0, 0
	s.past = history{first: p.Frame.Number, highest: p.Frame.Number}
}

// decide says whether the frame of a packet, which is not the one decided last, is forwarded.
func (s *Selector) decide(p Packet) bool {
	f := p.Frame
	if f.Number == 0 { // some older one
		return s.begun && f.Structure == s.structure && f.Present&(1<<s.at) != 0
	}
	if s.frame != 0 && f.Number < s.past.highest {
		return s.late(p)
	}
	if f.Structure != s.structure || p.Keyframe {
		if !p.Keyframe {
			s.intact = 0
			return false
		}
		s.structure, s.active, s.intact, s.key = f.Structure, f.Active, f.Structure.All(), f.Number
		s.choose()
		s.at, s.turn = s.wanted, true
	} else {
		if f.Active != s.active {
			s.active = f.Active
			s.choose()
		}
		if s.at != s.wanted && p.Timestamp != s.timestamp {
			s.step(f)
		}
	}
	s.timestamp, s.frame = p.Timestamp, f.Number
	s.forward = s.belongs(p)
	if s.forward {
		if !s.begun { // what came, or did not come, before it is not sent any more
			s.past.first = f.Number
			s.intact &= f.Present
		}
		s.intact |= f.Switch
	} else {
		s.intact &^= f.Required
	}
	s.past.note(f.Number, s.forward)
	return s.forward
}

// late decides about a frame older than the newest.
func (s *Selector) late(p Packet) bool {
	f := p.Frame
	if forwarded, known := s.past.find(f.Number); known {
		return forwarded
	}
	forward := f.Structure == s.structure && s.begun && s.belongs(p)
	if !forward && f.Structure == s.structure && f.Number > s.key {
		s.intact &^= f.Required
	}
	s.past.note(f.Number, forward)
	return forward
}

// belongs says that the frame of a packet is part of the decode target and nothing that it
// needs was left out. The first one to be forwarded needs nothing, and begins with the packet.
func (s *Selector) belongs(p Packet) bool {
	f := p.Frame
	return f.Present&(1<<s.at) != 0 && (s.begun || f.Count == 0 && (f.First || p.Keyframe)) && s.past.decodable(f)
}

// choose finds the decode target wanted.
func (s *Selector) choose() {
	if s.structure == nil {
		return
	}
	spatial, temporal := s.target.Spatial, s.target.Temporal
	if s.encoding != s.current {
		// The target is meant for another encoding; until that comes a step down takes all
		// of the current one, a step up keeps what it has.
		if s.encoding > s.current {
			s.wanted = s.at
			return
		}
		spatial, temporal = int8(s.structure.Targets[s.at].Spatial), Top
	}
	mask := s.active & s.structure.All()
	if mask == 0 {
		mask = s.structure.All()
	}
	s.wanted = s.structure.Best(mask, spatial, temporal)
}

// step moves towards the wanted decode target at f, with which a picture begins, as
// far as that needs no keyframe.
func (s *Selector) step(f *descriptor.Frame) {
	can := s.intact
	if s.past.decodable(f) {
		can |= f.Switch
	}
	to := s.wanted
	if can&(1<<to) == 0 {
		// Some of the temporal layers may do already.
		now, want := s.structure.Targets[s.at], s.structure.Targets[s.wanted]
		if want.Spatial != now.Spatial {
			return
		}
		var more uint32
		for i, t := range s.structure.Targets {
			if t.Spatial == now.Spatial && t.Temporal >= now.Temporal {
				more |= 1 << i
			}
		}
		if to = s.structure.Best(can&more&s.active, int8(now.Spatial), int8(want.Temporal)); to < 0 {
			return
		}
	}
	if to != s.at {
		s.at, s.turn = to, true
	}
}

// window is how many frames back is known what was forwarded.
const window = 256

// history remembers which of the newest frames were forwarded.
type history struct {
	first, highest uint64
	seen, sent     [window / 64]uint64
}

func (h *history) note(number uint64, sent bool) {
	if number > h.highest {
		if number-h.highest >= window {
			h.seen, h.sent = [window / 64]uint64{}, [window / 64]uint64{}
		} else {
			for n := h.highest + 1; n <= number; n++ {
				h.seen[n%window/64] &^= 1 << (n % 64)
				h.sent[n%window/64] &^= 1 << (n % 64)
			}
		}
		h.highest = number
	}
	if number+window <= h.highest {
		return
	}
	h.seen[number%window/64] |= 1 << (number % 64)
	if sent {
		h.sent[number%window/64] |= 1 << (number % 64)
	}
}

// find says whether a frame was forwarded, and whether that is known.
func (h *history) find(number uint64) (sent, known bool) {
	if number < h.first || number+window <= h.highest {
		return false, number < h.first
	}
	bit := uint64(1) << (number % 64)
	return h.sent[number%window/64]&bit != 0, h.seen[number%window/64]&bit != 0
}

// decodable says that nothing that a frame depends on was left out. What has not arrived may
// still come.
func (h *history) decodable(f *descriptor.Frame) bool {
	for _, d := range f.Diffs[:f.Count] {
		if uint64(d) > f.Number {
			return false
		}
		if sent, known := h.find(f.Number - uint64(d)); known && !sent {
			return false
		}
	}
	return true
}
