package tally

import "time"

// Packet is what a Stream needs to know of one received RTP packet.
type Packet struct {
	Seq uint16
	// Marker ends a video frame.
	Marker bool
	// At is when it came.
	At time.Time
}

// Stream counts what one receiver got of one RTP stream: loss, frames, freezes. It is for one
// goroutine at a time. The zero value is ready; Video must be set before the first packet of video.
type Stream struct {
	Video bool

	started  bool
	first    uint32 // extended numbers
	highest  uint32
	received uint64
	seen     [window / 64]uint64 // of the numbers below highest

	frameFirst uint32 // first number of the frame that is being received
	frameGot   uint32
	lastFrame  time.Time
	interval   time.Duration // moving average

	frames   uint64
	broken   uint64
	freezes  uint64
	frozen   time.Duration
	repeated uint64
}

// window is how far back a repeated packet is recognised.
const window = 1024

// Counts are what a Stream has counted since it began, or since the last Mark.
type Counts struct {
	Received uint64
	// Lost were never received so far; late ones make it fall.
	Lost     uint64
	Repeated uint64
	// Frames were complete; Broken missed a packet when their last one came.
	Frames uint64
	Broken uint64
	// Freezes are gaps between complete frames beyond the average interval's triple and 150 ms more than it,
	// as W3C's freezeCount; Frozen is their length.
	Freezes uint64
	Frozen  time.Duration
}

// Add sums two counts.
func (c Counts) Add(o Counts) Counts {
	return Counts{
		Received: c.Received + o.Received, Lost: c.Lost + o.Lost, Repeated: c.Repeated + o.Repeated,
		Frames: c.Frames + o.Frames, Broken: c.Broken + o.Broken,
		Freezes: c.Freezes + o.Freezes, Frozen: c.Frozen + o.Frozen,
	}
}

// Since is what came after an earlier reading of the same Stream.
func (c Counts) Since(o Counts) Counts {
	lost := uint64(0)
	if c.Lost > o.Lost {
		lost = c.Lost - o.Lost
	}
	return Counts{
		Received: c.Received - o.Received, Lost: lost, Repeated: c.Repeated - o.Repeated,
		Frames: c.Frames - o.Frames, Broken: c.Broken - o.Broken,
		Freezes: c.Freezes - o.Freezes, Frozen: c.Frozen - o.Frozen,
	}
}

// Counts reads the present state.
func (s *Stream) Counts() Counts {
	c := Counts{
		Received: s.received, Repeated: s.repeated, Frames: s.frames, Broken: s.broken,
		Freezes: s.freezes, Frozen: s.frozen,
	}
	if expected := uint64(s.highest-s.first) + 1; s.started && expected > s.received {
		c.Lost = expected - s.received
	}
	return c
}

// Add takes one packet. It reports whether the packet is new.
func (s *Stream) Add(p Packet) bool {
	if !s.started {
		s.started = true
		// Far from zero, so that packets from before the first one have numbers too.
		s.first = 1<<16 | uint32(p.Seq)
		s.highest, s.frameFirst = s.first, s.first
		s.mark(s.first)
	} else if !s.place(p.Seq) {
		s.repeated++
		return false
	}
	s.received++
	if s.Video {
		s.frame(p)
	}
	return true
}

// place finds the extended number of seq and notes it; false if it was there already or is too old to tell.
func (s *Stream) place(seq uint16) bool {
	ext := s.highest + uint32(int32(int16(seq-uint16(s.highest))))
	switch {
	case ext > s.highest:
		if ext-s.highest >= window {
			clear(s.seen[:])
		} else {
			for n := s.highest + 1; n <= ext; n++ {
				s.seen[n%window/64] &^= 1 << (n % 64)
			}
		}
		s.highest = ext
	case ext < s.first || s.highest-ext >= window:
		return false
	case s.seen[ext%window/64]&(1<<(ext%64)) != 0:
		return false
	}
	s.mark(ext)
	return true
}

func (s *Stream) mark(ext uint32) { s.seen[ext%window/64] |= 1 << (ext % 64) }

// frame counts packets up to the marker: the frame is complete when none of its numbers is missing.
func (s *Stream) frame(p Packet) {
	s.frameGot++
	if !p.Marker {
		return
	}
	ext := s.highest + uint32(int32(int16(p.Seq-uint16(s.highest))))
	whole := ext >= s.frameFirst && ext-s.frameFirst+1 == s.frameGot
	s.frameFirst, s.frameGot = ext+1, 0
	if !whole {
		s.broken++
		return
	}
	s.frames++
	if !s.lastFrame.IsZero() {
		s.gap(p.At.Sub(s.lastFrame))
	}
	s.lastFrame = p.At
}

func (s *Stream) gap(d time.Duration) {
	if s.interval == 0 {
		s.interval = d
		return
	}
	if d > max(3*s.interval, s.interval+150*time.Millisecond) {
		s.freezes++
		s.frozen += d - s.interval
		return
	}
	s.interval += (d - s.interval) / 16
}
