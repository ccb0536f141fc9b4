package movie_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/movie"
)

func TestCodecs(t *testing.T) {
	t.Parallel()
	m := load(t)
	if c := m.tracks[0].Codecs(); c != "avc1.64000d" {
		t.Errorf("video is %q", c)
	}
	if c := m.tracks[1].Codecs(); c != "mp4a.40.2" {
		t.Errorf("audio is %q", c)
	}
	if c := (&movie.Track{Entry: []byte("\x00\x00\x00\x08avc1"), Video: true}).Codecs(); c != "" {
		t.Errorf("an empty entry is %q", c)
	}
}

// What comes out of a file is the access unit that went in, but for what the init section has.
func TestAnnexB(t *testing.T) {
	t.Parallel()
	m := load(t)
	au, err := fmp4.ParseAnnexB(m.tracks[0].AnnexB(m.data[0]))
	if err != nil || !au.Key || len(au.SPS) == 0 || len(au.PPS) == 0 || !bytes.Equal(au.Data, m.data[0]) {
		t.Errorf("%d bytes, key %v, %v", len(au.Data), au.Key, err)
	}
	if m.tracks[1].AnnexB(m.data[0]) != nil || m.tracks[0].AnnexB([]byte{0, 0, 1, 0, 5}) != nil {
		t.Error("made something of nothing")
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	m := load(t)
	wall := time.Date(2026, 11, 28, 5, 6, 7, 123456789, time.UTC)
	b := movie.AppendHeader(nil, m.tracks)
	b = m.fragment(b, 0, 0)
	b = movie.AppendReference(b, 1, wall, 15*tick)
	b = m.fragment(b, 1, 15)
	var walls []time.Time
	if _, err := movie.Scan(bytes.NewReader(b), int64(len(b)), nil, func(f *movie.Fragment) error {
		walls = append(walls, f.Wall)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(walls) != 2 || !walls[0].IsZero() || walls[1].Sub(wall).Abs() > time.Nanosecond {
		t.Errorf("%v", walls)
	}
	out, _ := progressive(t, source(b))
	decodes(t, out)
	decodes(t, b)
}

func FuzzTrack(f *testing.F) {
	m := load(f)
	f.Add(movie.AppendHeader(nil, m.tracks), []byte{0, 0, 0, 2, 0x65, 1})
	f.Fuzz(func(t *testing.T, head, sample []byte) {
		tracks, err := movie.ParseInit(head)
		if err != nil {
			return
		}
		for _, tr := range tracks {
			tr.Codecs()
			tr.AnnexB(sample)
		}
	})
}
