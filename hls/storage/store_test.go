package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Both stores do the same.
func TestStores(t *testing.T) {
	t.Parallel()
	gate := newGate(t, "", nil)
	disk, err := NewDisk(t.TempDir(), gate)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(gate.Handler(slog.New(slog.DiscardHandler), disk))
	t.Cleanup(front.Close)
	s := startServer(t)
	for name, c := range map[string]struct {
		store Store
		base  string
	}{"disk": {disk, front.URL}, "S3": {s.store(nil), ""}, "S3 with a prefix": {s.store(func(c *S3Config) { c.Prefix = "a/b" }), ""}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStore(t, c.store, c.base)
		})
	}
}

func testStore(t *testing.T, store Store, base string) {
	t.Helper()
	dir := t.TempDir()
	large := randomFile(t, dir, "large.mp4", 2*minPart+12345)
	small := randomFile(t, dir, "small", 1000)
	empty := randomFile(t, dir, "empty", 0)
	keys := map[string]string{"room/s=20x/rec/720p.mp4": large, "room/s=20x/rec/chat.jsonl": small, "room/other/empty": empty}
	for key, path := range keys {
		for range 2 { // again is no fault
			if err := store.Put(t.Context(), &Upload{Key: key, Path: path, ContentType: "video/mp4"}); err != nil {
				t.Fatal(err)
			}
		}
		want, _ := os.ReadFile(path)
		body, err := store.Open(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes instead of %d, %v", key, len(got), len(want), err)
		}
		link, err := store.URL(t.Context(), key, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if status, got := fetch(t, base+link, "bytes=5-9"); len(want) > 9 && (status != http.StatusPartialContent || !bytes.Equal(got, want[5:10])) {
			t.Errorf("range of %s: %d, %d bytes", link, status, len(got))
		}
		if status, _ := fetch(t, strings.Replace(base+link, "rec/", "res/", 1), ""); strings.Contains(link, "rec/") && status/100 != 4 {
			t.Errorf("a link that was changed: %d", status)
		}
	}
	list, err := store.List(t.Context(), "room/s=20x/")
	if err != nil || len(list) != 2 || list[0].Key != "room/s=20x/rec/720p.mp4" || list[0].Size != 2*minPart+12345 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := store.Delete(t.Context(), "room/s=20x/rec/720p.mp4"); err != nil {
		t.Error(err)
	}
	if err := store.Delete(t.Context(), "room/s=20x/rec/720p.mp4"); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := store.Open(t.Context(), "room/s=20x/rec/720p.mp4"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was deleted: %v", err)
	}
	for _, key := range []string{"", "/a", "a/../b", "../a", "a//b", ".x/y", "a/", "a\\b", strings.Repeat("k", 2000)} {
		if err := store.Put(t.Context(), &Upload{Key: key, Path: small}); !errors.Is(err, ErrBadKey) {
			t.Errorf("key %q: %v", key, err)
		}
		if _, err := store.Open(t.Context(), key); !errors.Is(err, ErrBadKey) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func randomFile(t *testing.T, dir, name string, size int) string {
	t.Helper()
	b := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = source.Read(b)
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func fetch(t *testing.T, link, span string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
	if err != nil {
		t.Fatal(err)
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, b
}

// What is wrong is said, and says nothing that is secret.
func TestS3SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	small := randomFile(t, t.TempDir(), "small", 1000)
	for name, c := range map[string]struct {
		change func(*S3Config)
		health Health
		says   string
	}{
		"key":     {func(c *S3Config) { c.AccessKey = "nobody" }, Denied, "access key"},
		"secret":  {func(c *S3Config) { c.SecretKey = "wrong-wrong" }, Denied, "secret key is wrong"},
		"bucket":  {func(c *S3Config) { c.Bucket = "no-such-bucket" }, Denied, "no such bucket"},
		"refused": {func(c *S3Config) { c.Endpoint = "http://127.0.0.1:1" }, Away, "refused"},
		"name":    {func(c *S3Config) { c.Endpoint = "http://nowhere.invalid" }, Away, "does not answer"},
	} {
		err := s.store(c.change).Put(t.Context(), &Upload{Key: "a/b", Path: small})
		health, reason := healthOf(err)
		if health != c.health || !strings.Contains(reason, c.says) || strings.Contains(reason, "wrong-wrong") || strings.Contains(reason, "Signature=") {
			t.Errorf("%s: %s, %q", name, health, reason)
		}
	}
	for _, endpoint := range []string{"", "storage.example", "ftp://x", "https://x/path", "https://user:word@x"} {
		if _, err := NewS3(S3Config{Endpoint: endpoint, Bucket: "b"}); err == nil || strings.Contains(err.Error(), "word") {
			t.Errorf("endpoint %q: %v", endpoint, err)
		}
	}
}

// An upload in parts that was cut goes on where it was, also in another process.
func TestS3GoesOnWithParts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const size = 8 * minPart
	path := randomFile(t, t.TempDir(), "large", size)
	r := startRelay(t, s.address)
	var resume string
	put := func() error {
		store := s.store(func(c *S3Config) { c.Endpoint = "http://" + r.address })
		defer store.Close()
		return store.Put(t.Context(), &Upload{Key: "large", Path: path, Resume: resume, Kept: func(s string) { resume = s }})
	}
	r.limit.Store(size * 3 / 4)
	if err := put(); err == nil || resume == "" {
		t.Fatalf("it was not cut: %v, %q", err, resume)
	}
	first := r.sent.Load()
	r.limit.Store(1 << 60)
	if err := put(); err != nil {
		t.Fatal(err)
	}
	if second := r.sent.Load() - first; second > size/2 {
		t.Errorf("%d bytes were sent again of %d", second, size)
	}
	resume = "forgotten-by-the-store"
	if err := put(); err != nil {
		t.Errorf("an upload that the store has forgotten: %v", err)
	}
	body, err := s.store(nil).Open(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	want, _ := os.ReadFile(path)
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A full disk is a full storage, whether it is ours or the server's; room makes it well again.
func TestFullStorage(t *testing.T) {
	t.Parallel()
	small := tmpfs(t, 8<<20)
	disk, err := NewDisk(small, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := randomFile(t, t.TempDir(), "large", 12<<20)
	err = disk.Put(t.Context(), &Upload{Key: "large", Path: path})
	if health, reason := healthOf(err); health != Full || !strings.Contains(reason, "no space") {
		t.Errorf("%s, %q", health, reason)
	}
	if list, err := disk.List(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("half a file was left: %+v, %v", list, err)
	}
	if err := disk.Put(t.Context(), &Upload{Key: "small", Path: randomFile(t, t.TempDir(), "small", 1<<20)}); err != nil {
		t.Errorf("half a file takes its room: %v", err)
	}
	s := startServerIn(t, tmpfs(t, 8<<20))
	err = s.store(func(c *S3Config) { c.PartSize = 64 << 20 }).Put(t.Context(), &Upload{Key: "large", Path: path})
	if health, _ := healthOf(err); health == OK || health == Denied {
		t.Errorf("a full server: %v", err)
	}
	t.Log("a full server answers:", err)
}

// tmpfs mounts a file system of so many bytes.
func tmpfs(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.FormatInt(size, 10)); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newGate(t testing.TB, base string, now func() time.Time) *Gate {
	t.Helper()
	g, err := NewGate(base, []byte("0123456789abcdef"), now)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestKeyPart(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"demo": "demo", "a b/ü": "a=20b=2f=c3=bc", "..": "=2e.", "x.y": "x.y", "=": "=3d"} {
		if got := KeyPart(in); got != want || CheckKey(got) != nil {
			t.Errorf("%q is %q, %v", in, got, CheckKey(got))
		}
	}
}

// A node's directory that cannot be written to is said to be so.
func TestDiskDenied(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	dir := t.TempDir()
	disk, err := NewDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := randomFile(t, t.TempDir(), "small", 10)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if health, reason := healthOf(disk.Put(context.Background(), &Upload{Key: "a/b", Path: path})); health != Denied {
		t.Errorf("%s, %q", health, reason)
	}
}
