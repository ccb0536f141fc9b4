package validate

import (
	"math"
	"slices"
	"strings"
	"time"
)

// place is where an object stands: which segment, and which part of it (-1: the whole).
type place struct {
	msn  uint64
	part int
}

// span is the time of an object on its track's own clock.
type span struct {
	from, to uint64
	scale    uint32
	sequence uint64
	date     time.Time // of from, if the playlist says
	bytes    int
	length   time.Duration // by the playlist
}

// objects are what is known of the objects of one media playlist.
type objects struct {
	inits map[string]InitSection
	spans map[place]span
	peak  float64 // bit/s
	bits  float64
	time  time.Duration
	chain []span // the segments in a row that may make the peak
}

func newObjects() objects {
	return objects{inits: map[string]InitSection{}, spans: map[place]span{}}
}

// keptSpans bounds the objects remembered of a media playlist.
const keptSpans = 400

func (o *objects) put(p place, s span) {
	o.spans[p] = s
	if len(o.spans) > keptSpans {
		for k := range o.spans {
			if k.msn+keptSpans/10 < p.msn {
				delete(o.spans, k)
			}
		}
	}
}

// Init judges an init section of a media playlist.
func (c *Checker) Init(name, uri string, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Inits++
	c.stats.Bytes += int64(len(body))
	s, err := ParseInit(body)
	if err != nil {
		c.fault(ruleFragment, name+" "+uri, "%v", err)
		return
	}
	c.track(name).objects.inits[uri] = s
	for _, v := range c.variantsOf(name) {
		if !containsCodec(v.Codecs, s.Codecs) {
			c.fault(ruleCodecs, name+" "+uri, "%s is not in CODECS=%q", s.Codecs, v.Codecs)
		}
		if v.URI == name && s.Kind == "vide" && (s.Width != v.Width || s.Height != v.Height) {
			c.fault(ruleResolution, name+" "+uri, "%d×%d, but RESOLUTION is %d×%d", s.Width, s.Height, v.Width, v.Height)
		}
	}
}

// variantsOf lists the variants that play a media playlist.
func (c *Checker) variantsOf(name string) []Variant {
	if c.multi == nil {
		return nil
	}
	var out []Variant
	for _, v := range c.multi.Variants {
		mine := v.URI == name
		for _, r := range c.multi.Renditions {
			mine = mine || r.URI == name && r.Type == "AUDIO" && v.Groups["AUDIO"] == r.Group
		}
		if mine {
			out = append(out, v)
		}
	}
	return out
}

// Object judges a part (part ≥ 0) or a whole segment (-1) of the newest playlist of name.
func (c *Checker) Object(name string, msn uint64, part int, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.track(name)
	c.stats.Bytes += int64(len(body))
	if t.last == nil || msn < t.last.Sequence || msn-t.last.Sequence >= uint64(len(t.last.Segments)) {
		return
	}
	s := &t.last.Segments[msn-t.last.Sequence]
	at := place{msn, part}
	if part < 0 {
		c.stats.Segments++
	} else {
		if part >= len(s.Parts) {
			return
		}
		c.stats.Parts++
	}
	if isCaptions(s.URI) || part >= 0 && isCaptions(s.Parts[part].URI) {
		c.captions(t, s, part, body)
		return
	}
	init, ok := t.objects.inits[s.Map]
	if !ok {
		return
	}
	j := judge{where: name}
	list, err := ParseFragments(body, init)
	if err != nil {
		c.fault(ruleFragment, name, "%d.%d: %v", msn, part, err)
		return
	}
	x := j.object(t, s, at, list, init)
	if independent := t.last.Independent || c.multi != nil && c.multi.Independent; part < 0 && independent && !list[0].Key {
		j.fault(ruleIndependent, "segment %d begins without a keyframe", msn)
	}
	x.bytes = len(body)
	t.objects.put(at, x)
	if part < 0 {
		c.rate(t, x, s)
	}
	c.report(j.faults...)
}

