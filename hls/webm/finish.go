package webm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// File is what is completed; an os.File is one.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// Summary is what a file holds.
type Summary struct {
	Size     int64
	Duration int64 // in milliseconds
	Blocks   int
	Clusters int
}

// cue is where a cluster begins that can be begun with.
type cue struct {
	time   int64
	track  int
	offset int64 // in the segment
}

// layout is where things are in a file.
type layout struct {
	segment  int64 // where its content begins
	info     int64
	duration int64 // where the space for it is
	tracks   int64
	whole    int64 // where the last whole cluster ends
	cues     []cue
	last     int64 // time of the last block
	step     int64 // longest usual time from block to block
	blocks   int
	clusters int
}

// maxElement is the largest element that is read, in bytes.
const maxElement = 64 << 20

// header reads the ID and the size of an element; size is -1 when it is unknown.
func header(b []byte) (id uint32, size int64, n int, err error) {
	if len(b) == 0 || b[0] < 0x10 {
		return 0, 0, 0, fmt.Errorf("%w: no element", ErrMalformed)
	}
	length := 1
	for b[0]&(0x80>>(length-1)) == 0 {
		length++
	}
	if len(b) < length+1 {
		return 0, 0, 0, fmt.Errorf("%w: half an element", ErrMalformed)
	}
	for _, c := range b[:length] {
		id = id<<8 | uint32(c)
	}
	b = b[length:]
	width := 1
	for width <= 8 && b[0]&(0x80>>(width-1)) == 0 {
		width++
	}
	if width > 8 || len(b) < width {
		return 0, 0, 0, fmt.Errorf("%w: half an element", ErrMalformed)
	}
	v := uint64(b[0]) & (0x7f >> (width - 1))
	ones := v == 0x7f>>(width-1)
	for _, c := range b[1:width] {
		v, ones = v<<8|uint64(c), ones && c == 0xff
	}
	if ones {
		return id, -1, length + width, nil
	}
	return id, int64(v), length + width, nil
}

// scan reads a file up to its last whole cluster.
func scan(r io.ReaderAt, size int64) (*layout, error) {
	l := &layout{}
	for at := int64(0); at < size; {
		var b [12]byte
		n, err := r.ReadAt(b[:min(12, size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading at %d: %w", at, err)
		}
		id, length, head, err := header(b[:n])
		if id == idSegment && l.segment == 0 && err == nil && at > 0 && head == 12 {
			l.segment = at + int64(head)
			at = l.segment
			continue
		}
		if err != nil || length < 0 || length > size-at-int64(head) || length > maxElement {
			break // what was being written, if there is a head
		}
		if at == 0 && id != idEBML {
			break
		}
		end := at + int64(head) + length
		switch id {
		case idInfo:
			if l.info == 0 && at == l.segment+seekSpace && length > durationSize {
				l.info, l.duration = at, end-durationSize
			}
		case idTracks:
			if l.tracks == 0 && l.info != 0 && at == l.duration+durationSize {
				l.tracks, l.whole = at, end
			}
		case idCluster:
			if l.tracks == 0 {
				return nil, fmt.Errorf("%w: a cluster in front of the tracks", ErrMalformed)
			}
			next := *l
			if !next.cluster(r, at, at+int64(head), length) {
				return l, nil
			}
			*l = next
			l.whole = end
		case idCues:
			return l, nil
		}
		at = end
	}
	if l.tracks == 0 {
		return nil, fmt.Errorf("%w: no head", ErrMalformed)
	}
	return l, nil
}

// cluster reads the times of a cluster; false when it is broken.
func (l *layout) cluster(r io.ReaderAt, at, from, length int64) bool {
	body := make([]byte, length)
	if _, err := r.ReadAt(body, from); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	base, first := int64(-1), true
	for len(body) > 0 {
		id, size, n, err := header(body)
		if err != nil || size < 0 || size > int64(len(body)-n) {
			return false
		}
		data := body[n : n+int(size)]
		body = body[n+int(size):]
		switch {
		case id == idTime && size <= 8:
			base = 0
			for _, c := range data {
				base = base<<8 | int64(c)
			}
			if base < 0 || base > 1<<40 {
				return false
			}
		case id == idBlock && base >= 0 && size >= 4:
			t := base + int64(binary.BigEndian.Uint16(data[1:]))
			if first && data[3]&0x80 != 0 {
				l.cues = append(l.cues, cue{base, int(data[0] & 0x7f), at - l.segment})
			}
			first = false
			if d := t - l.last; l.blocks > 0 && d > l.step && d <= 100 {
				l.step = d
			}
			l.last = max(l.last, t)
			l.blocks++
		}
	}
	l.clusters++
	return true
}

// Finish completes a file: what is behind its last whole cluster is cut off, length and index are written. It may be done again, and after anything
// that happened to its writer. A file without a head is ErrMalformed.
func Finish(f File, size int64) (Summary, error) {
	l, err := scan(f, size)
	if err != nil {
		return Summary{}, err
	}
	if err := f.Truncate(l.whole); err != nil {
		return Summary{}, fmt.Errorf("cutting a file: %w", err)
	}
	s := Summary{Duration: l.last, Blocks: l.blocks, Clusters: l.clusters}
	if l.blocks > 0 {
		s.Duration += max(1, l.step)
	}
	cues := l.appendCues(nil)
	s.Size = l.whole + int64(len(cues))
	for _, w := range []struct {
		at int64
		b  []byte
	}{
		{l.whole, cues},
		{l.segment, l.seekHead()},
		{l.duration, float(nil, idDuration, float64(s.Duration))},
		{l.segment - 8, binary.BigEndian.AppendUint64(nil, uint64(s.Size-l.segment)|1<<56)},
	} {
		if _, err := f.WriteAt(w.b, w.at); err != nil {
			return s, fmt.Errorf("completing a file: %w", err)
		}
	}
	return s, nil
}

func (l *layout) appendCues(b []byte) []byte {
	var list []byte
	for _, c := range l.cues {
		at := element(nil, 0xB7, number(number(nil, 0xF7, uint64(c.track)), 0xF1, uint64(c.offset)))
		list = element(list, 0xBB, append(number(nil, 0xB3, uint64(c.time)), at...))
	}
	return element(b, idCues, list)
}

// seekHead is as long as its space.
func (l *layout) seekHead() []byte {
	var list []byte
	for _, s := range []struct {
		id uint32
		at int64
	}{{idInfo, l.info}, {idTracks, l.tracks}, {idCues, l.whole}} {
		entry := element(nil, 0x53AB, binary.BigEndian.AppendUint32(nil, s.id))
		entry = element(entry, 0x53AC, binary.BigEndian.AppendUint64(nil, uint64(s.at-l.segment)))
		list = element(list, 0x4DBB, entry)
	}
	b := element(nil, idSeekHead, list)
	return void(b, seekSpace-len(b))
}
