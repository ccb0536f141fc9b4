package storage

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const playlist = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p.m3u8\n"

func TestLinks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	gate := newGate(t, "/v1/assets/", func() time.Time { return now })
	dir := t.TempDir()
	disk, err := NewDisk(dir, gate)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"index.m3u8": playlist, "720p.m3u8": "#EXTM3U\n", "720p.0.mp4": "media", "chat.jsonl": "secret"} {
		for _, rec := range []string{"r=20/rec", "r=20/other"} {
			if err := os.MkdirAll(filepath.Join(dir, rec), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, rec, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	handler := http.StripPrefix("/v1/assets", gate.Handler(slog.New(slog.DiscardHandler), disk))
	get := func(path string) (int, string, http.Header) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		b, _ := io.ReadAll(w.Body)
		return w.Code, string(b), w.Header()
	}
	link, err := disk.URL(t.Context(), "r=20/rec/chat.jsonl", time.Hour)
	if err != nil || !strings.HasPrefix(link, "/v1/assets/") {
		t.Fatalf("%q, %v", link, err)
	}
	if code, body, _ := get(link); code != http.StatusOK || body != "secret" {
		t.Errorf("%d %q", code, body)
	}
	index := gate.Link("r=20/rec/index.m3u8", time.Hour)
	if code, body, h := get(index); code != http.StatusOK || body != playlist || h.Get("Content-Type") != "application/vnd.apple.mpegurl" || !strings.Contains(h.Get("Cache-Control"), "private") {
		t.Errorf("%d %q %v", code, body, h)
	}
	for name, want := range map[string]int{
		"720p.m3u8": 200, "720p.0.mp4": 200, "nothing.mp4": 404,
		"chat.jsonl": 404, "../other/720p.0.mp4": 404, // beside a playlist, but not in it; elsewhere
	} {
		if code, _, _ := get(strings.Replace(index, "index.m3u8", name, 1)); code != want {
			t.Errorf("%s: %d instead of %d", name, code, want)
		}
	}
	forged := strings.Replace(link, "/v1/assets/1", "/v1/assets/2", 1)
	for _, path := range []string{forged, "/v1/assets/", "/v1/assets/x", "/v1/assets/1-/r/x.mp4", "/v1/assets/99999999999-AAAA/r=20/rec/chat.jsonl"} {
		if code, _, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	now = now.Add(time.Hour)
	if code, _, _ := get(link); code != http.StatusGone {
		t.Errorf("an old link: %d", code)
	}
	if long := gate.Link("k", 1000*time.Hour); func() bool {
		_, until, err := gate.check(strings.TrimPrefix(long, "/v1/assets"))
		return err != nil || until.Sub(now) > maxTTL
	}() {
		t.Error("a link for longer than a week")
	}
	if _, err := NewGate("", []byte("short"), nil); err == nil {
		t.Error("a short secret")
	}
}

// A playlist in S3 is served here, and what it lists is fetched from there.
func TestPlaylistsInS3(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	var store *S3
	mux := http.NewServeMux()
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)
	gate := newGate(t, front.URL+"/v1/assets", nil)
	store = s.store(func(c *S3Config) { c.Gate = gate })
	mux.Handle("/v1/assets/", http.StripPrefix("/v1/assets", gate.Handler(slog.New(slog.DiscardHandler), store)))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.m3u8"), []byte(playlist), 0o600); err != nil {
		t.Fatal(err)
	}
	media := randomFile(t, dir, "720p.0.mp4", 5000)
	for _, path := range []string{filepath.Join(dir, "index.m3u8"), media} {
		if err := store.Put(t.Context(), &Upload{Key: "r/rec/" + filepath.Base(path), Path: path}); err != nil {
			t.Fatal(err)
		}
	}
	link, err := store.URL(t.Context(), "r/rec/index.m3u8", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := fetch(t, link, ""); code != http.StatusOK || string(body) != playlist {
		t.Errorf("%d %q", code, body)
	}
	if code, body := fetch(t, strings.Replace(link, "index.m3u8", "720p.0.mp4", 1), "bytes=100-199"); code != http.StatusPartialContent || len(body) != 100 {
		t.Errorf("%d, %d bytes", code, len(body))
	}
	if code, _ := fetch(t, strings.Replace(link, "index.m3u8", "none.m3u8", 1), ""); code != http.StatusNotFound {
		t.Errorf("a playlist that is not there: %d", code)
	}
}

func FuzzLink(f *testing.F) {
	g, err := NewGate("", []byte("0123456789abcdef"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(g.Link("a/b.mp4", time.Hour))
	f.Add(g.Link("a/b.m3u8", time.Hour))
	f.Fuzz(func(t *testing.T, p string) {
		if key, _, err := g.check(p); err == nil && CheckKey(key) != nil {
			t.Fatalf("%q leads to %q", p, key)
		}
	})
}
