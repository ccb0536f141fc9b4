// Package layer decides, packet by packet, which encoding and which temporal
// layers of a track are forwarded to one subscriber. It is pure: no clock, no I/O.
package layer

// Layer names what can be selected of a track. For simulcast Spatial is the index
// of the encoding, low to high. None stands for nothing at all.
type Layer struct {
	Spatial  int8
	Temporal int8
}

// Top is the highest temporal layer that there can be.
const Top = 7

// None selects nothing.
func None() Layer { return Layer{Spatial: -1, Temporal: -1} }

// Frame is what the Selector has to know about a packet.
type Frame struct {
	Spatial  int8
	Temporal uint8
	Keyframe bool // the packet begins a frame that decodes by itself
	Start    bool // the packet begins a frame
	SwitchUp bool // see packet.Packet
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
	// Skip the packet: it belongs to the encoding being forwarded, but to a temporal
	// layer that is not, so the output sequence has to close up.
	Skip
)

// Selector selects the packets of one track for one subscriber. The zero value
// forwards nothing; not safe for concurrent use.
type Selector struct {
	target  Layer
	current Layer
	set     bool
}

// SetTarget says what should be forwarded. Going to another encoding waits for a
// keyframe of it, and keeps the current one until then; None stops at once.
func (s *Selector) SetTarget(l Layer) {
	if !s.set {
		s.current, s.set = None(), true
	}
	s.target = l
	if l.Spatial < 0 {
		s.current = None()
	}
}

// Reset forgets what is being forwarded, as when the track changes: the next
// packet has to be a keyframe.
func (s *Selector) Reset() { s.current, s.set = None(), true }

// Target returns what should be forwarded.
func (s *Selector) Target() Layer {
	if !s.set {
		return None()
	}
	return s.target
}

// Current returns what is being forwarded.
func (s *Selector) Current() Layer {
	if !s.set {
		return None()
	}
	return s.current
}

// Waiting returns the encoding a keyframe of which is needed, and whether one is.
func (s *Selector) Waiting() (int8, bool) {
	if !s.set || s.target.Spatial < 0 || s.current.Spatial == s.target.Spatial {
		return 0, false
	}
	return s.target.Spatial, true
}

// Select decides about one packet. Packets come in order of arrival.
func (s *Selector) Select(f Frame) Action {
	if !s.set || s.target.Spatial < 0 {
		return Drop
	}
	if f.Spatial != s.current.Spatial {
		if f.Spatial != s.target.Spatial || !f.Keyframe {
			return Drop
		}
		s.current = s.target
		return Switch
	}
	if f.Start {
		s.stepTemporal(f)
	}
	if int8(f.Temporal) > s.current.Temporal {
		return Skip
	}
	return Forward
}

// stepTemporal moves the current temporal layer towards the target at the start of a
// frame: down at once, up only where the frame needs nothing that was left out.
func (s *Selector) stepTemporal(f Frame) {
	want := s.target.Temporal
	if s.target.Spatial != s.current.Spatial {
		// The target's temporal layer is meant for another encoding; until it comes
		// a step down takes all of the current one, a step up keeps what it has.
		return
	}
	switch {
	case s.current.Temporal > want:
		s.current.Temporal = want
	case s.current.Temporal < want && f.Keyframe:
		s.current.Temporal = want
	case s.current.Temporal < want && f.SwitchUp && int8(f.Temporal) > s.current.Temporal:
		s.current.Temporal = min(int8(f.Temporal), want)
	}
}
