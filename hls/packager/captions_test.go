package packager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/validate"
)

func (s *source) captions(t testing.TB, language string, msn int) validate.Captions {
	t.Helper()
	b := s.object("captions-"+language, fmt.Sprintf("42-%d.vtt", msn))
	c, err := validate.ParseCaptions(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	return c
}

// Captions are in all segments that they are shown in, on the media's own time line; late ones are in the next segment.
func TestCaptions(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Captions: []string{"en", "pt-BR"}})
	s.begin(0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	add := func(from, to int, text string) {
		t.Helper()
		if err := s.p.AddCaption("en", packager.Caption{Start: at(from), End: at(to), Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	s.play(0, 30)
	add(1500, 2500, "a <b> & c --> d\n\n\tx")
	s.play(30, 70) // the first two seconds are out
	add(300, 1300, "late")
	s.play(70, 250)
	c := s.captions(t, "en", 0)
	if len(c.Cues) != 1 || c.Cues[0].Text != "a &lt;b&gt; &amp; c --&gt; d\nx" || c.Media(c.Cues[0].Start) != 1500*time.Millisecond {
		t.Errorf("%+v", c)
	}
	c = s.captions(t, "en", 1)
	if len(c.Cues) != 2 || c.Media(c.Cues[0].Start) != 1500*time.Millisecond || c.Cues[1].Text != "late" || c.Media(c.Cues[1].Start) != 2*time.Second ||
		c.Media(c.Cues[1].End) != 3*time.Second {
		t.Errorf("%+v", c)
	}
	if c = s.captions(t, "en", 2); len(c.Cues) != 0 {
		t.Errorf("%+v", c)
	}
	if c = s.captions(t, "pt-BR", 1); len(c.Cues) != 0 {
		t.Errorf("%+v", c)
	}
	if err := s.p.AddCaption("de", packager.Caption{Start: at(0), End: at(1)}); !errors.Is(err, packager.ErrLanguage) {
		t.Error(err)
	}
	if err := s.p.AddCaption("en", packager.Caption{Start: at(1), End: at(1)}); err == nil {
		t.Error("a caption without length")
	}
	for i := range 1000 {
		if err := s.p.AddCaption("pt-BR", packager.Caption{Start: at(60_000), End: at(61_000), Text: "x"}); err != nil {
			if i < 100 {
				t.Error(err)
			}
			break
		} else if i == 999 {
			t.Error("captions without bound")
		}
	}
	b, _ := s.p.Multivariant()
	if !strings.Contains(string(b), `TYPE=SUBTITLES,GROUP-ID="captions",NAME="en",LANGUAGE="en",AUTOSELECT=YES,DEFAULT=YES,URI="captions-en/index.m3u8"`) ||
		!strings.Contains(string(b), `SUBTITLES="captions"`) {
		t.Errorf("%s", b)
	}
	// Numbers, times and discontinuities stay those of the pictures, through a respawn and the end.
	if err := s.p.Cut(); err != nil {
		t.Fatal(err)
	}
	s.begin(300)
	s.play(300, 500)
	if err := s.p.End(); err != nil {
		t.Fatal(err)
	}
	v, w := s.parsed("720p"), s.parsed("captions-en")
	if len(v.Segments) != len(w.Segments) || v.MediaSequence != w.MediaSequence || !w.Endlist {
		t.Fatalf("%d and %d segments", len(v.Segments), len(w.Segments))
	}
	for i := range v.Segments {
		a, b := v.Segments[i], w.Segments[i]
		if !a.DateTime.Equal(*b.DateTime) || a.Duration != b.Duration || a.Discontinuity != b.Discontinuity {
			t.Errorf("segment %d: %v %v %v, captions %v %v %v", i, a.DateTime, a.Duration, a.Discontinuity, b.DateTime, b.Duration, b.Discontinuity)
		}
	}
}
