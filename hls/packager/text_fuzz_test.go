package packager_test

import (
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/playlist"
	"github.com/amphi-sfu/amphi/hls/validate"
)

// Whatever people write, playlists and captions stay well-formed, and what is accepted can be read back.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{"Hello", "a --> b\n\nWEBVTT", "\"quoted\",X=\"y\"\r\n#EXT-X-ENDLIST", "100 %41", "<c.x>&amp;\u0085", "\xff", ""} {
		f.Add(s, "chat")
	}
	f.Fuzz(func(t *testing.T, text, kind string) {
		s := newSource(t, packager.Config{Captions: []string{"en"}, Variants: []packager.Variant{{Name: "v", Bitrate: 300_000}}})
		s.begin(0)
		cue := packager.Cue{ID: "c", Type: kind, Text: text, Sender: kind, At: start.Add(time.Second)}
		accepted := s.p.AddCue(cue, start.Add(time.Second)) == nil
		if err := s.p.AddCaption("en", packager.Caption{Start: start, End: start.Add(time.Second), Text: text}); err != nil {
			t.Fatal(err)
		}
		s.play(0, 61)
		p, faults := validate.Parse("v", s.media("v").Published().Form(playlist.SkipNone).Bytes())
		if len(faults) > 0 || p.Ended {
			t.Fatalf("%v\n%s", faults, s.full("v"))
		}
		if accepted {
			if got, err := url.PathUnescape(p.Ranges[0].Attributes["X-TEXT"]); err != nil || got != text || len(p.Ranges) != 1 {
				t.Fatalf("%q is read as %q, %v", text, got, err)
			}
		} else if utf8.ValidString(text) && len(text) < 300 && kind != "" && len(kind) < 100 && utf8.ValidString(kind) && !strings.ContainsFunc(kind, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '%' }) {
			t.Fatalf("%q of %q was refused", text, kind)
		}
		if c := s.captions(t, "en", 0); len(c.Cues) != 1 {
			t.Fatalf("%d cues of %q", len(c.Cues), text)
		}
	})
}
