package main

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestWallClock has the clock follow its file, keep its offset while the file makes no sense, and refuse one that never did.
func TestWallClock(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "clock")
	put := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := wallClock(""); err != nil || time.Since(now()).Abs() > time.Minute {
		t.Error("without a file it is not the machine's clock", err)
	}
	for _, bad := range []string{"", "soon", "999999999999999999", "1e3"} {
		if put(bad); bad == "" {
			_ = os.Remove(file)
		}
		if _, err := wallClock(file); err == nil {
			t.Errorf("an offset of %q was taken", bad)
		}
	}
	put("0\n")
	synctest.Test(t, func(t *testing.T) {
		now, err := wallClock(file)
		if err != nil {
			t.Fatal(err)
		}
		off := func() time.Duration {
			time.Sleep(offsetAgain)
			return now().Sub(time.Now().Round(0))
		}
		for _, step := range []struct {
			file string
			want time.Duration
		}{{"0\n", 0}, {"600000\n", 10 * time.Minute}, {"not now\n", 10 * time.Minute}, {"-600000\n", -10 * time.Minute}} {
			put(step.file)
			if got := off(); got != step.want {
				t.Errorf("with %q the clock is off by %v: want %v", step.file, got, step.want)
			}
		}
	})
}
