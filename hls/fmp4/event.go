package fmp4

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ID3Scheme says that an event's data is an ID3 tag (AOM "Carriage of ID3 Timed Metadata in CMAF").
const ID3Scheme = "https://aomedia.org/emsg/ID3"

// Event is timed metadata in a part: an emsg box of version 1 (ISO 23009-1) with an ID3 tag.
type Event struct {
	Time     uint64 // in the track's timescale; may lie before the part, of which it then is late news
	Duration uint32 // in the track's timescale; 0: a moment
	ID       uint32 // different events of one program have different ones
	Tag      []byte // of ID3Tag
}

// maxTag bounds what ID3Tag takes: sizes in ID3 frames are 28 bits, and no part should grow by more.
const maxTag = 64 << 10

// Text is one user-defined text of an ID3 tag.
type Text struct{ Description, Value string }

// ID3Tag makes an ID3v2.4 tag of TXXX frames in UTF-8.
func ID3Tag(texts ...Text) ([]byte, error) {
	var body []byte
	for _, t := range texts {
		size := 1 + len(t.Description) + 1 + len(t.Value)
		if size > maxTag {
			return nil, fmt.Errorf("text of %d bytes in an ID3 tag", size)
		}
		body = append(body, "TXXX"...)
		body = append(append(body, syncsafe(size)...), 0, 0)
		body = append(body, 3) // UTF-8
		body = append(append(body, t.Description...), 0)
		body = append(body, t.Value...)
	}
	if len(body) == 0 || len(body) > maxTag {
		return nil, errors.New("ID3 tag without texts, or with too many")
	}
	tag := append([]byte("ID3\x04\x00\x00"), syncsafe(len(body))...)
	return append(tag, body...), nil
}

func syncsafe(n int) []byte {
	return []byte{byte(n >> 21 & 0x7f), byte(n >> 14 & 0x7f), byte(n >> 7 & 0x7f), byte(n & 0x7f)}
}

// AppendEvent writes an event's box, which goes before the part's moof.
func AppendEvent(b []byte, timescale uint32, e Event) []byte {
	size := 8 + 4 + 20 + len(ID3Scheme) + 1 + 1 + len(e.Tag)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(b, "emsg\x01\x00\x00\x00"...)
	b = binary.BigEndian.AppendUint32(b, timescale)
	b = binary.BigEndian.AppendUint64(b, e.Time)
	b = binary.BigEndian.AppendUint32(b, e.Duration)
	b = binary.BigEndian.AppendUint32(b, e.ID)
	b = append(b, ID3Scheme+"\x00\x00"...)
	return append(b, e.Tag...)
}
