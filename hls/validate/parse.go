package validate

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of a playlist.
const (
	maxPlaylist = 8 << 20
	maxLines    = 200_000
)

// Playlist is what a playlist says.
type Playlist struct {
	Version     int
	Independent bool

	Target       int // seconds
	PartTarget   time.Duration
	Sequence     uint64
	DiscSequence uint64
	Type         string // EVENT, VOD, or empty
	Ended        bool
	Control      Control
	Segments     []Segment // the last may be open
	Skip         *Skip
	Hints        []Hint
	Reports      []Report
	Ranges       []Range

	Renditions []Rendition
	Variants   []Variant
}

// Control is EXT-X-SERVER-CONTROL.
type Control struct {
	Block, SkipRanges                 bool
	HoldBack, PartHoldBack, SkipUntil time.Duration
}

// Segment is a media segment. What stands before it applies to it.
type Segment struct {
	URI           string // empty: open
	Duration      time.Duration
	Discontinuity bool
	Gap           bool
	Map           string // in force
	Date          time.Time
	Parts         []Part
	// MSN and Sequence, the discontinuity sequence number, are counted.
	MSN, Sequence uint64
}

// Part is a partial segment.
type Part struct {
	URI              string
	Duration         time.Duration
	Independent, Gap bool
}

// Skip is EXT-X-SKIP.
type Skip struct {
	Segments int
	Removed  []string
}

// Hint is EXT-X-PRELOAD-HINT.
type Hint struct{ Type, URI string }

// Report is EXT-X-RENDITION-REPORT.
type Report struct {
	URI     string
	MSN     uint64
	Part    int // -1: not said
	Missing bool
}

// Range is EXT-X-DATERANGE.
type Range struct {
	ID         string
	Start      time.Time
	Attributes map[string]string
}

// Rendition is EXT-X-MEDIA.
type Rendition struct {
	Type, Group, Name, URI             string
	Default, Autoselect, HasAutoselect bool
}

// Variant is EXT-X-STREAM-INF.
type Variant struct {
	URI                string
	Bandwidth, Average int
	Codecs             string
	Width, Height      int
	FrameRate          float64
	Groups             map[string]string // by EXT-X-MEDIA's TYPE
}

// Open says that the segment is not finished.
func (s *Segment) Open() bool { return s.URI == "" }

// parser reads a playlist line by line.
type parser struct {
	judge
	out     *Playlist
	seen    map[string]int
	seg     Segment
	tags    bool // some belong to seg
	inf     bool
	variant *Variant
	media   bool
	multi   bool
	float   bool // an EXTINF with a fraction
	mapTag  bool
}

// Parse reads a playlist; where names it in faults. What is malformed is reported and left out.
func Parse(where string, b []byte) (*Playlist, []Fault) {
	p := &parser{judge: judge{where: where}, out: &Playlist{}, seen: map[string]int{}}
	switch {
	case len(b) > maxPlaylist || bytes.Count(b, []byte("\n")) > maxLines:
		p.fault(ruleText, "playlist of %d bytes", len(b))
		return p.out, p.faults
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		p.fault(ruleText, "byte order mark")
	case !utf8.Valid(b):
		p.fault(ruleText, "not UTF-8")
	}
	first := true
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f && r <= 0x9f }) {
			p.fault(ruleText, "control character in %q", line)
		}
		if first && line != "#EXTM3U" {
			p.fault(ruleStart, "begins with %q", shortened(line))
		}
		first = false
		p.line(line)
	}
	if first {
		p.fault(ruleStart, "empty")
	}
	p.finish()
	return p.out, p.faults
}

func shortened(s string) string { return s[:min(len(s), 80)] }

func (p *parser) line(line string) {
	switch {
	case line == "":
	case strings.HasPrefix(line, "#EXT"):
		if p.out.Ended && line != "#EXTM3U" && strings.HasPrefix(line, "#EXT-X-P") {
			p.fault(ruleEnd, "%s after EXT-X-ENDLIST", shortened(line))
		}
		name, value, _ := strings.Cut(line, ":")
		p.seen[name]++
		p.tag(name, value)
	case strings.HasPrefix(line, "#"):
	default:
		p.uri(line)
	}
}

