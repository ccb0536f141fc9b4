package codec

import (
	"errors"
	"fmt"

	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/packet"
)

// ErrDescriptor is returned for a packet whose dependency descriptor cannot be read, as when
// the packet that explains it has not come yet.
var ErrDescriptor = errors.New("unreadable dependency descriptor")

const (
	maxSpatial = descriptor.MaxSpatial
	// gridTemporal is how many temporal layers are told apart without descriptors.
	gridTemporal = 4
)

// Inspector fills in what the descriptor or the payload of one encoding tells: keyframes,
// frames and their layers, picture sizes. It keeps what spans packets and belongs
// to one goroutine. The zero value is ready.
type Inspector struct {
	codec      Codec
	sizes      [maxSpatial]Size
	structure  *descriptor.Structure // newest, or a grid
	described  bool                  // structure is from a descriptor
	descriptor descriptor.State
	newest     newestFrame // with a descriptor
	frames     frameCount
	// keyframeTS is the timestamp whose keyframe start was seen already.
	keyframeTS  uint32
	hasKeyframe bool
}

// Inspect reads p, whose other fields are set, its Descriptor among them. An unknown codec
// is an error, and so is a payload that its codec does not allow. With a descriptor the
// payload counts only for what no descriptor has, and may be encrypted.
func (in *Inspector) Inspect(c Codec, p *packet.Packet) error {
	if c != in.codec {
		*in = Inspector{codec: c}
	}
	if c.Name == Opus {
		p.StartOfFrame, p.Keyframe = true, true
		return nil
	}
	if p.Descriptor != nil {
		return in.describe(p)
	}
	switch c.Name {
	case VP8:
		return in.vp8(p)
	case VP9:
		return in.vp9(p)
	case H264:
		v, err := ParseH264(p.Payload)
		if err != nil {
			return err
		}
		in.learn(0, v.Size)
		in.plain(p, v.Keyframe)
		return nil
	case AV1:
		v, err := ParseAV1(p.Payload)
		if err != nil {
			return err
		}
		in.learn(0, v.Size)
		in.plain(p, v.Keyframe)
		return nil
	}
	return ErrPayload
}

// Differs says that p, of codec c, is of another stream than what was inspected so far: of another
// codec, or with descriptors where there were none or the other way round.
func (in *Inspector) Differs(c Codec, p *packet.Packet) bool {
	if in.codec == (Codec{}) {
		return false
	}
	return c != in.codec || in.structure != nil && in.described != (p.Descriptor != nil)
}

// Expect says what the stream will be, before anything of it has come.
func (in *Inspector) Expect(c Codec, top Size) {
	*in = Inspector{codec: c}
	in.learn(0, top)
}

// Size returns the newest known size of a spatial layer, zero before the first keyframe;
// of the highest one when there are fewer.
func (in *Inspector) Size(spatial int8) Size {
	for s := min(spatial, maxSpatial-1); s >= 0; s-- {
		if in.sizes[s] != (Size{}) {
			return in.sizes[s]
		}
	}
	return Size{}
}

// Shape is what subscribers choose by.
type Shape struct {
	// Size is that of the highest spatial layer, zero when unknown.
	Size Size
	// Spatial is how many spatial layers there are, Lowest and Highest which are being sent.
	Spatial, Lowest, Highest int8
}

// Shape returns what is known now.
func (in *Inspector) Shape() Shape {
	s := Shape{Size: in.Size(maxSpatial), Spatial: 1}
	st := in.structure
	if st == nil {
		return s
	}
	s.Spatial, s.Highest = int8(st.Spatial), int8(st.Spatial)-1
	if active := in.descriptor.Active(); in.described && active&st.All() != 0 {
		s.Lowest = int8(st.Targets[st.Best(active, 0, 0)].Spatial)
		s.Highest = int8(st.Targets[st.Best(active, maxSpatial, 0)].Spatial)
	}
	return s
}

func (in *Inspector) learn(spatial int, s Size) {
	if s != (Size{}) {
		in.sizes[spatial] = s
	}
}

// grid makes frames belong to a grid of so many spatial layers from now on.
func (in *Inspector) grid(spatial int) {
	if in.structure == nil || in.described || int(in.structure.Spatial) != spatial {
		temporal := gridTemporal
		if in.codec.Name == H264 || in.codec.Name == AV1 {
			temporal = 1
		}
		in.structure, in.described = descriptor.Grid(spatial, temporal), false
	}
}

func (in *Inspector) vp8(p *packet.Packet) error {
	v, err := ParseVP8(p.Payload)
	if err != nil {
		return err
	}
	in.learn(0, v.Size)
	in.grid(1)
	p.Counters, p.Keyframe, p.StartOfFrame = v.Counters, v.Keyframe, v.Start
	f := in.count(p, 0)
	f.Temporal = v.Temporal
	f.Present = 0xf << v.Temporal & 0xf
	f.Required = f.Present
	if v.SwitchUp {
		f.Switch = 1 << v.Temporal
	}
	return nil
}

