// Package player follows LL-HLS playlists as a player does, without decoding: it downloads every part
// as it is announced, keeps a play head, and measures startup, stalls and latency.
package player

import (
	"errors"
	"fmt"
	"time"

	"github.com/amphi-sfu/amphi/hls/validate"
)

// maxPlaylist bounds what is read of a playlist, in bytes.
const maxPlaylist = 8 << 20

// part is what a player downloads: a partial segment, or a whole one that has none.
type part struct {
	uri      string
	init     string // its init section
	duration time.Duration
	// start is the wall-clock time of its first sample; zero where the playlist has no dates.
	start time.Time
	// msn and index say which it is.
	msn   int64
	index int
	gap   bool
	last  bool // of a segment that is complete
}

// media is a media playlist, and what can be downloaded of it.
type media struct {
	*validate.Playlist
	parts []part
}

// parse reads a playlist; any fault is an error.
func parse(text []byte) (*validate.Playlist, error) {
	p, faults := validate.Parse("playlist", text)
	if len(faults) > 0 {
		return nil, errors.New(faults[0].String())
	}
	return p, nil
}

// parseMultivariant returns the URIs of the variants in their order.
func parseMultivariant(text []byte) ([]string, error) {
	p, err := parse(text)
	if err != nil {
		return nil, err
	}
	if len(p.Variants) == 0 {
		return nil, errors.New("a multivariant playlist without variants")
	}
	out := make([]string, len(p.Variants))
	for i, v := range p.Variants {
		out[i] = v.URI
	}
	return out, nil
}

// parseMedia reads a media playlist.
func parseMedia(text []byte) (*media, error) {
	p, err := parse(text)
	if err != nil {
		return nil, err
	}
	m := &media{Playlist: p}
	var next time.Time // of the next segment, where it has no date of its own
	for i := range p.Segments {
		s := &p.Segments[i]
		if s.Date.IsZero() {
			s.Date = next
		}
		m.add(s)
		next = after(s.Date, s.Duration)
	}
	return m, nil
}

// add lists what can be downloaded of a segment.
func (m *media) add(s *validate.Segment) {
	at := s.Date
	for i, x := range s.Parts {
		m.parts = append(m.parts, part{
			uri: x.URI, init: s.Map, duration: x.Duration, start: at, msn: int64(s.MSN), index: i, gap: x.Gap,
			last: !s.Open() && i == len(s.Parts)-1,
		})
		at = after(at, x.Duration)
	}
	if len(s.Parts) == 0 && !s.Open() {
		m.parts = append(m.parts, part{uri: s.URI, init: s.Map, duration: s.Duration, start: at, msn: int64(s.MSN), gap: s.Gap, last: true})
	}
}

// after is d later, if the time is known.
func after(t time.Time, d time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d)
}

// startPart is the index of the newest part that lies at least the hold-back behind the live edge.
func (m *media) startPart() int {
	want := m.holdBack()
	i := len(m.parts) - 1
	for behind := m.parts[i].duration; i > 0 && behind < want; {
		i--
		behind += m.parts[i].duration
	}
	return i
}

func (m *media) holdBack() time.Duration {
	switch {
	case m.Control.PartHoldBack > 0:
		return m.Control.PartHoldBack
	case m.PartTarget > 0:
		return 3 * m.PartTarget
	}
	return 3 * time.Duration(m.Target) * time.Second
}

// edge is the epoch in the objects' names, the newest part, and how many parts a segment has.
func (m *media) edge() (epoch string, at part, per int, err error) {
	if m.Ended {
		return "", at, 0, errEnded
	}
	finished := 0
	for i := range m.Segments {
		if s := &m.Segments[i]; !s.Open() {
			finished++
			per = max(per, len(s.Parts)) // the first segment of a program may be shorter than the others
		}
	}
	if len(m.parts) > 0 {
		at = m.parts[len(m.parts)-1]
		epoch = epochOf(at.uri)
	}
	if epoch == "" || per == 0 || finished < 2 {
		return "", at, 0, fmt.Errorf("the playlist has no parts by which to know the next ones' names: %d of %d segments are whole", finished, len(m.Segments))
	}
	return epoch, at, per, nil
}
