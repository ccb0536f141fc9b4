package spill

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type answer struct {
	path string
	err  error
}

func run(t *testing.T, cfg Config) (*Disk, func()) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return d, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func put(t *testing.T, f *Folder, name string, chunks ...string) answer {
	t.Helper()
	c := make(chan answer, 1)
	var b [][]byte
	for _, s := range chunks {
		b = append(b, []byte(s))
	}
	if !f.Put(name, b, func(path string, err error) { c <- answer{path, err} }) {
		t.Fatalf("%s was not taken", name)
	}
	return <-c
}

func TestDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "segments")
	if err := os.MkdirAll(filepath.Join(dir, "7"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, stop := run(t, Config{Dir: dir, MaxBytes: 10})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an earlier life left: %v", err)
	}
	f, err := d.Folder()
	if err != nil {
		t.Fatal(err)
	}
	a := put(t, f, "a", "hel", "lo")
	if b, err := os.ReadFile(a.path); err != nil || string(b) != "hello" || a.err != nil || d.Bytes() != 5 {
		t.Errorf("%q %v %v, %d bytes", b, err, a.err, d.Bytes())
	}
	if b := put(t, f, "b", "123456"); !errors.Is(b.err, ErrFull) || d.Bytes() != 5 {
		t.Errorf("beyond the bound: %v, %d bytes", b.err, d.Bytes())
	}
	f.Remove(a.path)
	if b := put(t, f, "b", "123456"); b.err != nil || d.Bytes() != 6 { // in turn with the removal
		t.Errorf("after a removal: %v, %d bytes", b.err, d.Bytes())
	}
	if f.Put("../x", [][]byte{{1}}, nil) || f.Put("", [][]byte{{1}}, nil) || f.Put("x", nil, nil) {
		t.Error("a bad name or nothing was taken")
	}
	g, err := d.Folder()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if c := put(t, f, "c", "x"); c.err == nil || errors.Is(c.err, ErrFull) || d.Bytes() != 0 {
		t.Errorf("into a closed folder: %v", c.err)
	}
	put(t, g, "c", "x")
	stop()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("at the end: %v", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	d, err := New(Config{Dir: filepath.Join(t.TempDir(), "x"), MaxQueue: 2}) // nobody writes
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Folder()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for f.Put("a", [][]byte{{1}}, func(string, error) {}) {
		n++
	}
	if n != 2 {
		t.Errorf("%d were taken", n)
	}
	path := filepath.Join(f.dir, "b")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Remove(path)
	f.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the caller removes files itself: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a disk nowhere")
	}
}
