package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/amphi-sfu/amphi/cluster/refusal"
)

// Limits before memberlist's parsers, which strangers reach: it reads up to 20 MiB of a stream before it knows whether
// the sender has the key.
const (
	maxPacket      = 2 << 10
	maxStream      = 2 << 20 // the state of some 3,000 nodes
	maxStreams     = 64
	maxHostStreams = 16
	packetQueue    = 1024
	udpBuffer      = 1 << 20
	bindAttempts   = 10
)

// Reasons why a packet or stream is refused here; memberlist's own are in lines.go.
const (
	refusedAddress = "address_not_allowed"
	refusedSize    = "too_large"
	refusedCrowd   = "too_many_streams"
	refusedQueue   = "queue_full"
)

// transport is memberlist's way to the network: UDP and TCP on one port. Shutdown waits for its goroutines.
type transport struct {
	udp       *net.UDPConn
	tcp       net.Listener
	advertise netip.Addr
	allow     []netip.Prefix
	blocked   func(address string) bool // of tests: a cut network
	refused   *refusal.Counter
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	closing   chan struct{}
	once      sync.Once
	wg        sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	open  map[*stream]struct{}
	hosts map[string]int // of accepted streams
	ended bool
}

// listen opens both sockets on one port; with port 0 on any that is free for both.
func listen(address string) (*net.UDPConn, net.Listener, error) {
	var last error
	for range bindAttempts {
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("opening gossip's port: %w", err)
		}
		local := tcp.Addr().(*net.TCPAddr)
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: local.IP, Port: local.Port, Zone: local.Zone})
		if err == nil {
			// The kernel may allow less; gossip lives with that.
			_ = udp.SetReadBuffer(udpBuffer)
			return udp, tcp, nil
		}
		last = err
		_ = tcp.Close()
		if _, port, _ := net.SplitHostPort(address); port != "0" {
			break
		}
	}
	return nil, nil, fmt.Errorf("opening gossip's port: %w", last)
}

func newTransport(cfg Config, refused *refusal.Counter) (*transport, error) {
	udp, tcp, err := listen(cfg.Addr)
	if err != nil {
		return nil, err
	}
	t := &transport{
		udp: udp, tcp: tcp, advertise: cfg.Advertise, allow: cfg.Allow, blocked: cfg.blocked, refused: refused,
		packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn), closing: make(chan struct{}),
		open: map[*stream]struct{}{}, hosts: map[string]int{},
	}
	if !t.advertise.IsValid() {
		bound := t.addrPort().Addr()
		if bound.IsUnspecified() {
			_ = t.Shutdown()
			return nil, errors.New("gossip listens on every address: say which one the others reach it at (advertise)")
		}
		t.advertise = bound
	}
	return t, nil
}

func (t *transport) addrPort() netip.AddrPort {
	bound := t.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
}

// self is the address that the others are told.
func (t *transport) self() netip.AddrPort {
	return netip.AddrPortFrom(t.advertise, t.addrPort().Port())
}

func (t *transport) start() {
	t.wg.Go(t.readPackets)
	t.wg.Go(t.acceptStreams)
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	self := t.self()
	return self.Addr().AsSlice(), int(self.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, address string) (time.Time, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return time.Time{}, fmt.Errorf("sending gossip: %w", err)
	}
	if t.blocked == nil || !t.blocked(address) {
		_, err = t.udp.WriteToUDPAddrPort(b, to)
	}
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	if t.blocked != nil && t.blocked(address) {
		return nil, errors.New("the network is cut")
	}
	raw, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return nil, err
	}
	s, reason := t.admit(raw, "")
	if reason != "" {
		return nil, net.ErrClosed
	}
	return s, nil
}

// Shutdown implements memberlist.Transport. Idempotent.
func (t *transport) Shutdown() error {
	t.once.Do(func() {
		close(t.closing)
		_ = t.udp.Close()
		_ = t.tcp.Close()
		t.mu.Lock()
		t.ended = true
		open := make([]*stream, 0, len(t.open))
		for s := range t.open {
			open = append(open, s)
		}
		t.mu.Unlock()
		for _, s := range open {
			_ = s.Close()
		}
	})
	t.wg.Wait()
	return nil
}

func (t *transport) allowed(ip netip.Addr) bool {
	if len(t.allow) == 0 {
		return true
	}
	for _, prefix := range t.allow {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

func (t *transport) readPackets() {
	buffer := make([]byte, maxPacket+1)
	for {
		n, from, err := t.udp.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.refused.Add("read_failed", "", err)
			t.pause()
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		switch {
		case t.blocked != nil && t.blocked(from.String()):
		case !t.allowed(from.Addr()):
			t.refused.Add(refusedAddress, from.String(), nil)
		case n > maxPacket:
			t.refused.Add(refusedSize, from.String(), nil)
		case n > 0:
			packet := &memberlist.Packet{
				Buf: append([]byte(nil), buffer[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}
			select {
			case t.packets <- packet:
			default:
				t.refused.Add(refusedQueue, from.String(), nil)
			}
		}
	}
}

// pause keeps a socket in trouble from spinning.
func (t *transport) pause() {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.closing:
	}
}

func (t *transport) acceptStreams() {
	for {
		raw, err := t.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.refused.Add("accept_failed", "", err)
			t.pause()
			continue
		}
		from := raw.RemoteAddr().(*net.TCPAddr).AddrPort()
		if !t.allowed(from.Addr().Unmap()) {
			t.refused.Add(refusedAddress, from.String(), nil)
			_ = raw.Close()
			continue
		}
		s, reason := t.admit(raw, from.Addr().String())
		if reason != "" {
			t.refused.Add(reason, from.String(), nil)
			continue
		}
		select {
		case t.streams <- s:
		case <-t.closing:
			_ = s.Close()
			return
		}
	}
}

// admit puts a stream on the list, under the limits of strangers when it was accepted from a host.
func (t *transport) admit(raw net.Conn, host string) (*stream, string) {
	s := &stream{Conn: raw, t: t, host: host, left: maxStream}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || host != "" && (len(t.open) >= maxStreams || t.hosts[host] >= maxHostStreams) {
		_ = raw.Close()
		return nil, refusedCrowd
	}
	t.open[s] = struct{}{}
	if host != "" {
		t.hosts[host]++
	}
	return s, ""
}

// stream is a connection that gives only so much to read and takes itself off the list. One goroutine reads it.
type stream struct {
	net.Conn
	t    *transport
	host string
	left int
	once sync.Once
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		s.t.refused.Add(refusedSize, s.RemoteAddr().String(), nil)
		return 0, errors.New("the stream is too long")
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.once.Do(func() {
		s.t.mu.Lock()
		defer s.t.mu.Unlock()
		delete(s.t.open, s)
		if s.host == "" {
			return
		}
		if s.t.hosts[s.host]--; s.t.hosts[s.host] == 0 {
			delete(s.t.hosts, s.host)
		}
	})
	return s.Conn.Close()
}

// hostPort takes apart an address as seeds are written.
func hostPort(seed string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(seed)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not HOST:PORT: %w", seed, err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", seed)
	}
	return host, uint16(n), nil
}
