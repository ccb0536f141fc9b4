package compose

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// TestTranscoderThatHangs: one that says nonsense, or does not read, or gives nothing, and does not end, is replaced.
func TestTranscoderThatHangs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		quiet      bool
	}{
		{"nonsense", "printf 'nonsense, and more of it' >&3; exec sleep 100", false},
		{"deaf", "exec sleep 100", false},
		{"quiet", "exec cat <&3 >/dev/null", true},
		{"stopped", "kill -STOP $$", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := script(t, c.body)
			ends := 0
			tr, err := NewTranscoder(TranscodeConfig{
				Path: path, Transcode: wire.Transcode{Video: true}, OnUnit: func(wire.Type, wire.Unit) {},
				OnEnd: func(err error) {
					if ends++; errors.Is(err, ErrQuiet) != c.quiet {
						t.Errorf("ended by %v", err)
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if c.quiet {
				tr.look = 20 * time.Millisecond
			} else {
				tr.unread = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			fed := make(chan struct{})
			go func() {
				defer close(fed)
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for au := bytes.Repeat([]byte{7}, 1<<20); ctx.Err() == nil; <-tick.C {
					tr.WriteVideo(0, true, au)
				}
			}()
			if err := tr.Run(ctx); !errors.Is(err, ErrTranscoder) || ends != maxLives {
				t.Errorf("%v after %d lives", err, ends)
			}
			cancel()
			<-fed
		})
	}
}

// TestQuiet: input without output counts, output ends that, and a look without either changes nothing.
func TestQuiet(t *testing.T) {
	t.Parallel()
	var q quiet
	looks := func(n, in, out int) bool {
		for i := range n {
			q.in, q.out = q.in+in, q.out+out
			if q.look() {
				return i == n-1
			}
		}
		return false
	}
	for _, step := range []struct {
		what       string
		n, in, out int
		want       bool
	}{
		{"nothing comes", 1000, 0, 0, false},
		{"almost too long for a first output", quietFirst - 1, 5, 0, false},
		{"a pause", 1000, 0, 0, false},
		{"the first output", 1, 5, 1, false},
		{"all is well", 1000, 5, 5, false},
		{"almost too long", quietMost - 1, 5, 0, false},
		{"one output", 1, 5, 1, false},
		{"too long", quietMost, 1, 0, true},
	} {
		if got := looks(step.n, step.in, step.out); got != step.want {
			t.Errorf("%s: %v", step.what, got)
		}
	}
	q = quiet{}
	if !looks(quietFirst, 1, 0) {
		t.Error("no first output ever")
	}
}
