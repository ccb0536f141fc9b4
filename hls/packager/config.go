// Package packager turns the access units of a program into the parts, segments
// and playlists of LL-HLS, all variants and the audio on one frame-counted grid.
// It has no clock and no goroutine: what the compositor sent goes in, immutable
// objects and snapshots come out, and those who wait are woken.
package packager

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// AudioName is the name of the audio's media playlist, which no variant may have.
const AudioName = "audio"

// AudioRate is the sample rate of the program's audio, in Hz.
const AudioRate = 48000

// samplesPerAU is what an AAC-LC access unit holds.
const samplesPerAU = 1024

// Config describes a program. It does not change during its life.
type Config struct {
	// Epoch is in every object name, so that a name never means two contents. Two
	// programs of one stream never have the same.
	Epoch uint64
	// Start is the wall-clock time of tick 0 and of audio sample 0.
	Start time.Time
	// FPS is the ticks per second, 10–60. Default 30.
	FPS int
	// PartTicks is the length of a part. Default half a second.
	PartTicks int
	// SegmentTicks is the length of a segment and the distance of keyframes; a
	// multiple of PartTicks. Default four parts.
	SegmentTicks int
	// PartHoldBack is how far from the end players stay; default three parts.
	PartHoldBack time.Duration
	// Window is how many finished segments are listed; default 15. More want a Disk.
	Window int
	// Event lists all segments from the first on, as an EVENT playlist, as long as Window does.
	Event bool
	// Disk takes segments that are older than 5; nil keeps them in memory.
	Disk Disk
	// WindowFailure is why Window is shorter than was wished, for Stats; nil: it is not.
	WindowFailure error
	// FirstMSN is the first media sequence number, FirstDiscontinuity the discontinuity
	// sequence to begin with. Continues says that players come from an earlier epoch:
	// the first segment then stands behind a discontinuity.
	FirstMSN           uint64
	FirstDiscontinuity uint64
	Continues          bool
	// Variants are the rungs of the ladder, best first, at least one.
	Variants []Variant
	// Captions are the languages of captions (BCP 47), the default first; at most 8.
	Captions []string
	// AudioBitrate in bit/s; default 128,000.
	AudioBitrate int
}

// Variant is one rung.
type Variant struct {
	Name          string // part of the URL: letters, digits, dash
	Width, Height int
	Bitrate       int // bit/s
}

func (c Config) withDefaults() (Config, error) {
	if c.FPS == 0 {
		c.FPS = 30
	}
	if c.PartTicks == 0 {
		c.PartTicks = c.FPS / 2
	}
	if c.SegmentTicks == 0 {
		c.SegmentTicks = 4 * c.PartTicks
	}
	if c.Window == 0 {
		c.Window = liveWindow
	}
	if c.AudioBitrate == 0 {
		c.AudioBitrate = 128_000
	}
	switch {
	case c.Start.IsZero():
		return c, errors.New("program has no start time")
	case c.FPS < 10 || c.FPS > 60 || AudioRate%c.FPS != 0:
		return c, fmt.Errorf("%d ticks a second", c.FPS)
	case c.PartTicks < 1 || c.SegmentTicks < c.PartTicks || c.SegmentTicks%c.PartTicks != 0 || c.SegmentTicks > 60*c.FPS:
		return c, fmt.Errorf("segments of %d ticks, parts of %d", c.SegmentTicks, c.PartTicks)
	case len(c.Variants) == 0 || len(c.Variants) > 6:
		return c, fmt.Errorf("%d variants", len(c.Variants))
	case c.Window < 0 || c.Window > 50_000:
		return c, fmt.Errorf("window of %d segments", c.Window)
	}
	seen := map[string]bool{AudioName: true}
	for _, v := range c.Variants {
		if !nameOK(v.Name) || seen[v.Name] || strings.HasPrefix(v.Name, captionsPrefix) {
			return c, fmt.Errorf("variant name %q", v.Name)
		}
		if v.Bitrate <= 0 {
			return c, fmt.Errorf("variant %q of %d bit/s", v.Name, v.Bitrate)
		}
		seen[v.Name] = true
	}
	for _, l := range c.Captions {
		if !nameOK(l) || seen[captionsPrefix+l] || len(c.Captions) > 8 {
			return c, fmt.Errorf("captions in %q", l)
		}
		seen[captionsPrefix+l] = true
	}
	c.Variants = append([]Variant(nil), c.Variants...)
	return c, nil
}

func nameOK(s string) bool {
	return s != "" && len(s) <= 32 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

// ticks is the duration of n ticks, exact to the nanosecond over any time.
func (c *Config) ticks(n int64) time.Duration {
	fps := int64(c.FPS)
	return time.Duration(n/fps)*time.Second + time.Duration(n%fps)*time.Second/time.Duration(fps)
}

// SegmentLength is how long a segment is.
func (c Config) SegmentLength() time.Duration { return c.ticks(int64(c.SegmentTicks)) }

func samples(n int64) time.Duration {
	return time.Duration(n/AudioRate)*time.Second + time.Duration(n%AudioRate)*time.Second/AudioRate
}
