package validate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Captions is a WebVTT segment.
type Captions struct {
	// MPEGTS and Local are X-TIMESTAMP-MAP: cue time Local is MPEGTS on the media's 90 kHz clock.
	MPEGTS uint64
	Local  time.Duration
	Cues   []Cue
}

// Cue is one caption.
type Cue struct {
	Start, End time.Duration
	Text       string
}

// Media is a cue time on the media's time line.
func (c *Captions) Media(t time.Duration) time.Duration {
	return t - c.Local + time.Duration(c.MPEGTS)*time.Second/90_000
}

var errVTT = errors.New("not WebVTT")

func isCaptions(uri string) bool {
	uri, _, _ = strings.Cut(uri, "?")
	return strings.HasSuffix(uri, ".vtt") || strings.HasSuffix(uri, ".webvtt")
}

// ParseCaptions reads a WebVTT segment of at most a megabyte.
func ParseCaptions(b []byte) (Captions, error) {
	var c Captions
	if len(b) > 1<<20 {
		return c, fmt.Errorf("%d bytes: %w", len(b), errVTT)
	}
	blocks := strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n\n")
	head := strings.Split(blocks[0], "\n")
	if head[0] != "WEBVTT" && !strings.HasPrefix(head[0], "WEBVTT ") {
		return c, errVTT
	}
	mapped := false
	for _, line := range head[1:] {
		if v, ok := strings.CutPrefix(line, "X-TIMESTAMP-MAP="); ok {
			mapped = c.timestampMap(v)
		}
	}
	if !mapped {
		return c, fmt.Errorf("no X-TIMESTAMP-MAP: %w", errVTT)
	}
	for _, block := range blocks[1:] {
		lines := strings.Split(strings.Trim(block, "\n"), "\n")
		if len(lines) > 1 && !strings.Contains(lines[0], "-->") {
			lines = lines[1:] // an identifier
		}
		from, rest, ok := strings.Cut(lines[0], " --> ")
		if !ok {
			continue
		}
		to, _, _ := strings.Cut(rest, " ")
		start, ok1 := clock(from)
		end, ok2 := clock(to)
		if !ok1 || !ok2 || end < start {
			return c, fmt.Errorf("cue %q: %w", shortened(lines[0]), errVTT)
		}
		c.Cues = append(c.Cues, Cue{start, end, strings.Join(lines[1:], "\n")})
	}
	return c, nil
}

func (c *Captions) timestampMap(v string) bool {
	var ts, local bool
	for f := range strings.SplitSeq(v, ",") {
		name, value, _ := strings.Cut(f, ":")
		switch name {
		case "MPEGTS":
			n, err := strconv.ParseUint(value, 10, 33)
			c.MPEGTS, ts = n, err == nil
		case "LOCAL":
			c.Local, local = clock(value)
		}
	}
	return ts && local
}

// clock reads [hh:]mm:ss.ttt.
func clock(s string) (time.Duration, bool) {
	f := strings.Split(s, ":")
	if len(f) == 2 {
		f = append([]string{"0"}, f...)
	}
	if len(f) != 3 || len(f[2]) != 6 || f[2][2] != '.' {
		return 0, false
	}
	h, err1 := strconv.ParseUint(f[0], 10, 20)
	m, err2 := strconv.ParseUint(f[1], 10, 6)
	sec, err3 := strconv.ParseFloat(f[2], 64)
	if err1 != nil || err2 != nil || err3 != nil || m > 59 || !(sec >= 0 && sec < 60) {
		return 0, false
	}
	ms := int64(sec*1000 + 0.5)
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(ms)*time.Millisecond, true
}
