package validate

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// InitSection is what an init section says of its one track.
type InitSection struct {
	Kind          string // handler: vide, soun
	Codecs        string // RFC 6381
	Width, Height int
	Timescale     uint32
	duration      uint32 // default of samples
	flags         uint32
}

// Fragment is one moof with its mdat.
type Fragment struct {
	Base, Duration uint64 // in the timescale
	Samples        int
	Key            bool // the first sample is a sync sample
	Events         []Event
}

// Event is an emsg box (version 1).
type Event struct {
	Scheme, Value string
	Timescale     uint32
	Time          uint64
	Duration, ID  uint32
	Data          []byte
}

var (
	errBox   = errors.New("malformed box")
	errTrack = errors.New("not one track")
)

// box is one box; body is what follows its header.
type box struct {
	kind string
	body []byte
}

// maxBoxes bounds the boxes of one level.
const maxBoxes = 4096

// boxes splits b.
func boxes(b []byte) ([]box, error) {
	var out []box
	for len(b) > 0 {
		if len(b) < 8 || len(out) >= maxBoxes {
			return nil, errBox
		}
		size, header := uint64(binary.BigEndian.Uint32(b)), 8
		if size == 1 {
			if len(b) < 16 {
				return nil, errBox
			}
			size, header = binary.BigEndian.Uint64(b[8:]), 16
		}
		if size < uint64(header) || size > uint64(len(b)) {
			return nil, errBox
		}
		out = append(out, box{string(b[4:8]), b[header:size]})
		b = b[size:]
	}
	return out, nil
}

// child finds the one box of a kind on a path below b.
func child(b []byte, path ...string) ([]byte, error) {
	for _, kind := range path {
		list, err := boxes(b)
		if err != nil {
			return nil, err
		}
		found := 0
		for _, x := range list {
			if x.kind == kind {
				b = x.body
				found++
			}
		}
		if found != 1 {
			return nil, fmt.Errorf("%d boxes %s: %w", found, kind, errTrack)
		}
	}
	return b, nil
}

// reader takes fields off a box; beyond the end it gives zeros and remembers.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.short = true
		r.b = nil
		return make([]byte, min(n, 8))
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() uint8   { return r.bytes(1)[0] }
func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.bytes(2)) }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.bytes(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.bytes(8)) }
func (r *reader) skip(n int) {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return
	}
	r.b = r.b[n:]
}

// ParseInit reads an init section.
func ParseInit(b []byte) (InitSection, error) {
	list, err := boxes(b)
	if err != nil {
		return InitSection{}, err
	}
	if len(list) < 2 || list[0].kind != "ftyp" {
		return InitSection{}, fmt.Errorf("no ftyp first: %w", errBox)
	}
	mdia, err := child(b, "moov", "trak", "mdia")
	if err != nil {
		return InitSection{}, err
	}
	var s InitSection
	if err := s.header(b, mdia); err != nil {
		return InitSection{}, err
	}
	stsd, err := child(mdia, "minf", "stbl", "stsd")
	if err != nil {
		return InitSection{}, err
	}
	if len(stsd) < 8 {
		return InitSection{}, errBox
	}
	entries, err := boxes(stsd[8:])
	if err != nil || len(entries) != 1 {
		return InitSection{}, fmt.Errorf("sample entries: %w", errBox)
	}
	return s, s.entry(entries[0])
}

func (s *InitSection) header(b, mdia []byte) error {
	hdlr, err := child(mdia, "hdlr")
	if err != nil {
		return err
	}
	r := reader{b: hdlr}
	r.skip(8)
	s.Kind = string(r.bytes(4))
	mdhd, err := child(mdia, "mdhd")
	if err != nil {
		return err
	}
	h := reader{b: mdhd}
	if h.u8() == 1 {
		h.skip(3 + 16)
	} else {
		h.skip(3 + 8)
	}
	s.Timescale = h.u32()
	trex, err := child(b, "moov", "mvex", "trex")
	if err != nil {
		return err
	}
	x := reader{b: trex}
	x.skip(12)
	s.duration = x.u32()
	x.skip(4)
	s.flags = x.u32()
	if r.short || h.short || x.short || s.Timescale == 0 {
		return errBox
	}
	return nil
}

func (s *InitSection) entry(e box) error {
	r := reader{b: e.body}
	switch e.kind {
	case "avc1":
		r.skip(24)
		s.Width, s.Height = int(r.u16()), int(r.u16())
		r.skip(50)
		avcC, err := child(r.b, "avcC")
		if err != nil || len(avcC) < 4 {
			return fmt.Errorf("avcC: %w", errBox)
		}
		s.Codecs = fmt.Sprintf("avc1.%02x%02x%02x", avcC[1], avcC[2], avcC[3])
	case "mp4a":
		r.skip(28)
		esds, err := child(r.b, "esds")
		if err != nil {
			return err
		}
		object, err := audioObject(esds)
		if err != nil {
			return err
		}
		s.Codecs = fmt.Sprintf("mp4a.40.%d", object)
	default:
		s.Codecs = e.kind
	}
	if r.short {
		return errBox
	}
	return nil
}

