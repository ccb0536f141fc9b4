package validate

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Request is how a playlist was asked for.
type Request struct {
	Blocking bool
	MSN      uint64
	Part     int // -1: the whole segment
	Skip     bool
}

// track is what is known of one media playlist.
type track struct {
	name     string
	last     *Playlist
	changed  time.Time // when last brought something new
	objects  objects
	captions bool
}

func (c *Checker) track(name string) *track {
	t := c.tracks[name]
	if t == nil {
		t = &track{name: name, objects: newObjects()}
		c.tracks[name] = t
	}
	return t
}

// Media judges an answer to a request for the media playlist called name (its URI in the multivariant playlist) that came at a
// time, and returns the whole playlist: a delta update is joined with the one before. It returns nil when there is none.
func (c *Checker) Media(name string, at time.Time, q Request, body []byte) *Playlist {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.track(name)
	p, faults := Parse(name, body)
	c.report(faults...)
	c.stats.Playlists++
	j := judge{where: name}
	defer func() { c.report(j.faults...) }()
	if p.Target == 0 {
		j.fault(ruleTarget, "no EXT-X-TARGETDURATION")
		return nil
	}
	if p.Skip != nil {
		c.stats.Deltas++
		if p = j.join(t.last, p, q); p == nil {
			return nil
		}
	}
	j.head(p)
	j.segments(p, len(p.Segments) > 0 && isCaptions(p.Segments[0].URI))
	j.edge(p)
	if q.Blocking && !p.Ended && !p.has(q.MSN, q.Part) {
		j.fault(ruleBlocking, "asked for %d.%d, but it ends before", q.MSN, q.Part)
	}
	if t.last != nil {
		j.follows(t.last, p)
	}
	if fresh := t.last == nil || !p.sameEnd(t.last); fresh || p.Ended {
		t.changed = at
	} else if limit := time.Duration(p.Target) * 1500 * time.Millisecond; at.Sub(t.changed) > limit {
		j.fault(ruleTimely, "nothing new for %v", at.Sub(t.changed).Round(100*time.Millisecond))
	}
	t.last = p
	return p
}

// has says whether the playlist has a part, for part < 0 a segment, or a later one.
func (p *Playlist) has(msn uint64, part int) bool {
	if len(p.Segments) == 0 {
		return false
	}
	s := &p.Segments[len(p.Segments)-1]
	if s.MSN != msn || !s.Open() {
		return s.MSN >= msn
	}
	return part >= 0 && part < len(s.Parts)
}

func (p *Playlist) sameEnd(o *Playlist) bool {
	if len(p.Segments) == 0 || len(o.Segments) == 0 {
		return len(p.Segments) == len(o.Segments)
	}
	a, b := p.Segments[len(p.Segments)-1], o.Segments[len(o.Segments)-1]
	return a.MSN == b.MSN && a.URI == b.URI && len(a.Parts) == len(b.Parts)
}

// join makes a whole playlist of a delta update and the one before.
func (j *judge) join(last, delta *Playlist, q Request) *Playlist {
	switch {
	case !q.Skip:
		j.fault(ruleSkip, "EXT-X-SKIP that nobody asked for")
		return nil
	case last == nil:
		j.fault(ruleDelta, "a delta update to nothing")
		return nil
	case delta.Control.SkipUntil == 0:
		j.fault(ruleSkip, "EXT-X-SKIP without CAN-SKIP-UNTIL")
	}
	var after time.Duration
	for _, s := range delta.Segments {
		after += s.Duration
	}
	if delta.Skip.Segments > 0 && after < delta.Control.SkipUntil {
		j.fault(ruleSkip, "skips what is %v from the end, nearer than %v", after, delta.Control.SkipUntil)
	}
	whole := *delta
	first := delta.Sequence
	end := first + uint64(delta.Skip.Segments)
	whole.Segments = nil
	for _, s := range last.Segments {
		if s.MSN >= first && s.MSN < end {
			s.Parts = nil
			if s.Open() {
				j.fault(ruleDelta, "skips %d, which was open before", s.MSN)
				return nil
			}
			whole.Segments = append(whole.Segments, s)
		}
	}
	if len(whole.Segments) != delta.Skip.Segments {
		j.fault(ruleDelta, "skips %d segments from %d, of which the playlist before has %d", delta.Skip.Segments, first, len(whole.Segments))
		return nil
	}
	whole.Segments = append(whole.Segments, delta.Segments...)
	whole.Skip = nil
	whole.number()
	for _, r := range last.Ranges {
		here := func(o Range) bool { return o.ID == r.ID }
		if !slices.Contains(delta.Skip.Removed, r.ID) && !slices.ContainsFunc(whole.Ranges, here) && delta.Control.SkipRanges {
			whole.Ranges = append(whole.Ranges, r)
		}
	}
	return &whole
}