func (p *parser) uri(line string) {
	if p.variant != nil {
		p.variant.URI = line
		p.out.Variants = append(p.out.Variants, *p.variant)
		p.variant = nil
		return
	}
	p.media = true
	if !p.inf {
		p.fault(ruleInf, "%s has no EXTINF", line)
	}
	p.seg.URI = line
	p.out.Segments = append(p.out.Segments, p.seg)
	p.seg, p.tags, p.inf = Segment{}, false, false
}

func (p *parser) tag(name, value string) {
	switch name {
	case "#EXTM3U":
	case "#EXT-X-VERSION":
		p.out.Version = int(p.number(name, value))
	case "#EXT-X-INDEPENDENT-SEGMENTS":
		p.out.Independent = true
	case "#EXT-X-MEDIA", "#EXT-X-STREAM-INF":
		p.multi = true
		p.multivariantTag(name, value)
	case "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE", "#EXT-X-DISCONTINUITY-SEQUENCE", "#EXT-X-ENDLIST",
		"#EXT-X-PLAYLIST-TYPE", "#EXT-X-PART-INF", "#EXT-X-SERVER-CONTROL":
		p.media = true
		p.headTag(name, value)
	case "#EXTINF", "#EXT-X-DISCONTINUITY", "#EXT-X-MAP", "#EXT-X-PROGRAM-DATE-TIME", "#EXT-X-GAP", "#EXT-X-PART":
		p.media, p.tags = true, true
		p.segmentTag(name, value)
	case "#EXT-X-DATERANGE", "#EXT-X-SKIP", "#EXT-X-PRELOAD-HINT", "#EXT-X-RENDITION-REPORT":
		p.media = true
		p.metadataTag(name, value)
	}
}

func (p *parser) headTag(name, value string) {
	if p.seen[name] > 1 {
		p.fault(ruleOnce, "%s stands %d times", name[1:], p.seen[name])
	}
	switch name {
	case "#EXT-X-TARGETDURATION":
		p.out.Target = int(p.number(name, value))
	case "#EXT-X-MEDIA-SEQUENCE":
		p.out.Sequence = p.number(name, value)
		if len(p.out.Segments) > 0 {
			p.fault(ruleSequence, "EXT-X-MEDIA-SEQUENCE behind a segment")
		}
	case "#EXT-X-DISCONTINUITY-SEQUENCE":
		p.out.DiscSequence = p.number(name, value)
		if len(p.out.Segments) > 0 {
			p.fault(ruleDiscontinue, "EXT-X-DISCONTINUITY-SEQUENCE behind a segment")
		}
	case "#EXT-X-ENDLIST":
		p.out.Ended = true
	case "#EXT-X-PLAYLIST-TYPE":
		if value != "EVENT" && value != "VOD" {
			p.fault(ruleType, "type %q", value)
		}
		p.out.Type = value
	case "#EXT-X-PART-INF":
		p.out.PartTarget = p.seconds(rulePartInfo, p.attributes(name, value), "PART-TARGET", true)
	case "#EXT-X-SERVER-CONTROL":
		a := p.attributes(name, value)
		p.out.Control = Control{
			Block: a["CAN-BLOCK-RELOAD"] == "YES", SkipRanges: a["CAN-SKIP-DATERANGES"] == "YES",
			HoldBack: p.seconds(ruleControl, a, "HOLD-BACK", false), PartHoldBack: p.seconds(ruleControl, a, "PART-HOLD-BACK", false),
			SkipUntil: p.seconds(ruleControl, a, "CAN-SKIP-UNTIL", false),
		}
	}
}

