package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	put := func(s string, fault error) error {
		return Replace(path, func(f *os.File) error {
			_, err := io.WriteString(f, s)
			return errors.Join(err, fault)
		})
	}
	if err := put("one", nil); err != nil {
		t.Fatal(err)
	}
	fault := errors.New("fault")
	if err := put("half", fault); !errors.Is(err, fault) {
		t.Fatalf("a fault: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "one" {
		t.Fatalf("%q, %v", b, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Fatalf("%v, %v", left, err)
	}
	if err := Replace(filepath.Join(path, "below a file"), func(*os.File) error { return nil }); err == nil {
		t.Error("a file below a file")
	}
}
