package movie

import (
	"encoding/binary"
)

// Sample is one access unit.
type Sample struct {
	// Offset of its bytes: in what was parsed, or in the file.
	Offset int64
	Size   uint32
	// Duration in the track's units.
	Duration uint32
	// Key says that it decodes by itself.
	Key bool
	// Shift is its presentation time less its decode time, in the track's units.
	Shift int32
}

// Run is a row of samples of one track.
type Run struct {
	Track uint32
	// Base is the decode time of the first sample in the track's units.
	Base    int64
	Samples []Sample
	// Data are the samples' bytes one after another, when the run is written.
	Data []byte
}

// Length is the time of all samples, in the track's units.
func (r *Run) Length() int64 {
	var n int64
	for i := range r.Samples {
		n += int64(r.Samples[i].Duration)
	}
	return n
}

// AppendHeader appends the head of a fragmented file: what fragments of these tracks are appended to.
func AppendHeader(b []byte, tracks []Track) []byte {
	b = appendBox(b, "ftyp", func(b []byte) []byte { return append(b, "isom\x00\x00\x02\x00isomiso6mp41"...) })
	return appendBox(b, "moov", func(b []byte) []byte {
		b = appendMvhd(b, 0, len(tracks))
		for i := range tracks {
			b = tracks[i].appendTrak(b, [][]byte{tracks[i].Entry}, 0, 0, nil, emptyTable)
		}
		return appendBox(b, "mvex", func(b []byte) []byte {
			for i := range tracks {
				b = appendFull(b, "trex", 0, 0, func(b []byte) []byte {
					return zeros(u32(u32(b, tracks[i].ID), 1), 12)
				})
			}
			return b
		})
	})
}

func emptyTable(b []byte) []byte {
	for _, kind := range []string{"stts", "stsc", "stco"} {
		b = appendFull(b, kind, 0, 0, func(b []byte) []byte { return u32(b, 0) })
	}
	return appendFull(b, "stsz", 0, 0, func(b []byte) []byte { return zeros(b, 8) })
}

const (
	flagNonSync = 0x10000
	// Of trun.
	hasDataOffset = 0x1
	hasFirstFlags = 0x4
	hasDuration   = 0x100
	hasSize       = 0x200
	hasFlags      = 0x400
	hasShift      = 0x800
	// Of tfhd.
	hasBaseOffset      = 0x1
	hasDescription     = 0x2
	hasDefaultDuration = 0x8
	hasDefaultSize     = 0x10
	hasDefaultFlags    = 0x20
	baseIsMoof         = 0x20000
)

// AppendFragment appends moof and mdat with the runs, each of another track. sequence counts fragments from 1.
func AppendFragment(b []byte, sequence uint32, runs []Run) []byte {
	start := len(b)
	patch := make([]int, 0, maxTracks)
	b = appendBox(b, "moof", func(b []byte) []byte {
		b = appendFull(b, "mfhd", 0, 0, func(b []byte) []byte { return u32(b, sequence) })
		for i := range runs {
			r := &runs[i]
			b = appendBox(b, "traf", func(b []byte) []byte {
				b = appendFull(b, "tfhd", 0, baseIsMoof, func(b []byte) []byte { return u32(b, r.Track) })
				b = appendFull(b, "tfdt", 1, 0, func(b []byte) []byte { return u64(b, uint64(r.Base)) })
				return appendFull(b, "trun", 1, hasDataOffset|hasDuration|hasSize|hasFlags|hasShift, func(b []byte) []byte {
					b = u32(b, uint32(len(r.Samples)))
					patch = append(patch, len(b))
					return appendSamples(u32(b, 0), r.Samples)
				})
			})
		}
		return b
	})
	data := len(b) - start + boxHeader
	for i := range runs {
		binary.BigEndian.PutUint32(b[patch[i]:], uint32(data))
		data += len(runs[i].Data)
	}
	return appendBox(b, "mdat", func(b []byte) []byte {
		for i := range runs {
			b = append(b, runs[i].Data...)
		}
		return b
	})
}

func appendSamples(b []byte, samples []Sample) []byte {
	for i := range samples {
		s := &samples[i]
		flags := uint32(0x2000000) // depends on no other
		if !s.Key {
			flags = 0x1000000 | flagNonSync
		}
		b = u32(u32(u32(u32(b, s.Duration), s.Size), flags), uint32(s.Shift))
	}
	return b
}

// maxRunSamples is the most samples of one run that is read.
const maxRunSamples = 100_000

