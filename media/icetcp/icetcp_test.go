package icetcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const deadline = 30 * time.Second

// got collects what a listener receives.
type got struct {
	mu     sync.Mutex
	data   [][]byte
	conns  []*Conn
	closed int
	kick   chan struct{}
}

func (g *got) receive(c *Conn, b []byte) {
	g.mu.Lock()
	g.data, g.conns = append(g.data, bytes.Clone(b)), append(g.conns, c)
	g.mu.Unlock()
	g.wake()
}

func (g *got) ended(*Conn) {
	g.mu.Lock()
	g.closed++
	g.mu.Unlock()
	g.wake()
}

func (g *got) wake() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

func (g *got) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(deadline)
	for {
		g.mu.Lock()
		done := ok()
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-g.kick:
		case <-timeout:
			t.Fatalf("timed out: %s", what)
		}
	}
}

func serve(t *testing.T, cfg Config) (*Listener, *got) {
	t.Helper()
	g := &got{kick: make(chan struct{}, 1)}
	cfg.Addr, cfg.Receive, cfg.Closed = "127.0.0.1:0", g.receive, g.ended
	l, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l, g
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func frame(b string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func TestFraming(t *testing.T) {
	t.Parallel()
	l, g := serve(t, Config{})
	c := dial(t, l)
	stream := append(append(frame("one"), frame("")...), frame("three")...)
	for _, b := range stream { // in the smallest pieces
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	g.until(t, "three datagrams", func() bool { return len(g.data) == 3 })
	if string(g.data[0]) != "one" || len(g.data[1]) != 0 || string(g.data[2]) != "three" {
		t.Fatalf("%q", g.data)
	}
	conn := g.conns[0]
	if conn.Remote().String() != c.LocalAddr().String() || conn.ID() == 0 {
		t.Fatalf("connection %d of %v", conn.ID(), conn.Remote())
	}
	for _, s := range []string{"four", "five"} {
		if _, err := conn.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	want := append(frame("four"), frame("five")...)
	back := make([]byte, len(want))
	if _, err := io.ReadFull(c, back); err != nil || !bytes.Equal(back, want) {
		t.Fatalf("%q, %v", back, err)
	}
	c.Close()
	g.until(t, "the end is told", func() bool { return g.closed == 1 })
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Fatal("a closed connection takes data")
	}
}

func TestOversizeFrameClosesTheConnection(t *testing.T) {
	t.Parallel()
	l, g := serve(t, Config{MaxFrame: 100})
	c := dial(t, l)
	if _, err := c.Write([]byte{0, 101, 1}); err != nil {
		t.Fatal(err)
	}
	g.until(t, "closed", func() bool { return g.closed == 1 })
	if l.Stats().Drops["tcp_oversize"] != 1 {
		t.Fatalf("%v", l.Stats())
	}
}

func TestUnconfirmedConnectionEnds(t *testing.T) {
	t.Parallel()
	l, g := serve(t, Config{ConfirmWithin: 50 * time.Millisecond})
	kept := dial(t, l)
	if _, err := kept.Write(frame("hello")); err != nil {
		t.Fatal(err)
	}
	g.until(t, "hello", func() bool { return len(g.data) == 1 })
	g.conns[0].Confirm()
	dial(t, l)
	g.until(t, "the silent one is closed", func() bool { return g.closed == 1 })
	if s := l.Stats(); s.Drops["tcp_unconfirmed"] != 1 || s.Open != 1 {
		t.Fatalf("%+v", s)
	}
	if _, err := kept.Write(frame("again")); err != nil {
		t.Fatal(err)
	}
	g.until(t, "the confirmed one goes on", func() bool { return len(g.data) == 2 })
}

func TestLimits(t *testing.T) {
	t.Parallel()
	l, g := serve(t, Config{MaxConns: 3, MaxPerIP: 2})
	for i := range 2 {
		c := dial(t, l)
		if _, err := c.Write(frame("x")); err != nil {
			t.Fatal(err)
		}
		g.until(t, "accepted", func() bool { return len(g.data) == i+1 })
	}
	refused := func() {
		t.Helper()
		c := dial(t, l)
		_ = c.SetReadDeadline(time.Now().Add(deadline))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("accepted")
		}
	}
	refused()
	for _, c := range g.conns {
		c.Confirm() // confirmed ones don't count for the address
	}
	c := dial(t, l)
	if _, err := c.Write(frame("x")); err != nil {
		t.Fatal(err)
	}
	g.until(t, "accepted", func() bool { return len(g.data) == 3 })
	refused()
	if s := l.Stats(); s.Drops["tcp_per_address"] != 1 || s.Drops["tcp_connections"] != 1 || s.Accepted != 3 {
		t.Fatalf("%+v", s)
	}
}

// TestSlowReader: writing never blocks, and what does not fit is dropped.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	l, g := serve(t, Config{MaxQueue: 100_000})
	c := dial(t, l)
	if _, err := c.Write(frame("hello")); err != nil {
		t.Fatal(err)
	}
	g.until(t, "hello", func() bool { return len(g.data) == 1 })
	conn := g.conns[0]
	packet := make([]byte, 1000)
	full := false
	for range 100_000 {
		if _, err := conn.Write(packet); err == ErrQueueFull {
			full = true
			break
		}
	}
	if !full || l.Stats().Drops["tcp_queue_full"] == 0 {
		t.Fatal("the queue has no end")
	}
	// What was queued arrives whole.
	buf := make([]byte, 1002)
	for range 50 {
		if _, err := io.ReadFull(c, buf); err != nil || binary.BigEndian.Uint16(buf) != 1000 {
			t.Fatalf("%v %v", buf[:2], err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	if _, err := Listen(Config{Addr: "127.0.0.1:0"}); err == nil {
		t.Error("without Receive")
	}
	if _, err := Listen(Config{Addr: "nonsense", Receive: func(*Conn, []byte) {}}); err == nil {
		t.Error("nonsense as an address")
	}
}

// FuzzStream: no input harms a listener, and every whole frame arrives.
func FuzzStream(f *testing.F) {
	f.Add([]byte("\x00\x03abc\x00\x00\x00\x01x"))
	f.Add([]byte("\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		var got []byte
		s := splitter{buf: make([]byte, 2*(2+DefaultMaxFrame)), max: DefaultMaxFrame}
		go func() {
			theirs.Write(b)
			theirs.Close()
		}()
		for {
			n, err := ours.Read(s.buf[s.have:])
			if !s.split(n, func(d []byte) { got = append(got, frame(string(d))...) }) || err != nil {
				break
			}
		}
		ours.Close()
		if !bytes.HasPrefix(b, got) {
			t.Fatalf("%x of %x", got, b)
		}
	})
}
