// Package control reads RTCP (RFC 3550 section 6, RFC 4585) in place, without allocating.
// Nothing is trusted: lengths are checked once, by Check, and every reader stays within them.
package control

import (
	"encoding/binary"
	"errors"

	"github.com/pion/rtcp"
)

// Packet types and feedback formats that are told apart; all else is ignored, as RFC 3550
// section 6.1 wants it.
const (
	typeSenderReport   = 200
	typeReceiverReport = 201
	typeGoodbye        = 203
	typeTransport      = 205
	typePayload        = 206

	formatNACK = 1
	formatPLI  = 1
	formatFIR  = 4
	formatTWCC = 15
)

// Kind is what a packet of a compound is about.
type Kind uint8

// Kinds.
const (
	Other Kind = iota
	SenderReport
	ReceiverReport
	Goodbye
	NACK
	PLI
	FIR
	TransportWide
)

// ErrMalformed is returned for a compound whose lengths lie or whose version is not 2.
var ErrMalformed = errors.New("malformed RTCP")

// Packet is one RTCP packet, header included. It aliases what it was read from.
type Packet []byte

// Next splits the first packet off a compound. It is false at the end, and where a length
// lies or the packet is too short for what it says it is.
func Next(b []byte) (p Packet, rest []byte, ok bool) {
	if len(b) < 4 || b[0]>>6 != 2 {
		return nil, nil, false
	}
	n := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
	if n > len(b) {
		return nil, nil, false
	}
	p = Packet(b[:n:n])
	return p, b[n:], len(p) >= p.least()
}

// Check goes through a whole compound (RFC 3550 section 6.1; reduced size, RFC 5506, is fine).
func Check(b []byte) error {
	if len(b) == 0 {
		return ErrMalformed
	}
	for len(b) > 0 {
		_, rest, ok := Next(b)
		if !ok {
			return ErrMalformed
		}
		b = rest
	}
	return nil
}

// Kind says what the packet is about.
func (p Packet) Kind() Kind {
	switch format := p[0] & 0x1f; p[1] {
	case typeSenderReport:
		return SenderReport
	case typeReceiverReport:
		return ReceiverReport
	case typeGoodbye:
		return Goodbye
	case typeTransport:
		switch format {
		case formatNACK:
			return NACK
		case formatTWCC:
			return TransportWide
		}
	case typePayload:
		switch format {
		case formatPLI:
			return PLI
		case formatFIR:
			return FIR
		}
	}
	return Other
}

// least is how long the packet has to be for its kind and count.
func (p Packet) least() int {
	count := int(p[0] & 0x1f)
	switch p.Kind() {
	case SenderReport:
		return 28 + blockSize*count
	case ReceiverReport:
		return 8 + blockSize*count
	case Goodbye:
		return 4 + 4*count
	case PLI:
		return 12
	case NACK, FIR:
		return 16
	case TransportWide:
		return 20
	}
	return 4
}

// blockSize is that of a report block (RFC 3550 section 6.4.1), in bytes.
const blockSize = 24

// Reports is how many report blocks a sender or receiver report has.
func (p Packet) Reports() int { return int(p[0] & 0x1f) }

// Report returns block i of a sender or receiver report.
func (p Packet) Report(i int) rtcp.ReceptionReport {
	start := 8
	if p[1] == typeSenderReport {
		start = 28
	}
	b := p[start+blockSize*i:][:blockSize]
	return rtcp.ReceptionReport{
		SSRC:               binary.BigEndian.Uint32(b),
		FractionLost:       b[4],
		TotalLost:          binary.BigEndian.Uint32(b[4:]) & 0xffffff,
		LastSequenceNumber: binary.BigEndian.Uint32(b[8:]),
		Jitter:             binary.BigEndian.Uint32(b[12:]),
		LastSenderReport:   binary.BigEndian.Uint32(b[16:]),
		Delay:              binary.BigEndian.Uint32(b[20:]),
	}
}

// Sender returns what a sender report says of its own stream: that RTP timestamp rtp was
// sampled at ntp.
func (p Packet) Sender() (ssrc uint32, ntp uint64, rtp uint32) {
	return binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint32(p[16:])
}

// Sources is how many SSRCs a goodbye names.
func (p Packet) Sources() int { return int(p[0] & 0x1f) }

// Source returns SSRC i of a goodbye.
func (p Packet) Source(i int) uint32 { return binary.BigEndian.Uint32(p[4+4*i:]) }

// Media is the SSRC that a NACK or PLI is about.
func (p Packet) Media() uint32 { return binary.BigEndian.Uint32(p[8:]) }

// Pairs is how many pairs a NACK has.
func (p Packet) Pairs() int { return (len(p) - 12) / 4 }

// Pair returns pair i of a NACK: a sequence number, and a bit for each of the 16 after it
// (RFC 4585 section 6.2.1).
func (p Packet) Pair(i int) (first, following uint16) {
	b := p[12+4*i:]
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}

// Targets is how many SSRCs a FIR names (RFC 5104 section 4.3.1.1).
func (p Packet) Targets() int { return (len(p) - 12) / 8 }

// Target returns SSRC i of a FIR.
func (p Packet) Target(i int) uint32 { return binary.BigEndian.Uint32(p[12+8*i:]) }
