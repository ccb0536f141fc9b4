// Package record is what the lab's peers note of what they get, and what follows from it: gaps, holes,
// delay, messages lost or out of order. Nothing here has a clock, a goroutine or a socket.
package record

import "encoding/binary"

// AudioLayer is the Layer of an audio packet.
const AudioLayer = 0xff

// Stamp is what the lab's publishers write at the end of each payload, where no server looks.
type Stamp struct {
	// Publisher is its number.
	Publisher uint16
	// Layer is the simulcast layer, or AudioLayer.
	Layer uint8
	// Count numbers the packets of the publisher's layer, across connections and nodes.
	Count uint64
	// Sent is when it was written, Unix nanoseconds.
	Sent int64
}

// StampSize is a stamp's length in a payload.
const StampSize = 24

const stampMagic = 0xa3f1_5b7e

// Put writes the stamp over the last StampSize bytes of payload.
func (s Stamp) Put(payload []byte) {
	b := payload[len(payload)-StampSize:]
	binary.BigEndian.PutUint32(b, stampMagic)
	binary.BigEndian.PutUint16(b[4:], s.Publisher)
	b[6], b[7] = s.Layer, 0
	binary.BigEndian.PutUint64(b[8:], s.Count)
	binary.BigEndian.PutUint64(b[16:], uint64(s.Sent))
}

// ReadStamp finds a payload's stamp; false where it has none.
func ReadStamp(payload []byte) (Stamp, bool) {
	if len(payload) < StampSize {
		return Stamp{}, false
	}
	b := payload[len(payload)-StampSize:]
	if binary.BigEndian.Uint32(b) != stampMagic || b[7] != 0 {
		return Stamp{}, false
	}
	return Stamp{
		Publisher: binary.BigEndian.Uint16(b[4:]), Layer: b[6],
		Count: binary.BigEndian.Uint64(b[8:]), Sent: int64(binary.BigEndian.Uint64(b[16:])),
	}, true
}
