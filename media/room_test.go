package media

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkRoom is the memory of a room that is there and empty; one operation makes one.
func BenchmarkRoom(b *testing.B) {
	e, err := New(Config{UDPAddr: "127.0.0.1:0", Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	before := liveHeap()
	n := 0
	for b.Loop() {
		e.Router(fmt.Sprintf("room-%d", n))
		n++
	}
	b.ReportMetric(float64(liveHeap()-before)/float64(n), "B/room")
}

// liveHeap is what is in use after a collection, in bytes.
func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
