// Package movie reads and writes MP4 files (ISO 14496-12) of a few tracks: fragments that are
// appended while something is recorded, and the progressive file, index in front, that is made of them
// in the end. It never decodes. Pure but for the readers and writers that it is given.
package movie

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is wrapped by every error about bytes that are not an MP4 of the kind that is read here.
var ErrMalformed = errors.New("malformed MP4")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// boxHeader is the size and type in front of every box.
const boxHeader = 8

// box is one box that lies in memory as a whole.
type box struct {
	kind string
	body []byte
	size int // with its header
}

// cut takes the first box off b.
func cut(b []byte) (first box, rest []byte, err error) {
	if len(b) < boxHeader {
		return box{}, nil, malformed("%d bytes where a box should begin", len(b))
	}
	size, header := uint64(binary.BigEndian.Uint32(b)), boxHeader
	if size == 1 {
		if len(b) < 16 {
			return box{}, nil, malformed("box without its size")
		}
		size, header = binary.BigEndian.Uint64(b[8:]), 16
	}
	if size < uint64(header) || size > uint64(len(b)) {
		return box{}, nil, malformed("box %q of %d bytes in %d", b[4:8], size, len(b))
	}
	return box{kind: string(b[4:8]), body: b[header:size], size: int(size)}, b[size:], nil
}

// each calls f with every box in b.
func each(b []byte, f func(box) error) error {
	for len(b) > 0 {
		x, rest, err := cut(b)
		if err != nil {
			return err
		}
		if err := f(x); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// find is the body of the first box under a path of types.
func find(b []byte, path ...string) ([]byte, error) {
	for _, kind := range path {
		var found []byte
		ok := false
		err := each(b, func(x box) error {
			if x.kind == kind && !ok {
				found, ok = x.body, true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, malformed("no box %q", kind)
		}
		b = found
	}
	return b, nil
}

// full takes version and flags off the body of a full box that has at least n bytes more.
func full(body []byte, n int) (version byte, flags uint32, rest []byte, err error) {
	if len(body) < 4+n {
		return 0, 0, nil, malformed("full box of %d bytes", len(body))
	}
	return body[0], binary.BigEndian.Uint32(body) & 0xffffff, body[4:], nil
}

// appendBox appends a box whose body f appends.
func appendBox(b []byte, kind string, f func([]byte) []byte) []byte {
	at := len(b)
	b = append(append(b, 0, 0, 0, 0), kind...)
	if f != nil {
		b = f(b)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

func appendFull(b []byte, kind string, version byte, flags uint32, f func([]byte) []byte) []byte {
	return appendBox(b, kind, func(b []byte) []byte {
		return f(u32(b, uint32(version)<<24|flags))
	})
}

func u16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
func u32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func u64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func zeros(b []byte, n int) []byte { return append(b, make([]byte, n)...) }