// ParseChunk reads a part of a stream: the runs of its moof boxes. Offsets of samples are in b; boxes of other types are passed over.
func ParseChunk(b []byte) ([]Run, error) {
	var runs []Run
	at := 0
	err := each(b, func(x box) error {
		if x.kind == "moof" {
			more, err := parseMoof(x.body, int64(at), int64(len(b)))
			if err != nil {
				return err
			}
			runs = append(runs, more...)
		}
		at += x.size
		return nil
	})
	return runs, err
}

// parseMoof reads a moof at an offset of something that ends at end.
func parseMoof(moof []byte, at, end int64) ([]Run, error) {
	var runs []Run
	next := at
	err := each(moof, func(x box) error {
		if x.kind != "traf" {
			return nil
		}
		if len(runs) == maxTracks {
			return malformed("more than %d runs", maxTracks)
		}
		r, last, err := parseTraf(x.body, at, next, end)
		runs, next = append(runs, r), last
		return err
	})
	return runs, err
}

// defaults of a traf's samples.
type defaults struct {
	track                 uint32
	base                  int64
	duration, size, flags uint32
}

func parseTfhd(body []byte, moof int64) (d defaults, err error) {
	_, flags, b, err := full(body, 4)
	if err != nil {
		return d, err
	}
	d.track, d.base = binary.BigEndian.Uint32(b), moof
	b = b[4:]
	if flags&hasBaseOffset != 0 {
		if len(b) < 8 {
			return d, malformed("short tfhd")
		}
		d.base, b = int64(binary.BigEndian.Uint64(b)), b[8:]
	}
	var description uint32
	for _, to := range [...]struct {
		flag uint32
		to   *uint32
	}{{hasDescription, &description}, {hasDefaultDuration, &d.duration}, {hasDefaultSize, &d.size}, {hasDefaultFlags, &d.flags}} {
		if flags&to.flag == 0 {
			continue
		}
		if len(b) < 4 {
			return d, malformed("short tfhd")
		}
		*to.to, b = binary.BigEndian.Uint32(b), b[4:]
	}
	return d, nil
}

// parseTraf reads the run of one track. next is where its bytes lie unless it says so; last where those of the next track do.
func parseTraf(traf []byte, moof, next, end int64) (r Run, last int64, err error) {
	tfhd, err := find(traf, "tfhd")
	if err != nil {
		return r, 0, err
	}
	d, err := parseTfhd(tfhd, moof)
	if err != nil {
		return r, 0, err
	}
	r.Track = d.track
	tfdt, err := find(traf, "tfdt")
	if err != nil {
		return r, 0, err
	}
	version, _, tfdt, err := full(tfdt, 4)
	switch {
	case err != nil:
		return r, 0, err
	case version == 0:
		r.Base = int64(binary.BigEndian.Uint32(tfdt))
	case len(tfdt) < 8:
		return r, 0, malformed("short tfdt")
	default:
		r.Base = int64(binary.BigEndian.Uint64(tfdt))
	}
	if r.Base < 0 || r.Base > 1<<56 {
		return r, 0, malformed("time %d", r.Base)
	}
	err = each(traf, func(x box) error {
		if x.kind != "trun" {
			return nil
		}
		next, err = r.parseTrun(x.body, &d, next, end)
		return err
	})
	return r, next, err
}

func (r *Run) parseTrun(body []byte, d *defaults, at, end int64) (int64, error) {
	_, flags, b, err := full(body, 4)
	if err != nil {
		return 0, err
	}
	count := int(binary.BigEndian.Uint32(b))
	b = b[4:]
	if count > maxRunSamples-len(r.Samples) {
		return 0, malformed("%d samples", count)
	}
	var short bool
	take := func(have uint32, other uint32) uint32 {
		switch {
		case flags&have == 0:
			return other
		case len(b) < 4:
			short = true
			return 0
		}
		v := binary.BigEndian.Uint32(b)
		b = b[4:]
		return v
	}
	if flags&hasDataOffset != 0 {
		at = d.base + int64(int32(take(hasDataOffset, 0)))
	}
	first := take(hasFirstFlags, d.flags)
	for i := range count {
		s := Sample{Offset: at}
		s.Duration = take(hasDuration, d.duration)
		s.Size = take(hasSize, d.size)
		other := d.flags
		if i == 0 {
			other = first
		}
		s.Key = take(hasFlags, other)&flagNonSync == 0
		s.Shift = int32(take(hasShift, 0))
		if short || at < 0 || int64(s.Size) > end-at {
			return 0, malformed("sample of %d bytes at %d of %d", s.Size, at, end)
		}
		at += int64(s.Size)
		r.Samples = append(r.Samples, s)
	}
	return at, nil
}