// head applies the rules about the playlist as a whole.
func (j *judge) head(p *Playlist) {
	target := time.Duration(p.Target) * time.Second
	c := p.Control
	parts := slices.ContainsFunc(p.Segments, func(s Segment) bool { return len(s.Parts) > 0 })
	if parts && p.PartTarget == 0 {
		j.fault(rulePartInfo, "parts without PART-TARGET")
	}
	if p.PartTarget > 0 {
		if c.PartHoldBack == 0 {
			j.fault(ruleControl, "parts, but no PART-HOLD-BACK")
		} else if c.PartHoldBack < 2*p.PartTarget {
			j.fault(ruleControl, "PART-HOLD-BACK %v below 2 × %v", c.PartHoldBack, p.PartTarget)
		}
	}
	if c.HoldBack != 0 && c.HoldBack < 3*target {
		j.fault(ruleControl, "HOLD-BACK %v below 3 × %v", c.HoldBack, target)
	}
	if c.SkipUntil != 0 && c.SkipUntil < 6*target {
		j.fault(ruleControl, "CAN-SKIP-UNTIL %v below 6 × %v", c.SkipUntil, target)
	}
	if c.SkipRanges && c.SkipUntil == 0 {
		j.fault(ruleControl, "CAN-SKIP-DATERANGES without CAN-SKIP-UNTIL")
	}
	seen := map[string]Range{}
	for _, r := range p.Ranges {
		if old, twice := seen[r.ID]; twice {
			j.sameRange(old, r)
		}
		seen[r.ID] = r
	}
	if len(p.Ranges) > 0 && !slices.ContainsFunc(p.Segments, func(s Segment) bool { return !s.Date.IsZero() }) {
		j.fault(ruleRange, "date ranges, but no EXT-X-PROGRAM-DATE-TIME")
	}
}

// sameRange: attributes of one ID never contradict each other.
func (j *judge) sameRange(a, b Range) {
	for k, v := range a.Attributes {
		if w, ok := b.Attributes[k]; ok && v != w {
			j.fault(ruleRange, "date range %q says %s=%q and %q", a.ID, k, v, w)
		}
	}
}

// tolerance is what rounding to five digits and milliseconds may give.
const tolerance = 2 * time.Millisecond

// segments applies the rules about each segment.
func (j *judge) segments(p *Playlist, captions bool) {
	for i := range p.Segments {
		s := &p.Segments[i]
		if !s.Open() && int(math.Round(s.Duration.Seconds())) > p.Target {
			j.fault(ruleTarget, "segment %d of %v is longer than %d s", s.MSN, s.Duration, p.Target)
		}
		if s.Map == "" && !captions {
			j.fault(ruleMap, "segment %d has no map", s.MSN)
		}
		if i > 0 {
			if before := &p.Segments[i-1]; !s.Discontinuity && !s.Date.IsZero() && !before.Date.IsZero() {
				if want := before.Date.Add(before.Duration); s.Date.Sub(want).Abs() > tolerance {
					j.fault(ruleDate, "segment %d is dated %v after %v of %v", s.MSN, s.Date.Sub(before.Date), before.Duration, before.MSN)
				}
			}
		}
		j.parts(p, s)
	}
}

func (j *judge) parts(p *Playlist, s *Segment) {
	var sum time.Duration
	for i, part := range s.Parts {
		sum += part.Duration
		last := !s.Open() && i == len(s.Parts)-1
		beforeGap := i+1 < len(s.Parts) && s.Parts[i+1].Gap
		// Whether the newest part of an open segment is the last is not known yet.
		newest := s.Open() && i == len(s.Parts)-1
		switch {
		case part.Duration > p.PartTarget+time.Microsecond:
			j.fault(rulePartTarget, "part %d.%d of %v is longer than %v", s.MSN, i, part.Duration, p.PartTarget)
		case part.Duration*100 < p.PartTarget*85 && !part.Independent && !part.Gap && !beforeGap && !last && !newest:
			j.fault(rulePartTarget, "part %d.%d of %v is shorter than 85 %% of %v", s.MSN, i, part.Duration, p.PartTarget)
		}
	}
	if len(s.Parts) > 0 && !s.Open() && (sum-s.Duration).Abs() > tolerance {
		j.fault(rulePartParent, "the parts of segment %d are %v, its EXTINF %v", s.MSN, sum, s.Duration)
	}
}

// edge applies the rules about the end of a live playlist.
func (j *judge) edge(p *Playlist) {
	if p.Ended {
		if len(p.Hints) > 0 {
			j.fault(ruleEnd, "preload hint in a playlist that has ended")
		}
		return
	}
	listed := map[string]bool{}
	until := 3 * time.Duration(p.Target) * time.Second
	var fromEnd time.Duration
	for i := len(p.Segments) - 1; i >= 0; i-- {
		s := &p.Segments[i]
		for _, part := range s.Parts {
			listed[part.URI] = true
		}
		if p.PartTarget > 0 && !s.Gap && !s.Open() && fromEnd+s.Duration < until && len(s.Parts) == 0 {
			j.fault(rulePartsKept, "segment %d, %v from the end, has no parts", s.MSN, fromEnd)
		}
		fromEnd += s.Duration
	}
	seen := map[string]bool{}
	for _, h := range p.Hints {
		if seen[h.Type] {
			j.fault(ruleHint, "two hints of type %s", h.Type)
		}
		if listed[h.URI] {
			j.fault(ruleHint, "hints at %s, which is listed", h.URI)
		}
		seen[h.Type] = true
	}
}

