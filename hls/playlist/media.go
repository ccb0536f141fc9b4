// Package playlist writes the playlists of Low-Latency HLS (RFC 8216bis) and
// decides when a blocking reload can be answered. It is pure: what happened goes
// in, bytes come out; there is no clock, no I/O and no goroutine here; locks are only what a Form is made once by.
package playlist

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Config describes one media playlist. It does not change during its life.
type Config struct {
	// SegmentTarget is the length of a full segment on the grid. EXT-X-TARGETDURATION
	// is it rounded to the nearest second. Required.
	SegmentTarget time.Duration
	// PartTarget is the longest part that will ever be added; 0: there are no parts.
	PartTarget time.Duration
	// PartHoldBack is how far from the end players of parts stay. At least 2 ×
	// PartTarget is enforced (section 4.4.3.8); default 3 × PartTarget.
	PartHoldBack time.Duration
	// Window is how many finished segments are listed. Default 15, at least 6.
	Window int
	// Event says that nothing leaves (EXT-X-PLAYLIST-TYPE:EVENT), until SetWindow says otherwise.
	Event bool
	// FirstMSN is the media sequence number of the first segment.
	FirstMSN uint64
	// FirstDiscontinuity is EXT-X-DISCONTINUITY-SEQUENCE at the start.
	FirstDiscontinuity uint64
}

// Part is one partial segment (section 4.4.4.9).
type Part struct {
	URI         string
	Duration    time.Duration
	Independent bool // starts with a frame that decodes by itself
	Gap         bool // does not exist: its URI must not be asked for
}

// Report is the position of a sister playlist (EXT-X-RENDITION-REPORT, section 4.4.5.4).
type Report struct {
	URI  string
	MSN  uint64
	Part int
}

// segment holds its own lines, each formatted once when it became known.
type segment struct {
	duration      time.Duration
	start         time.Time
	discontinuity bool
	parts         int
	mapURI        string // in force
	showsMap      bool   // head has it
	// Until the segment is beyond the skip boundary:
	head      []byte // discontinuity, map, date
	partLines []byte
	tail      []byte // EXTINF, URI; empty while open
}

// Media is one media playlist. Not safe for concurrent use; the snapshots that it
// renders are immutable.
type Media struct {
	cfg        Config
	target     int // EXT-X-TARGETDURATION, seconds
	segs       []segment
	firstMSN   uint64 // of segs[0], or of the segment to come when there is none
	old        past   // text of the first of segs, beyond the skip boundary
	packs      *packers
	discSeq    uint64
	mapURI     string
	mapShown   string
	breakNext  bool
	prevParts  int // parts of the last finished segment
	hint       string
	ended      bool
	ranges     []dateRange
	rangeBytes int // of their lines
	removed    []removedRange
}

var (
	errNoTarget = errors.New("playlist needs a segment target")
	// ErrNotOpen says that a part or an end arrived with no segment open.
	ErrNotOpen = errors.New("no segment is open")
	// ErrOpen says that a segment was begun inside another.
	ErrOpen = errors.New("a segment is open already")
)

// New makes an empty playlist.
func New(cfg Config) (*Media, error) {
	if cfg.SegmentTarget <= 0 || cfg.PartTarget < 0 {
		return nil, errNoTarget
	}
	if cfg.PartTarget > cfg.SegmentTarget {
		return nil, fmt.Errorf("part target %v is longer than a segment of %v", cfg.PartTarget, cfg.SegmentTarget)
	}
	if cfg.PartHoldBack == 0 {
		cfg.PartHoldBack = 3 * cfg.PartTarget
	}
	cfg.PartHoldBack = max(cfg.PartHoldBack, 2*cfg.PartTarget)
	if cfg.Window == 0 {
		cfg.Window = 15
	}
	cfg.Window = max(cfg.Window, 6)
	return &Media{
		cfg:      cfg,
		target:   max(1, int(math.Round(cfg.SegmentTarget.Seconds()))),
		firstMSN: cfg.FirstMSN,
		packs:    newPackers(),
		old:      past{first: cfg.FirstMSN, next: cfg.FirstMSN},
		discSeq:  cfg.FirstDiscontinuity,
	}, nil
}

// SetMap says which init section (EXT-X-MAP) the segments from the next one on need.
func (m *Media) SetMap(uri string) { m.mapURI = uri }

// Break puts EXT-X-DISCONTINUITY before the next segment.
func (m *Media) Break() { m.breakNext = true }

// OpenMSN is the media sequence number of the open segment, or of the next one when
// none is open.
func (m *Media) OpenMSN() uint64 {
	n := m.firstMSN + uint64(len(m.segs))
	if m.isOpen() {
		n--
	}
	return n
}

// OpenParts is the number of parts of the open segment; 0 when none is open.
func (m *Media) OpenParts() int {
	if !m.isOpen() {
		return 0
	}
	return m.segs[len(m.segs)-1].parts
}

func (m *Media) isOpen() bool {
	return len(m.segs) > 0 && len(m.segs[len(m.segs)-1].tail) == 0
}

// Segment tells when a listed segment begins and how long it is (so far).
func (m *Media) Segment(msn uint64) (start time.Time, d time.Duration, ok bool) {
	if msn < m.firstMSN || msn >= m.firstMSN+uint64(len(m.segs)) {
		return time.Time{}, 0, false
	}
	s := &m.segs[msn-m.firstMSN]
	return s.start, s.duration, true
}

