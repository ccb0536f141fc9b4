package playlist

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

var (
	// ErrUnknownPast says that a delta skips segments which were never seen: the whole playlist is needed.
	ErrUnknownPast = errors.New("a delta skips segments that are not known")
	errCut         = errors.New("this is no playlist of ours")
)

// Mirror is a playlist as another node writes it, followed by its deltas: what they skip is known from those before, byte for
// byte. Its zero value knows nothing. Not safe for concurrent use; the texts are.
type Mirror struct {
	old    past
	lead   []byte   // EXT-X-MAP in force before old, if that was ever seen
	recent [][]byte // segments that the newest delta does not skip
	packs  *packers
}

// Whole begins anew with a whole playlist and its delta, which is the same where nothing is skipped.
func (m *Mirror) Whole(full, delta []byte) (*Form, error) {
	c, err := cut(delta)
	if err != nil {
		return nil, err
	}
	packs := m.packs
	if packs == nil {
		packs = newPackers()
	}
	*m = Mirror{old: past{first: c.first, next: c.first}, recent: c.recent, packs: packs}
	if c.skipped == 0 {
		return &Form{front: full, packs: packs}, nil
	}
	middle, ok := bytes.CutPrefix(full, c.front)
	if ok {
		middle, ok = bytes.CutSuffix(middle, c.tail)
	}
	if !ok {
		return nil, fmt.Errorf("%w: whole and delta do not fit", errCut)
	}
	old, rest := segments(middle)
	if len(old) != c.skipped || len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d segments where %d are skipped", errCut, len(old), c.skipped)
	}
	for _, s := range old {
		m.old.add(s)
	}
	return m.text(c), nil
}

// Delta goes on with the next delta, or a later one.
func (m *Mirror) Delta(delta []byte) (*Form, error) {
	c, err := cut(delta)
	switch {
	case err != nil:
		return nil, err
	case c.skipped == 0:
		return m.Whole(delta, delta)
	case m.old.first > c.first || m.old.len() == 0 && m.recent == nil:
		return nil, ErrUnknownPast
	}
	end, recent := c.first+uint64(c.skipped), m.recent
	for ; m.old.next < end && len(recent) > 0; recent = recent[1:] {
		m.old.add(recent[0])
	}
	if m.old.next != end {
		*m = Mirror{packs: m.packs}
		return nil, ErrUnknownPast
	}
	for m.old.first < c.first {
		if l := mapLine(m.old.oldest()); l != nil {
			m.lead = l
		}
		m.old.shift()
	}
	m.recent = c.recent
	return m.text(c), nil
}

// text is the whole of which c is the delta.
func (m *Mirror) text(c cutting) *Form {
	t := &Form{front: c.front, past: m.old, tail: c.tail, packs: m.packs}
	if mapLine(m.old.oldest()) == nil {
		t.lead = m.lead
	}
	return t
}

// cutting is a delta taken apart.
type cutting struct {
	first   uint64
	skipped int
	// front is what is before the segments, but for EXT-X-SKIP; tail begins with the first segment that is not skipped.
	front, tail []byte
	recent      [][]byte
}

// Tags that a playlist is cut at.
const (
	sequenceTag = "#EXT-X-MEDIA-SEQUENCE:"
	skipTag     = "#EXT-X-SKIP:SKIPPED-SEGMENTS="
	mapTag      = "#EXT-X-MAP:"
	partTag     = "#EXT-X-PART:"
)

// maxSkipped bounds what a delta may skip: more than a day of segments of a second.
const maxSkipped = 100_000

// cut takes a playlist apart.
func cut(text []byte) (cutting, error) {
	var c cutting
	at := 0
	for line := range bytes.Lines(text) {
		if beginsSegment(line) {
			break
		}
		at += len(line)
		if v, ok := bytes.CutPrefix(line, []byte(skipTag)); ok {
			n, err := number(v)
			if err != nil || n > maxSkipped {
				return c, errCut
			}
			c.skipped = int(n)
			continue
		}
		if v, ok := bytes.CutPrefix(line, []byte(sequenceTag)); ok {
			var err error
			if c.first, err = number(v); err != nil {
				return c, err
			}
		}
		c.front = append(c.front, line...)
	}
	c.tail = text[at:]
	c.recent, _ = segments(c.tail)
	return c, nil
}

// beginsSegment says that a line is the first of what Media.Begin writes, or the map before it.
func beginsSegment(line []byte) bool {
	return bytes.HasPrefix(line, []byte("#EXT-X-PROGRAM-DATE-TIME:")) || bytes.HasPrefix(line, []byte(mapTag)) ||
		string(line) == "#EXT-X-DISCONTINUITY\n"
}

// number reads the digits that a value begins with.
func number(v []byte) (uint64, error) {
	n := 0
	for n < len(v) && v[n] >= '0' && v[n] <= '9' {
		n++
	}
	u, err := strconv.ParseUint(string(v[:n]), 10, 63)
	if err != nil {
		return 0, errCut
	}
	return u, nil
}

// segments copies the text of each finished segment, without its parts; rest follows the last one.
func segments(text []byte) (all [][]byte, rest []byte) {
	var one []byte
	at, end := 0, 0
	for line := range bytes.Lines(text) {
		at += len(line)
		if bytes.HasPrefix(line, []byte(partTag)) {
			continue
		}
		one = append(one, line...)
		if line[0] != '#' {
			all, one, end = append(all, one), nil, at
		}
	}
	return all, text[end:]
}

// mapLine finds the EXT-X-MAP of a segment; nil: it has none.
func mapLine(segment []byte) []byte {
	for line := range bytes.Lines(segment) {
		if bytes.HasPrefix(line, []byte(mapTag)) {
			return line
		}
	}
	return nil
}
