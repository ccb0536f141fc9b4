package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newContext() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

var request = Request{ID: "rec1", Room: "demo", Session: "s1", Stream: "main"}

func TestAProgramBecomesFiles(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p", "360p")
	s := &states{}
	now := start.Add(2 * time.Second)
	shot := func(_ context.Context, b []byte) ([]byte, error) {
		if !bytes.HasPrefix(b, []byte{0, 0, 0, 1, 0x67}) {
			return nil, errors.New("no parameter sets")
		}
		return []byte("jpeg"), nil
	}
	r, _ := run(t, Config{Source: p, Thumbnail: shot, Now: func() time.Time { return now }}, s)
	p.play(20) // recordings begin with a keyframe
	req := request
	req.Variants = []string{AllVariants}
	if err := r.Start(req); err != nil {
		t.Fatal(err)
	}
	p.play(40 + 180)
	written(t, r, "rec1", 5*time.Second)
	now = start.Add(2*time.Second + 60*time.Second/30 + 3*time.Second)
	if err := r.Note("rec1", []byte(`{"text":"hello"}`)); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop("rec1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	for _, v := range []string{"720p", "360p"} {
		a, ok := s.asset(Program, v)
		if !ok {
			t.Fatalf("no movie %s in %+v", v, s.assets)
		}
		path := filepath.Join(r.Dir("rec1"), a.File)
		video, audio := frames(t, path)
		if len(video) != 180 || video[0] != "0.000000" || len(audio) < 281 || len(audio) > 283 {
			t.Errorf("%s: %d pictures from %s on, %d sounds", v, len(video), video[0], len(audio))
		}
		decodes(t, path)
		if !a.Started.Equal(start.Add(4*time.Second)) || a.Width != 320 || a.Duration < 6*time.Second || a.Duration > 6100*time.Millisecond || a.Checksum == "" {
			t.Errorf("%+v", a)
		}
	}
	list, ok := s.asset(Playlist, "")
	if !ok || len(list.With) != 4 {
		t.Fatalf("playlist %+v", list)
	}
	video, audio := frames(t, filepath.Join(r.Dir("rec1"), list.File))
	if len(video) != 2*180 || len(audio) < 2*281 { // of both variants
		t.Errorf("playlist: %d pictures, %d sounds", len(video), len(audio))
	}
	decodes(t, filepath.Join(r.Dir("rec1"), "720p.m3u8"))
	b, err := os.ReadFile(filepath.Join(r.Dir("rec1"), chatName))
	var n note
	if err != nil || json.Unmarshal(b, &n) != nil || n.At != 3000 || string(n.Data) != `{"text":"hello"}` {
		t.Errorf("chat log: %s, %v", b, err)
	}
	if thumb, ok := s.asset(Thumbnail, ""); !ok || thumb.ContentType != "image/jpeg" {
		t.Errorf("thumbnail: %+v", thumb)
	}
	if _, err := r.State("rec1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("state in the end: %v", err)
	}
	if err := r.Start(request); !errors.Is(err, ErrExists) {
		t.Errorf("a second one of this name: %v", err)
	}
}

