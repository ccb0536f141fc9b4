package playlist

import (
	"bytes"
	"slices"
	"strconv"
	"time"
)

// skipFactor × the target duration is CAN-SKIP-UNTIL; 6 is the least that section 4.4.3.8 allows.
const skipFactor = 6

// partsFor is for how many target durations from the end parts are listed (section 6.2.2 asks for 3).
const partsFor = 3

// Snapshot is a rendered playlist. It is immutable and safe to share.
type Snapshot struct {
	// FirstMSN is the oldest listed segment.
	FirstMSN uint64
	// OpenMSN is the segment that is being made and OpenParts how many parts it has.
	OpenMSN   uint64
	OpenParts int
	// Ended says that nothing will be added.
	Ended bool

	forms        [3]*Form // by Skip; the same where nothing is old enough
	prevParts    int
	empty        bool
	advanceParts int // how many parts ahead may be asked for
}

// LastPart is the newest part's position; ok is false when there has been none yet.
func (s *Snapshot) LastPart() (msn uint64, part int, ok bool) {
	switch {
	case s.OpenParts > 0:
		return s.OpenMSN, s.OpenParts - 1, true
	case s.empty || s.prevParts == 0:
		return 0, 0, false
	default:
		return s.OpenMSN - 1, s.prevParts - 1, true
	}
}

// Render writes the playlist as it is now. reports are the sister playlists' positions.
func (m *Media) Render(reports []Report) *Snapshot {
	m.age()
	skipped := m.old.len()
	head := m.appendHead(nil)
	tail := m.appendTail(nil, skipped, reports)
	ranges := m.appendRanges(nil)
	whole := &Form{front: slices.Concat(head, ranges), past: m.old, tail: tail, packs: m.packs}
	if len(m.segs) > 0 && !m.segs[0].showsMap && m.segs[0].mapURI != "" {
		whole.lead = appendMap(nil, m.segs[0].mapURI)
	}
	out := &Snapshot{
		FirstMSN: m.firstMSN, OpenMSN: m.OpenMSN(), OpenParts: m.OpenParts(), Ended: m.ended,
		prevParts: m.prevParts, empty: len(m.segs) == 0,
		advanceParts: advanceLimit(m.cfg.PartTarget),
	}
	if skipped == 0 || m.ended {
		whole = m.form(whole.Bytes())
		out.forms = [3]*Form{whole, whole, whole}
		return out
	}
	delta := m.delta(head, ranges, tail, false)
	out.forms = [3]*Form{whole, m.form(delta), nil}
	if v2 := m.delta(head, m.appendRecentRanges(nil), tail, true); bytes.Equal(v2, delta) {
		out.forms[SkipRanges] = out.forms[SkipSegments]
	} else {
		out.forms[SkipRanges] = m.form(v2)
	}
	return out
}

// form is a text that is no more than written down.
func (m *Media) form(text []byte) *Form { return &Form{front: text, packs: m.packs} }

func (m *Media) delta(head, ranges, tail []byte, v2 bool) []byte {
	b := make([]byte, 0, len(head)+len(ranges)+len(tail)+64)
	b = append(b, head...)
	b = append(b, skipTag...)
	b = strconv.AppendInt(b, int64(m.old.len()), 10)
	if v2 {
		b = m.appendRemoved(b)
	}
	b = append(b, '\n')
	b = append(b, ranges...)
	return append(b, tail...)
}

// advanceLimit is the Advance Part Limit of section 6.2.5.2.
func advanceLimit(part time.Duration) int {
	if part >= time.Second || part == 0 {
		return 3
	}
	return int((3*time.Second + part - 1) / part)
}

// skippable counts the segments beyond the skip boundary, oldest first.
func (m *Media) skippable() int {
	until := time.Duration(skipFactor*m.target) * time.Second
	var sum time.Duration
	for i := len(m.segs) - 1; i >= 0; i-- {
		if sum >= until {
			return i + 1
		}
		sum += m.segs[i].duration
	}
	return 0
}

func (m *Media) appendHead(b []byte) []byte {
	b = append(b, "#EXTM3U\n#EXT-X-VERSION:10\n#EXT-X-TARGETDURATION:"...)
	b = strconv.AppendInt(b, int64(m.target), 10)
	b = append(b, "\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES"...)
	if m.cfg.PartTarget > 0 {
		b = append(b, ",PART-HOLD-BACK="...)
		b = appendSeconds(b, m.cfg.PartHoldBack)
	}
	b = append(b, ",HOLD-BACK="...)
	b = strconv.AppendInt(b, int64(3*m.target), 10)
	b = append(b, ",CAN-SKIP-UNTIL="...)
	b = strconv.AppendInt(b, int64(skipFactor*m.target), 10)
	b = append(b, ",CAN-SKIP-DATERANGES=YES"...)
	if m.cfg.PartTarget > 0 {
		b = append(b, "\n#EXT-X-PART-INF:PART-TARGET="...)
		b = appendSeconds(b, m.cfg.PartTarget)
	}
	b = append(b, "\n#EXT-X-MEDIA-SEQUENCE:"...)
	b = strconv.AppendUint(b, m.firstMSN, 10)
	b = append(b, "\n#EXT-X-DISCONTINUITY-SEQUENCE:"...)
	b = strconv.AppendUint(b, m.discSeq, 10)
	if m.cfg.Event {
		b = append(b, "\n#EXT-X-PLAYLIST-TYPE:EVENT"...)
	}
	return append(b, '\n')
}

// appendTail writes the segments from index from on, and what follows the last one.
func (m *Media) appendTail(b []byte, from int, reports []Report) []byte {
	withParts := m.firstWithParts()
	for i := from; i < len(m.segs); i++ {
		s := &m.segs[i]
		b = append(b, s.head...)
		if i >= withParts {
			b = append(b, s.partLines...)
		}
		b = append(b, s.tail...)
	}
	if m.ended {
		return append(b, "#EXT-X-ENDLIST\n"...)
	}
	if m.hint != "" {
		b = append(b, `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="`...)
		b = append(b, m.hint...)
		b = append(b, "\"\n"...)
	}
	for _, r := range reports {
		b = append(b, `#EXT-X-RENDITION-REPORT:URI="`...)
		b = append(b, r.URI...)
		b = append(b, `",LAST-MSN=`...)
		b = strconv.AppendUint(b, r.MSN, 10)
		b = append(b, ",LAST-PART="...)
		b = strconv.AppendInt(b, int64(r.Part), 10)
		b = append(b, '\n')
	}
	return b
}

// firstWithParts is the index of the oldest segment whose parts are still listed.
func (m *Media) firstWithParts() int {
	if m.ended {
		return len(m.segs)
	}
	until := time.Duration(partsFor*m.target) * time.Second
	var sum time.Duration
	for i := len(m.segs) - 1; i >= 0; i-- {
		if sum >= until {
			return i + 1
		}
		sum += m.segs[i].duration
	}
	return 0
}
