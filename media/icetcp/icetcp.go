// Package icetcp serves ICE over TCP (RFC 6544, passive candidates): connections whose
// datagrams are framed by a length of two bytes (RFC 4571). A slow or silent client holds
// up nobody but itself.
package icetcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	DefaultMaxFrame   = 1500
	DefaultMaxQueue   = 256 << 10
	DefaultMaxConns   = 4096
	DefaultMaxPerIP   = 64
	DefaultFirstAfter = 5 * time.Second
	DefaultWriteWait  = 10 * time.Second
)

// errPause is how long accepting rests after an error, as when descriptors run out.
const errPause = 50 * time.Millisecond

// ErrQueueFull says that a client reads too slowly: the datagram is dropped.
var ErrQueueFull = errors.New("icetcp: the connection's queue is full")

// Config of a Listener. The zero value of each field means its default, but Addr and
// Receive.
type Config struct {
	// Addr is the TCP address to listen on.
	Addr string
	// Receive gets every datagram, on the goroutine of its connection; b is valid during
	// the call. Closed is called once, after the last Receive of a connection.
	Receive func(c *Conn, b []byte)
	Closed  func(c *Conn)
	// MaxFrame is the longest datagram in bytes (longer ones close the connection),
	// MaxQueue how many bytes wait for a client that reads slowly.
	MaxFrame, MaxQueue int
	// MaxConns bounds the connections, MaxPerIP those of one address that have not been
	// confirmed. Others are closed at once.
	MaxConns, MaxPerIP int
	// ConfirmWithin is how long a connection may last without Confirm.
	ConfirmWithin time.Duration
}

func (c *Config) setDefaults() {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&c.MaxFrame, DefaultMaxFrame)
	set(&c.MaxQueue, DefaultMaxQueue)
	set(&c.MaxConns, DefaultMaxConns)
	set(&c.MaxPerIP, DefaultMaxPerIP)
	if c.ConfirmWithin == 0 {
		c.ConfirmWithin = DefaultFirstAfter
	}
	if c.Closed == nil {
		c.Closed = func(*Conn) {}
	}
}

// Stats counts what a Listener did.
type Stats struct {
	Accepted, Open uint64
	// Drops counts refused connections and dropped datagrams by reason.
	Drops map[string]uint64
}

// Listener accepts connections. Its methods are safe for concurrent use.
type Listener struct {
	cfg      Config
	listener *net.TCPListener
	addr     netip.AddrPort
	wg       sync.WaitGroup
	nextID   atomic.Uint64
	accepted atomic.Uint64
	tooMany, perIP, oversize, unconfirmed,
	queueFull atomic.Uint64

	mu      sync.Mutex // guards the fields below
	conns   map[*Conn]struct{}
	waiting map[netip.Addr]int // unconfirmed connections
	closed  bool
}

// Listen opens the socket. It starts no goroutine.
func Listen(cfg Config) (*Listener, error) {
	cfg.setDefaults()
	if cfg.Receive == nil {
		return nil, errors.New("icetcp: Receive is missing")
	}
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening for ICE-TCP: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, errors.New("listening for ICE-TCP: not a TCP socket")
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	return &Listener{
		cfg: cfg, listener: tcp, addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()),
		conns: map[*Conn]struct{}{}, waiting: map[netip.Addr]int{},
	}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Run accepts until ctx ends or Close, then closes all connections and waits for them.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.wg.Wait()
	defer l.Close()
	for {
		conn, err := l.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(errPause):
			}
			continue
		}
		l.accept(conn)
	}
}

func (l *Listener) accept(tcp *net.TCPConn) {
	remote := tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
	c := &Conn{
		l: l, id: l.nextID.Add(1), tcp: tcp, remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.mu.Lock()
	reason := &l.tooMany
	switch {
	case l.closed:
	case len(l.conns) >= l.cfg.MaxConns:
	case l.waiting[c.remote.Addr()] >= l.cfg.MaxPerIP:
		reason = &l.perIP
	default:
		reason = nil
		l.conns[c] = struct{}{}
		l.waiting[c.remote.Addr()]++
	}
	l.mu.Unlock()
	if reason != nil {
		reason.Add(1)
		tcp.Close()
		return
	}
	l.accepted.Add(1)
	_ = tcp.SetReadDeadline(time.Now().Add(l.cfg.ConfirmWithin))
	l.wg.Go(c.read)
	l.wg.Go(c.write)
}

// forget takes c out of the tables.
func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.confirmLocked(c)
}

