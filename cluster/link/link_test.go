package link

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is the network between the nodes of a test; cut makes a black hole of it.
type wire struct {
	mu   sync.Mutex // guards the fields below
	cut  bool
	dial int
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *wire) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

func (w *wire) connect(ctx context.Context, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dial++
	w.mu.Unlock()
	if w.isCut() {
		return nil, errors.New("the network is cut")
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &wired{Conn: raw, wire: w}, nil
}

type wired struct {
	net.Conn
	wire *wire
}

func (w *wired) Write(b []byte) (int, error) {
	if w.wire.isCut() {
		return len(b), nil
	}
	return w.Conn.Write(b)
}

func (w *wired) Read(b []byte) (int, error) {
	for {
		n, err := w.Conn.Read(b)
		if err != nil || !w.wire.isCut() {
			return n, err
		}
	}
}

// node is a Link that runs until the test ends.
type node struct {
	*Link
	stop func()
}

func authority(t testing.TB) *identity.Authority {
	t.Helper()
	a, err := identity.New("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func start(t testing.TB, a *identity.Authority, id string, cfg Config, prepare func(*Link)) *node {
	t.Helper()
	i, err := a.Identity(id)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Identity = i
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.DeadAfter == 0 {
		// A machine that is busy with other tests must not cost a connection.
		cfg.DeadAfter, cfg.StallAfter = time.Minute, time.Minute
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	n := &node{Link: l, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", id, err)
		}
	})}
	t.Cleanup(n.stop)
	return n
}

func introduce(nodes ...*node) {
	addresses := map[string]string{}
	for _, n := range nodes {
		addresses[n.self] = n.Addr().String()
	}
	for _, n := range nodes {
		n.SetPeers(addresses)
	}
}

// eventually waits until ok, for at most 20 s.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("it did not happen: %s", what)
		}
	}
}

func connected(t testing.TB, a, b *node) {
	t.Helper()
	eventually(t, "a connection", func() bool { return a.Connected(b.self) && b.Connected(a.self) })
}

