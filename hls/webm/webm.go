// Package webm writes WebM files (RFC 9559 with the codecs of WebM) as they come, cluster by cluster, and makes them complete in
// the end: with their length and an index. A file whose writer was killed is completed the same way. It never decodes.
package webm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrMalformed is wrapped by every error about bytes that are no file of ours.
var ErrMalformed = errors.New("malformed WebM")

// The codecs.
const (
	Opus = "A_OPUS"
	VP8  = "V_VP8"
	VP9  = "V_VP9"
	AV1  = "V_AV1"
)

// Track describes one track.
type Track struct {
	Codec   string
	Private []byte // CodecPrivate; nil where the codec has none
	// Width and Height of the picture in pixels; 0 for audio, which has Channels of 48 kHz.
	Width, Height int
	Channels      int
}

// Block is one access unit.
type Block struct {
	Track int   // index in the file's tracks
	Time  int64 // in milliseconds
	Key   bool
	Data  []byte
}

// Elements (RFC 9559 section 5).
const (
	idEBML     = 0x1A45DFA3
	idSegment  = 0x18538067
	idSeekHead = 0x114D9B74
	idVoid     = 0xEC
	idInfo     = 0x1549A966
	idDuration = 0x4489
	idTracks   = 0x1654AE6B
	idCluster  = 0x1F43B675
	idTime     = 0xE7
	idBlock    = 0xA3
	idCues     = 0x1C53BB6B
)

// Lengths of what is written before it is known.
const (
	unknownSize  = 0x01FFFFFFFFFFFFFF
	seekSpace    = 80 // SeekHead with what it does not need as void
	durationSize = 11 // Duration as a whole element
)

func appendID(b []byte, id uint32) []byte {
	switch {
	case id > 0xffffff:
		b = append(b, byte(id>>24))
		fallthrough
	case id > 0xffff:
		b = append(b, byte(id>>16))
		fallthrough
	case id > 0xff:
		b = append(b, byte(id>>8))
	}
	return append(b, byte(id))
}

// appendSize appends a size in as few bytes as it needs.
func appendSize(b []byte, n int) []byte {
	for length := 1; length < 8; length++ {
		if n < 1<<(7*length)-1 {
			v := uint64(n) | 1<<(7*length)
			for i := length - 1; i >= 0; i-- {
				b = append(b, byte(v>>(8*i)))
			}
			return b
		}
	}
	return binary.BigEndian.AppendUint64(b, uint64(n)|1<<56)
}

func element(b []byte, id uint32, body []byte) []byte {
	return append(appendSize(appendID(b, id), len(body)), body...)
}

func number(b []byte, id uint32, v uint64) []byte {
	body := binary.BigEndian.AppendUint64(nil, v)
	for len(body) > 1 && body[0] == 0 {
		body = body[1:]
	}
	return element(b, id, body)
}

func float(b []byte, id uint32, v float64) []byte {
	return element(b, id, binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
}

// void fills n bytes, at least two.
func void(b []byte, n int) []byte {
	if n < 9 {
		return element(b, idVoid, make([]byte, n-2))
	}
	b = append(b, idVoid)
	b = binary.BigEndian.AppendUint64(b, uint64(n-9)|1<<56)
	return append(b, make([]byte, n-9)...)
}

// Header is the beginning of a file whose time 0 is at started.
func Header(tracks []Track, started time.Time) []byte {
	var head []byte
	for _, f := range []struct {
		id uint32
		v  uint64
	}{{0x4286, 1}, {0x42F7, 1}, {0x42F2, 4}, {0x42F3, 8}} {
		head = number(head, f.id, f.v)
	}
	head = element(head, 0x4282, []byte("webm"))
	head = number(number(head, 0x4287, 4), 0x4285, 2)
	b := element(nil, idEBML, head)
	b = binary.BigEndian.AppendUint64(appendID(b, idSegment), unknownSize)
	b = void(b, seekSpace)
	b = element(b, idInfo, info(started))
	var list []byte
	for i := range tracks {
		list = element(list, 0xAE, tracks[i].entry(i+1))
	}
	return element(b, idTracks, list)
}

// info ends with the space for the duration.
func info(started time.Time) []byte {
	b := number(nil, 0x2AD7B1, uint64(time.Millisecond))
	b = element(b, 0x4D80, []byte("amphi"))
	b = element(b, 0x5741, []byte("amphi"))
	since := started.Sub(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
	b = element(b, 0x4461, binary.BigEndian.AppendUint64(nil, uint64(since)))
	return void(b, durationSize)
}

func (t *Track) entry(n int) []byte {
	b := number(number(nil, 0xD7, uint64(n)), 0x73C5, uint64(n))
	kind := uint64(2)
	if t.Width > 0 {
		kind = 1
	}
	b = number(number(b, 0x83, kind), 0x9C, 0)
	b = element(b, 0x22B59C, []byte("und"))
	b = element(b, 0x86, []byte(t.Codec))
	if t.Private != nil {
		b = element(b, 0x63A2, t.Private)
	}
	if kind == 1 {
		return element(b, 0xE0, number(number(nil, 0xB0, uint64(t.Width)), 0xBA, uint64(t.Height)))
	}
	if t.Codec == Opus { // RFC 7845: the decoder needs 80 ms in front of where it is to be right
		b = number(number(b, 0x56AA, 0), 0x56BB, uint64(80*time.Millisecond))
	}
	return element(b, 0xE1, number(float(nil, 0xB5, 48000), 0x9F, uint64(t.Channels)))
}

// OpusHead is the CodecPrivate of an Opus track (RFC 7845 section 5.1) that was cut out of a call: nothing is to be skipped.
func OpusHead(channels int) []byte {
	b := append([]byte("OpusHead"), 1, byte(channels), 0, 0)
	return append(binary.LittleEndian.AppendUint32(b, 48000), 0, 0, 0)
}

// MaxSpan is the longest time between the first and the last block of a cluster, in milliseconds.
const MaxSpan = 30_000

// AppendCluster appends a cluster; blocks are in the order of their times, within MaxSpan.
func AppendCluster(b []byte, blocks []Block) ([]byte, error) {
	if len(blocks) == 0 {
		return b, nil
	}
	base := blocks[0].Time
	body := number(nil, idTime, uint64(max(0, base)))
	for i := range blocks {
		k := &blocks[i]
		if k.Time < base || k.Time > base+MaxSpan || base < 0 || k.Track < 0 || k.Track > 100 {
			return b, fmt.Errorf("block of track %d at %d ms in a cluster at %d", k.Track, k.Time, base)
		}
		flags := byte(0)
		if k.Key {
			flags = 0x80
		}
		body = appendSize(appendID(body, idBlock), len(k.Data)+4)
		body = append(body, byte(k.Track+1)|0x80)
		body = append(binary.BigEndian.AppendUint16(body, uint16(k.Time-base)), flags)
		body = append(body, k.Data...)
	}
	return element(b, idCluster, body), nil
}
