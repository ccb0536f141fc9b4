package hls

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/validate"
)

// A running stream keeps all rules, with two variants, date ranges, and a compositor that dies on the way.
func TestStreamKeepsTheRules(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, nil)
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: Settings{Window: 8, Captions: []string{"en"}, Segment: time.Second, Part: 250 * time.Millisecond, Variants: []packager.Variant{
		{Name: "180p", Width: 320, Height: 180, Bitrate: 500_000}, {Name: "low", Width: 320, Height: 180, Bitrate: 500_000},
	}}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan *validate.Checker, 1)
	go func() {
		c, err := validate.Follow(ctx, validate.Config{URL: s.url + "/v1/hls/demo/main/index.m3u8"})
		if err != nil {
			t.Error(err)
		}
		done <- c
	}()
	segments := func(n int) func() bool {
		return func() bool { p := s.playlist(mainList); return p != nil && p.MediaSequence+len(p.Segments) >= n }
	}
	eventually(t, "a playlist", func() bool { p := s.playlist(mainList); return p != nil && len(p.Segments) > 0 })
	first := s.playlist(mainList).MediaSequence
	if err := s.AddCue("demo", "main", packager.Cue{ID: "cue", Type: "test", Text: "hello", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, ago := range []time.Duration{0, 5 * time.Second} {
		now := time.Now().Add(-ago)
		if err := s.AddCaption("demo", "main", "en", packager.Caption{Start: now, End: now.Add(2500 * time.Millisecond), Text: "Hello"}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "more segments", segments(first+5))
	if err := syscall.Kill(s.Programs()[0].Composer.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a window that has moved", segments(first+11))
	if err := s.Stop(context.Background(), "demo", "main"); err != nil {
		t.Fatal(err)
	}
	c := <-done
	if c == nil {
		t.FailNow()
	}
	faults, n := c.Faults()
	for _, f := range faults {
		t.Error(f)
	}
	st := c.Stats()
	t.Logf("%+v", st)
	if n != 0 || st.Parts < 60 || st.Segments < 20 || st.Deltas < 3 || st.Captions < 6 {
		t.Errorf("%d faults, %+v", n, st)
	}
}

// What cannot be started leaves nothing on disk.
func TestRefusedStartLeavesNoFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "segments")
	s := runOrigin(t, &room{}, func(c *Config) { c.SegmentDir = dir })
	for what, settings := range map[string]Settings{
		"packager": {FPS: 7}, "arranger": {Width: 62, Height: 62}, "composer": {Encoder: "mpeg2video"},
	} {
		settings.DVR = time.Minute
		if _, err := s.Start(t.Context(), StartRequest{Room: "demo", Stream: "main", Settings: settings}); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s: %v", what, err)
		}
		// The disk's goroutine removes it.
		eventually(t, "no folder after "+what, func() bool {
			left, err := os.ReadDir(dir)
			return len(left) == 0 && (err == nil || errors.Is(err, os.ErrNotExist))
		})
	}
}

// With a DVR window, viewers go back to what is on disk; the folder is gone when the origin ends.
func TestDVR(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "segments")
	s := runOrigin(t, &room{}, func(c *Config) { c.SegmentDir = dir })
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: Settings{Segment: time.Second, Part: 250 * time.Millisecond, DVR: time.Minute, Event: true}})
	eventually(t, "an old segment on disk", func() bool {
		list := s.Programs()
		return list[0].Packager.DVR.OnDisk > 0 && list[0].Packager.DVR.Length > 9*time.Second
	})
	_, body := s.get(mainList)
	p := s.playlist(mainList)
	if !strings.Contains(body, "#EXT-X-PLAYLIST-TYPE:EVENT") || len(p.Segments) < 7 { // of 1.07 s, and one that is open
		t.Errorf("%s", body)
	}
	code, old := s.get("/v1/hls/demo/main/180p/" + p.Segments[0].URI)
	if code != 200 || !strings.Contains(old, "moof") {
		t.Errorf("the oldest segment: %d, %d bytes", code, len(old))
	}
	if st := s.Programs()[0]; st.Status().GetWindowS() < 9 || st.Status().GetDiskBytes() == 0 || st.Status().GetWindowFailure() != "" {
		t.Errorf("%v", st.Status())
	}
	s.stop()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
}

func TestDVRWithoutDisk(t *testing.T) {
	t.Parallel()
	s := runOrigin(t, &room{}, nil)
	s.start(StartRequest{Room: "demo", Stream: "main", Settings: Settings{DVR: time.Minute}})
	st := s.Programs()[0]
	if got := st.Status().GetWindowFailure(); got != errNoDisk.Error() || st.Packager.DVR.Failure == nil {
		t.Errorf("failure %q", got)
	}
	if _, err := s.Start(context.Background(), StartRequest{Room: "demo", Stream: "b", Settings: Settings{DVR: 13 * time.Hour}}); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
}
