package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener hands out one end of in-memory connections, so that time can be a bubble's.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// bubble runs a front on an in-memory listener and returns how long its end took.
func bubble(t *testing.T, handler http.Handler, during func(*pipeListener)) (ending time.Duration) {
	t.Helper()
	f, err := newFront("127.0.0.1:0", nil, handler, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.listener.Close()
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	f.listener = l
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	during(l)
	stop()
	begin := time.Now()
	if err := <-ended; err != nil {
		t.Errorf("the front ended with %v", err)
	}
	return time.Since(begin)
}

func TestUnfinishedBodyIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := make(chan error, 1)
		handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
		})
		bubble(t, handler, func(l *pipeListener) {
			conn := l.dial()
			defer conn.Close()
			begin := time.Now()
			_, _ = fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nContent-Length: 100\r\n\r\n{")
			if err := <-read; err == nil {
				t.Error("the handler got a whole body")
			}
			if waited := time.Since(begin); waited < bodyTimeout || waited > bodyTimeout+time.Second {
				t.Errorf("given up after %v, want %v", waited, bodyTimeout)
			}
		})
	})
}

func TestAnswerMayWaitButMustBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wrote := make(chan error, 2)
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			// As a blocking reload does, and longer than anybody may read.
			<-time.After(2 * sendTimeout)
			_, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
			wrote <- err
		})
		bubble(t, handler, func(l *pipeListener) {
			conn := l.dial()
			defer conn.Close()
			_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("the late answer: %v, %v", response, err)
			}
			// Not a byte more is read.
			if err := <-wrote; err == nil {
				t.Error("a client that does not read got everything")
			}
		})
	})
}

func TestFrontEndsWithRequestsOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, release := make(chan struct{}), make(chan struct{})
		handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(began)
			<-release
		})
		took := bubble(t, handler, func(l *pipeListener) {
			conn := l.dial()
			_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			<-began
		})
		close(release)
		if took > shutdownTimeout+time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}
