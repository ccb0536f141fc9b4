// Package packet is the currency of the data plane: one received RTP packet,
// parsed once, in a pooled and reference-counted buffer that every sink shares.
package packet

import (
	"sync/atomic"

	"github.com/amphi-sfu/amphi/media/descriptor"
)

// MaxSize is the largest RTP packet accepted, in bytes. Longer ones are dropped
// by whoever reads them from a socket.
const MaxSize = 1500

// NoAudioLevel is the AudioLevel of a packet that carries none.
const NoAudioLevel = 255

// Packet is one RTP packet (RFC 3550) after decryption. All fields but the
// reference count are read-only from the moment it is handed to a Sink.
type Packet struct {
	// ExtSeq is the sequence number unwrapped to 48 bits or more per encoding; it
	// never repeats. SequenceNumber on the wire is uint16(ExtSeq).
	ExtSeq    uint64
	Timestamp uint32
	SSRC      uint32
	// PayloadType is the router-wide one, see media/codec; the publisher's own was mapped away.
	PayloadType uint8
	Marker      bool

	// ArrivalNS is the time of arrival on the node's monotonic clock, in nanoseconds.
	ArrivalNS int64

	// Payload is the RTP payload without padding. It aliases the packet's buffer.
	Payload []byte

	// Keyframe says that this packet begins a picture at which a receiver can begin.
	Keyframe bool
	// StartOfFrame says that this packet is the first of its frame.
	StartOfFrame bool
	// Frame says which layers the packet's frame belongs to and what it needs: from the
	// dependency descriptor, or else as far as the payload format tells. Audio has none.
	Frame descriptor.Frame
	// Descriptor is the dependency descriptor as it came, nil without. It aliases the
	// packet's buffer.
	Descriptor []byte
	// AudioLevel is -dBov of RFC 6464 (0 loudest, 127 silence); NoAudioLevel when absent.
	AudioLevel uint8
	// Counters says where the payload descriptor of VP8 or VP9 carries its counters, zero
	// for other codecs.
	Counters Counters

	refs atomic.Int32
	pool *Pool
	buf  [MaxSize]byte
}

// Counters locates the counters in a payload descriptor of VP8 (RFC 7741 section 4.2) or
// VP9 (RFC 9628 section 4.2) that a sender has to rewrite when it drops frames or
// switches sources.
type Counters struct {
	PictureID   uint16
	TL0PicIdx   uint8
	PictureIDAt uint8 // offset in the payload, 0 when absent
	TL0At       uint8 // offset in the payload, 0 when absent
	LongID      bool  // the picture id has 15 bits
	// Gaps: pictures refer to each other by the differences of their ids, so that ids of
	// pictures left out stay free (VP9).
	Gaps bool
}

// SenderReport carries what an RTCP sender report (RFC 3550 section 6.4.1) says
// about one SSRC: that RTP timestamp RTP was sampled at NTP (64-bit NTP format).
// The node translates NTP to its own wall clock, by one fixed offset per
// publisher, so reports of several publishers can be compared.
type SenderReport struct {
	SSRC uint32
	NTP  uint64
	RTP  uint32
	// ArrivalNS is the time of arrival, in nanoseconds of the node's monotonic clock.
	ArrivalNS int64
}

// Sink takes the packets of one encoding, in order of arrival (not of sequence).
// Both methods are called from the encoding's own goroutine or lock, must not
// block, and must not call back into the source. A sink that keeps a packet
// beyond the call calls Retain and later Release.
type Sink interface {
	WriteRTP(p *Packet)
	WriteSenderReport(sr SenderReport)
}

// RelaySink is a Sink that passes packets on to another node, where numbers have to be the same.
// So it takes packets without payload too, with which some publishers probe. It does not count as
// somebody who wants the encoding: what the other node wants is said apart.
type RelaySink interface {
	Sink
	WritePadding(p *Packet)
}
