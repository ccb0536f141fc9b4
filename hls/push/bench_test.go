package push

import (
	"bytes"
	"testing"
	"time"
)

// BenchmarkTap is what a push costs the goroutine that reads the compositor, per picture of 10 KB.
func BenchmarkTap(b *testing.B) {
	q := newQueue()
	q.online()
	key := append([]byte{0, 0, 0, 1, 0x65}, bytes.Repeat([]byte{7}, 10_000)...)
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(33 * time.Millisecond)
		q.video(at, key)
	}
}
