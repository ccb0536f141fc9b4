package udp

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// muxQueue is how many datagrams wait for the ICE side at most. A burst of
// joins needs about ten per client (checks, DTLS flights).
const muxQueue = 2048

// errMuxClosed ends the ICE mux's reader without a line in its log: it takes
// io.EOF for a regular end.
var errMuxClosed = fmt.Errorf("reading from the ICE side: %w (%w)", net.ErrClosed, io.EOF)

// MuxConn is the connection given to the ICE agent's UDP mux
// (ice.UDPMuxParams.UDPConn; it implements ice.AddrPortReaderWriter). It reads
// only what Deliver hands over: the goroutine that reads the socket keeps media
// for itself and passes on STUN and DTLS. Reads never fail but by Close, because
// the mux would end for every client; deadlines do nothing, because a candidate
// that closes would stop the writes of all others.
type MuxConn struct {
	conn  *Conn
	local *net.UDPAddr
	queue chan *muxDatagram
	free  chan *muxDatagram
	done  chan struct{}
	once  sync.Once
}

type muxDatagram struct {
	from netip.AddrPort
	data []byte
}

// Mux makes the ICE side of c. local is the address it says it is bound to;
// the invalid zero value means that of the socket.
func (c *Conn) Mux(local netip.AddrPort) *MuxConn {
	if !local.IsValid() {
		local = c.local
	}
	return &MuxConn{
		conn:  c,
		local: net.UDPAddrFromAddrPort(local),
		queue: make(chan *muxDatagram, muxQueue),
		free:  make(chan *muxDatagram, muxQueue),
		done:  make(chan struct{}),
	}
}

// Deliver queues a copy of one datagram for the ICE side. It never blocks: when
// the queue is full the datagram is dropped and counted, and Deliver says false.
func (m *MuxConn) Deliver(d Datagram) bool {
	var q *muxDatagram
	select {
	case q = <-m.free:
	default:
		q = &muxDatagram{}
	}
	q.from = d.From
	q.data = append(q.data[:0], d.Data...)
	select {
	case m.queue <- q:
		return true
	default:
		m.conn.counters.drop(DropMuxFull)
		return false
	}
}

// ReadFromAddrPort implements ice.AddrPortReaderWriter.
func (m *MuxConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case q := <-m.queue:
		n, from := copy(b, q.data), q.from
		select {
		case m.free <- q:
		default:
		}
		return n, from, nil
	case <-m.done:
		return 0, netip.AddrPort{}, errMuxClosed
	}
}

// WriteToAddrPort implements ice.AddrPortReaderWriter.
func (m *MuxConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return m.conn.WriteToAddrPort(b, to)
}

// ReadFrom implements net.PacketConn.
func (m *MuxConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := m.ReadFromAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo implements net.PacketConn; to must be a *net.UDPAddr.
func (m *MuxConn) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("sending to %v: not a UDP address", to)
	}
	return m.conn.WriteToAddrPort(b, unmap(udp.AddrPort()))
}

// LocalAddr implements net.PacketConn.
func (m *MuxConn) LocalAddr() net.Addr { return m.local }

// Close ends reads of the ICE side; the socket stays open.
func (m *MuxConn) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

// SetDeadline does nothing; see MuxConn.
func (m *MuxConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing; see MuxConn.
func (m *MuxConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing; see MuxConn.
func (m *MuxConn) SetWriteDeadline(time.Time) error { return nil }