func (p *parser) segmentTag(name, value string) {
	s := &p.seg
	if len(s.Parts) > 0 && name != "#EXTINF" && name != "#EXT-X-PART" && name != "#EXT-X-GAP" {
		p.fault(rulePart, "%s behind the first part of its segment", name[1:])
	}
	switch name {
	case "#EXTINF":
		text, _, _ := strings.Cut(value, ",")
		d, ok := duration(text)
		if !ok {
			p.fault(ruleInf, "EXTINF %q", shortened(value))
		}
		p.float = p.float || strings.Contains(text, ".")
		s.Duration, p.inf = d, true
	case "#EXT-X-DISCONTINUITY":
		s.Discontinuity = true
	case "#EXT-X-MAP":
		p.mapTag = true
		if s.Map = p.attributes(name, value)["URI"]; s.Map == "" {
			p.fault(ruleMap, "EXT-X-MAP without URI")
		}
	case "#EXT-X-PROGRAM-DATE-TIME":
		s.Date = p.date(ruleDate, value)
	case "#EXT-X-GAP":
		s.Gap = true
	case "#EXT-X-PART":
		a := p.attributes(name, value)
		if a["URI"] == "" {
			p.fault(rulePart, "EXT-X-PART without URI")
			return
		}
		s.Parts = append(s.Parts, Part{
			URI: a["URI"], Duration: p.seconds(rulePart, a, "DURATION", true), Independent: a["INDEPENDENT"] == "YES", Gap: a["GAP"] == "YES",
		})
	}
}

func (p *parser) metadataTag(name, value string) {
	a := p.attributes(name, value)
	switch name {
	case "#EXT-X-DATERANGE":
		p.dateRange(a)
	case "#EXT-X-SKIP":
		if p.out.Skip != nil {
			p.fault(ruleSkip, "two EXT-X-SKIP")
		}
		if len(p.out.Segments) > 0 {
			p.fault(ruleSkip, "EXT-X-SKIP behind a segment")
		}
		n, err := strconv.ParseUint(a["SKIPPED-SEGMENTS"], 10, 31)
		if err != nil {
			p.fault(ruleSkip, "SKIPPED-SEGMENTS %q", a["SKIPPED-SEGMENTS"])
		}
		p.out.Skip = &Skip{Segments: int(n)}
		if r := a["RECENTLY-REMOVED-DATERANGES"]; r != "" {
			p.out.Skip.Removed = strings.Split(r, "\t")
		}
	case "#EXT-X-PRELOAD-HINT":
		h := Hint{a["TYPE"], a["URI"]}
		if h.URI == "" || h.Type != "PART" && h.Type != "MAP" {
			p.fault(ruleHint, "hint of type %q to %q", h.Type, h.URI)
		}
		p.out.Hints = append(p.out.Hints, h)
	case "#EXT-X-RENDITION-REPORT":
		r := Report{URI: a["URI"], Part: -1}
		msn, err := strconv.ParseUint(a["LAST-MSN"], 10, 63)
		r.MSN, r.Missing = msn, err != nil || r.URI == ""
		if v, ok := a["LAST-PART"]; ok {
			n, err := strconv.ParseUint(v, 10, 31)
			r.Part, r.Missing = int(n), r.Missing || err != nil
		}
		if r.Missing {
			p.fault(ruleReport, "report of %q lacks URI, LAST-MSN or LAST-PART", r.URI)
		}
		p.out.Reports = append(p.out.Reports, r)
	}
}

func (p *parser) dateRange(a map[string]string) {
	if a["ID"] == "" || a["START-DATE"] == "" {
		p.fault(ruleRange, "date range %q lacks ID or START-DATE", a["ID"])
		return
	}
	r := Range{ID: a["ID"], Start: p.date(ruleRange, a["START-DATE"]), Attributes: a}
	d := p.seconds(ruleRange, a, "DURATION", false)
	if end := a["END-DATE"]; end != "" {
		at := p.date(ruleRange, end)
		if at.Before(r.Start) {
			p.fault(ruleRange, "date range %q ends before it begins", r.ID)
		}
		if a["DURATION"] != "" && !at.Equal(r.Start.Add(d)) {
			p.fault(ruleRange, "date range %q: END-DATE and DURATION disagree", r.ID)
		}
	}
	if a["END-ON-NEXT"] == "YES" && (a["CLASS"] == "" || a["DURATION"] != "" || a["END-DATE"] != "") {
		p.fault(ruleRange, "date range %q: END-ON-NEXT without CLASS or with an end", r.ID)
	}
	p.out.Ranges = append(p.out.Ranges, r)
}

