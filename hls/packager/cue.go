package packager

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/playlist"
)

// Limits of a cue.
const (
	MaxCueText = 1024 // bytes
	maxCueName = 128
	// MaxCueAhead is how long before its time a cue may come.
	MaxCueAhead = 10 * time.Minute
	maxPending  = 128
)

// Cue is timed metadata: what happened at a moment of the program. It is in every playlist as a date range, and in
// the part of that moment as an ID3 tag.
type Cue struct {
	ID   string // unique in the program, without quotes and control characters
	Type string // what it is about: "chat", or a word of the application
	// Text is any UTF-8.
	Text   string
	Sender string // who said it; may be empty
	// At is the moment. A part that is out already cannot have it any more: then the next one does.
	At       time.Time
	Duration time.Duration // 0: a moment
}

// ErrTooManyCues says that more wait for their time than a program keeps.
var ErrTooManyCues = errors.New("too many cues wait for their time")

func (c *Cue) check(now time.Duration, start time.Time) error {
	switch {
	case c.ID == "" || len(c.ID) > maxCueName || c.Type == "" || len(c.Type) > maxCueName || len(c.Sender) > 2*maxCueName:
		return errors.New("cue needs an id and a type, none of them long")
	case strings.ContainsFunc(c.ID+c.Type, unquotable):
		return errors.New("cue id or type with a character that a playlist cannot carry")
	case len(c.Text) > MaxCueText || !utf8.ValidString(c.Text) || !utf8.ValidString(c.Sender):
		return fmt.Errorf("cue text longer than %d bytes or not UTF-8", MaxCueText)
	case c.At.Before(start) || c.At.Sub(start) > now+MaxCueAhead || c.Duration < 0 || c.Duration > 24*time.Hour:
		return errors.New("cue at no time of the program")
	}
	return nil
}

// tag is the cue as an ID3 tag: one text called "amphi", a JSON object.
func (c *Cue) tag() ([]byte, error) {
	value, err := json.Marshal(struct {
		ID     string `json:"id"`
		Type   string `json:"type"`
		Text   string `json:"text"`
		Sender string `json:"sender,omitempty"`
		TimeMS int64  `json:"time_ms"`
	}{c.ID, c.Type, c.Text, c.Sender, c.At.UnixMilli()})
	if err != nil {
		return nil, err
	}
	return fmp4.ID3Tag(fmp4.Text{Description: "amphi", Value: string(value)})
}

func (c *Cue) dateRange() playlist.DateRange {
	attrs := map[string]string{"TEXT": quoted(c.Text)}
	if c.Sender != "" {
		attrs["SENDER"] = quoted(c.Sender)
	}
	return playlist.DateRange{ID: c.ID, Class: c.Type, Start: c.At, Duration: c.Duration, Attrs: attrs}
}

// quoted makes any text fit into a quoted string: quotes, control characters and % are percent-encoded, so that
// decodeURIComponent gives it back.
func quoted(s string) string {
	if !strings.ContainsFunc(s, unquotable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unquotable(r) {
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unquotable(r rune) bool { return r == '"' || r == '%' || r < ' ' || r >= 0x7f && r < 0xa0 }

// AddCue puts timed metadata into the program; now is the time.
func (p *Packager) AddCue(c Cue, now time.Time) error {
	if err := c.check(now.Sub(p.cfg.Start), p.cfg.Start); err != nil {
		return err
	}
	tag, err := c.tag()
	if err != nil {
		return fmt.Errorf("writing a cue: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return ErrEnded
	}
	variants, waiting := p.medias[:len(p.cfg.Variants)], maxPending
	for _, m := range variants {
		waiting = min(waiting, len(m.events))
	}
	if waiting >= maxPending {
		return ErrTooManyCues
	}
	r := c.dateRange()
	for _, m := range p.medias {
		if err := m.list.AddDateRange(r); err != nil {
			return fmt.Errorf("adding a date range: %w", err)
		}
	}
	p.cues++
	scale := int64(p.cfg.FPS) * videoUnit
	for _, m := range variants {
		if len(m.events) >= maxPending { // it makes no parts that would take them, as others do
			m.events = m.events[1:]
		}
		m.events = append(m.events, fmp4.Event{
			Time: uint64(units(c.At.Sub(p.cfg.Start), scale)), Duration: uint32(min(units(c.Duration, scale), 1<<32-2)), ID: p.cues, Tag: tag,
		})
	}
	return nil
}

// units is a duration on a clock of scale ticks a second.
func units(d time.Duration, scale int64) int64 {
	return int64(d/time.Second)*scale + int64(d%time.Second)*scale/int64(time.Second)
}

// takeEvents writes the events whose time has come before the end of the part, and forgets them.
func (m *Media) takeEvents(end uint64) []byte {
	var b []byte
	rest := m.events[:0]
	for _, e := range m.events {
		if e.Time < end {
			b = fmp4.AppendEvent(b, uint32(m.cfg.FPS)*videoUnit, e)
		} else {
			rest = append(rest, e)
		}
	}
	clear(m.events[len(rest):])
	m.events = rest
	return b
}
