package packager_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/spill"
	"github.com/amphi-sfu/amphi/hls/validate"
)

// disk is a Disk that writes at once, or fails as told.
type disk struct {
	dir   string
	fail  error
	slow  bool
	files int
}

func (d *disk) Put(name string, chunks [][]byte, done func(string, error)) bool {
	if d.slow {
		return false
	}
	path := filepath.Join(d.dir, name)
	if d.fail != nil {
		go done(path, d.fail) // as a writer would: not in the caller's turn
		return true
	}
	var b []byte
	for _, c := range chunks {
		b = append(b, c...)
	}
	d.files++
	err := os.WriteFile(path, b, 0o600)
	go done(path, err)
	return true
}

func (d *disk) Remove(path string) {
	d.files--
	_ = os.Remove(path)
}

// settled waits until the disk has answered.
func settled(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("%s does not come true", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestLongWindowIsOnDisk(t *testing.T) {
	t.Parallel()
	d := &disk{dir: t.TempDir()}
	s := newSource(t, packager.Config{Window: 40, Disk: d, FirstMSN: 100, Variants: []packager.Variant{{Name: "720p", Bitrate: 300_000}}})
	s.begin(0)
	c := validate.New()
	for i := range int64(60) {
		s.play(i*60, i*60+60)
		c.Media("720p", time.Now(), validate.Request{Part: -1}, []byte(s.full("720p")))
	}
	if list, _ := c.Faults(); len(list) > 0 {
		t.Error(list)
	}
	settled(t, "on disk", func() bool { return s.p.Stats().DVR.OnDisk > 40*60_000 })
	st := s.p.Stats()
	if st.Bytes > 12*150_000 || st.DVR.Length < 80*time.Second || st.DVR.Failure != nil {
		t.Errorf("%d bytes in memory, %+v", st.Bytes, st.DVR)
	}
	p := s.parsed("720p")
	if len(p.Segments) != 40 {
		t.Fatalf("%d segments", len(p.Segments))
	}
	n, _ := packager.ParseName(p.Segments[0].URI)
	o, ok := s.media("720p").Object(n)
	b, err := o.Read()
	if !ok || o.File == "" || err != nil || len(b) != 1 || len(b[0]) != o.Size || !strings.Contains(string(b[0][:200]), "moof") {
		t.Errorf("oldest segment: %v %v %+v", ok, err, o.File)
	}
}

func TestEventPlaylist(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Window: 20, Event: true, Disk: &disk{dir: t.TempDir()}})
	s.begin(0)
	s.play(0, 60*19)
	if l := s.full("720p"); !strings.Contains(l, "#EXT-X-PLAYLIST-TYPE:EVENT\n") || !strings.Contains(l, "#EXT-X-MEDIA-SEQUENCE:0\n") {
		t.Error(l[:400])
	}
	s.play(60*19, 60*24) // it may not grow for ever
	if l := s.full("720p"); strings.Contains(l, "EVENT") || !strings.Contains(l, "#EXT-X-MEDIA-SEQUENCE:4\n") {
		t.Error(l[:400])
	}
	if err := s.p.End(); err != nil {
		t.Fatal(err)
	}
	if l := s.full("720p"); !strings.HasSuffix(l, "#EXT-X-ENDLIST\n") {
		t.Error("no end")
	}
}

// A disk that is full, gone or too slow makes the window shorter, with a reason, and memory stays bounded.
func TestDiskInTrouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*disk)
		least  int // segments listed afterwards
		reason string
	}{
		"full": {func(d *disk) { d.fail = fmt.Errorf("x: %w", spill.ErrFull) }, 15, "no room left"},
		"gone": {func(d *disk) { d.fail = errors.New("input/output error") }, 15, "input/output"},
		"slow": {func(d *disk) { d.slow = true }, 15, "too slow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &disk{dir: t.TempDir()}
			s := newSource(t, packager.Config{Window: 100, Event: true, Disk: d, Variants: []packager.Variant{{Name: "720p", Bitrate: 300_000}}})
			s.begin(0)
			s.play(0, 60*60)
			settled(t, "on disk", func() bool { return s.p.Stats().DVR.OnDisk > 0 })
			c.change(d)
			for i := int64(60); i < 110; i++ {
				s.play(i*60, i*60+60)
			}
			settled(t, "a reason", func() bool { return s.p.Stats().DVR.Failure != nil })
			for i := int64(110); i < 114; i++ {
				s.play(i*60, i*60+60)
			}
			st := s.p.Stats()
			if n := len(s.parsed("720p").Segments); n < c.least || n > 110 || !strings.Contains(fmt.Sprint(st.DVR.Failure), c.reason) {
				t.Errorf("%d segments, %v", n, st.DVR.Failure)
			}
			if strings.Contains(s.full("720p"), "EVENT") {
				t.Error("still an EVENT playlist")
			}
			// 2 × 31 segments of 75 kB, and those that the disk gives back.
			if st.Bytes > 33*100_000 {
				t.Errorf("%d bytes in memory", st.Bytes)
			}
		})
	}
}
