package packager

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/hls/playlist"
)

// captionsPrefix begins the names of captions' playlists, which no variant may have.
const captionsPrefix = "captions-"

// Caption is a text under the picture.
type Caption struct {
	Start, End time.Time // of the words
	Text       string    // lines
}

// ErrLanguage says that the program has no captions in a language.
var ErrLanguage = errors.New("no captions in this language")

const maxCaptions = 256

// captions are one language: a WebVTT segment for each of the pictures'.
type captions struct {
	*Media
	language string
	waiting  []Caption // by start; what ended before the next segment is gone
}

func (p *Packager) addCaptions(language string) error {
	list, err := playlist.New(playlist.Config{
		SegmentTarget: p.cfg.ticks(int64(p.cfg.SegmentTicks)), Window: p.cfg.Window, Event: p.cfg.Event,
		FirstMSN: p.cfg.FirstMSN, FirstDiscontinuity: p.cfg.FirstDiscontinuity,
	})
	if err != nil {
		return fmt.Errorf("making the captions' playlist: %w", err)
	}
	if p.cfg.Continues {
		list.Break()
	}
	name := captionsPrefix + language
	p.captions = append(p.captions, &captions{language: language, Media: &Media{
		packager: p, name: name, cfg: &p.cfg, list: list, store: newStore(name, p.cfg.Disk), partTarget: p.cfg.ticks(int64(p.cfg.SegmentTicks)),
	}})
	return nil
}

// AddCaption adds a caption. One whose segment is out is shown from the beginning of the next one.
func (p *Packager) AddCaption(language string, c Caption) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.captions, func(t *captions) bool { return t.language == language })
	switch {
	case p.ended:
		return ErrEnded
	case i < 0:
		return ErrLanguage
	case !c.End.After(c.Start):
		return errors.New("caption ends before it begins")
	case len(p.captions[i].waiting) >= maxCaptions:
		return ErrTooManyCues
	}
	t := p.captions[i]
	if next := t.next; c.Start.Before(next) {
		c.Start, c.End = next, next.Add(c.End.Sub(c.Start))
	}
	at, _ := slices.BinarySearchFunc(t.waiting, c, func(a, b Caption) int {
		if a.Start.After(b.Start) {
			return 1
		}
		return -1
	})
	t.waiting = slices.Insert(t.waiting, at, c)
	return nil
}

// captionsLocked makes the segments that the first variant has finished.
func (p *Packager) captionsLocked() {
	lead := p.medias[0].list
	for _, t := range p.captions {
		made := false
		for t.list.OpenMSN() < lead.OpenMSN() {
			start, d, ok := lead.Segment(t.list.OpenMSN())
			if !ok {
				start, d = p.cfg.Start, p.cfg.ticks(int64(p.cfg.SegmentTicks))
			}
			t.segment(start, d)
			made = true
		}
		if made {
			t.publish(nil)
		}
	}
}

// segment makes one: all captions that are shown in it, also those that began before.
func (t *captions) segment(start time.Time, d time.Duration) {
	n := Name{Epoch: t.cfg.Epoch, MSN: t.list.OpenMSN(), Part: 0, Init: -1, Text: true}
	t.store.put(n, t.vtt(start, start.Add(d)))
	whole := n
	whole.Part = -1
	t.slide()
	if err := t.list.FinishWhole(whole.String(), start, d); err != nil {
		return // no segment of captions is ever open
	}
	t.store.finish(whole, []Name{n}, t.keep())
	t.next = start.Add(d)
	t.waiting = slices.DeleteFunc(t.waiting, func(c Caption) bool { return !c.End.After(t.next) })
}

// vtt writes a WebVTT segment. Its times are those of the media's time line, which X-TIMESTAMP-MAP says.
func (t *captions) vtt(from, to time.Time) []byte {
	at := max(0, from.Sub(t.cfg.Start))
	var b strings.Builder
	fmt.Fprintf(&b, "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:%d,LOCAL:%s\n", units(at, 90_000)&(1<<33-1), clock(at))
	for _, c := range t.waiting {
		if c.Start.Before(to) && c.End.After(from) {
			fmt.Fprintf(&b, "\n%s --> %s\n%s\n", clock(c.Start.Sub(t.cfg.Start)), clock(c.End.Sub(t.cfg.Start)), plain(c.Text))
		}
	}
	return []byte(b.String())
}

func clock(d time.Duration) string {
	ms := max(0, d).Milliseconds()
	return fmt.Sprintf("%02d:%02d:%02d.%03d", ms/3_600_000, ms/60_000%60, ms/1000%60, ms%1000)
}

// plain makes any text one that WebVTT shows as it is: no tags, no empty lines, no control characters.
func plain(text string) string {
	var lines []string
	for l := range strings.Lines(text) {
		l = strings.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				return -1
			}
			return r
		}, strings.ToValidUTF8(l, "\ufffd"))
		if strings.TrimSpace(l) != "" {
			lines = append(lines, strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(l))
		}
	}
	return strings.Join(lines, "\n")
}
