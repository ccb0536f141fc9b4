package movie

import (
	"encoding/binary"
	"time"
)

// Track describes one track.
type Track struct {
	// ID is its number in the file, from 1.
	ID    uint32
	Video bool
	// Timescale is the units per second of its times.
	Timescale uint32
	// Entry is its sample entry, a whole box: codec, parameter sets.
	Entry []byte
	// Width and Height of the picture in pixels; 0 for audio.
	Width, Height int
}

// Units is a time in the track's units, rounded down.
func (t *Track) Units(d time.Duration) int64 {
	return int64(d/time.Second)*int64(t.Timescale) + int64(d%time.Second)*int64(t.Timescale)/int64(time.Second)
}

// Duration is the time of n units.
func (t *Track) Duration(n int64) time.Duration {
	scale := int64(t.Timescale)
	return time.Duration(n/scale)*time.Second + time.Duration(n%scale)*time.Second/time.Duration(scale)
}

// maxTimescale keeps products of times and timescales below 63 bits over any time.
const maxTimescale = 10_000_000

// maxTracks is the most tracks of a file that is read.
const maxTracks = 8

// ParseInit reads the tracks of an init section, or of the head of a file; boxes behind moov are not looked at.
func ParseInit(b []byte) ([]Track, error) {
	for len(b) > 0 {
		x, rest, err := cut(b)
		if err != nil {
			return nil, err
		}
		if x.kind == "moov" {
			return parseMoov(x.body)
		}
		b = rest
	}
	return nil, malformed("no moov")
}

func parseMoov(moov []byte) ([]Track, error) {
	var tracks []Track
	err := each(moov, func(x box) error {
		if x.kind != "trak" {
			return nil
		}
		if len(tracks) == maxTracks {
			return malformed("more than %d tracks", maxTracks)
		}
		t, err := parseTrak(x.body)
		if err != nil {
			return err
		}
		for _, other := range tracks {
			if other.ID == t.ID {
				return malformed("two tracks %d", t.ID)
			}
		}
		tracks = append(tracks, t)
		return nil
	})
	if err == nil && len(tracks) == 0 {
		err = malformed("no track")
	}
	return tracks, err
}

func parseTrak(trak []byte) (t Track, err error) {
	tkhd, err := find(trak, "tkhd")
	if err != nil {
		return t, err
	}
	version, _, tkhd, err := full(tkhd, 80)
	if err != nil {
		return t, err
	}
	at := 8 // creation and modification time
	if version == 1 {
		at = 16
	}
	t.ID = binary.BigEndian.Uint32(tkhd[at:])
	t.Width = int(binary.BigEndian.Uint16(tkhd[len(tkhd)-8:]))
	t.Height = int(binary.BigEndian.Uint16(tkhd[len(tkhd)-4:]))
	mdhd, err := find(trak, "mdia", "mdhd")
	if err != nil {
		return t, err
	}
	version, _, mdhd, err = full(mdhd, 20)
	if err != nil {
		return t, err
	}
	at = 8
	if version == 1 {
		at = 16
	}
	t.Timescale = binary.BigEndian.Uint32(mdhd[at:])
	hdlr, err := find(trak, "mdia", "hdlr")
	if err != nil {
		return t, err
	}
	if _, _, hdlr, err = full(hdlr, 8); err != nil {
		return t, err
	}
	t.Video = string(hdlr[4:8]) == "vide"
	stsd, err := find(trak, "mdia", "minf", "stbl", "stsd")
	if err != nil {
		return t, err
	}
	if _, _, stsd, err = full(stsd, 4); err != nil {
		return t, err
	}
	entry, _, err := cut(stsd[4:])
	if err != nil {
		return t, err
	}
	t.Entry = append([]byte(nil), stsd[4:4+entry.size]...)
	if t.ID == 0 || t.Timescale == 0 || t.Timescale > maxTimescale {
		return t, malformed("track %d with %d units a second", t.ID, t.Timescale)
	}
	return t, nil
}

// appendTrak appends a track with what stbl appends into its sample table. The duration is in units of the
// movie, length in those of the track; edits appends an edit list, or nil.
func (t *Track) appendTrak(b []byte, entries [][]byte, duration, length uint64, edits, stbl func([]byte) []byte) []byte {
	return appendBox(b, "trak", func(b []byte) []byte {
		b = appendFull(b, "tkhd", 1, 3, func(b []byte) []byte {
			b = u32(zeros(b, 16), t.ID)
			b = u64(zeros(b, 4), duration)
			b = zeros(b, 12)
			volume := uint16(0x100)
			if t.Video {
				volume = 0
			}
			b = matrix(u16(u16(b, volume), 0))
			return u32(u32(b, uint32(t.Width)<<16), uint32(t.Height)<<16)
		})
		if edits != nil {
			b = appendBox(b, "edts", edits)
		}
		return appendBox(b, "mdia", func(b []byte) []byte {
			b = appendFull(b, "mdhd", 1, 0, func(b []byte) []byte {
				b = u64(u32(zeros(b, 16), t.Timescale), length)
				return u16(u16(b, 0x55c4), 0) // language "und"
			})
			b = appendFull(b, "hdlr", 0, 0, func(b []byte) []byte {
				kind, name := "soun", "Audio\x00"
				if t.Video {
					kind, name = "vide", "Video\x00"
				}
				return append(zeros(append(u32(b, 0), kind...), 12), name...)
			})
			return appendBox(b, "minf", func(b []byte) []byte { return t.appendMinf(b, entries, stbl) })
		})
	})
}

func (t *Track) appendMinf(b []byte, entries [][]byte, stbl func([]byte) []byte) []byte {
	if t.Video {
		b = appendFull(b, "vmhd", 0, 1, func(b []byte) []byte { return zeros(b, 8) })
	} else {
		b = appendFull(b, "smhd", 0, 0, func(b []byte) []byte { return zeros(b, 4) })
	}
	b = appendBox(b, "dinf", func(b []byte) []byte {
		return appendFull(b, "dref", 0, 0, func(b []byte) []byte {
			return appendFull(u32(b, 1), "url ", 0, 1, func(b []byte) []byte { return b })
		})
	})
	return appendBox(b, "stbl", func(b []byte) []byte {
		b = appendFull(b, "stsd", 0, 0, func(b []byte) []byte {
			b = u32(b, uint32(len(entries)))
			for _, e := range entries {
				b = append(b, e...)
			}
			return b
		})
		return stbl(b)
	})
}

// matrix appends the unity matrix.
func matrix(b []byte) []byte {
	for _, v := range [9]uint32{0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000} {
		b = u32(b, v)
	}
	return b
}

// movieTimescale is a multiple of all usual timescales, so that edits are exact.
const movieTimescale = 720_000

func appendMvhd(b []byte, duration uint64, tracks int) []byte {
	return appendFull(b, "mvhd", 1, 0, func(b []byte) []byte {
		b = u64(u32(zeros(b, 16), movieTimescale), duration)
		b = zeros(u16(u32(b, 0x10000), 0x100), 10)
		return u32(zeros(matrix(b), 24), uint32(tracks)+1)
	})
}
