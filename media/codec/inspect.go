package codec

import "github.com/amphi-sfu/amphi/media/packet"

// Inspector fills in what the payload of one encoding tells: keyframes, frame
// starts, temporal layers, picture size. It keeps what spans packets and belongs
// to one goroutine. The zero value is ready.
type Inspector struct {
	codec   Codec
	size    Size
	started bool
	lastTS  uint32
	lastExt uint64
	// keyframeTS is the timestamp whose keyframe start was seen already.
	keyframeTS  uint32
	hasKeyframe bool
}

// Inspect parses the payload of p, whose other fields are set. An unknown codec
// is an error, and so is a payload that its codec does not allow.
func (in *Inspector) Inspect(c Codec, p *packet.Packet) error {
	if c != in.codec {
		*in = Inspector{codec: c}
	}
	switch c.Name {
	case Opus:
		p.StartOfFrame, p.Keyframe = true, true
		return nil
	case VP8:
		size, err := ParseVP8(p)
		if err != nil {
			return err
		}
		in.learn(size)
		return nil
	case H264:
		size, err := ParseH264(p)
		if err != nil {
			return err
		}
		in.learn(size)
		in.frameH264(p)
		return nil
	}
	return ErrPayload
}

// Size returns the newest known picture size, zero before the first keyframe.
func (in *Inspector) Size() Size { return in.size }

func (in *Inspector) learn(s Size) {
	if s != (Size{}) {
		in.size = s
	}
}

func (in *Inspector) frameH264(p *packet.Packet) {
	if !in.started || p.ExtSeq > in.lastExt {
		p.StartOfFrame = !in.started || p.Timestamp != in.lastTS
		in.started, in.lastTS, in.lastExt = true, p.Timestamp, p.ExtSeq
	}
	if !p.Keyframe {
		return
	}
	if in.hasKeyframe && in.keyframeTS == p.Timestamp {
		p.Keyframe = false // the picture after its parameter sets, or a further slice
		return
	}
	in.hasKeyframe, in.keyframeTS = true, p.Timestamp
}
