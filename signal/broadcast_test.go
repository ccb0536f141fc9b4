package signal

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	protobuf "google.golang.org/protobuf/proto"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// tally counts writes up to a number, and says when it is reached.
type tally struct {
	left    atomic.Int64
	reached chan struct{}
}

func (t *tally) add() {
	if t.left.Add(-1) == 0 {
		t.reached <- struct{}{}
	}
}

// memConn is a client in memory: it says what it has to say and takes what it is sent for nothing.
type memConn struct {
	net.Conn
	mu     sync.Mutex // guards the field below
	toRead []byte
	tally  *tally
	more   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (c *memConn) Read(p []byte) (int, error) {
	for {
		c.mu.Lock()
		n := copy(p, c.toRead)
		c.toRead = c.toRead[n:]
		c.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-c.more:
		case <-c.closed:
			return 0, io.EOF
		}
	}
}

func (c *memConn) Write(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
		c.tally.add()
		return len(p), nil
	}
}

func (c *memConn) Close() error                { c.once.Do(func() { close(c.closed) }); return nil }
func (c *memConn) SetDeadline(time.Time) error { return nil }

func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }

// say adds a message to what the client says, masked with 0 (RFC 6455 section 5.2).
func (c *memConn) say(m *amphiv1.ClientMessage) {
	b, _ := protobuf.Marshal(m)
	head := []byte{0x82, 0x80 | 126, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(head[2:], uint16(len(b)))
	c.feed(append(head, b...))
}

// feed adds bytes to what the client says.
func (c *memConn) feed(b []byte) {
	c.mu.Lock()
	c.toRead = append(c.toRead, b...)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// hijacked answers an upgrade with the connection in memory.
type hijacked struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

func upgrade() *http.Request {
	req := httptest.NewRequest(http.MethodGet, "/v1/signal", nil)
	for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "amphi.v1.pb"} {
		req.Header.Set(k, v)
	}
	return req
}

// attend serves a client in memory until wg's owner closes it.
func (w *world) attend(wg *sync.WaitGroup, t *tally) *memConn {
	c := &memConn{tally: t, more: make(chan struct{}, 1), closed: make(chan struct{})}
	req := upgrade()
	wg.Go(func() { w.Handler().ServeHTTP(hijacked{httptest.NewRecorder(), c}, req) })
	return c
}

// crowd joins n silent clients in memory, and one that speaks.
func crowd(b *testing.B, w *world, wg *sync.WaitGroup, t *tally, n int) (speaker *memConn, all []*memConn) {
	b.Helper()
	tok := map[string]string{"field": token(b, "field"), "steward": token(b, "steward")}
	for i := range n + 1 {
		role := "field"
		if i == n {
			role = "steward"
		}
		c := w.attend(wg, t)
		c.say(&amphiv1.ClientMessage{Id: 1, Body: &amphiv1.ClientMessage_Hello{Hello: &amphiv1.Hello{Token: tok[role]}}})
		c.say(command(2, &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: fmt.Sprint("v", i)}}}))
		all = append(all, c)
		speaker = c
	}
	w.waitFor(b, n+1)
	return speaker, all
}

// waitFor waits until so many peers are in the room.
func (w *world) waitFor(b *testing.B, n int) {
	b.Helper()
	for range 6000 {
		if w.owner.Active()["hall"] == n {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	b.Fatal("not everybody has joined")
}

// memory is what heap and stacks hold after a collection.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBroadcast has one peer chat to a crowd in memory. cpu-ns/message is the processor time of the whole
// process per message delivered, without the kernel's part of sending; B/client is heap and stacks per idle client.
func BenchmarkBroadcast(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b, func(c *Config, _ *Deps) { c.WebSocket.Rate, c.WebSocket.Burst = 1e9, 1e9 })
			var wg sync.WaitGroup
			done := &tally{reached: make(chan struct{}, 1)}
			alone := memory()
			speaker, all := crowd(b, w, &wg, done, n)
			<-time.After(2 * time.Second) // until the last counts have been told
			held := memory() - alone
			defer wg.Wait()
			defer func() {
				for _, c := range all {
					_ = c.Close()
				}
			}()
			text := strings.Repeat("x", 100)
			before, out := cpu(), w.Stats().Clients.Out
			b.ReportAllocs()
			for b.Loop() {
				done.left.Store(int64(n + 1))
				speaker.say(command(0, say(text)))
				<-done.reached
			}
			delivered := float64(w.Stats().Clients.Out - out)
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/delivered, "cpu-ns/message")
			b.ReportMetric(float64(held)/float64(n), "B/client")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkBroadcastLoopback does the same over loopback TCP; the cost of the kernel and of the readers, which are in
// the same process, is in it.
func BenchmarkBroadcastLoopback(b *testing.B) {
	const n = 500
	w := newWorld(b, func(c *Config, _ *Deps) { c.WebSocket.Rate, c.WebSocket.Burst = 1e9, 1e9 })
	var wg sync.WaitGroup
	defer wg.Wait()
	tok := token(b, "field")
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		fmt.Fprintf(conn, "GET /v1/signal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		for _, m := range []*amphiv1.ClientMessage{hello(tok), command(2, &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: "v"}}})} {
			p, _ := protojson.Marshal(m)
			p = append(p, strings.Repeat(" ", 126)...)
			_, _ = conn.Write(append([]byte{0x81, 0x80 | 126, byte(len(p) >> 8), byte(len(p)), 0, 0, 0, 0}, p...))
		}
		wg.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	}
	speaker := w.enter(b, "steward", "Ann")
	defer func() { _ = speaker.sock.CloseNow() }()
	w.waitFor(b, n+1)
	before, out := cpu(), w.Stats().Clients.Out
	for b.Loop() {
		speaker.send(command(0, say("hello")))
		speaker.hears("hello")
		speaker.seen = nil
	}
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(w.Stats().Clients.Out-out), "cpu-ns/message")
	b.ReportMetric(0, "ns/op")
}
