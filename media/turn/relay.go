package turn

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/turn/v5"
)

var (
	errTransport = errors.New("turn: only UDP is relayed")
	errRefused   = errors.New("turn: no more allocations")
)

// generator makes relays for the library.
type generator struct{ server *Server }

// Validate implements turn.RelayAddressGenerator.
func (generator) Validate() error { return nil }

// AllocateListener implements turn.RelayAddressGenerator; there is no relaying of TCP (RFC 6062).
func (g generator) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	g.server.stats.refuse(ReasonTransport)
	return nil, nil, errTransport
}

// AllocateConn implements turn.RelayAddressGenerator.
func (g generator) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) {
	g.server.stats.refuse(ReasonTransport)
	return nil, errTransport
}

// AllocatePacketConn implements turn.RelayAddressGenerator. Wishes for a port are refused: only media answers there.
func (g generator) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	s := g.server
	way, ok := s.routes[c.Network]
	if !ok || c.RequestedPort != 0 || c.UserID == "" {
		s.stats.refuse(ReasonTransport)
		return nil, nil, errTransport
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(way.media))
	if err != nil {
		s.stats.refuse(ReasonCapacity)
		return nil, nil, err
	}
	now := time.Now()
	r := &relay{UDPConn: conn, server: s, user: c.UserID,
		in: newBudget(s.cfg.BitRate, now), out: newBudget(s.cfg.BitRate, now)}
	for _, peer := range way.peers {
		r.peers = append(r.peers, net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer, way.media.Port())))
	}
	s.mu.Lock()
	reason := s.refusalLocked(c.UserID)
	if reason == "" {
		s.relays[r] = struct{}{}
		s.users[c.UserID]++
		s.live.Add(1)
	}
	s.mu.Unlock()
	if reason != "" {
		s.stats.refuse(reason)
		_ = conn.Close()
		return nil, nil, errRefused
	}
	s.stats.allocations.Add(1)
	// Nobody but media can reach it. Told as it is, it is the address that media answers checks with.
	return r, conn.LocalAddr(), nil
}

// relay is one allocation's way to the media socket, the only one it can send to and hear from: its socket is
// connected. The library reads it from one goroutine and writes to it from another.
type relay struct {
	*net.UDPConn
	server *Server
	user   string
	peers  []*net.UDPAddr // by which the client knows the media socket
	pairs  pairs          // which of them is meant
	in     budget         // from the client; the writing goroutine's
	out    budget         // to the client; the reading goroutine's
	closed sync.Once
}

// ReadFrom implements net.PacketConn.
func (r *relay) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, err := r.Read(b)
		if err != nil {
			return 0, nil, err
		}
		if !r.out.spend(n, time.Now()) {
			r.server.stats.refuse(ReasonBandwidth)
			continue
		}
		r.server.stats.bytesOut.Add(uint64(n))
		return n, r.peers[r.pairs.of(b[:n])], nil
	}
}

// WriteTo implements net.PacketConn. What it drops counts as written: the client isn't told.
func (r *relay) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	peer := -1
	if ok {
		peer = slices.IndexFunc(r.peers, func(p *net.UDPAddr) bool { return p.Port == udp.Port && p.IP.Equal(udp.IP) })
	}
	if peer < 0 {
		r.server.stats.refuse(ReasonPeer)
		return len(b), nil
	}
	if !r.in.spend(len(b), time.Now()) {
		r.server.stats.refuse(ReasonBandwidth)
		return len(b), nil
	}
	r.pairs.note(b, peer)
	r.server.stats.bytesIn.Add(uint64(len(b)))
	return r.Write(b)
}

// Close implements net.PacketConn.
func (r *relay) Close() error {
	err := net.ErrClosed
	r.closed.Do(func() {
		err = r.UDPConn.Close()
		s := r.server
		s.mu.Lock()
		delete(s.relays, r)
		if s.users[r.user]--; s.users[r.user] == 0 {
			delete(s.users, r.user)
		}
		s.mu.Unlock()
		s.live.Done()
	})
	return err
}
