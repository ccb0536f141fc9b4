package ingest

import (
	"errors"

	"github.com/pion/rtp/codecs"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// maxFrame bounds one assembled frame, in bytes.
const maxFrame = 4 << 20

var errFrameTooLarge = errors.New("frame too large")

// unit is one whole frame as a decoder takes it.
type unit struct {
	data []byte
	key  bool
	ts   uint32
}

// payload is what one packet contributes to its frame.
type payload struct {
	data  []byte
	start bool // can be the first of a frame
	key   bool // says that its frame decodes by itself
}

// assembler makes frames of the packets of one video stream, in order.
type assembler struct {
	codec wire.Codec
	vp8   codecs.VP8Packet
	vp9   codecs.VP9Packet
	h264  codecs.H264Packet
	av1   codecs.AV1Depacketizer

	open   bool // a frame is being put together
	broken bool // and will be thrown away
	size   int  // of its payloads so far
	frame  unit
}

// gap says that packets are missing before the next one.
func (a *assembler) gap() {
	a.forget()
	if a.open {
		a.broken = true
	}
}

// forget drops the fragments that the payload formats hold.
func (a *assembler) forget() {
	a.h264, a.av1 = codecs.H264Packet{}, codecs.AV1Depacketizer{}
}

// push takes the next packet. It returns a frame when the packet ended one, and
// broken when a frame had to be thrown away.
func (a *assembler) push(p held) (u unit, whole, broken bool) {
	if a.open && p.ts != a.frame.ts { // the last packet of a frame was lost
		broken = true
		a.open = false
		a.forget()
	}
	pl, err := a.unwrap(p.payload, !a.open)
	if !a.open {
		a.open, a.broken, a.size = true, !pl.start, 0
		a.frame = unit{ts: p.ts}
	}
	if a.size += len(p.payload); err == nil && a.size > maxFrame {
		err = errFrameTooLarge
	}
	if err != nil {
		a.broken, a.frame.data = true, nil
		a.forget()
	}
	if !a.broken {
		a.frame.data = append(a.frame.data, pl.data...)
		a.frame.key = a.frame.key || pl.key
	}
	if !p.marker {
		return unit{}, false, broken
	}
	a.open = false
	if a.broken || len(a.frame.data) == 0 {
		return unit{}, false, true
	}
	return a.frame, true, broken
}

// unwrap takes a packet's RTP payload format off. first says that the packet
// begins a frame, as far as timestamps and markers tell.
func (a *assembler) unwrap(b []byte, first bool) (p payload, err error) {
	switch a.codec {
	case wire.VP8: // RFC 7741
		p.data, err = a.vp8.Unmarshal(b)
		p.start = a.vp8.S == 1 && a.vp8.PID == 0
		p.key = first && p.start && len(p.data) > 0 && p.data[0]&1 == 0
	case wire.VP9: // RFC 9628
		p.data, err = a.vp9.Unmarshal(b)
		p.start = a.vp9.B
		p.key = first && p.start && !a.vp9.P
	case wire.H264: // RFC 6184
		p.start = h264Start(b)
		p.data, err = a.h264.Unmarshal(b)
		p.key = h264Key(p.data)
	case wire.AV1:
		p.data, err = a.av1.Unmarshal(b)
		p.start = !a.av1.Z
		p.key = first && a.av1.N
	default:
		err = errors.New("no such video codec")
	}
	return p, err
}

// h264Start tells whether a payload begins a NAL unit (RFC 6184 section 5.8).
func h264Start(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	if t := b[0] & 0x1f; t == 28 || t == 29 {
		return b[1]&0x80 != 0
	}
	return true
}

// h264Key tells whether an Annex B stream has an IDR slice or parameter sets.
func h264Key(b []byte) bool {
	for i := 0; i+3 < len(b); i++ {
		if b[i] == 0 && b[i+1] == 0 && b[i+2] == 1 {
			if t := b[i+3] & 0x1f; t == 5 || t == 7 {
				return true
			}
			i += 3
			if i > 512 { // slices follow: nothing new beyond the first of them
				return false
			}
		}
	}
	return false
}
