package hls

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/validate"
)

// Target H9: a cue is with the picture of its moment. The tick of each picture is the wall clock's, so the picture on a
// cue's presentation time was made within a tick of it; that the part arrives in time is seen as well.
func TestCuesAreWithTheirPictures(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, nil)
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: Settings{Segment: time.Second, Part: 250 * time.Millisecond}})
	s.get("/v1/hls/demo/main/index.m3u8")
	eventually(t, "a segment", func() bool { p := s.playlist(mainList); return p != nil && len(p.Segments) >= 1 })
	sent := map[string]time.Time{}
	for i, ahead := range []time.Duration{0, 300 * time.Millisecond, 1300 * time.Millisecond} {
		id := string(rune('a' + i))
		sent[id] = time.Now().Add(ahead)
		if err := s.AddCue("demo", "main", packager.Cue{ID: id, Type: "t", Text: "x", At: sent[id]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddCue("demo", "main", packager.Cue{ID: "a", Type: "t", At: time.Now()}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("twice the same id: %v", err)
	}
	if err := s.AddCue("demo", "none", packager.Cue{ID: "a", Type: "t", At: time.Now()}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no stream: %v", err)
	}
	var p *validate.Playlist
	var list string
	eventually(t, "the last one's part", func() bool {
		_, list = s.get(mainList)
		p, _ = validate.Parse("", []byte(list))
		n := len(p.Segments)
		return n > 0 && p.Segments[n-1].Date.After(sent["c"])
	})
	if got := len(p.Ranges); got != 3 {
		t.Errorf("%d date ranges", got)
	}
	for _, r := range p.Ranges {
		if d := r.Start.Sub(sent[r.ID]).Abs(); d > 5*time.Millisecond {
			t.Errorf("date range %s is %v off", r.ID, d)
		}
	}
	_, b := s.get("/v1/hls/demo/main/180p/" + p.Segments[0].Map)
	init, err := validate.ParseInit([]byte(b))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	id := regexp.MustCompile(`"id":"(\w)"`)
	for _, seg := range p.Segments {
		if seg.Open() {
			continue
		}
		_, b := s.get("/v1/hls/demo/main/180p/" + seg.URI)
		parts, err := validate.ParseFragments([]byte(b), init)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range parts {
			for _, e := range f.Events {
				m := id.FindStringSubmatch(string(e.Data))
				if m == nil || !strings.Contains(e.Scheme, "emsg/ID3") {
					t.Fatalf("%+v", e)
				}
				found[m[1]] = true
				// The picture that is shown at the event's time, by the playlist's dates.
				shown := seg.Date.Add(time.Duration(float64(int64(e.Time)-int64(parts[0].Base)) / float64(e.Timescale) * 1e9))
				if d := shown.Sub(sent[m[1]]).Abs(); d > 100*time.Millisecond {
					t.Errorf("cue %s is %v from its picture", m[1], d)
				} else {
					t.Logf("cue %s is %v from its picture", m[1], d)
				}
				if e.Time < f.Base || e.Time >= f.Base+f.Duration {
					t.Logf("cue %s is in a later part", m[1]) // its own was out
				}
			}
		}
	}
	if len(found) != 3 {
		t.Errorf("found %v", found)
	}
}
