// Package udp is the node's one media socket: datagrams come in by the batch
// (recvmmsg with UDP_GRO) and leave by the batch (sendmmsg with UDP_SEGMENT),
// so that the kernel's stack is crossed once per run of packets instead of once
// per packet. Where the kernel or the OS cannot, it degrades to plain reads and
// writes with the same results.
package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// Defaults of Config.
const (
	DefaultReadBuffer  = 8 << 20
	DefaultWriteBuffer = 4 << 20
	DefaultMaxDatagram = 1500
	DefaultMaxSegments = 16
)

// Config of a Conn. The zero value of each field but Addr means its default.
type Config struct {
	// Addr is the UDP address to listen on, as in net.ListenUDP. With an
	// unspecified host the socket serves IPv4 and IPv6.
	Addr string
	// ReadBuffer and WriteBuffer are the wanted kernel buffers in bytes. The
	// system may grant less: Conn.Buffers tells.
	ReadBuffer, WriteBuffer int
	// MaxDatagram is the longest datagram read, in bytes; longer ones are dropped.
	MaxDatagram int
	// MaxSegments caps the packets of one GSO run, 1..64. 1 turns GSO off.
	MaxSegments int
	// Single keeps everything on one socket: there is no patient reader then.
	Single bool
	// Arrivals has Datagram.Age filled in, where the system can.
	Arrivals bool
	// Plain turns off every batching system call; for tests and comparison.
	Plain bool
}

func (c Config) withDefaults() (Config, error) {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&c.ReadBuffer, DefaultReadBuffer)
	set(&c.WriteBuffer, DefaultWriteBuffer)
	set(&c.MaxDatagram, DefaultMaxDatagram)
	set(&c.MaxSegments, DefaultMaxSegments)
	if c.ReadBuffer < 0 || c.WriteBuffer < 0 {
		return c, errors.New("udp: negative buffer size")
	}
	if c.MaxDatagram < 1 || c.MaxDatagram > 65535 {
		return c, fmt.Errorf("udp: MaxDatagram %d is outside 1..65535", c.MaxDatagram)
	}
	if c.MaxSegments < 1 || c.MaxSegments > 64 {
		return c, fmt.Errorf("udp: MaxSegments %d is outside 1..64", c.MaxSegments)
	}
	return c, nil
}

// Datagram is one received UDP payload.
type Datagram struct {
	// Data is valid until the next call of the Reader that returned it.
	Data []byte
	// From is the sender; IPv4 addresses are never in their IPv6-mapped form.
	From netip.AddrPort
	// Age is how long ago the datagram came to this host, with Config.Arrivals; else 0.
	Age time.Duration
}

// Conn is one bound UDP socket. All methods may be called concurrently; a
// Reader and a Sender belong to one goroutine each.
type Conn struct {
	cfg      Config
	sock     *net.UDPConn
	raw      syscall.RawConn
	patient  *quiet          // of the same port, for what may wait; may be nil
	out      syscall.RawConn // what is sent leaves by it: the patient socket, else the only one
	local    netip.AddrPort
	family   int // address family of the socket, OS value; 0 when unknown
	gro      bool
	counters counters
	noGSO    atomic.Bool // the kernel knows no UDP_SEGMENT at all
}

// Listen opens the socket. It starts no goroutine.
func Listen(cfg Config) (*Conn, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	addr, err := net.ResolveUDPAddr("udp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("resolving UDP address %q: %w", cfg.Addr, err)
	}
	c := &Conn{cfg: cfg}
	if err := c.listen(addr); err != nil {
		return nil, fmt.Errorf("listening on UDP %s: %w", cfg.Addr, err)
	}
	c.local = unmap(c.sock.LocalAddr().(*net.UDPAddr).AddrPort())
	if c.raw, err = c.sock.SyscallConn(); err == nil {
		c.configure(c.raw)
		c.out = c.raw
		if c.patient != nil {
			c.configure(c.patient)
			c.out = c.patient
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("reaching the UDP socket: %w", err)
	}
	return c, nil
}

// LocalAddr is the bound address.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// WriteToAddrPort sends one datagram at once, not through a Sender's queue: for
// STUN, DTLS and whatever is rare.
func (c *Conn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	n, err := c.writeNow(b, to)
	if err != nil {
		c.counters.drop(reasonOf(err))
		return n, fmt.Errorf("sending to %s: %w", to, err)
	}
	c.counters.sent(1, 1, 1, n)
	return n, nil
}

// Close closes the socket; pending and later reads return net.ErrClosed.
func (c *Conn) Close() error {
	err := c.sock.Close()
	if c.patient != nil {
		err = errors.Join(err, c.patient.Close())
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
