package playlist

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of a date range, so that timed metadata cannot blow up every playlist.
const (
	maxRangeBytes = 2048
	maxRanges     = 1024
	maxAllRanges  = 128 << 10 // bytes
)

// DateRange is timed metadata (EXT-X-DATERANGE, section 4.4.5.1).
type DateRange struct {
	ID       string // required, unique in the program; no quote, line break or control character
	Class    string
	Start    time.Time
	Duration time.Duration     // 0: a moment
	Attrs    map[string]string // client attributes; names without the X- prefix: upper case, digits, -
}

type dateRange struct {
	id       string
	line     []byte
	end      time.Time
	addedMSN uint64
}

// removedRange remembers a removed range for RECENTLY-REMOVED-DATERANGES.
type removedRange struct {
	id  string
	msn uint64 // open segment when it was removed
}

// AddDateRange lists r until it has left the window. It is refused when malformed, too long, or a duplicate. When there
// are too many, the oldest ones make room.
func (m *Media) AddDateRange(r DateRange) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(m.ranges, func(o dateRange) bool { return o.id == r.ID }) {
		return fmt.Errorf("date range %q is there already", r.ID)
	}
	m.ranges = append(m.ranges, dateRange{id: r.ID, line: line, end: r.Start.Add(r.Duration), addedMSN: m.OpenMSN()})
	m.rangeBytes += len(line)
	for len(m.ranges) > maxRanges || m.rangeBytes > maxAllRanges {
		m.removed = append(m.removed, removedRange{m.ranges[0].id, m.OpenMSN()})
		m.rangeBytes -= len(m.ranges[0].line)
		m.ranges = m.ranges[1:]
	}
	m.forgetRemoved()
	return nil
}

func (r DateRange) line() ([]byte, error) {
	if r.ID == "" || r.Start.IsZero() || r.Duration < 0 {
		return nil, fmt.Errorf("date range needs an id, a start and no negative duration")
	}
	if !quotable(r.ID) || !quotable(r.Class) {
		return nil, fmt.Errorf("date range id or class has a character that a quoted string cannot carry")
	}
	b := append([]byte(nil), `#EXT-X-DATERANGE:ID="`...)
	b = append(b, r.ID...)
	b = append(b, '"')
	if r.Class != "" {
		b = append(b, `,CLASS="`...)
		b = append(b, r.Class...)
		b = append(b, '"')
	}
	b = append(b, `,START-DATE="`...)
	b = appendDate(b, r.Start)
	b = append(b, '"')
	if r.Duration > 0 {
		b = append(b, ",DURATION="...)
		b = appendSeconds(b, r.Duration)
	}
	names := make([]string, 0, len(r.Attrs))
	for k := range r.Attrs {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		if !attrName(k) || !quotable(r.Attrs[k]) {
			return nil, fmt.Errorf("date range attribute %q cannot be written", k)
		}
		b = append(b, ",X-"...)
		b = append(b, k...)
		b = append(b, `="`...)
		b = append(b, r.Attrs[k]...)
		b = append(b, '"')
	}
	if len(b) > maxRangeBytes {
		return nil, fmt.Errorf("date range of %d bytes exceeds %d", len(b), maxRangeBytes)
	}
	return append(b, '\n'), nil
}

// quotable says whether s can stand in a quoted string (section 4.2).
func quotable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c == '"' || c < ' ' || c == 0x7f })
}

func attrName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
	})
}

func (m *Media) dropOldRanges() {
	first := m.segs[0].start
	open := m.OpenMSN()
	m.ranges = slices.DeleteFunc(m.ranges, func(r dateRange) bool {
		if !r.end.Before(first) {
			return false
		}
		m.removed = append(m.removed, removedRange{r.id, open})
		m.rangeBytes -= len(r.line)
		return true
	})
	m.forgetRemoved()
}

// forgetRemoved drops what every client that may take a delta knows to be removed.
func (m *Media) forgetRemoved() {
	recent := m.recentMSN()
	m.removed = slices.DeleteFunc(m.removed, func(r removedRange) bool { return r.msn < recent })
}

// recentMSN is the oldest segment that is not beyond the skip boundary.
func (m *Media) recentMSN() uint64 { return m.firstMSN + uint64(m.skippable()) }

func (m *Media) appendRanges(b []byte) []byte {
	for _, r := range m.ranges {
		b = append(b, r.line...)
	}
	return b
}

// appendRecentRanges leaves out those that a client with a fresh enough playlist has.
func (m *Media) appendRecentRanges(b []byte) []byte {
	recent := m.recentMSN()
	for _, r := range m.ranges {
		if r.addedMSN >= recent {
			b = append(b, r.line...)
		}
	}
	return b
}

func (m *Media) appendRemoved(b []byte) []byte {
	if len(m.removed) == 0 {
		return b
	}
	ids := make([]string, len(m.removed))
	for i, r := range m.removed {
		ids[i] = r.id
	}
	b = append(b, `,RECENTLY-REMOVED-DATERANGES="`...)
	b = append(b, strings.Join(ids, "\t")...)
	return append(b, '"')
}
