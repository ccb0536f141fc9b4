package interest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// step is how often the script asks.
const step = 20 * time.Millisecond

func newTracker(tb testing.TB, now time.Duration) *Tracker {
	tb.Helper()
	t, err := New(Config{}, now)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// play runs a script of lines "want N for D" and writes down every decision.
func play(t *testing.T, script string) string {
	t.Helper()
	now := time.Second
	tr := newTracker(t, now)
	told := tr.Told()
	var out bytes.Buffer
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&out, line)
		var want int8
		var text string
		if _, err := fmt.Sscanf(line, "want %d for %s", &want, &text); err != nil {
			if strings.HasPrefix(line, "#") {
				continue
			}
			t.Fatalf("%q: %v", line, err)
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		began := now
		for ; now < began+d; now += step {
			if next := tr.Update(want, now); next != told {
				fmt.Fprintf(&out, "> after %v: %d instead of %d\n", now-began, next, told)
				told = next
			}
		}
	}
	return out.String()
}

var rewrite = flag.Bool("rewrite", false, "write the golden script anew")

func TestScript(t *testing.T) {
	t.Parallel()
	const path = "testdata/interest.txt"
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := play(t, string(script))
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for line := range strings.Lines(string(script)) {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	if want := strings.Join(lines, ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestProperties: never less than what is wanted now, at once; never more than what was
// wanted within the longest hold; what stops had been unwanted for the shortest; and
// whatever the demand does, a layer changes only a few times in a while.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tr, err := New(Config{}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		cfg := tr.cfg
		now := time.Second
		var wantedAt [Top + 1]time.Duration // when a layer was wanted last
		for i := range wantedAt {
			wantedAt[i] = now
		}
		var stops []time.Duration
		for range rapid.IntRange(1, 60).Draw(t, "spells") {
			want := int8(rapid.IntRange(-1, 4).Draw(t, "want"))
			for range rapid.IntRange(1, 200).Draw(t, "steps") {
				now += time.Duration(rapid.IntRange(5, 60).Draw(t, "ms")) * time.Millisecond
				before := tr.Told()
				got := tr.Update(want, now)
				for i := range min(want, Top) + 1 {
					wantedAt[i] = now
				}
				if got < min(want, Top) {
					t.Fatalf("%v: %d is wanted, told %d", now, want, got)
				}
				for i := got + 1; i <= before; i++ {
					if now-wantedAt[i] < cfg.Hold {
						t.Fatalf("%v: layer %d stopped %v after it was wanted", now, i, now-wantedAt[i])
					}
				}
				if got > None && now-wantedAt[got] > cfg.MaxHold+60*time.Millisecond {
					t.Fatalf("%v: layer %d is kept %v after it was wanted", now, got, now-wantedAt[got])
				}
				if before == Top && got < Top {
					stops = append(stops, now)
				}
			}
		}
		for i := 8; i < len(stops); i++ {
			if stops[i]-stops[i-8] < 20*time.Second {
				t.Fatalf("the top layer stopped 8 times within %v", stops[i]-stops[i-8])
			}
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{Hold: -1}, 0); err == nil {
		t.Error("a negative hold is taken")
	}
	tr, err := New(Config{Hold: 20 * time.Second}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := tr.Update(None, 19*time.Second); got != Top {
		t.Errorf("told %d before the hold is over", got)
	}
	if got := tr.Update(None, 20*time.Second); got != None {
		t.Errorf("told %d after the hold", got)
	}
}

func TestUpdateAllocatesNothing(t *testing.T) {
	tr := newTracker(t, 0)
	now, want := time.Duration(0), int8(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += step
		want = (want + 1) % 4
		tr.Update(want, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
