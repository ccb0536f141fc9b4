package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// script is a program that does what a test wants instead of a compositor.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestThumbnail(t *testing.T) {
	t.Parallel()
	got, err := Thumbnail(t.Context(), script(t, `echo "$@"; cat`), 320, []byte("picture"))
	if err != nil || string(got) != "--thumbnail 320\npicture" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Thumbnail(t.Context(), script(t, "echo no such decoder >&2; exit 1"), 320, nil); err == nil || !strings.Contains(err.Error(), "no such decoder") {
		t.Errorf("a failure: %v", err)
	}
	if _, err := Thumbnail(t.Context(), script(t, "exit 0"), 320, nil); err == nil {
		t.Error("nothing is a thumbnail")
	}
	if _, err := Thumbnail(t.Context(), script(t, "cat /dev/zero"), 320, nil); err == nil {
		t.Error("no bound")
	}
	if _, err := Thumbnail(t.Context(), "/nonexistent", 320, nil); err == nil {
		t.Error("a program that is not there")
	}
}