// object applies the rules about one object.
func (j *judge) object(t *track, s *Segment, at place, list []Fragment, init InitSection) span {
	x := span{from: list[0].Base, to: list[0].Base, scale: init.Timescale, sequence: s.Sequence, length: s.Duration}
	if at.part <= 0 {
		x.date = s.Date
	}
	for _, f := range list {
		if f.Base != x.to {
			j.fault(ruleContinuous, "%d.%d: a fragment at %d after one until %d", at.msn, at.part, f.Base, x.to)
		}
		x.to = f.Base + f.Duration
	}
	if at.part >= 0 {
		x.length = s.Parts[at.part].Duration
		if s.Parts[at.part].Independent && !list[0].Key {
			j.fault(ruleIndependent, "part %d.%d begins without a keyframe", at.msn, at.part)
		}
	}
	long := time.Duration(float64(x.to-x.from) / float64(x.scale) * 1e9)
	if (long - x.length).Abs() > tolerance {
		rule := ruleInf
		if at.part >= 0 {
			rule = rulePart
		}
		j.fault(rule, "%d.%d lasts %v, the playlist says %v", at.msn, at.part, long, x.length)
	}
	j.neighbours(t, at, x)
	return x
}

// neighbours compares the times of an object with what is known around it.
func (j *judge) neighbours(t *track, at place, x span) {
	before := place{at.msn - 1, -1}
	if at.part > 0 {
		before = place{at.msn, at.part - 1}
	}
	if b, ok := t.objects.spans[before]; ok && b.sequence == x.sequence && b.scale == x.scale && b.to != x.from {
		j.fault(ruleContinuous, "%d.%d begins at %d, what is before ends at %d", at.msn, at.part, x.from, b.to)
	}
	if at.part >= 0 {
		return
	}
	first, ok1 := t.objects.spans[place{at.msn, 0}]
	if ok1 && first.from != x.from {
		j.fault(rulePartParent, "segment %d begins at %d, its first part at %d", at.msn, x.from, first.from)
	}
	sum, n := 0, 0
	for ; ; n++ {
		p, ok := t.objects.spans[place{at.msn, n}]
		if !ok {
			break
		}
		sum += p.bytes
		first.to = p.to
	}
	if s := &t.last.Segments[at.msn-t.last.Sequence]; n > 0 && n == len(s.Parts) && first.to != x.to {
		j.fault(rulePartParent, "segment %d ends at %d, its parts at %d", at.msn, x.to, first.to)
	}
}

// rate follows the bit rate of a playlist: the average, and the peak over segments in a row that last between 0.5 and 1.5
// target durations together (section 4.1).
func (c *Checker) rate(t *track, x span, s *Segment) {
	o := &t.objects
	o.bits += 8 * float64(x.bytes)
	o.time += s.Duration
	o.chain = append(o.chain, x)
	if len(o.chain) > 16 {
		o.chain = o.chain[1:]
	}
	target := time.Duration(t.last.Target) * time.Second
	var d time.Duration
	var bits float64
	for _, x := range slices.Backward(o.chain) {
		d += x.length
		bits += 8 * float64(x.bytes)
		if 2*d > 3*target {
			return
		}
		if 2*d >= target {
			o.peak = max(o.peak, bits/d.Seconds())
		}
	}
}

// clockTurn is after what time the 90 kHz clock of X-TIMESTAMP-MAP begins anew: it has 33 bits.
const clockTurn = time.Duration(1<<33) * time.Second / 90_000

// captions judges a WebVTT segment or part.
func (c *Checker) captions(t *track, s *Segment, part int, body []byte) {
	t.captions = true
	c.stats.Captions++
	v, err := ParseCaptions(body)
	if err != nil {
		c.fault(ruleCaptions, t.name, "%d.%d: %v", s.MSN, part, err)
		return
	}
	// Where the segment lies on the media's time line is known from a sister.
	for _, o := range c.tracks {
		x, ok := o.objects.spans[place{s.MSN, -1}]
		if !ok || o == t {
			continue
		}
		from := time.Duration(float64(x.from) / float64(x.scale) * 1e9)
		to := time.Duration(float64(x.to) / float64(x.scale) * 1e9)
		for _, cue := range v.Cues {
			start, end := v.Media(cue.Start), v.Media(cue.End)
			turns := (from - start).Round(clockTurn)
			if end+turns < from-tolerance || start+turns > to+tolerance {
				c.fault(ruleCaptions, t.name, "cue at %v is not in segment %d at %v", start, s.MSN, from)
			}
		}
		return
	}
}

