//go:build !linux

package udp

import (
	"errors"
	"net"
	"time"
)

// Reader takes datagrams from the socket. It belongs to one goroutine.
type Reader struct {
	conn *Conn
	buf  []byte
	out  [1]Datagram
}

// NewReader makes a Reader.
func (c *Conn) NewReader() *Reader {
	return &Reader{conn: c, buf: make([]byte, c.cfg.MaxDatagram+1)}
}

// NewPatientReader is nil: the system can't tell apart what may wait.
func (c *Conn) NewPatientReader() *Reader { return nil }

// ReadNow returns nothing.
func (r *Reader) ReadNow() []Datagram { return nil }

// Wait says that the socket is closed: there is no patient reader that would wait.
func (r *Reader) Wait() error { return net.ErrClosed }

// Ignore does nothing.
func (r *Reader) Ignore() {}

// Await says that there is nothing to read.
func (r *Reader) Await(time.Duration) bool { return false }

// ReadBatch waits for at least one datagram and returns what there is, valid
// until the next call. Its only error is net.ErrClosed.
func (r *Reader) ReadBatch() ([]Datagram, error) {
	for {
		n, from, err := r.conn.sock.ReadFromUDPAddrPort(r.buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, net.ErrClosed
		case err != nil:
			r.conn.counters.drop(DropReadError)
		case n > r.conn.cfg.MaxDatagram:
			r.conn.counters.drop(DropOversize)
		default:
			r.conn.counters.read(1, 1, 1, n)
			r.out[0] = Datagram{Data: r.buf[:n], From: unmap(from)}
			return r.out[:], nil
		}
	}
}
