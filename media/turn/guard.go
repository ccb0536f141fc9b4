package turn

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun/v4"
)

const (
	stunHeader    = 20
	channelHeader = 4
	magicCookie   = 0x2112A442 // RFC 8489 section 5
	// maxFrame is a datagram of media with everything around it.
	maxFrame = 1599
	// Those who connect by TCP have to say something soon, and to go on: ICE checks every few seconds.
	greetingTimeout = 10 * time.Second
	silenceTimeout  = 60 * time.Second
	// writeTimeout bounds how long a client that doesn't read is waited for.
	writeTimeout = 5 * time.Second
	// errorPause is how long a socket rests after an error that isn't its end.
	errorPause = 100 * time.Millisecond
)

var errMalformed = errors.New("turn: neither STUN nor channel data")

// frameSize is the size of the STUN message or channel data (RFC 8656 section 12.4) that begins with header, of at
// least 4 bytes, as it is in a stream.
func frameSize(header []byte) (int, error) {
	length := int(binary.BigEndian.Uint16(header[2:4]))
	switch header[0] >> 6 {
	case 0:
		if length%4 != 0 || length+stunHeader > maxFrame {
			return 0, errMalformed
		}
		return length + stunHeader, nil
	case 1:
		if length+channelHeader > maxFrame-3 {
			return 0, errMalformed
		}
		return channelHeader + (length+3)/4*4, nil
	}
	return 0, errMalformed
}

// admit looks at a frame before the library does: nothing that lies about its length, and not too many requests of
// one address. Indications carry media and are bounded by the allocation's bandwidth.
func (s *Server) admit(from netip.Addr, b []byte) bool {
	if len(b) < channelHeader {
		s.stats.refuse(ReasonMalformed)
		return false
	}
	size, err := frameSize(b)
	if err == nil && b[0]>>6 == 1 {
		// In a datagram the padding may be missing.
		if channelHeader+int(binary.BigEndian.Uint16(b[2:4])) <= len(b) {
			return true
		}
		err = errMalformed
	}
	if err != nil || size != len(b) || binary.BigEndian.Uint32(b[4:8]) != magicCookie {
		s.stats.refuse(ReasonMalformed)
		return false
	}
	if binary.BigEndian.Uint16(b)&0x0110 == 0x0010 {
		return true
	}
	if !s.rates.allow(from, time.Now()) {
		s.stats.refuse(ReasonRate)
		return false
	}
	if binary.BigEndian.Uint16(b) == channelBind && !s.bindable(b) {
		s.stats.refuse(ReasonPeer)
		return false
	}
	return true
}

// channelBind is the type of a ChannelBind request (RFC 8656 section 12).
const channelBind = 0x0009

// bindable tells whether a ChannelBind is for the media socket's port. The library asks about addresses only, keeps
// a channel for each port, and looks for one among all of them with each packet.
func (s *Server) bindable(b []byte) bool {
	m := stun.Message{Raw: b}
	if m.Decode() != nil {
		return false
	}
	var peer stun.XORMappedAddress
	return peer.GetFromAs(&m, stun.AttrXORPeerAddress) == nil && peer.Port == int(s.cfg.Media.Port())
}

// packets is the UDP socket as the library sees it.
type packets struct {
	net.PacketConn
	server *Server
}

// ReadFrom implements net.PacketConn.
func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := p.PacketConn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return 0, nil, err
		}
		if err != nil {
			// The library would stop for good.
			time.Sleep(errorPause)
			continue
		}
		if n > 0 && p.server.admit(addressOf(from), b[:n]) {
			return n, from, nil
		}
	}
}

func addressOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// listener is a TCP socket as the library sees it.
type listener struct {
	net.Listener
	server *Server
	tls    *tls.Config // nil: plain TCP
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil {
			time.Sleep(errorPause) // out of descriptors, for instance
			continue
		}
		c := &stream{Conn: conn, server: l.server, from: addressOf(conn.RemoteAddr()), patience: greetingTimeout}
		if l.tls != nil {
			// The handshake takes place in the first Read, within its time.
			c.Conn = tls.Server(conn, l.tls)
		}
		c.frames = bufio.NewReaderSize(c.Conn, 2048)
		if l.server.keep(c) {
			return c, nil
		}
		l.server.stats.refuse(ReasonConnections)
		_ = conn.Close()
	}
}

// keep notes a stream, if there may be one more.
func (s *Server) keep(c *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.streams) >= s.cfg.MaxConnections || s.sources[c.from] >= max(1, s.cfg.MaxConnections/2) {
		return false
	}
	s.streams[c] = struct{}{}
	s.sources[c.from]++
	s.live.Add(1)
	return true
}

// stream is a client's TCP or TLS connection. Each Read gives one whole frame, which the library's own framing, that
// believes every length, then finds complete.
type stream struct {
	net.Conn
	server   *Server
	from     netip.Addr
	frames   *bufio.Reader
	patience time.Duration
	closed   sync.Once
}

// Read implements net.Conn.
func (c *stream) Read(b []byte) (int, error) {
	for {
		if err := c.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
			return 0, err
		}
		n, err := c.frame(b)
		var timeout net.Error
		switch {
		case errors.Is(err, errMalformed):
			c.server.stats.refuse(ReasonMalformed)
			return 0, err
		case errors.As(err, &timeout) && timeout.Timeout():
			c.server.stats.refuse(ReasonConnections)
			return 0, err
		case err != nil:
			return 0, err
		}
		c.patience = silenceTimeout
		if c.server.admit(c.from, b[:n]) {
			return n, nil
		}
	}
}

func (c *stream) frame(b []byte) (int, error) {
	header, err := c.frames.Peek(channelHeader)
	if err != nil {
		return 0, err
	}
	size, err := frameSize(header)
	if err == nil && size > len(b) {
		err = errMalformed
	}
	if err != nil {
		return 0, err
	}
	return io.ReadFull(c.frames, b[:size])
}

// Write implements net.Conn. A client that doesn't read loses its connection.
func (c *stream) Write(b []byte) (int, error) {
	err := c.SetWriteDeadline(time.Now().Add(writeTimeout))
	n := 0
	if err == nil {
		n, err = c.Conn.Write(b)
	}
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

// Close implements net.Conn.
func (c *stream) Close() error {
	err := net.ErrClosed
	c.closed.Do(func() {
		s := c.server
		s.mu.Lock()
		delete(s.streams, c)
		if s.sources[c.from]--; s.sources[c.from] == 0 {
			delete(s.sources, c.from)
		}
		s.mu.Unlock()
		err = c.Conn.Close()
		s.live.Done()
	})
	return err
}
