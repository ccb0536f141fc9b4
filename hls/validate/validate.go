// Package validate judges a live stream by the rules of RFC 8216bis: every playlist that it serves
// by itself and against the one before it, the objects that playlists list, and the playlists of one
// stream against each other. It reads playlists, fMP4 and WebVTT with parsers of its own, so that a
// fault of the packager's is not repeated here.
package validate

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Fault is one breach of a rule.
type Fault struct {
	Rule  Rule
	Where string // which playlist or object
	Text  string
}

func (f Fault) String() string {
	return fmt.Sprintf("%s: %s [%s, section %s]", f.Where, f.Text, f.Rule, f.Rule.Section())
}

// maxFaults bounds what a Checker remembers; the rest is counted only.
const maxFaults = 200

// Checker judges one stream. Its methods may be called from several goroutines, but what belongs to one
// media playlist must come in order.
type Checker struct {
	mu     sync.Mutex // guards the fields below
	tracks map[string]*track
	multi  *Playlist
	faults []Fault
	count  int
	stats  Stats
}

// Stats is how much was looked at.
type Stats struct {
	Playlists, Deltas, Parts, Segments, Inits, Captions int
	Bytes                                               int64
}

// New makes a Checker.
func New() *Checker { return &Checker{tracks: map[string]*track{}} }

// Faults lists what was found, each once; more than the first 200 are only counted.
func (c *Checker) Faults() (list []Fault, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.faults), c.count
}

// Stats is a snapshot.
func (c *Checker) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *Checker) report(f ...Fault) {
	for _, f := range f {
		if slices.Contains(c.faults, f) {
			continue
		}
		c.count++
		if len(c.faults) < maxFaults {
			c.faults = append(c.faults, f)
		}
	}
}

func (c *Checker) fault(r Rule, where, format string, args ...any) {
	c.report(Fault{r, where, fmt.Sprintf(format, args...)})
}

// judge collects the faults of one thing.
type judge struct {
	where  string
	faults []Fault
}

func (j *judge) fault(r Rule, format string, args ...any) {
	if len(j.faults) < maxFaults {
		j.faults = append(j.faults, Fault{r, j.where, fmt.Sprintf(format, args...)})
	}
}

// Multivariant judges a multivariant playlist and remembers what it says. It returns nil when the text is none.
func (c *Checker) Multivariant(body []byte) *Playlist {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, faults := Parse("multivariant", body)
	c.report(faults...)
	if len(p.Variants) == 0 {
		c.fault(ruleMultivariant, "multivariant", "no EXT-X-STREAM-INF")
		return nil
	}
	j := judge{where: "multivariant"}
	j.multivariant(p)
	c.report(j.faults...)
	c.stats.Playlists++
	c.multi = p
	return p
}

// multivariant applies the rules of section 4.4.6 to one playlist.
func (j *judge) multivariant(p *Playlist) {
	groups := map[string]bool{}
	names := map[string]bool{}
	for _, r := range p.Renditions {
		groups[r.Type+" "+r.Group] = true
		if r.Type == "" || r.Group == "" || r.Name == "" {
			j.fault(ruleMedia, "EXT-X-MEDIA needs TYPE, GROUP-ID and NAME")
		}
		if k := r.Type + r.Group + r.Name; names[k] {
			j.fault(ruleMedia, "two renditions of group %q are called %q", r.Group, r.Name)
		} else {
			names[k] = true
		}
		if r.Type == "SUBTITLES" && r.URI == "" {
			j.fault(ruleMedia, "subtitles %q have no URI", r.Name)
		}
		if r.Type == "CLOSED-CAPTIONS" && r.URI != "" {
			j.fault(ruleMedia, "closed captions %q have a URI", r.Name)
		}
		if r.Default && !r.Autoselect && r.HasAutoselect {
			j.fault(ruleMedia, "rendition %q is DEFAULT=YES and AUTOSELECT=NO", r.Name)
		}
	}
	for _, v := range p.Variants {
		if v.Bandwidth <= 0 {
			j.fault(ruleBandwidth, "variant %s has no BANDWIDTH", v.URI)
		}
		if v.Average > v.Bandwidth {
			j.fault(ruleBandwidth, "variant %s: AVERAGE-BANDWIDTH %d above BANDWIDTH %d", v.URI, v.Average, v.Bandwidth)
		}
		if v.Codecs == "" {
			j.fault(ruleCodecs, "variant %s has no CODECS", v.URI)
		}
		if strings.Contains(v.Codecs, "avc1") && (v.Width == 0 || v.FrameRate == 0) {
			j.fault(ruleResolution, "variant %s has no RESOLUTION or FRAME-RATE", v.URI)
		}
		for kind, group := range v.Groups {
			if group != "" && !groups[kind+" "+group] {
				j.fault(ruleGroup, "variant %s: there is no %s group %q", v.URI, kind, group)
			}
		}
	}
}
