package codec

import (
	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/packet"
)

const (
	// recentFrames is how far back a packet that comes late, as one that was lost and asked for again, finds its frame:
	// half a second at 60 frames per second.
	recentFrames = 32
	// firstFrame leaves numbers for frames that came before it.
	firstFrame = 1 << 16
)

// frameCount numbers frames that have no number. It leaves out a number for each packet that is missing before a frame, as
// it may be all of a frame of its own. The zero value is ready.
type frameCount struct {
	highest uint64 // extended sequence number
	made    int    // frames numbered so far
	recent  [recentFrames]numbered
}

// numbered is a frame with a number.
type numbered struct {
	number      uint64
	first, last uint64 // extended sequence numbers of the packets that have come
	timestamp   uint32
	spatial     uint8
}

// at is the ith newest frame.
func (c *frameCount) at(i int) *numbered { return &c.recent[(c.made-1-i)%recentFrames] }

// newest is the frame that was numbered last, the zero value before the first.
func (c *frameCount) newest() numbered {
	if c.made == 0 {
		return numbered{}
	}
	return *c.at(0)
}

// take returns the number of a packet's frame, 0 if that is too long ago.
func (c *frameCount) take(p *packet.Packet, spatial uint8) uint64 {
	frame := numbered{firstFrame, p.ExtSeq, p.ExtSeq, p.Timestamp, spatial}
	switch {
	case c.made == 0:
	case p.ExtSeq <= c.highest:
		return c.late(frame)
	default:
		if n := c.at(0); n.timestamp == p.Timestamp && n.spatial == spatial {
			c.highest, n.last = p.ExtSeq, p.ExtSeq
			return n.number
		}
		frame.number = c.at(0).number + p.ExtSeq - c.highest
	}
	c.highest = p.ExtSeq
	c.made++
	*c.at(0) = frame
	return frame.number
}

// late is take for a packet that others have overtaken.
func (c *frameCount) late(frame numbered) uint64 {
	n := min(c.made, recentFrames)
	for i := range n {
		older := c.at(i)
		if older.timestamp == frame.timestamp && older.spatial == frame.spatial {
			older.first, older.last = min(older.first, frame.first), max(older.last, frame.last)
			return older.number
		}
		if frame.first > older.last {
			// It was missing between two frames: as many numbers lie between theirs at least.
			frame.number = older.number + frame.first - older.last
			c.insert(i, frame)
			return frame.number
		}
	}
	if n == recentFrames {
		return 0
	}
	oldest := c.at(n - 1)
	frame.number = oldest.number - min(oldest.first-min(frame.first, oldest.first), oldest.number)
	if frame.number > 0 {
		c.insert(n, frame)
	}
	return frame.number
}

// insert puts a frame before the i newest.
func (c *frameCount) insert(i int, frame numbered) {
	c.made++
	for j := range i {
		*c.at(j) = *c.at(j + 1)
	}
	*c.at(i) = frame
}

// count gives the packet's frame its number, and what frames of a grid have in common.
func (in *Inspector) count(p *packet.Packet, spatial uint8) *descriptor.Frame {
	f := &p.Frame
	f.Structure, f.Active, f.Spatial = in.structure, in.structure.All(), spatial
	f.First, f.Last = p.StartOfFrame, p.Marker
	f.Number = in.frames.take(p, spatial)
	return f
}
