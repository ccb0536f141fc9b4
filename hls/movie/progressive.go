package movie

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Source is a fragmented file.
type Source struct {
	R    io.ReaderAt
	Size int64
}

// Summary is what a progressive file holds.
type Summary struct {
	Duration time.Duration
	Tracks   []Track
	// Samples per track.
	Samples []int
}

// ErrEmpty says that there is not one sample in any source.
var ErrEmpty = errors.New("no samples")

// Movie is the index of a progressive file that is to be made.
type Movie struct {
	sources []Source
	tables  []*table
	spans   []span
	data    int64 // bytes of all samples
	start   time.Duration
	end     time.Duration
}

// span is a stretch of one source that is copied as it is.
type span struct {
	source     int
	from, size int64
}

// NewMovie reads the sources, which follow each other in time, and joins their tracks: all video into one, all audio into one. Where a track
// has nothing for a time, the sample before lasts until the next.
func NewMovie(sources []Source) (*Movie, error) {
	m := &Movie{sources: sources}
	for i, s := range sources {
		var byID map[uint32]*table
		_, err := Scan(s.R, s.Size, func(tracks []Track) (err error) {
			byID, err = m.join(tracks)
			return err
		}, func(f *Fragment) error { return m.add(i, f, byID) })
		if err != nil {
			return nil, fmt.Errorf("reading source %d: %w", i, err)
		}
	}
	var kept []*table
	m.start = math.MaxInt64
	for _, t := range m.tables {
		if len(t.sizes) == 0 {
			continue
		}
		kept = append(kept, t)
		m.start = min(m.start, t.track.Duration(t.first))
		m.end = max(m.end, t.track.Duration(t.end))
	}
	if m.tables = kept; len(kept) == 0 {
		return nil, ErrEmpty
	}
	for i, t := range kept {
		t.track.ID = uint32(i + 1)
	}
	return m, nil
}

// join finds the table for each track of a source.
func (m *Movie) join(tracks []Track) (map[uint32]*table, error) {
	byID := map[uint32]*table{}
	taken := map[*table]bool{}
	for _, tr := range tracks {
		var to *table
		for _, t := range m.tables {
			if t.track.Video == tr.Video && !taken[t] {
				to = t
				break
			}
		}
		if to == nil {
			to = &table{track: tr}
			m.tables = append(m.tables, to)
		}
		if to.track.Timescale != tr.Timescale {
			return nil, malformed("track of %d units a second goes on with %d", to.track.Timescale, tr.Timescale)
		}
		to.track.Width, to.track.Height = max(to.track.Width, tr.Width), max(to.track.Height, tr.Height)
		to.describe(tr.Entry)
		taken[to], byID[tr.ID] = true, to
	}
	return byID, nil
}

// add takes the runs of a fragment.
func (m *Movie) add(source int, f *Fragment, byID map[uint32]*table) error {
	for i := range f.Runs {
		r := &f.Runs[i]
		t := byID[r.Track]
		if t == nil {
			return malformed("run of track %d, which the head does not have", r.Track)
		}
		if len(r.Samples) == 0 {
			continue
		}
		if err := t.add(r, m.data); err != nil {
			return err
		}
		first, last := r.Samples[0], r.Samples[len(r.Samples)-1]
		size := last.Offset + int64(last.Size) - first.Offset
		m.data += size
		if n := len(m.spans); n > 0 && m.spans[n-1].source == source && m.spans[n-1].from+m.spans[n-1].size == first.Offset {
			m.spans[n-1].size += size
			continue
		}
		m.spans = append(m.spans, span{source, first.Offset, size})
	}
	return nil
}

// Summary of the file as WriteTo writes it.
func (m *Movie) Summary() Summary {
	s := Summary{Duration: m.end - m.start}
	for _, t := range m.tables {
		s.Tracks, s.Samples = append(s.Tracks, t.track), append(s.Samples, len(t.sizes))
	}
	return s
}

// dataHeader is the header of an mdat with a 64-bit size.
const dataHeader = 16

// head is everything in front of the samples.
func (m *Movie) head() []byte {
	b := appendBox(nil, "ftyp", func(b []byte) []byte { return append(b, "isom\x00\x00\x02\x00isomiso2avc1mp41"...) })
	at := len(b)
	// Its length is that of the same index with other offsets.
	long := m.data > math.MaxUint32-maxIndex*8
	size := int64(len(m.appendMoov(nil, 0, long)))
	b = m.appendMoov(b, int64(at)+size+dataHeader, long)
	b = append(u32(b, 1), "mdat"...)
	return u64(b, uint64(m.data)+dataHeader)
}

func (m *Movie) appendMoov(b []byte, offset int64, long bool) []byte {
	duration := scaled(m.end - m.start)
	return appendBox(b, "moov", func(b []byte) []byte {
		b = appendMvhd(b, duration, len(m.tables))
		for _, t := range m.tables {
			first := t.track.Duration(t.first)
			length := uint64(t.end - t.first)
			shown := scaled(t.track.Duration(t.end) - first)
			var edits func([]byte) []byte
			if late := scaled(first - m.start); late > 0 {
				edits = func(b []byte) []byte {
					return appendFull(b, "elst", 1, 0, func(b []byte) []byte {
						b = u32(u64(u64(u32(b, 2), late), math.MaxUint64), 0x10000)
						return u32(u64(u64(b, shown), 0), 0x10000)
					})
				}
				shown += late
			}
			b = t.track.appendTrak(b, t.entries, shown, length, edits, func(b []byte) []byte {
				return t.appendTo(b, offset, long)
			})
		}
		return b
	})
}

