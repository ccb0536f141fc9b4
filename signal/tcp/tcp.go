// Package tcp accepts connections that cost little when each says little: thousands of clients whose pings come one
// by one. Go announces every system call to its scheduler as one that may block, which wakes the runtime's monitor from
// its sleep, to look at the processor every 20 µs until all is idle again: more work than a ping itself. Sockets here
// never block, so short reads and writes are made without that word.
package tcp

import (
	"net"
)

// Listener accepts such connections; it wraps one of TCP. Others' connections stay as they are.
type Listener struct{ net.Listener }

// Accept implements net.Listener.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if sock, ok := c.(*net.TCPConn); ok {
		return wrap(sock), nil
	}
	return c, nil
}