func TestMessagesComeInOrderBothWays(t *testing.T) {
	t.Parallel()
	const count = 5000
	a := authority(t)
	var wg sync.WaitGroup
	wg.Add(2)
	prepare := func(l *Link) {
		next := uint32(0)
		l.OnMessage(7, func(from string, msg []byte) {
			if got := binary.BigEndian.Uint32(msg); got != next {
				t.Errorf("from %s came %d, want %d", from, got, next)
			}
			if next++; next == count {
				wg.Done()
			}
		})
	}
	x, y := start(t, a, "x", Config{}, prepare), start(t, a, "y", Config{}, prepare)
	introduce(x, y)
	connected(t, x, y)
	for i := range uint32(count) {
		for from, to := range map[*node]string{x: "y", y: "x"} {
			msg := make([]byte, 4+i%300)
			binary.BigEndian.PutUint32(msg, i)
			if err := from.Send(to, 7, msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	eventually(t, "a round trip measured on both sides", func() bool { return x.RTT("y") > 0 && y.RTT("x") > 0 })
	if heard := time.Since(x.Heard("y")); heard > 2*time.Second {
		t.Errorf("y was heard %v ago", heard)
	}
	for _, n := range []*node{x, y} {
		if s := n.Stats(); s.Sockets != 1 || len(s.Peers) != 1 || s.Peers[0].Delivered != count {
			t.Errorf("%s: %+v; want one connection", n.self, s)
		}
	}
}

func TestLargeMessages(t *testing.T) {
	t.Parallel()
	a := authority(t)
	got := make(chan int, 1)
	x := start(t, a, "x", Config{}, nil)
	y := start(t, a, "y", Config{}, func(l *Link) { l.OnMessage(1, func(_ string, msg []byte) { got <- len(msg) }) })
	introduce(x, y)
	connected(t, x, y)
	const large = 20 << 20 // more than the queue has room for
	if err := x.Send("y", 1, make([]byte, large)); err != nil {
		t.Fatal(err)
	}
	// Nothing passes beside it.
	if err := x.Send("y", 1, make([]byte, 8<<20)); !errors.Is(err, ErrQueueFull) && err != nil {
		t.Errorf("beside a message larger than the queue: %v", err)
	}
	if n := <-got; n != large {
		t.Errorf("%d bytes came", n)
	}
	if err := x.Send("y", 1, make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	a := authority(t)
	cancelled := make(chan struct{})
	x := start(t, a, "x", Config{}, nil)
	y := start(t, a, "y", Config{}, func(l *Link) {
		l.OnCall(1, func(_ context.Context, from string, msg []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s said %s", from, msg), nil
		})
		l.OnCall(2, func(context.Context, string, []byte) ([]byte, error) {
			return nil, proto.Errorf(proto.Conflict, "somebody else was first")
		})
		l.OnCall(3, func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			<-ctx.Done()
			close(cancelled)
			return nil, ctx.Err()
		})
		l.OnCall(4, func(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("secret") })
	})
	introduce(x, y)
	connected(t, x, y)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := x.Call(ctx, "y", 1, []byte("hello")); err != nil || string(got) != "x said hello" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := x.Call(ctx, "y", 2, nil); proto.CodeOf(err) != proto.Conflict {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := x.Call(ctx, "y", 4, nil); proto.CodeOf(err) != proto.Internal || err.Error() == "secret" {
		t.Errorf("a failure: %v", err)
	}
	if _, err := x.Call(ctx, "y", 9, nil); proto.CodeOf(err) != proto.Unavailable {
		t.Errorf("an unknown kind: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := x.Call(short, "y", 3, nil); !errors.Is(err, context.DeadlineExceeded) && proto.CodeOf(err) != proto.Timeout {
		t.Errorf("a slow call: %v", err)
	}
	<-cancelled // the caller's patience is the handler's
	if _, err := x.Call(ctx, "z", 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("an unknown node: %v", err)
	}
}

func TestACallEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	a := authority(t)
	begun := make(chan struct{})
	x := start(t, a, "x", Config{}, nil)
	y := start(t, a, "y", Config{}, func(l *Link) {
		l.OnCall(1, func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	})
	introduce(x, y)
	connected(t, x, y)
	result := make(chan error, 1)
	go func() {
		_, err := x.Call(context.Background(), "y", 1, nil)
		result <- err
	}()
	<-begun
	y.stop()
	if err := <-result; !errors.Is(err, ErrLost) {
		t.Errorf("a call to a node that ends: %v", err)
	}
}

// changes records connections that begin and end, per node.
type changes struct {
	mu  sync.Mutex // guards the fields below
	log []bool
}

func (c *changes) note(_ string, up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.log) > 0 && c.log[len(c.log)-1] == up {
		panic("two connections at once")
	}
	c.log = append(c.log, up)
}

func (c *changes) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.log)
}

func TestABlackHoleIsNoticedAndHealed(t *testing.T) {
	t.Parallel()
	a := authority(t)
	w := &wire{}
	cfg := Config{Heartbeat: 20 * time.Millisecond, DeadAfter: 300 * time.Millisecond, Dial: w.connect}
	var atX, atY changes
	x := start(t, a, "x", cfg, func(l *Link) { l.OnChange(atX.note) })
	y := start(t, a, "y", cfg, func(l *Link) { l.OnChange(atY.note) })
	introduce(x, y)
	connected(t, x, y)
	for round := 1; round <= 3; round++ {
		w.set(true)
		eventually(t, "both sides notice", func() bool { return !x.Connected("y") && !y.Connected("x") })
		if err := x.Send("y", 1, nil); !errors.Is(err, ErrNotConnected) {
			t.Errorf("into the hole: %v", err)
		}
		w.set(false)
		connected(t, x, y)
	}
	eventually(t, "all changes told", func() bool { return atX.count() == 7 && atY.count() == 7 })
}

func TestARestartedNodeIsFoundAgain(t *testing.T) {
	t.Parallel()
	a := authority(t)
	for _, restarted := range []string{"x", "y"} {
		stays := map[string]string{"x": "y", "y": "x"}[restarted]
		var seen changes
		s := start(t, a, stays, Config{}, func(l *Link) { l.OnChange(seen.note) })
		r := start(t, a, restarted, Config{}, nil)
		introduce(s, r)
		connected(t, s, r)
		r.stop()
		again := start(t, a, restarted, Config{}, nil) // at another address
		introduce(s, again)
		connected(t, s, again)
		s.stop()
		again.stop()
	}
}

func TestOneConnectionWhoeverComesFirst(t *testing.T) {
	t.Parallel()
	a := authority(t)
	x, y := start(t, a, "x", Config{}, nil), start(t, a, "y", Config{}, nil)
	introduce(x, y)
	connected(t, x, y)
	// The larger one must not call the smaller one on this protocol.
	conn, err := y.Dial(t.Context(), "x", MessageProtocol)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if err == nil {
		t.Error("the larger id was let in")
	}
	eventually(t, "it is counted", func() bool { return x.Stats().Refused[refusedDirection] == 1 })
	if !x.Connected("y") {
		t.Error("it cost the connection that was there")
	}
}

func TestASlowReceiverLosesItsOwnQueueOnly(t *testing.T) {
	t.Parallel()
	a := authority(t)
	release := make(chan struct{})
	var fast atomic.Int64
	cfg := Config{QueueBytes: 256 << 10}
	x := start(t, a, "x", cfg, nil)
	slow := start(t, a, "y", cfg, func(l *Link) { l.OnMessage(1, func(string, []byte) { <-release }) })
	quick := start(t, a, "z", cfg, func(l *Link) { l.OnMessage(1, func(string, []byte) { fast.Add(1) }) })
	introduce(x, slow, quick)
	connected(t, x, slow)
	connected(t, x, quick)
	full := 0
	for sent := 0; full < 100; sent++ {
		if sent > 100_000 {
			t.Fatal("the queue of a stopped receiver never fills")
		}
		began := time.Now()
		if err := x.Send("y", 1, make([]byte, 32<<10)); errors.Is(err, ErrQueueFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Fatalf("a sender was blocked for %v", took)
		}
	}
	before := fast.Load()
	for range 4 {
		if err := x.Send("z", 1, make([]byte, 32<<10)); err != nil {
			t.Errorf("to the quick one: %v", err)
		}
	}
	eventually(t, "the quick one gets its own", func() bool { return fast.Load() == before+4 })
	if s := x.Stats().Peers[0]; s.Dropped < 100 || s.Queued > 256<<10 {
		t.Errorf("%+v", s)
	}
	close(release)
	eventually(t, "the slow one is served again", func() bool { return x.Send("y", 1, nil) == nil })
}

func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	a := authority(t)
	x := start(t, a, "x", Config{}, nil)
	y := start(t, a, "y", Config{PerNode: 2}, func(l *Link) {
		l.Handle(RaftProtocol, func(node string, conn *tls.Conn) {
			defer conn.Close()
			b := make([]byte, 4)
			for {
				n, err := conn.Read(b)
				if err != nil {
					return
				}
				_, _ = conn.Write(append([]byte(node), b[:n]...))
			}
		})
	})
	x.SetPeers(map[string]string{"y": y.Addr().String()})
	connected(t, x, y)
	conn, err := x.Dial(t.Context(), "y", RaftProtocol)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("hi"))
	b := make([]byte, 3)
	if _, err := conn.Read(b); err != nil || string(b) != "xhi" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := x.Dial(t.Context(), "y", RaftProtocol); err == nil {
		t.Error("a third connection of a node that may have two")
	}
	_ = conn.Close()
	eventually(t, "there is room again", func() bool {
		conn, err := x.Dial(t.Context(), "y", RaftProtocol)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	if _, err := x.Dial(t.Context(), "y", TrunkProtocol); err == nil {
		t.Error("a protocol that y does not speak")
	}
	if _, err := x.Dial(t.Context(), "nobody", RaftProtocol); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("nobody: %v", err)
	}
	if got := y.Stats().Refused; got[refusedPerNode] == 0 {
		t.Errorf("%v", got)
	}
}

// BenchmarkBeat is what a heartbeat costs, sender and receiver together, in CPU time: of one after another, as most are.
func BenchmarkBeat(b *testing.B) {
	a := authority(b)
	cfg := Config{Heartbeat: time.Millisecond}
	x, y := start(b, a, "x", cfg, nil), start(b, a, "y", cfg, nil)
	introduce(x, y)
	connected(b, x, y)
	sent := func() uint64 { return x.Stats().Peers[0].Sent + y.Stats().Peers[0].Sent }
	before, began := sent(), cpu(b)
	timer := time.NewTimer(2 * time.Second)
	<-timer.C
	beats := (sent() - before) / (headerLen + beatLen)
	b.ReportMetric(float64(cpu(b)-began)/float64(beats), "cpu-ns/beat")
	b.ReportMetric(0, "ns/op")
}

// cpu is the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkSend(b *testing.B) {
	a := authority(b)
	got := make(chan struct{}, 1)
	var count atomic.Int64
	x := start(b, a, "x", Config{Logger: slog.New(slog.DiscardHandler)}, nil)
	y := start(b, a, "y", Config{}, func(l *Link) {
		l.OnMessage(1, func(string, []byte) {
			count.Add(1)
			signal(got)
		})
	})
	introduce(x, y)
	connected(b, x, y)
	msg := make([]byte, 200)
	b.ReportAllocs()
	sent := int64(0)
	for b.Loop() {
		for x.Send("y", 1, msg) != nil {
			<-got
		}
		sent++
	}
	for count.Load() < sent {
		<-got
	}
}