func (l *Listener) confirmLocked(c *Conn) {
	if c.confirmed {
		return
	}
	c.confirmed = true
	ip := c.remote.Addr()
	if l.waiting[ip]--; l.waiting[ip] <= 0 {
		delete(l.waiting, ip)
	}
}

// Close closes the socket and all connections; Run waits for them.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	conns := make([]*Conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	err := l.listener.Close()
	for _, c := range conns {
		c.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Stats returns the counters; every reason is there, with zero too.
func (l *Listener) Stats() Stats {
	l.mu.Lock()
	open := len(l.conns)
	l.mu.Unlock()
	return Stats{Accepted: l.accepted.Load(), Open: uint64(open), Drops: map[string]uint64{
		"tcp_connections": l.tooMany.Load(), "tcp_per_address": l.perIP.Load(), "tcp_oversize": l.oversize.Load(),
		"tcp_unconfirmed": l.unconfirmed.Load(), "tcp_queue_full": l.queueFull.Load(),
	}}
}

// Conn is one connection. Its methods are safe for concurrent use.
type Conn struct {
	l         *Listener
	id        uint64
	tcp       *net.TCPConn
	remote    netip.AddrPort
	wake      chan struct{}
	done      chan struct{}
	once      sync.Once
	confirmed bool // guarded by l.mu

	mu      sync.Mutex // guards the fields below
	pending []byte     // framed datagrams
	ended   bool
}

// ID numbers the connection, from 1.
func (c *Conn) ID() uint64 { return c.id }

// Remote is the client's address.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Confirm says that the client has shown who it is: the connection may last.
func (c *Conn) Confirm() {
	c.l.mu.Lock()
	was := c.confirmed
	c.l.confirmLocked(c)
	c.l.mu.Unlock()
	if !was {
		_ = c.tcp.SetReadDeadline(time.Time{})
	}
}

// Write queues one datagram; it never blocks. It implements io.Writer.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
		return 0, net.ErrClosed
	case len(b) > 0xffff || len(c.pending)+2+len(b) > c.l.cfg.MaxQueue:
		c.l.queueFull.Add(1)
		return 0, ErrQueueFull
	}
	c.pending = binary.BigEndian.AppendUint16(c.pending, uint16(len(b)))
	c.pending = append(c.pending, b...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(b), nil
}

// Close ends the connection; it does not wait.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
		close(c.done)
		c.tcp.Close()
	})
	return nil
}

// read is the goroutine of what comes.
func (c *Conn) read() {
	defer c.l.cfg.Closed(c)
	defer c.l.forget(c)
	defer c.Close()
	s := splitter{buf: make([]byte, 2*(2+c.l.cfg.MaxFrame)), max: c.l.cfg.MaxFrame}
	for {
		n, err := c.tcp.Read(s.buf[s.have:])
		if !s.split(n, func(b []byte) { c.l.cfg.Receive(c, b) }) {
			c.l.oversize.Add(1)
			return
		}
		if err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				c.l.unconfirmed.Add(1)
			}
			return
		}
	}
}

// splitter takes a stream apart into its frames (RFC 4571 section 2).
type splitter struct {
	buf  []byte
	have int
	max  int
}

// split takes n more bytes behind what there is, and calls f with every whole frame's
// content. It is false when a frame is too long.
func (s *splitter) split(n int, f func([]byte)) bool {
	s.have += n
	at := 0
	for s.have-at >= 2 {
		size := int(binary.BigEndian.Uint16(s.buf[at:]))
		if size > s.max {
			return false
		}
		end := at + 2 + size
		if s.have < end {
			break
		}
		f(s.buf[at+2 : end : end])
		at = end
	}
	s.have = copy(s.buf, s.buf[at:s.have])
	return true
}

// write is the goroutine of what goes: all that has been queued in one call.
func (c *Conn) write() {
	defer c.Close()
	var out []byte
	for {
		select {
		case <-c.done:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		out, c.pending = c.pending, out[:0]
		c.mu.Unlock()
		_ = c.tcp.SetWriteDeadline(time.Now().Add(DefaultWriteWait))
		if _, err := c.tcp.Write(out); err != nil {
			return
		}
		if cap(out) > 64<<10 {
			out = nil // was a burst; don't keep its memory
		}
	}
}

var _ io.Writer = (*Conn)(nil)