// follows applies the rules about two versions of one playlist.
func (j *judge) follows(old, p *Playlist) {
	if old.Target != p.Target {
		j.fault(ruleTarget, "target duration went from %d to %d", old.Target, p.Target)
	}
	if old.PartTarget != p.PartTarget {
		j.fault(rulePartInfo, "PART-TARGET went from %v to %v", old.PartTarget, p.PartTarget)
	}
	if old.Type != p.Type {
		j.fault(ruleType, "type went from %q to %q", old.Type, p.Type)
	}
	if p.Sequence < old.Sequence {
		j.fault(ruleSequence, "went from %d back to %d", old.Sequence, p.Sequence)
		return
	}
	if p.DiscSequence < old.DiscSequence {
		j.fault(ruleDiscontinue, "went from %d back to %d", old.DiscSequence, p.DiscSequence)
	}
	if p.Type == "EVENT" && p.Sequence != old.Sequence {
		j.fault(ruleType, "an EVENT playlist lost segments")
	}
	if old.Ended && !(p.Ended && p.sameEnd(old)) {
		j.fault(ruleEnd, "went on after EXT-X-ENDLIST")
	}
	j.kept(old, p)
	j.window(old, p)
	j.hinted(old, p)
	ranges := map[string]Range{}
	for _, r := range old.Ranges {
		ranges[r.ID] = r
	}
	for _, r := range p.Ranges {
		if before, ok := ranges[r.ID]; ok && !maps.Equal(before.Attributes, r.Attributes) {
			j.sameRange(before, r)
		}
	}
}

// kept compares what is listed in both.
func (j *judge) kept(old, p *Playlist) {
	for _, was := range old.Segments {
		if was.MSN < p.Sequence {
			continue
		}
		i := was.MSN - p.Sequence
		if i >= uint64(len(p.Segments)) {
			j.fault(ruleChange, "segment %d is gone from the end", was.MSN)
			return
		}
		is := &p.Segments[i]
		switch {
		case was.Sequence != is.Sequence:
			j.fault(ruleDiscontinue, "segment %d has discontinuity sequence %d, had %d", is.MSN, is.Sequence, was.Sequence)
		case !was.Open() && (was.URI != is.URI || was.Duration != is.Duration || was.Gap != is.Gap):
			j.fault(ruleChange, "segment %d was %s of %v, is %s of %v", is.MSN, was.URI, was.Duration, is.URI, is.Duration)
		case was.Map != is.Map || !was.Date.Equal(is.Date) && !was.Date.IsZero():
			j.fault(ruleChange, "segment %d has another map or date", is.MSN)
		}
		for k, part := range was.Parts {
			if len(is.Parts) > 0 && (k >= len(is.Parts) || is.Parts[k] != part) {
				j.fault(ruleChange, "part %d.%d is not what it was", is.MSN, k)
			}
		}
	}
}

// window: what is left after a removal is three target durations at least.
func (j *judge) window(old, p *Playlist) {
	if p.Sequence == old.Sequence || p.Ended {
		return
	}
	var d time.Duration
	for _, s := range p.Segments {
		d += s.Duration
	}
	if least := 3 * time.Duration(p.Target) * time.Second; d < least {
		j.fault(ruleWindow, "%v are left", d)
	}
}

// hinted: the part that was hinted at is the one that came, unless a discontinuity or the end did.
func (j *judge) hinted(old, p *Playlist) {
	i := slices.IndexFunc(old.Hints, func(h Hint) bool { return h.Type == "PART" })
	if i < 0 || len(old.Segments) == 0 || p.sameEnd(old) {
		return
	}
	at := old.Segments[len(old.Segments)-1]
	msn, part := at.MSN, len(at.Parts)
	if !at.Open() {
		msn, part = msn+1, 0
	}
	if msn < p.Sequence || msn-p.Sequence >= uint64(len(p.Segments)) {
		return
	}
	s := &p.Segments[msn-p.Sequence]
	switch {
	case part < len(s.Parts):
		if s.Parts[part].URI != old.Hints[i].URI {
			j.fault(ruleHint, "hinted at %s, but %s came", old.Hints[i].URI, s.Parts[part].URI)
		}
	case len(s.Parts) > 0 && !s.Open():
		// The segment ended early: only a discontinuity may.
		if next := msn - p.Sequence + 1; next < uint64(len(p.Segments)) && !p.Segments[next].Discontinuity {
			j.fault(ruleHint, "hinted at %s, which never came", old.Hints[i].URI)
		}
	}
}
