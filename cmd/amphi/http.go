package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/amphi-sfu/amphi/signal/tcp"
)

// Bounds of a request. A node ends within 5 s of being told to, of which signalling's goodbye takes up to
// drainTimeout and open requests get shutdownTimeout.
const (
	headerTimeout   = 10 * time.Second
	bodyTimeout     = 15 * time.Second
	sendTimeout     = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	drainTimeout    = 1500 * time.Millisecond
	shutdownTimeout = time.Second
	maxHeaderBytes  = 32 << 10
)

// front is an HTTP server on a listener that is already open.
type front struct {
	listener net.Listener
	server   *http.Server
	secure   bool
}

func newFront(address string, config *tls.Config, handler http.Handler, logger *slog.Logger) (*front, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP on %s: %w", address, err)
	}
	return &front{
		listener: tcp.Listener{Listener: listener},
		secure:   config != nil,
		server: &http.Server{
			Handler:           bounded(handler),
			TLSConfig:         config,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Run serves until ctx is done, then lets open requests end for shutdownTimeout and closes what is left.
func (f *front) Run(ctx context.Context) error {
	// Requests that wait (blocking playlist reloads) end with the node, not with the timeout.
	f.server.BaseContext = func(net.Listener) context.Context { return ctx }
	served := make(chan error, 1)
	go func() {
		if f.secure {
			served <- f.server.ServeTLS(f.listener, "", "")
		} else {
			served <- f.server.Serve(f.listener)
		}
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP on %s: %w", f.listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := f.server.Shutdown(grace); err != nil {
		// Close reports what Shutdown left open; there is nothing more to do about it.
		_ = f.server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP on %s: %w", f.listener.Addr(), err)
	}
	return nil
}

// Close frees the listener of a front that never ran.
func (f *front) Close() error { return f.listener.Close() }

// signalPath is where clients' WebSockets are (INTERFACES).
const signalPath = "/v1/signal"

// bounded limits how long a client may take to send a request's body and to read what it is answered. The time to
// read begins with the first byte of the answer, so that a request may wait for its answer as long as it needs, as a
// blocking playlist reload does. The WebSocket takes its connection over and has limits of its own; it is told by its
// path, because any request may carry an Upgrade header.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != signalPath {
			if r.ContentLength != 0 {
				// A connection that can't have deadlines is not a network connection: nothing to bound.
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
			}
			w = &deadlined{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	})
}

// deadlined sets the deadline for reading an answer when it begins, and again for each further piece of it.
type deadlined struct{ http.ResponseWriter }

// Unwrap lets http.ResponseController reach the connection.
func (d *deadlined) Unwrap() http.ResponseWriter { return d.ResponseWriter }

// Write implements http.ResponseWriter.
func (d *deadlined) Write(b []byte) (int, error) {
	_ = http.NewResponseController(d.ResponseWriter).SetWriteDeadline(time.Now().Add(sendTimeout))
	return d.ResponseWriter.Write(b)
}

// loopback tells whether only this machine reaches the front.
func (f *front) loopback() bool {
	address, ok := f.listener.Addr().(*net.TCPAddr)
	return ok && address.IP.IsLoopback()
}

// URL is how people on this machine reach the front.
func (f *front) URL() string {
	scheme := "http"
	if f.secure {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(f.listener.Addr().String())
	if err != nil {
		return scheme + "://" + f.listener.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
		// A secure context for browsers, which a bare address is not.
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