func (p *parser) multivariantTag(name, value string) {
	a := p.attributes(name, value)
	if name == "#EXT-X-MEDIA" {
		_, has := a["AUTOSELECT"]
		p.out.Renditions = append(p.out.Renditions, Rendition{
			Type: a["TYPE"], Group: a["GROUP-ID"], Name: a["NAME"], URI: a["URI"],
			Default: a["DEFAULT"] == "YES", Autoselect: a["AUTOSELECT"] == "YES", HasAutoselect: has,
		})
		return
	}
	v := &Variant{Codecs: a["CODECS"], Groups: map[string]string{"AUDIO": a["AUDIO"], "SUBTITLES": a["SUBTITLES"]}}
	v.Bandwidth, _ = strconv.Atoi(a["BANDWIDTH"])
	v.Average, _ = strconv.Atoi(a["AVERAGE-BANDWIDTH"])
	v.FrameRate, _ = strconv.ParseFloat(a["FRAME-RATE"], 64)
	if w, h, ok := strings.Cut(a["RESOLUTION"], "x"); ok {
		v.Width, _ = strconv.Atoi(w)
		v.Height, _ = strconv.Atoi(h)
	}
	p.variant = v
}

// finish numbers the segments and judges what is known at the end.
func (p *parser) finish() {
	if p.variant != nil {
		p.fault(ruleMultivariant, "EXT-X-STREAM-INF without URI")
	}
	if p.media && p.multi {
		p.fault(ruleKind, "tags of media and of multivariant playlists")
	}
	if p.tags {
		for _, part := range p.seg.Parts {
			p.seg.Duration += part.Duration
		}
		p.out.Segments = append(p.out.Segments, p.seg)
	}
	if p.seen["#EXT-X-VERSION"] > 1 {
		p.fault(ruleVersion, "EXT-X-VERSION stands %d times", p.seen["#EXT-X-VERSION"])
	}
	need := 1
	for _, v := range []struct {
		version int
		used    bool
	}{{3, p.float}, {6, p.mapTag}, {9, p.out.Skip != nil}, {10, p.out.Skip != nil && p.out.Skip.Removed != nil}} {
		if v.used {
			need = v.version
		}
	}
	if p.out.Version < need && (need > 1 || p.seen["#EXT-X-VERSION"] > 0) {
		p.fault(ruleVersion, "version %d, but what is used needs %d", p.out.Version, need)
	}
	p.out.number()
}

// number counts media and discontinuity sequence numbers and carries maps on.
func (p *Playlist) number() {
	skipped := uint64(0)
	if p.Skip != nil {
		skipped = uint64(p.Skip.Segments)
	}
	sequence, inForce := p.DiscSequence, ""
	for i := range p.Segments {
		s := &p.Segments[i]
		s.MSN = p.Sequence + skipped + uint64(i)
		if s.Discontinuity {
			sequence++
		}
		s.Sequence = sequence
		if s.Map == "" {
			s.Map = inForce
		}
		inForce = s.Map
	}
}

func (p *parser) number(name, value string) uint64 {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		p.fault(ruleAttributes, "%s: %q is no number", name[1:], shortened(value))
	}
	return n
}

func (p *parser) date(r Rule, value string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		p.fault(r, "%q is no date", shortened(value))
	}
	return t
}

func (p *parser) seconds(r Rule, a map[string]string, name string, required bool) time.Duration {
	v, ok := a[name]
	if !ok && !required {
		return 0
	}
	d, ok := duration(v)
	if !ok {
		p.fault(r, "%s %q", name, v)
	}
	return d
}

// duration reads seconds, not negative and below a year.
func duration(s string) (time.Duration, bool) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0) || f > 366*86400 {
		return 0, false
	}
	return time.Duration(math.Round(f * 1e9)), true
}

// attributes reads an attribute list (section 4.2); values of quoted strings come without quotes.
func (p *parser) attributes(tag, s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' }) {
			p.fault(ruleAttributes, "%s: attribute %q", tag[1:], shortened(s))
			return out
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, rest, ok = strings.Cut(rest[1:], `"`)
			if !ok || rest != "" && rest[0] != ',' {
				p.fault(ruleAttributes, "%s: quotes of %s", tag[1:], name)
				return out
			}
			rest = strings.TrimPrefix(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
			if value == "" || strings.ContainsAny(value, "\" \t") {
				p.fault(ruleAttributes, "%s: %s=%q", tag[1:], name, shortened(value))
			}
		}
		if _, twice := out[name]; twice {
			p.fault(ruleAttributes, "%s: %s stands twice", tag[1:], name)
		}
		out[name] = value
		s = rest
	}
	return out
}
