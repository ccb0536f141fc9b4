package dtlssrtp

import (
	"bytes"
	"net"
	"os"
	"sync"
	"time"
)

// line is what the library takes for its socket: datagrams that Receive delivered come
// in, and what it sends goes to Config.Send.
type line struct {
	send func([]byte)
	in   chan []byte
	done chan struct{}

	mu        sync.Mutex    // guards the fields below
	interrupt chan struct{} // closed when the read deadline is in the past
	passed    bool
	muted     bool
	ended     bool
	sent      []byte // the last datagram
	random    []byte // the server's, of the last ServerHello in either direction
}

func newLine(send func([]byte)) *line {
	return &line{send: send, in: make(chan []byte, maxWaiting), done: make(chan struct{}), interrupt: make(chan struct{})}
}

// deliver queues a copy of b; false when too much waits.
func (l *line) deliver(b []byte) bool {
	select {
	case l.in <- append([]byte(nil), b...):
		return true
	default:
		return false
	}
}

func (l *line) mute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.muted = true
}

// seen returns the server's random and the last datagram sent.
func (l *line) seen() (random, sent []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random, bytes.Clone(l.sent)
}

func (l *line) note(b []byte) {
	if r := serverRandom(b); r != nil {
		l.random = r
	}
}

// ReadFrom implements net.PacketConn.
func (l *line) ReadFrom(b []byte) (int, net.Addr, error) {
	l.mu.Lock()
	interrupt := l.interrupt
	l.mu.Unlock()
	select {
	case d := <-l.in:
		l.mu.Lock()
		l.note(d)
		l.mu.Unlock()
		return copy(b, d), nil, nil
	case <-l.done:
		return 0, nil, net.ErrClosed
	case <-interrupt:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo implements net.PacketConn.
func (l *line) WriteTo(b []byte, _ net.Addr) (int, error) {
	l.mu.Lock()
	muted := l.muted
	if !muted {
		l.sent = append(l.sent[:0], b...)
		l.note(b)
	}
	l.mu.Unlock()
	if !muted {
		l.send(b)
	}
	return len(b), nil
}

// Close implements net.PacketConn.
func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		close(l.done)
	}
	return nil
}

// LocalAddr implements net.PacketConn.
func (l *line) LocalAddr() net.Addr { return &net.UDPAddr{} }

// SetReadDeadline implements net.PacketConn, for the only two deadlines in use: none,
// and one in the past.
func (l *line) SetReadDeadline(d time.Time) error {
	past := !d.IsZero()
	l.mu.Lock()
	defer l.mu.Unlock()
	if past && !l.passed {
		close(l.interrupt)
	} else if !past && l.passed {
		l.interrupt = make(chan struct{})
	}
	l.passed = past
	return nil
}

// SetDeadline implements net.PacketConn.
func (l *line) SetDeadline(d time.Time) error { return l.SetReadDeadline(d) }

// SetWriteDeadline implements net.PacketConn; writes never block.
func (l *line) SetWriteDeadline(time.Time) error { return nil }
