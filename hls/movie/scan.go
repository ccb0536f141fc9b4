package movie

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxIndex is the largest moov or moof that is read, in bytes.
const maxIndex = 8 << 20

// Fragment is one moof with its mdat.
type Fragment struct {
	Offset int64 // in the file
	Size   int64
	Runs   []Run // offsets of samples are in the file
	// Wall is when the first sample was there, as a reference in front of the fragment says; zero without.
	Wall time.Time
}

// Head is what stands in front of a fragmented file's fragments.
type Head struct {
	Tracks []Track
	Size   int64
	// Whole is where the last whole fragment ends: what is behind was being written when somebody was killed.
	Whole int64
}

// Scan reads a fragmented file from its beginning to the last whole fragment. It calls begin with the tracks, unless that is nil,
// and visit with each fragment, and returns an error when there is no head, when reading fails, or theirs.
func Scan(r io.ReaderAt, size int64, begin func([]Track) error, visit func(*Fragment) error) (Head, error) {
	var h Head
	var f Fragment
	open := false
	var wall time.Time
	for at := int64(0); at < size; {
		kind, header, length, err := headerAt(r, at, size)
		if errors.Is(err, ErrMalformed) && h.Size > 0 {
			return h, nil
		} else if err != nil {
			return h, err
		}
		switch {
		case h.Size == 0 && kind == "moov":
			body, err := bodyAt(r, at+header, length-header)
			if err != nil {
				return h, err
			}
			if h.Tracks, err = parseMoov(body); err != nil {
				return h, err
			}
			h.Size, h.Whole = at+length, at+length
			if begin != nil {
				if err := begin(h.Tracks); err != nil {
					return h, err
				}
			}
		case h.Size == 0 && (kind == "moof" || kind == "mdat"):
			return h, malformed("%s in front of moov", kind)
		case kind == "prft":
			if body, err := bodyAt(r, at+header, length-header); err == nil {
				wall = parseReference(body)
			}
		case kind == "moof":
			body, err := bodyAt(r, at+header, length-header)
			if errors.Is(err, ErrMalformed) {
				return h, nil
			} else if err != nil {
				return h, err
			}
			f = Fragment{Offset: at, Wall: wall}
			wall = time.Time{}
			if f.Runs, err = parseMoof(body, at, size); err != nil {
				return h, nil
			}
			open = true
		case kind == "mdat" && open:
			f.Size, open = at+length-f.Offset, false
			if !inside(f.Runs, at+header, at+length) {
				return h, nil
			}
			h.Whole = at + length
			if err := visit(&f); err != nil {
				return h, err
			}
		}
		at += length
	}
	if h.Size == 0 {
		return h, malformed("no moov in %d bytes", size)
	}
	return h, nil
}

// headerAt reads the header of the box at an offset.
func headerAt(r io.ReaderAt, at, size int64) (kind string, header, length int64, err error) {
	var b [16]byte
	n, err := r.ReadAt(b[:min(16, size-at)], at)
	if err != nil && (!errors.Is(err, io.EOF) || n < int(min(16, size-at))) {
		return "", 0, 0, fmt.Errorf("reading at %d: %w", at, err)
	}
	if n < boxHeader {
		return "", 0, 0, malformed("%d bytes at the end", n)
	}
	kind, header, length = string(b[4:8]), boxHeader, int64(binary.BigEndian.Uint32(b[:]))
	if length == 1 && n == 16 {
		header, length = 16, int64(binary.BigEndian.Uint64(b[8:]))
	}
	if length < header || length > size-at {
		return "", 0, 0, malformed("box of %d bytes at %d of %d", length, at, size)
	}
	return kind, header, length, nil
}

func bodyAt(r io.ReaderAt, at, size int64) ([]byte, error) {
	if size > maxIndex {
		return nil, malformed("index of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading at %d: %w", at, err)
	}
	return b, nil
}

// inside says that all samples lie in one mdat, one after another.
func inside(runs []Run, from, to int64) bool {
	for _, r := range runs {
		for i, s := range r.Samples {
			if s.Offset < from || s.Offset+int64(s.Size) > to {
				return false
			}
			if i > 0 && s.Offset != r.Samples[i-1].Offset+int64(r.Samples[i-1].Size) {
				return false
			}
		}
	}
	return true
}
