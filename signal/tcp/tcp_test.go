package tcp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// pair is both ends of a connection, the first of them accepted here.
func pair(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listener{plain}
	defer l.Close()
	if theirs, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if _, ok := ours.(*net.TCPConn); ok {
		t.Skip("no such connections on this system")
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// TestEverythingArrives sends both ways in pieces short and long, more than the sockets' buffers hold.
func TestEverythingArrives(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	const size = 8 << 20
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i * i >> 7)
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{ours, theirs}, {theirs, ours}} {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, 2))
			for rest := sent; len(rest) > 0; {
				n := min(1+rng.IntN(2*most), len(rest))
				if m, err := way[0].Write(rest[:n]); m != n || err != nil {
					t.Errorf("writing %d bytes: %d, %v", n, m, err)
					return
				}
				rest = rest[n:]
			}
			if err := way[0].(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			var got bytes.Buffer
			rng := rand.New(rand.NewPCG(3, 4))
			buf := make([]byte, 2*most)
			for {
				n, err := way[1].Read(buf[:1+rng.IntN(len(buf)-1)])
				got.Write(buf[:n])
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			if !bytes.Equal(got.Bytes(), sent) {
				t.Errorf("%d bytes arrived, which are not the %d that were sent", got.Len(), size)
			}
		})
	}
	wg.Wait()
}

func TestDeadlinesAndClosing(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	buf := make([]byte, 100)
	past := time.Now().Add(-time.Second)
	if err := ours.SetDeadline(past); err != nil {
		t.Fatal(err)
	}
	for op, do := range map[string]func([]byte) (int, error){"read": ours.Read, "write": ours.Write} {
		_, err := do(buf)
		var known *net.OpError
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &known) || known.Op != op || !known.Timeout() {
			t.Errorf("%s past the deadline: %v", op, err)
		}
	}
	if err := ours.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := ours.Read(make([]byte, 100))
		read <- err
	}()
	if err := ours.SetReadDeadline(past); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read that the deadline finds waiting: %v", err)
	}
	theirs.(*net.TCPConn).SetLinger(0)
	theirs.Close() // resets
	if err := ours.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(buf); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("reading from a connection that was reset: %v", err)
	}
	ours.Close()
	for op, do := range map[string]func([]byte) (int, error){"read": ours.Read, "write": ours.Write} {
		if _, err := do(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after closing: %v", op, err)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	ours, theirs := pair(t)
	there, here := make([]byte, 64), make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := theirs.Write(there); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ours, here); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Write(here); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(theirs, there); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
