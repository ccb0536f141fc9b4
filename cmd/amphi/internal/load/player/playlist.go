// Package player follows LL-HLS playlists as a player does, without decoding: it downloads every part
// as it is announced, keeps a play head, and measures startup, stalls and latency.
package player

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits on what is read from the server.
const (
	maxPlaylist = 1 << 20
	maxLines    = 50_000
)

// part is a partial segment.
type part struct {
	uri      string
	duration time.Duration
	// start is the wall-clock time of its first sample.
	start time.Time
	// msn and index say which it is.
	msn   int64
	index int
	gap   bool
}

// segment is a segment that is complete, or has announced parts.
type segment struct {
	msn      int64
	uri      string // "" while only parts of it are there
	duration time.Duration
	start    time.Time // zero without EXT-X-PROGRAM-DATE-TIME
	parts    []part
}

// media is a media playlist (RFC 8216bis section 4).
type media struct {
	target       time.Duration
	partTarget   time.Duration
	partHoldBack time.Duration
	canBlock     bool
	init         string
	segments     []segment
	ended        bool
}

// parseMultivariant returns the URIs of the variants in their order.
func parseMultivariant(text string) ([]string, error) {
	lines, err := split(text)
	if err != nil {
		return nil, err
	}
	var out []string
	variant := false
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, "#EXT-X-STREAM-INF:"):
			variant = true
		case !strings.HasPrefix(l, "#") && variant:
			out = append(out, l)
			variant = false
		}
	}
	if len(out) == 0 {
		return nil, errors.New("a multivariant playlist without variants")
	}
	return out, nil
}

func split(text string) ([]string, error) {
	if !strings.HasPrefix(text, "#EXTM3U") {
		return nil, errors.New("not a playlist: it does not begin with #EXTM3U")
	}
	var out []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
		if len(out) > maxLines {
			return nil, fmt.Errorf("a playlist of more than %d lines", maxLines)
		}
	}
	return out, nil
}

// parseMedia reads a media playlist.
func parseMedia(text string) (*media, error) {
	lines, err := split(text)
	if err != nil {
		return nil, err
	}
	p := &parser{m: &media{}}
	for _, l := range lines {
		if err := p.line(l); err != nil {
			return nil, fmt.Errorf("playlist line %q: %w", l, err)
		}
	}
	p.flush("")
	return p.m, nil
}

// parser holds what is known of the segment that the next lines complete.
type parser struct {
	m    *media
	msn  int64
	cur  segment
	next time.Time // start of the next sample
}

func (p *parser) line(l string) error {
	if !strings.HasPrefix(l, "#") {
		p.flush(l)
		return nil
	}
	name, value, _ := strings.Cut(l, ":")
	var err error
	switch name {
	case "#EXT-X-TARGETDURATION":
		p.m.target, err = seconds(value)
	case "#EXT-X-MEDIA-SEQUENCE":
		p.msn, err = strconv.ParseInt(value, 10, 64)
	case "#EXT-X-PART-INF":
		p.m.partTarget, err = seconds(attributes(value)["PART-TARGET"])
	case "#EXT-X-SERVER-CONTROL":
		a := attributes(value)
		p.m.canBlock = a["CAN-BLOCK-RELOAD"] == "YES"
		if v := a["PART-HOLD-BACK"]; v != "" {
			p.m.partHoldBack, err = seconds(v)
		}
	case "#EXT-X-MAP":
		p.m.init = attributes(value)["URI"]
	case "#EXT-X-PROGRAM-DATE-TIME":
		p.cur.start, err = time.Parse(time.RFC3339Nano, value)
		p.next = p.cur.start
	case "#EXT-X-PART":
		err = p.part(attributes(value))
	case "#EXTINF":
		d, _, _ := strings.Cut(value, ",")
		p.cur.duration, err = seconds(d)
	case "#EXT-X-ENDLIST":
		p.m.ended = true
	}
	return err
}

func (p *parser) part(a map[string]string) error {
	d, err := seconds(a["DURATION"])
	if err != nil {
		return err
	}
	if a["URI"] == "" {
		return errors.New("a part without URI")
	}
	p.cur.parts = append(p.cur.parts, part{
		uri: a["URI"], duration: d, start: p.next, msn: p.msn, index: len(p.cur.parts), gap: a["GAP"] == "YES",
	})
	if !p.next.IsZero() {
		p.next = p.next.Add(d)
	}
	return nil
}

// flush ends a segment: with its URI, or at the end of the playlist with parts only.
func (p *parser) flush(uri string) {
	s := p.cur
	p.cur = segment{}
	if uri == "" && len(s.parts) == 0 {
		return
	}
	s.uri, s.msn = uri, p.msn
	if s.start.IsZero() && !p.next.IsZero() {
		s.start = p.next
		for _, x := range s.parts {
			s.start = s.start.Add(-x.duration)
		}
	}
	p.m.segments = append(p.m.segments, s)
	if uri != "" {
		p.msn++
		if !s.start.IsZero() {
			p.next = s.start.Add(s.duration)
		}
	}
}

func seconds(s string) (time.Duration, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || f < 0 || f > 86_400 {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	return time.Duration(f * float64(time.Second)), nil
}

// attributes reads an attribute list (RFC 8216bis section 4.2).
func attributes(s string) map[string]string {
	out := make(map[string]string)
	for s != "" && len(out) < 64 {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, rest, _ = strings.Cut(rest[1:], `"`)
			rest = strings.TrimPrefix(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		out[strings.TrimSpace(name)] = value
		s = rest
	}
	return out
}
