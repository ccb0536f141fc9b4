package edge_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/edge"
)

// runEdge is an edge of a stream that has six parts.
func runEdge(b *testing.B) (*maker, *edge.Edge) {
	b.Helper()
	m := newMaker(b, 9, 100)
	m.parts(6)
	w := &world{origin: &edge.Origin{ID: "a/1", URL: m.web.URL}}
	e, err := edge.New(edge.Config{Logger: slog.New(slog.DiscardHandler)}, http.NotFoundHandler(), w)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-ran })
	return m, e
}

// What it takes to answer 3,000 players that wait for the same part: from before the part exists until the write of the last
// answer has returned. Nobody reads meanwhile, so that the players cost nothing; their answers wait in the kernel.
func BenchmarkCrowd(b *testing.B) {
	const players = 3000
	m, e := runEdge(b)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	var began time.Time
	took := make([]time.Duration, players)
	web := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateIdle { // the answer was flushed
				i := n.Add(1) - 1
				took[i] = time.Since(began)
			}
		}}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	var conns [players]net.Conn
	for i := range conns {
		if conns[i], err = net.Dial("tcp", listener.Addr().String()); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
		_ = web.Close()
		<-served
	})
	var all []time.Duration
	var cpu time.Duration
	soon := time.NewTicker(time.Millisecond)
	defer soon.Stop()
	await := func(what string, done func() bool) {
		for limit := time.Now().Add(patience); !done(); <-soon.C {
			if time.Now().After(limit) {
				b.Fatalf("no %s", what)
			}
		}
	}
	for part := 6; b.Loop(); part++ {
		b.StopTimer()
		ask := fmt.Appendf(nil, "GET %s720p/index.m3u8?_HLS_msn=%d&_HLS_part=%d&_HLS_skip=YES HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n", base, 100+part/4, part%4)
		for _, c := range conns {
			if _, err := c.Write(ask); err != nil {
				b.Fatal(err)
			}
		}
		await("players that wait", func() bool { return e.Stats().Waiting == players })
		n.Store(0)
		before := processTime(b)
		b.StartTimer()
		began = time.Now()
		m.parts(1)
		await("answers", func() bool { return n.Load() == players })
		b.StopTimer()
		cpu += processTime(b) - before
		all = append(all, took...)
		for _, c := range conns {
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != http.StatusOK {
				b.Fatalf("%v, %v", res, err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	slices.Sort(all)
	for name, q := range map[string]int{"ms-p50": len(all) / 2, "ms-p99": len(all) * 99 / 100, "ms-last": len(all) - 1} {
		b.ReportMetric(float64(all[q].Microseconds())/1000, name)
	}
	b.ReportMetric(float64(cpu.Microseconds())/float64(len(all)), "CPU-µs/answer")
}

// processTime is the CPU time of this process.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What one request costs that finds its object in the cache, or the playlist as it wants it.
func BenchmarkHit(b *testing.B) {
	_, e := runEdge(b)
	for name, path := range map[string]string{"part": "720p/9-101.1.m4s", "reload": "720p/index.m3u8?_HLS_msn=101&_HLS_part=1&_HLS_skip=YES"} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, base+path, nil)
			r.Header.Set("Accept-Encoding", "gzip, deflate, br")
			e.ServeHTTP(httptest.NewRecorder(), r)
			out := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(out.header)
				e.ServeHTTP(out, r)
			}
		})
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