// audioObject finds the audio object type in an esds box: the descriptors 3, 4 and 5 lie in each other.
func audioObject(b []byte) (int, error) {
	r := reader{b: b}
	r.skip(4)
	for _, tag := range []uint8{3, 4, 5} {
		if r.u8() != tag {
			return 0, fmt.Errorf("descriptor %d: %w", tag, errBox)
		}
		for r.u8()&0x80 != 0 && !r.short {
		}
		switch tag {
		case 3:
			r.skip(3)
		case 4:
			r.skip(13)
		}
	}
	object := int(r.u8() >> 3)
	if r.short {
		return 0, errBox
	}
	return object, nil
}

// ParseFragments reads a part or a segment.
func ParseFragments(b []byte, init InitSection) ([]Fragment, error) {
	list, err := boxes(b)
	if err != nil {
		return nil, err
	}
	var out []Fragment
	var events []Event
	open := false // a moof waits for its mdat
	for _, x := range list {
		switch x.kind {
		case "moof":
			if open {
				return nil, fmt.Errorf("moof without mdat: %w", errBox)
			}
			f, err := fragment(x.body, init)
			if err != nil {
				return nil, err
			}
			f.Events, events = events, nil
			out, open = append(out, f), true
		case "mdat":
			if !open {
				return nil, fmt.Errorf("mdat without moof: %w", errBox)
			}
			open = false
		case "emsg":
			e, err := event(x.body)
			if err != nil {
				return nil, err
			}
			events = append(events, e)
		}
	}
	if open || len(events) > 0 || len(out) == 0 {
		return nil, fmt.Errorf("ends without moof or mdat: %w", errBox)
	}
	return out, nil
}

func fragment(moof []byte, init InitSection) (Fragment, error) {
	traf, err := child(moof, "traf")
	if err != nil {
		return Fragment{}, err
	}
	tfdt, err := child(traf, "tfdt")
	if err != nil {
		return Fragment{}, err
	}
	var f Fragment
	r := reader{b: tfdt}
	if r.u8() == 1 {
		r.skip(3)
		f.Base = r.u64()
	} else {
		r.skip(3)
		f.Base = uint64(r.u32())
	}
	tfhd, err := child(traf, "tfhd")
	if err != nil {
		return Fragment{}, err
	}
	h := reader{b: tfhd}
	flags := h.u32() & 0xffffff
	h.skip(4)
	for _, o := range []struct {
		flag uint32
		size int
	}{{0x1, 8}, {0x2, 4}} {
		if flags&o.flag != 0 {
			h.skip(o.size)
		}
	}
	duration, sample := init.duration, init.flags
	if flags&0x8 != 0 {
		duration = h.u32()
	}
	if flags&0x10 != 0 {
		h.skip(4)
	}
	if flags&0x20 != 0 {
		sample = h.u32()
	}
	if r.short || h.short {
		return Fragment{}, errBox
	}
	trun, err := child(traf, "trun")
	if err != nil {
		return Fragment{}, err
	}
	return f, f.run(trun, duration, sample)
}

// notSync is the sample flag of a sample that does not decode by itself.
const notSync = 0x10000

func (f *Fragment) run(trun []byte, duration, sample uint32) error {
	r := reader{b: trun}
	flags := r.u32() & 0xffffff
	n := r.u32()
	if n == 0 || n > 100_000 {
		return fmt.Errorf("%d samples: %w", n, errBox)
	}
	if flags&0x1 != 0 {
		r.skip(4)
	}
	first := sample
	if flags&0x4 != 0 {
		first = r.u32()
	}
	for i := range n {
		d, s := duration, sample
		if flags&0x100 != 0 {
			d = r.u32()
		}
		if flags&0x200 != 0 {
			r.skip(4)
		}
		if flags&0x400 != 0 {
			s = r.u32()
		} else if i == 0 {
			s = first
		}
		if flags&0x800 != 0 {
			r.skip(4)
		}
		if i == 0 {
			f.Key = s&notSync == 0
		}
		f.Duration += uint64(d)
		if r.short {
			return errBox
		}
	}
	f.Samples = int(n)
	return nil
}

func event(b []byte) (Event, error) {
	r := reader{b: b}
	if v := r.u8(); v != 1 {
		return Event{}, fmt.Errorf("emsg of version %d: %w", v, errBox)
	}
	r.skip(3)
	e := Event{Timescale: r.u32(), Time: r.u64(), Duration: r.u32(), ID: r.u32()}
	e.Scheme, e.Value = r.text(), r.text()
	e.Data = r.b
	if r.short || e.Timescale == 0 {
		return Event{}, errBox
	}
	return e, nil
}

// text reads a string that ends with a zero.
func (r *reader) text() string {
	for i, c := range r.b {
		if c == 0 {
			s := string(r.b[:i])
			r.b = r.b[i+1:]
			return s
		}
	}
	r.short = true
	return ""
}