func scaled(d time.Duration) uint64 {
	t := Track{Timescale: movieTimescale}
	// Rounded, as tracks' times have been cut to nanoseconds.
	return uint64(t.Units(d + 695*time.Nanosecond))
}

// WriteTo writes the file. It stops with ctx's error when that ends.
func (m *Movie) WriteTo(ctx context.Context, w io.Writer) error {
	if _, err := w.Write(m.head()); err != nil {
		return fmt.Errorf("writing the index: %w", err)
	}
	buffer := make([]byte, 256<<10)
	for _, s := range m.spans {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyBuffer(writerOnly{w}, io.NewSectionReader(m.sources[s.source].R, s.from, s.size), buffer)
		if err == nil && n < s.size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("copying samples: %w", err)
		}
	}
	return nil
}

// writerOnly hides other methods, so that the buffer is used.
type writerOnly struct{ io.Writer }

// table is the sample table of one track.
type table struct {
	track   Track
	entries [][]byte
	entry   int // in force, from 0
	sizes   []uint32
	times   []repeat // durations
	shifts  []repeat
	keys    []uint32 // from 1
	chunks  []chunk
	first   int64
	end     int64
	shifted bool
}

// repeat is a value that n samples in a row have.
type repeat struct{ n, value uint32 }

// chunk is a row of samples that lie together.
type chunk struct {
	at    int64 // behind the beginning of all data
	n     uint32
	entry uint32
}

func push(list []repeat, value uint32) []repeat {
	if n := len(list); n > 0 && list[n-1].value == value {
		list[n-1].n++
		return list
	}
	return append(list, repeat{1, value})
}

func (t *table) describe(entry []byte) {
	for i, e := range t.entries {
		if string(e) == string(entry) {
			t.entry = i
			return
		}
	}
	t.entry = len(t.entries)
	t.entries = append(t.entries, entry)
}

// add takes a run whose bytes will lie at an offset of the data.
func (t *table) add(r *Run, at int64) error {
	switch {
	case len(t.sizes) == 0:
		t.first, t.end = r.Base, r.Base
	case r.Base != t.end:
		if err := t.stretch(r.Base - t.end); err != nil {
			return err
		}
	}
	for i := range r.Samples {
		s := &r.Samples[i]
		t.sizes = append(t.sizes, s.Size)
		t.times = push(t.times, s.Duration)
		t.shifts = push(t.shifts, uint32(s.Shift))
		t.shifted = t.shifted || s.Shift != 0
		if s.Key {
			t.keys = append(t.keys, uint32(len(t.sizes)))
		}
		t.end += int64(s.Duration)
	}
	t.chunks = append(t.chunks, chunk{at, uint32(len(r.Samples)), uint32(t.entry + 1)})
	return nil
}

// stretch makes the last sample longer, or shorter.
func (t *table) stretch(by int64) error {
	last := &t.times[len(t.times)-1]
	length := max(1, int64(last.value)+by)
	if length > math.MaxUint32 {
		return malformed("hole of %d units", by)
	}
	t.end += length - int64(last.value)
	if last.n--; last.n == 0 {
		t.times = t.times[:len(t.times)-1]
	}
	t.times = push(t.times, uint32(length))
	return nil
}

func appendRepeats(b []byte, kind string, version byte, list []repeat) []byte {
	return appendFull(b, kind, version, 0, func(b []byte) []byte {
		b = u32(b, uint32(len(list)))
		for _, r := range list {
			b = u32(u32(b, r.n), r.value)
		}
		return b
	})
}

// appendTo appends what stbl holds behind the descriptions.
func (t *table) appendTo(b []byte, offset int64, long bool) []byte {
	b = appendRepeats(b, "stts", 0, t.times)
	if t.shifted {
		b = appendRepeats(b, "ctts", 1, t.shifts)
	}
	if len(t.keys) < len(t.sizes) {
		b = appendFull(b, "stss", 0, 0, func(b []byte) []byte {
			b = u32(b, uint32(len(t.keys)))
			for _, k := range t.keys {
				b = u32(b, k)
			}
			return b
		})
	}
	b = appendFull(b, "stsc", 0, 0, t.appendChunks)
	b = appendFull(b, "stsz", 0, 0, func(b []byte) []byte {
		b = u32(u32(b, 0), uint32(len(t.sizes)))
		for _, s := range t.sizes {
			b = u32(b, s)
		}
		return b
	})
	kind := "stco"
	if long {
		kind = "co64"
	}
	return appendFull(b, kind, 0, 0, func(b []byte) []byte {
		b = u32(b, uint32(len(t.chunks)))
		for _, c := range t.chunks {
			if long {
				b = u64(b, uint64(offset+c.at))
			} else {
				b = u32(b, uint32(offset+c.at))
			}
		}
		return b
	})
}

// appendChunks appends how many samples which chunks have.
func (t *table) appendChunks(b []byte) []byte {
	at := len(b)
	b = u32(b, 0)
	rows := uint32(0)
	for i, c := range t.chunks {
		if i > 0 && c.n == t.chunks[i-1].n && c.entry == t.chunks[i-1].entry {
			continue
		}
		b = u32(u32(u32(b, uint32(i+1)), c.n), c.entry)
		rows++
	}
	binary.BigEndian.PutUint32(b[at:], rows)
	return b
}