// Begin opens the next segment; start is the date of its first frame.
func (m *Media) Begin(start time.Time) error {
	if m.isOpen() {
		return ErrOpen
	}
	s := segment{start: start, discontinuity: m.breakNext}
	if m.breakNext {
		s.head = append(s.head, "#EXT-X-DISCONTINUITY\n"...)
		m.breakNext = false
	}
	// A map holds until the next one, but not every player carries it across a
	// discontinuity: repeat it there.
	if m.mapURI != "" && (m.mapURI != m.mapShown || s.discontinuity) {
		s.head = appendMap(s.head, m.mapURI)
		m.mapShown, s.showsMap = m.mapURI, true
	}
	s.mapURI = m.mapShown
	s.head = append(s.head, "#EXT-X-PROGRAM-DATE-TIME:"...)
	s.head = appendDate(s.head, start)
	s.head = append(s.head, '\n')
	m.segs = append(m.segs, s)
	return nil
}

// AddPart adds a part to the open segment.
func (m *Media) AddPart(p Part) error {
	if !m.isOpen() {
		return ErrNotOpen
	}
	if p.Duration > m.cfg.PartTarget {
		return fmt.Errorf("part of %v is longer than the part target %v", p.Duration, m.cfg.PartTarget)
	}
	s := &m.segs[len(m.segs)-1]
	b := append(s.partLines, "#EXT-X-PART:DURATION="...)
	b = appendSeconds(b, p.Duration)
	b = append(b, `,URI="`...)
	b = append(b, p.URI...)
	b = append(b, '"')
	if p.Independent {
		b = append(b, ",INDEPENDENT=YES"...)
	}
	if p.Gap {
		b = append(b, ",GAP=YES"...)
	}
	s.partLines = append(b, '\n')
	s.parts++
	s.duration += p.Duration
	return nil
}

// Finish closes the open segment. A gap segment (EXT-X-GAP) exists in name only.
func (m *Media) Finish(uri string, gap bool) error {
	if !m.isOpen() {
		return ErrNotOpen
	}
	s := &m.segs[len(m.segs)-1]
	if gap {
		s.tail = append(s.tail, "#EXT-X-GAP\n"...)
	}
	s.tail = append(s.tail, "#EXTINF:"...)
	s.tail = appendSeconds(s.tail, s.duration)
	s.tail = append(s.tail, ",\n"...)
	s.tail = append(s.tail, uri...)
	s.tail = append(s.tail, '\n')
	m.prevParts = s.parts
	m.age()
	m.slide()
	return nil
}

// age brings the text of segments to the past that are beyond the skip boundary by now.
func (m *Media) age() {
	for n := m.skippable(); m.old.len() < n; {
		s := &m.segs[m.old.len()]
		m.old.add(slices.Concat(s.head, s.tail))
		s.head, s.partLines, s.tail = nil, nil, nil
	}
}

// FinishGap adds a whole segment that does not exist, so that its number is taken in
// this playlist as it is in its sisters.
func (m *Media) FinishGap(uri string, start time.Time, d time.Duration) error {
	if err := m.Begin(start); err != nil {
		return err
	}
	m.segs[len(m.segs)-1].duration = d
	return m.Finish(uri, true)
}

// SetWindow changes how many finished segments are listed from the next one on; event as in Config.
func (m *Media) SetWindow(n int, event bool) { m.cfg.Window, m.cfg.Event = max(n, 6), event }

// Len is how many segments are listed.
func (m *Media) Len() int { return len(m.segs) }

// Length is how long they are together.
func (m *Media) Length() time.Duration {
	if len(m.segs) == 0 {
		return 0
	}
	last := &m.segs[len(m.segs)-1]
	return last.start.Add(last.duration).Sub(m.segs[0].start)
}

// FinishWhole adds a segment that never had parts.
func (m *Media) FinishWhole(uri string, start time.Time, d time.Duration) error {
	if err := m.Begin(start); err != nil {
		return err
	}
	m.segs[len(m.segs)-1].duration = d
	return m.Finish(uri, false)
}

// slide drops what has left the window.
func (m *Media) slide() {
	n := len(m.segs) - m.cfg.Window
	if n <= 0 {
		return
	}
	m.cfg.Event = false
	for _, s := range m.segs[:n] {
		if s.discontinuity {
			m.discSeq++
		}
	}
	clear(m.segs[:n])
	m.segs = m.segs[n:]
	m.firstMSN += uint64(n)
	for m.old.first < m.firstMSN {
		if m.old.len() == 0 { // all that is left is recent
			m.old.first, m.old.next = m.firstMSN, m.firstMSN
			break
		}
		m.old.shift()
	}
	m.dropOldRanges()
}

// Hint says which part comes next (EXT-X-PRELOAD-HINT); empty for none.
func (m *Media) Hint(uri string) { m.hint = uri }

// End ends the playlist for good (EXT-X-ENDLIST).
func (m *Media) End() { m.ended = true }

// DiscontinuitySequence is the number that a next segment behind a discontinuity would have.
func (m *Media) DiscontinuitySequence() uint64 {
	n := m.discSeq
	for _, s := range m.segs {
		if s.discontinuity {
			n++
		}
	}
	return n
}

func appendMap(b []byte, uri string) []byte {
	b = append(b, `#EXT-X-MAP:URI="`...)
	b = append(b, uri...)
	return append(b, "\"\n"...)
}

func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, d.Seconds(), 'f', 5, 64)
}

func appendDate(b []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}
