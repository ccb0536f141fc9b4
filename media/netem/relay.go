package netem

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// RelayConfig describes a Relay.
type RelayConfig struct {
	// Listen is the address that clients send to, 127.0.0.1:0 when empty.
	Listen string
	// Target is where their datagrams go.
	Target netip.AddrPort
	// Up shapes the way from the clients to the target, Down the way back. All
	// clients share both, as behind one access link. Params.Overhead is 28
	// unless set.
	Up, Down Params
	// Seed decides every fault.
	Seed uint64
	// MaxClients bounds the clients (source addresses); 256 when 0. Datagrams of
	// further ones are dropped.
	MaxClients int
}

// udpOverhead is the IPv4 and UDP header of a datagram, in bytes.
const udpOverhead = 28

// Relay is a link between UDP clients and one UDP server: it listens in the
// server's place and passes everything on, shaped. Like a NAT, it has a socket of
// its own towards the server for each client.
type Relay struct {
	cfg     RelayConfig
	front   *net.UDPConn
	up      *Line[upward]
	down    *Line[downward]
	refused atomic.Uint64

	mu      sync.Mutex // guards the fields below
	clients map[netip.AddrPort]*net.UDPConn
	closed  bool
}

type upward struct {
	via  *net.UDPConn
	data []byte
}

type downward struct {
	to      netip.AddrPort
	data    []byte
	arrived func() // instead, of other traffic
}

// NewRelay opens the listening socket; Run makes it work.
func NewRelay(cfg RelayConfig) (*Relay, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.MaxClients == 0 {
		cfg.MaxClients = 256
	}
	if !cfg.Target.IsValid() {
		return nil, errors.New("netem: the relay has no target")
	}
	r := &Relay{cfg: cfg, clients: map[netip.AddrPort]*net.UDPConn{}}
	var err error
	// A write error is the emulated network's loss: the packet is gone.
	r.up, err = NewLine(withOverhead(cfg.Up), cfg.Seed, func(u upward) {
		_, _ = u.via.WriteToUDPAddrPort(u.data, cfg.Target)
	})
	if err != nil {
		return nil, err
	}
	r.down, err = NewLine(withOverhead(cfg.Down), cfg.Seed+1, func(d downward) {
		if d.arrived != nil {
			d.arrived()
			return
		}
		_, _ = r.front.WriteToUDPAddrPort(d.data, d.to)
	})
	if err != nil {
		return nil, err
	}
	if r.front, err = listenUDP(cfg.Listen); err != nil {
		return nil, err
	}
	return r, nil
}

func withOverhead(p Params) Params {
	if p.Overhead == 0 {
		p.Overhead = udpOverhead
	}
	return p
}

func listenUDP(addr string) (*net.UDPConn, error) {
	ua, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("resolving relay address %q: %w", addr, err)
	}
	c, err := net.ListenUDP("udp", ua)
	if err != nil {
		return nil, fmt.Errorf("opening relay socket: %w", err)
	}
	// Best effort: bursts should meet the emulated queue, not the kernel's.
	_ = c.SetReadBuffer(4 << 20)
	_ = c.SetWriteBuffer(4 << 20)
	return c, nil
}

// Addr is where clients send to.
func (r *Relay) Addr() netip.AddrPort { return unmap(r.front.LocalAddr().(*net.UDPAddr).AddrPort()) }

// SetUp changes the way from the clients to the target from now on.
func (r *Relay) SetUp(p Params) error { return r.up.Set(withOverhead(p)) }

// SetDown changes the way from the target to the clients from now on.
func (r *Relay) SetDown(p Params) error { return r.down.Set(withOverhead(p)) }

// CrossDown puts a packet of other traffic, of size bytes, into the way to the clients. arrived
// is called when it has passed, from the goroutine that delivers: it must not block.
func (r *Relay) CrossDown(size int, arrived func()) { r.down.Send(size, downward{arrived: arrived}) }

// RelayStats is what happened in both directions since NewRelay.
type RelayStats struct {
	Up, Down Stats
	// UpQueue and DownQueue are the present waits before the bottlenecks.
	UpQueue, DownQueue time.Duration
	// Refused counts datagrams of clients beyond MaxClients.
	Refused uint64
}

// Stats returns the counters.
func (r *Relay) Stats() RelayStats {
	var s RelayStats
	s.Up, s.UpQueue = r.up.Stats()
	s.Down, s.DownQueue = r.down.Stats()
	s.Refused = r.refused.Load()
	return s
}

// Run relays until ctx ends, which is not an error, and closes all sockets.
func (r *Relay) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, r.closeSockets)
	defer stop()
	defer r.closeSockets()
	wg.Go(func() { _ = r.up.Run(ctx) })
	wg.Go(func() { _ = r.down.Run(ctx) })
	buf := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			continue // an ICMP error of a past write
		}
		via, err := r.client(unmap(from), &wg)
		if err != nil {
			return err
		}
		if via != nil {
			r.up.Send(n, upward{via: via, data: append([]byte(nil), buf[:n]...)})
		}
	}
}

// client returns the socket for a client, made on its first datagram; nil when
// there are too many clients or the relay ends.
func (r *Relay) client(from netip.AddrPort, wg *sync.WaitGroup) (*net.UDPConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.clients[from]; c != nil {
		return c, nil
	}
	if r.closed || len(r.clients) >= r.cfg.MaxClients {
		r.refused.Add(1)
		return nil, nil
	}
	local := ":0"
	if r.cfg.Target.Addr().IsLoopback() {
		local = net.JoinHostPort(r.cfg.Target.Addr().String(), "0")
	}
	c, err := listenUDP(local)
	if err != nil {
		return nil, err
	}
	r.clients[from] = c
	wg.Go(func() { r.readBack(c, from) })
	return c, nil
}

// readBack takes what the target sends to one client.
func (r *Relay) readBack(c *net.UDPConn, client netip.AddrPort) {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && unmap(from) == r.cfg.Target {
			r.down.Send(n, downward{to: client, data: append([]byte(nil), buf[:n]...)})
		}
	}
}

func (r *Relay) closeSockets() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.front.Close()
	for _, c := range r.clients {
		c.Close()
	}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
