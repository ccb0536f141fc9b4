package tracks

import (
	"errors"

	"github.com/pion/rtp/codecs"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

// maxFrame is the largest frame, in bytes.
const maxFrame = 8 << 20

// frame is one access unit as its payload format had it: H.264 in Annex B, AV1 as a row of OBUs with sizes.
type frame struct {
	codec codec.Name
	data  []byte
	key   bool
	ts    uint32
}

// assembler makes frames of packets in order. A frame with a hole is left out, and so is all of a picture's track until the next keyframe, so that what is
// recorded decodes.
type assembler struct {
	codec codec.Name
	h264  codecs.H264Packet
	av1   codecs.AV1Depacketizer

	open, broken bool
	lost         bool // wait for a keyframe
	size         int  // of the open frame's payloads so far
	frame        frame
	layers       []int // sizes of the frames of a VP9 superframe
	begin        int   // of the layer that is being put together
	picture      uint16
	pictured     bool // picture is known
	left         int64
}

// newAssembler waits for a keyframe.
func newAssembler(name codec.Name) *assembler {
	return &assembler{codec: name, lost: name != codec.Opus}
}

var (
	errTooLarge = errors.New("frame too large")
	errCodec    = errors.New("codec is not recorded")
)

// push takes the next packet, and how many are missing in front of it. ok says that f is a frame.
func (a *assembler) push(p *packet.Packet, missing uint64) (f frame, ok bool) {
	if a.codec == codec.Opus {
		return frame{codec: codec.Opus, data: append([]byte(nil), p.Payload...), key: true, ts: p.Timestamp}, len(p.Payload) > 0
	}
	if missing > 0 && (a.open || !a.follows(p)) {
		a.lost = true
	}
	if a.open && (missing > 0 || p.Timestamp != a.frame.ts) { // its end is missing
		a.drop()
	}
	if !a.open {
		a.open, a.broken, a.size = true, !p.StartOfFrame, 0
		a.frame = frame{codec: a.codec, ts: p.Timestamp}
		a.layers, a.begin = a.layers[:0], 0
	}
	a.frame.key = a.frame.key || p.Keyframe
	if !a.broken {
		if err := a.grow(p); err != nil {
			a.broken, a.frame.data = true, nil
			a.forget()
		}
	}
	if !p.Marker {
		return frame{}, false
	}
	return a.end(p)
}

// grow adds a packet to the open frame. Payloads count, as fragments are held by the payload format until the last one is there.
func (a *assembler) grow(p *packet.Packet) error {
	if a.size += len(p.Payload); a.size > maxFrame {
		return errTooLarge
	}
	data, err := a.unwrap(p)
	a.frame.data = append(a.frame.data, data...)
	return err
}

// end ends the open frame with its last packet.
func (a *assembler) end(p *packet.Packet) (frame, bool) {
	if a.broken || len(a.frame.data) == 0 {
		a.drop()
		return frame{}, false
	}
	a.open = false
	a.picture, a.pictured = p.Counters.PictureID, p.Counters.PictureIDAt > 0
	if a.lost && !a.frame.key {
		a.left++
		return frame{}, false
	}
	a.lost = false
	f := a.frame
	if a.codec == codec.VP9 && len(a.layers) > 1 {
		f.data = superframe(f.data, a.layers)
	}
	return f, true
}

// drop throws away what is open.
func (a *assembler) drop() {
	a.open, a.lost = false, true
	a.left++
	a.forget()
}

// forget drops the fragments that the payload formats hold.
func (a *assembler) forget() {
	a.h264, a.av1 = codecs.H264Packet{}, codecs.AV1Depacketizer{}
}

// follows says that the packets missing in front of p, behind a whole frame, were no frame: publishers probe with empty packets.
func (a *assembler) follows(p *packet.Packet) bool {
	if !p.StartOfFrame || !a.pictured || p.Counters.PictureIDAt == 0 {
		return false
	}
	mask := uint16(0x7f)
	if p.Counters.LongID {
		mask = 0x7fff
	}
	return (p.Counters.PictureID-a.picture)&mask == 1
}

// unwrap takes the payload format off.
func (a *assembler) unwrap(p *packet.Packet) ([]byte, error) {
	switch a.codec {
	case codec.VP8: // RFC 7741
		var v codecs.VP8Packet
		return v.Unmarshal(p.Payload)
	case codec.VP9: // RFC 9628
		var v codecs.VP9Packet
		data, err := v.Unmarshal(p.Payload)
		if err == nil && v.E {
			end := len(a.frame.data) + len(data)
			a.layers, a.begin = append(a.layers, end-a.begin), end
		}
		return data, err
	case codec.H264: // RFC 6184
		return a.h264.Unmarshal(p.Payload)
	case codec.AV1:
		return a.av1.Unmarshal(p.Payload)
	}
	return nil, errCodec
}

// superframe appends the index by which a decoder finds the frames of a picture's layers (VP9 bitstream specification, annex B).
func superframe(data []byte, sizes []int) []byte {
	if len(sizes) > 8 {
		return data
	}
	marker := byte(0xc0 | 3<<3 | len(sizes) - 1) // sizes of four bytes
	data = append(data, marker)
	for _, n := range sizes {
		data = append(data, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	return append(data, marker)
}
