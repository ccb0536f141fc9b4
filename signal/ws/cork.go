package ws

import (
	"bufio"
	"net"
	"net/http"
	"sync"
)

// corkBytes bounds what is collected before it is written all the same.
const corkBytes = 32 << 10

// hijacker gives the WebSocket library a connection that can hold back small writes. The library flushes every
// message; a burst of chat would cost a system call each.
type hijacker struct {
	http.ResponseWriter
	cork *corkable
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.cork.Conn = conn
	return h.cork, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.cork, 512)), nil
}

// corkable is a connection whose writes can be collected.
type corkable struct {
	net.Conn

	mu   sync.Mutex // guards the fields below, and keeps the order of writes
	held bool
	buf  []byte
}

// Write writes through, or collects while held.
func (c *corkable) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.Conn.Write(p)
	}
	c.buf = append(c.buf, p...)
	if len(c.buf) >= corkBytes {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (c *corkable) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// release writes what was collected.
func (c *corkable) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	err := c.flushLocked()
	c.buf = nil
	return err
}

func (c *corkable) flushLocked() error {
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}