func (in *Inspector) vp9(p *packet.Packet) error {
	v, err := ParseVP9(p.Payload)
	if err != nil {
		return err
	}
	if v.Layers > 0 {
		for s := range min(v.Layers, maxSpatial) {
			in.learn(int(s), v.Sizes[s])
		}
		in.grid(int(min(v.Layers, maxSpatial)))
	} else if in.structure == nil || in.described {
		in.grid(1)
	}
	spatial := min(v.Spatial, in.structure.Spatial-1)
	p.Counters, p.StartOfFrame = v.Counters, v.Start
	p.Keyframe = v.Start && !v.Inter && v.Spatial == 0
	f := in.count(p, spatial)
	f.Temporal, f.Last = min(v.Temporal, gridTemporal-1), v.End
	for i, t := range in.structure.Targets {
		if t.Spatial < f.Spatial || t.Temporal < f.Temporal || t.Spatial > f.Spatial && v.NotForUpper && v.Inter {
			continue
		}
		f.Present |= 1 << i
		if !v.Inter || v.SwitchUp && t.Spatial == f.Spatial {
			f.Switch |= 1 << i
		}
	}
	f.Required = f.Present
	return nil
}

// plain is for codecs whose payload says nothing of frames: a picture is what has one
// timestamp, and a keyframe begins once in it.
func (in *Inspector) plain(p *packet.Packet, keyframe bool) {
	in.grid(1)
	before := in.frames.number
	f := in.count(p, 0)
	p.StartOfFrame = f.Number > before
	f.First = p.StartOfFrame
	f.Present, f.Required = 1, 1
	if !keyframe || in.hasKeyframe && in.keyframeTS == p.Timestamp {
		return // with the picture after its parameter sets, or a further slice
	}
	p.Keyframe, in.hasKeyframe, in.keyframeTS = true, true, p.Timestamp
	f.Switch = 1
}

// describe reads the descriptor.
func (in *Inspector) describe(p *packet.Packet) error {
	f := &p.Frame
	if err := in.descriptor.Parse(p.Descriptor, f); err != nil {
		return fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	p.StartOfFrame = f.First
	p.Keyframe = f.First && f.Independent() && f.HasStructure()
	if p.Keyframe && in.newest.overtakes(p) {
		in.descriptor.Renumber()
		if err := in.descriptor.Parse(p.Descriptor, f); err != nil {
			return fmt.Errorf("%w: %w", ErrDescriptor, err)
		}
	}
	in.newest.note(p)
	if st := in.descriptor.Structure(); st != in.structure {
		in.structure, in.described = st, true
		in.sizes = [maxSpatial]Size{}
		for s, size := range st.Sizes {
			in.sizes[s] = Size(size)
		}
	}
	in.supplement(p)
	return nil
}

// newestFrame is the one with the highest number, and the highest sequence number of it.
type newestFrame struct {
	number, packet uint64
}

// overtakes says that p follows the newest frame though its number is lower: its encoder has begun
// anew.
func (n *newestFrame) overtakes(p *packet.Packet) bool {
	return p.ExtSeq > n.packet && p.Frame.Number < n.number
}

func (n *newestFrame) note(p *packet.Packet) {
	if p.Frame.Number >= n.number {
		if p.Frame.Number > n.number {
			n.packet = 0
		}
		n.number, n.packet = p.Frame.Number, max(n.packet, p.ExtSeq)
	}
}

// supplement takes from the payload what the descriptor does not have: where counters are,
// which are in front of the media even if that is encrypted, and the size.
func (in *Inspector) supplement(p *packet.Packet) {
	unknown := p.Keyframe && len(in.structure.Sizes) == 0
	switch in.codec.Name {
	case VP8:
		v, _ := ParseVP8(p.Payload) // what it has read of a strange payload is true of its head
		p.Counters = v.Counters
		if unknown {
			in.learn(0, v.Size)
		}
	case VP9:
		v, err := ParseVP9(p.Payload)
		if err == nil {
			p.Counters = v.Counters
		}
	case H264:
		if v, err := ParseH264(p.Payload); err == nil && unknown {
			in.learn(0, v.Size)
		}
	}
}

// frameCount numbers frames that have no number.
type frameCount struct {
	number    uint64
	highest   uint64 // extended sequence number
	timestamp uint32
	spatial   uint8
}

// count gives the packet's frame its number, 0 to one that is not the newest.
func (in *Inspector) count(p *packet.Packet, spatial uint8) *descriptor.Frame {
	c, f := &in.frames, &p.Frame
	same := p.Timestamp == c.timestamp && spatial == c.spatial && c.number > 0
	if c.number == 0 || p.ExtSeq > c.highest {
		if !same {
			c.number++
		}
		c.highest, c.timestamp, c.spatial = p.ExtSeq, p.Timestamp, spatial
		same = true
	}
	f.Structure, f.Active, f.Spatial = in.structure, in.structure.All(), spatial
	f.First, f.Last = p.StartOfFrame, p.Marker
	if same {
		f.Number = c.number
	}
	return f
}
