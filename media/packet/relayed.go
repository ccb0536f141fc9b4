package packet

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/amphi-sfu/amphi/media/descriptor"
)

// ErrRelayed is returned by ParseRelayed for a packet that no node writes.
var ErrRelayed = errors.New("not a packet as nodes write it")

// Ids of the header extensions of packets between nodes.
const (
	relayedLevel      = 1 // RFC 6464
	relayedDescriptor = 2
	longestOneByte    = 16 // what an element of the one-byte form holds
	relayedHeaderRoom = fixedHeader + 4 + 3 + 2 + descriptor.MaxSize + 3
)

// AppendRelayed appends the packet as nodes pass it on: RTP with the router-wide payload type,
// the publisher's own SSRC, timestamp and marker, and extensions of fixed ids for the audio level
// and the dependency descriptor. What is equal gives equal bytes, so that copies which came by
// different ways are the same. ExtSeq's upper bits travel outside. It allocates nothing if
// there is room in dst.
func (p *Packet) AppendRelayed(dst []byte) []byte {
	return append(p.appendRelayedHeader(dst), p.Payload...)
}

func (p *Packet) appendRelayedHeader(b []byte) []byte {
	level, described := p.AudioLevel != NoAudioLevel, len(p.Descriptor) > 0
	first, second := byte(0x80), p.PayloadType
	if level || described {
		first |= 0x10
	}
	if p.Marker {
		second |= 0x80
	}
	b = append(b, first, second, byte(p.ExtSeq>>8), byte(p.ExtSeq))
	b = binary.BigEndian.AppendUint32(b, p.Timestamp)
	b = binary.BigEndian.AppendUint32(b, p.SSRC)
	if !level && !described {
		return b
	}
	start := len(b)
	if len(p.Descriptor) > longestOneByte {
		b = append(b, profileTwoByte>>8, profileTwoByte&0xff, 0, 0)
		if level {
			b = append(b, relayedLevel, 1, p.AudioLevel)
		}
		b = append(b, relayedDescriptor, byte(len(p.Descriptor)))
	} else {
		b = append(b, profileOneByte>>8, profileOneByte&0xff, 0, 0)
		if level {
			b = append(b, relayedLevel<<4, p.AudioLevel)
		}
		if described {
			b = append(b, relayedDescriptor<<4|byte(len(p.Descriptor)-1))
		}
	}
	b = append(b, p.Descriptor...)
	for (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	b[start+3] = byte((len(b)-start)/4 - 1)
	return b
}

// ParseRelayed makes p, fresh from its pool, the packet that AppendRelayed wrote as b, of which
// it keeps nothing. ext is the extended sequence number. Whatever AppendRelayed would not write
// is refused: writing p again gives b. It allocates nothing.
func (p *Packet) ParseRelayed(b []byte, ext uint64) error {
	if len(b) > MaxSize {
		return ErrLong
	}
	own := p.buf[:copy(p.buf[:], b)]
	h, err := ParseHeader(own)
	if err != nil {
		return err
	}
	if h.SequenceNumber != uint16(ext) {
		return ErrRelayed
	}
	p.ExtSeq, p.Timestamp, p.SSRC = ext, h.Timestamp, h.SSRC
	p.PayloadType, p.Marker = h.PayloadType, h.Marker
	if x := h.Extension(relayedLevel); len(x) == 1 {
		if x[0] > 127 {
			return ErrRelayed
		}
		p.AudioLevel = x[0]
	}
	if x := h.Extension(relayedDescriptor); len(x) > 0 {
		p.Descriptor = x
	}
	p.Payload = own[h.Size:]
	var again [relayedHeaderRoom]byte
	if !bytes.Equal(p.appendRelayedHeader(again[:0]), own[:h.Size]) {
		return ErrRelayed
	}
	return nil
}