// A pause and a change of compositor are closed up: no hole is left in picture or sound.
func TestPausesAndRestartsAreClosedUp(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p", "360p")
	s := &states{}
	r, _ := run(t, Config{Source: p}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(100)
	if err := p.pack.Cut(); err != nil {
		t.Fatal(err)
	}
	p.begin(60 + 150)
	p.play(60)
	written(t, r, "rec1", 5*time.Second)
	if err := r.Pause("rec1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "pause", func() bool { return s.last().Phase == Paused })
	p.play(100) // ends in the middle of a GOP
	if err := r.Resume("rec1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "resume", func() bool { return s.last().Phase != Paused })
	p.play(140)
	if err := p.pack.End(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	if s.last().Reason == "" {
		t.Error("no reason for an end that nobody asked for")
	}
	a, _ := s.asset(Program, "720p")
	path := filepath.Join(r.Dir("rec1"), a.File)
	video, audio := frames(t, path)
	// 100 and 60 pictures, then those from the keyframe behind the pause: 300 − 180 of the second run.
	if len(video) != 100+60+120 {
		t.Errorf("%d pictures", len(video))
	}
	if want := float64(len(video)) / 30 * 48000 / 1024; float64(len(audio)) < want-4 || float64(len(audio)) > want+2 {
		t.Errorf("%d sounds for %d pictures", len(audio), len(video))
	}
	gaps(t, video, 1.0/30)
	gaps(t, audio, 1024.0/48000)
	decodes(t, path)
	decodes(t, filepath.Join(r.Dir("rec1"), "720p.m3u8"))
	if exists(filepath.Join(r.Dir("rec1"), "360p.mp4")) {
		t.Error("a variant that was not asked for")
	}
	list, _ := os.ReadFile(filepath.Join(r.Dir("rec1"), "720p.m3u8"))
	if n := strings.Count(string(list), "PROGRAM-DATE-TIME"); n != 3 {
		t.Errorf("%d dates instead of 3:\n%s", n, list)
	}
}

// gaps complains of times that are more than two samples apart.
func gaps(t *testing.T, times []string, sample float64) {
	t.Helper()
	last := 0.0
	for i, s := range times {
		var at float64
		if err := json.Unmarshal([]byte(s), &at); err != nil {
			t.Fatal(err)
		}
		if i > 0 && (at-last > 2*sample || at <= last) {
			t.Errorf("sample %d at %v comes after %v", i, at, last)
		}
		last = at
	}
}

func TestRequestsAreChecked(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p")
	r, stop := run(t, Config{Source: p, MaxRecordings: 1}, &states{})
	for _, change := range []func(*Request){
		func(r *Request) { r.ID = "../x" }, func(r *Request) { r.ID = "" }, func(r *Request) { r.Room = "" },
		func(r *Request) { r.Variants = []string{"a/b"} }, func(r *Request) { r.NoMovie, r.NoPlaylist = true, true },
	} {
		req := request
		change(&req)
		if err := r.Start(req); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%+v: %v", req, err)
		}
	}
	req := request
	req.Stream = "other"
	if err := r.Start(req); !errors.Is(err, errNoStream) || exists(r.Dir("rec1")) {
		t.Errorf("no stream: %v", err)
	}
	for name, err := range map[string]error{"pause": r.Pause("x"), "resume": r.Resume("x"), "stop": r.Stop("x"), "note": r.Note("x", []byte("1"))} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	if err := r.Note("rec1", []byte("{")); !errors.Is(err, ErrBadRequest) {
		t.Errorf("broken note: %v", err)
	}
	req.ID, req.Stream = "rec2", "main"
	if err := r.Start(req); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	stop()
	if err := r.Start(req); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestNothingRecordedIsAFailure(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p")
	s := &states{}
	r, _ := run(t, Config{Source: p}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop("rec1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Failed })
	if exists(r.Dir("rec1")) {
		t.Error("an empty recording is kept")
	}
}

// A recorder that ends leaves recordings to the next one.
func TestRecover(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p")
	dir := t.TempDir()
	r, stop := run(t, Config{Source: p, Dir: dir}, &states{})
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(150)
	written(t, r, "rec1", 4*time.Second)
	stop()
	// As if it had been killed while it wrote.
	f, err := os.OpenFile(filepath.Join(dir, "rec1", rawName("720p", 0)), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("\x00\x00\x10\x00moof\x00\x00")
		err = errors.Join(err, f.Close())
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "rec1", rawName("720p", 1)), []byte("\x00\x00\x00\x18ftypis"), 0o600))
	err = errors.Join(err, os.Mkdir(filepath.Join(dir, "empty"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	s := &states{}
	r, _ = run(t, Config{Source: p, Dir: dir}, s)
	found, err := r.Recover()
	if err != nil || len(found) != 1 || found[0].ID != "rec1" || found[0].Session != "s1" {
		t.Fatalf("%+v, %v", found, err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	video, _ := frames(t, filepath.Join(dir, "rec1", "720p.mp4"))
	if len(video) != 150 {
		t.Errorf("%d pictures", len(video))
	}
	decodes(t, filepath.Join(dir, "rec1", "720p.m3u8"))
	if again, err := r.Recover(); err != nil || len(again) != 0 {
		t.Errorf("again: %v, %v", again, err)
	}
	s.mu.Lock()
	assets := s.assets
	s.mu.Unlock()
	if len(assets) < 2 {
		t.Fatalf("%+v", assets)
	}
}

// What was recorded is there until the manifest says that the files made of it are, also where no playlist needs it, and in a directory whose name has
// characters of patterns; however many wait for the storage, all are told again.
func TestManifestComesFirst(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p")
	dir := filepath.Join(t.TempDir(), "[a]")
	s := &states{}
	r, stop := run(t, Config{Source: p, Dir: dir}, s)
	ids := []string{"rec1", "rec2", "rec3"}
	for _, id := range ids {
		q := request
		q.ID, q.NoPlaylist, q.Thumbnails = id, true, -1
		if err := r.Start(q); err != nil {
			t.Fatal(err)
		}
	}
	p.play(90)
	for _, id := range ids {
		written(t, r, id, 2*time.Second)
	}
	// The manifest of the first cannot be replaced.
	manifest := filepath.Join(dir, "rec1", manifestName)
	b, err := os.ReadFile(manifest)
	if err = errors.Join(err, os.Remove(manifest), os.Mkdir(manifest, 0o700), os.Mkdir(filepath.Join(manifest, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := r.Stop(id); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three movies", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.assets) == 3 })
	stop()
	if err := errors.Join(os.RemoveAll(manifest), os.WriteFile(manifest, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if raw := rawName("720p", 0); !exists(filepath.Join(dir, "rec1", raw)) || exists(filepath.Join(dir, "rec2", raw)) {
		t.Error("what was recorded was not kept, or is kept for too long")
	}
	s = &states{}
	r, _ = run(t, Config{Source: p, Dir: dir, MaxRecordings: 1}, s)
	if found, err := r.Recover(); err != nil || len(found) != 1 || found[0].ID != "rec1" {
		t.Fatalf("%+v, %v", found, err)
	}
	eventually(t, "three movies again", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.assets) == 3 })
	video, _ := frames(t, filepath.Join(dir, "rec1", "720p.mp4"))
	if len(video) != 90 {
		t.Errorf("%d pictures", len(video))
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"request":{"id":"a","room":"r","stream":"main"},"started":"2026-11-28T05:00:00Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err == nil && !nameOK(m.Request.ID) {
			t.Fatalf("id %q", m.Request.ID)
		}
	})
}