// Missing notes that what a playlist lists cannot be fetched.
func (c *Checker) Missing(name, uri, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault(ruleMissing, name, "%s: %s", uri, why)
}

// Finish applies the rules about the playlists of the stream together, and about its bit rates.
func (c *Checker) Finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aligned()
	c.reports()
	if c.multi == nil {
		return
	}
	for _, v := range c.multi.Variants {
		var peak, average float64
		for name, t := range c.tracks {
			if slices.ContainsFunc(c.variantsOf(name), func(o Variant) bool { return o.URI == v.URI }) && t.objects.time > 0 {
				peak += t.objects.peak
				average += t.objects.bits / t.objects.time.Seconds()
			}
		}
		// A tenth is what measuring tools of others forgive, too.
		if peak > 1.1*float64(v.Bandwidth) {
			c.fault(ruleBandwidth, "multivariant", "%s: peak of %.0f bit/s, BANDWIDTH is %d", v.URI, peak, v.Bandwidth)
		}
		if v.Average > 0 && average > 1.1*float64(v.Average) {
			c.fault(ruleBandwidth, "multivariant", "%s: average of %.0f bit/s, AVERAGE-BANDWIDTH is %d", v.URI, average, v.Average)
		}
	}
}

// reports: each playlist with parts reports all others that have some.
func (c *Checker) reports() {
	for name, t := range c.tracks {
		if t.last == nil || t.last.Ended || t.last.PartTarget == 0 || t.captions {
			continue
		}
		others := 0
		for _, o := range c.tracks {
			if o != t && o.last != nil && o.last.PartTarget > 0 && !o.captions {
				others++
			}
		}
		if len(t.last.Reports) < others {
			c.fault(ruleReport, name, "%d reports for %d other renditions", len(t.last.Reports), others)
		}
	}
}

// aligned compares the segments of all playlists: the same number means the same time and discontinuity.
func (c *Checker) aligned() {
	var lead *track
	for _, t := range c.tracks {
		if t.last != nil && (lead == nil || t.name < lead.name) {
			lead = t
		}
	}
	for _, t := range c.tracks {
		if lead == nil || t == lead || t.last == nil {
			continue
		}
		for i := range t.last.Segments {
			b := &t.last.Segments[i]
			if b.MSN < lead.last.Sequence || b.MSN-lead.last.Sequence >= uint64(len(lead.last.Segments)) || b.Open() {
				continue
			}
			a := &lead.last.Segments[b.MSN-lead.last.Sequence]
			if a.Open() {
				continue
			}
			c.compare(lead, t, a, b)
		}
	}
}

// frame is how much an AAC frame may reach over a picture's border, with some rounding.
const frame = 25 * time.Millisecond

func (c *Checker) compare(lead, t *track, a, b *Segment) {
	where := t.name + " and " + lead.name
	if a.Sequence != b.Sequence {
		c.fault(ruleAligned, where, "segment %d: discontinuity sequence %d and %d", b.MSN, b.Sequence, a.Sequence)
	}
	if !a.Date.IsZero() && !b.Date.IsZero() && b.Date.Sub(a.Date).Abs() > frame {
		c.fault(ruleAligned, where, "segment %d: dates are %v apart", b.MSN, b.Date.Sub(a.Date))
	}
	if (a.Duration - b.Duration).Abs() > 2*frame {
		c.fault(ruleAligned, where, "segment %d: %v and %v long", b.MSN, b.Duration, a.Duration)
	}
	x, ok1 := lead.objects.spans[place{a.MSN, -1}]
	y, ok2 := t.objects.spans[place{b.MSN, -1}]
	if !ok1 || !ok2 || x.date.IsZero() || y.date.IsZero() {
		return
	}
	// Date less media time is the same in all playlists.
	p := float64(x.date.UnixNano())/1e9 - float64(x.from)/float64(x.scale)
	q := float64(y.date.UnixNano())/1e9 - float64(y.from)/float64(y.scale)
	if math.Abs(p-q) > 3*tolerance.Seconds() {
		c.fault(ruleDate, where, "segment %d: dates and media times differ by %.3f s", b.MSN, q-p)
	}
}

// containsCodec looks a format up in a CODECS list.
func containsCodec(list, codec string) bool {
	for c := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(c), codec) {
			return true
		}
	}
	return false
}
