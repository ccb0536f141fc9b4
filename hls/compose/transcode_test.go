package compose

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// TestTranscoderThatHangs: one that says nonsense, or does not read, and does not end, is replaced.
func TestTranscoderThatHangs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, body string }{
		{"nonsense", "printf 'nonsense, and more of it' >&3; exec sleep 100"},
		{"deaf", "exec sleep 100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := script(t, c.body)
			tr, err := NewTranscoder(TranscodeConfig{Path: path, Transcode: wire.Transcode{Video: true}, OnUnit: func(wire.Type, wire.Unit) {}})
			if err != nil {
				t.Fatal(err)
			}
			tr.unread = 100 * time.Millisecond
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
			if err := tr.Run(ctx); !errors.Is(err, ErrTranscoder) {
				t.Error(err)
			}
			cancel()
			<-fed
		})
	}
}
