package player

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// line is a player's own connection, as browsers have one: HTTP/1.1, one request after the other, every answer thrown away.
// It belongs to one goroutine. net/http's client has two more goroutines for each connection and takes several times the CPU, which
// thousands of players on the server's own machine would take from the server.
type line struct {
	conn   net.Conn
	in     *bufio.Reader
	host   string
	out    []byte
	unbind func() bool
}

const (
	// lineBuffer is room for an answer's head, each line of which is shorter, and for small bodies.
	lineBuffer = 4096
	// maxFields bounds the header fields of an answer.
	maxFields = 64
	// scratchSize is how much of a large body is read at once.
	scratchSize = 64 << 10
)

// scratch is where bodies go, whose bytes nobody looks at.
type scratch struct{ pool sync.Pool }

func newScratch() *scratch {
	return &scratch{sync.Pool{New: func() any { return new([scratchSize]byte) }}}
}

// dial connects to the server of u. All that the line does ends with ctx.
func dial(ctx context.Context, u *url.URL) (*line, error) {
	var conn net.Conn
	var err error
	port := u.Port()
	switch u.Scheme {
	case "http":
		if port == "" {
			port = "80"
		}
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	case "https":
		if port == "" {
			port = "443"
		}
		d := tls.Dialer{Config: &tls.Config{NextProtos: []string{"http/1.1"}}}
		conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	default:
		err = fmt.Errorf("%q is neither http nor https", u.Scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	l := &line{conn: conn, in: bufio.NewReaderSize(conn, lineBuffer), host: u.Host}
	// A connection that takes no deadline is closed already.
	l.unbind = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return l, nil
}

func (l *line) close() {
	l.unbind()
	_ = l.conn.Close() // nothing is to be learnt from it
}

// discard requests target, a path with its query, and throws the answer away. It returns the length of the body.
func (l *line) discard(target string, s *scratch) (int64, error) {
	l.out = append(l.out[:0], "GET "...)
	l.out = append(l.out, target...)
	l.out = append(l.out, " HTTP/1.1\r\nHost: "...)
	l.out = append(l.out, l.host...)
	l.out = append(l.out, "\r\nAccept-Encoding: gzip\r\n\r\n"...)
	if _, err := l.conn.Write(l.out); err != nil {
		return 0, fmt.Errorf("requesting %s: %w", target, err)
	}
	status, length, err := l.head()
	if err != nil {
		return 0, fmt.Errorf("reading the answer to %s: %w", target, err)
	}
	if status != http.StatusOK {
		return 0, fmt.Errorf("%s answers %d", target, status)
	}
	n, err := l.body(length, s)
	if err != nil {
		return n, fmt.Errorf("reading %s: %w", target, err)
	}
	return n, nil
}

var (
	errNotHTTP = errors.New("this is not HTTP/1.1")
	// Nodes always say how long their answers are.
	errNoLength = errors.New("the answer does not say its length")
)

// head reads an answer's first lines.
func (l *line) head() (status int, length int64, err error) {
	first, err := l.in.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	rest, ok := bytes.CutPrefix(first, []byte("HTTP/1.1 "))
	if !ok || len(rest) < 3 {
		return 0, 0, errNotHTTP
	}
	if status, err = strconv.Atoi(string(rest[:3])); err != nil {
		return 0, 0, errNotHTTP
	}
	length = -1
	for range maxFields {
		field, err := l.in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		field = bytes.TrimRight(field, "\r\n")
		if len(field) == 0 {
			if length < 0 {
				return status, 0, errNoLength
			}
			return status, length, nil
		}
		if name, value, _ := bytes.Cut(field, []byte(":")); len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 63); err != nil || length < 0 {
				return 0, 0, errNoLength
			}
		}
	}
	return 0, 0, errNotHTTP
}

// body reads what follows the head.
func (l *line) body(length int64, s *scratch) (int64, error) {
	n, err := l.in.Discard(int(min(length, int64(l.in.Buffered()))))
	got := int64(n)
	if err != nil || got == length {
		return got, err
	}
	b := s.pool.Get().(*[scratchSize]byte)
	defer s.pool.Put(b)
	for got < length {
		n, err := l.conn.Read(b[:min(length-got, scratchSize)])
		got += int64(n)
		switch {
		case got == length:
		case errors.Is(err, io.EOF):
			return got, io.ErrUnexpectedEOF
		case err != nil:
			return got, err
		}
	}
	return got, nil
}
