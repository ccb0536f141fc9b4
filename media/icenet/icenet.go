// Package icenet is the side of the media socket that ICE sees (RFC 8445): one UDP and one TCP
// mux for the agents of all endpoints, and the candidates for answers.
package icenet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/pion/ice/v4"
	piontransport "github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"

	"github.com/amphi-sfu/amphi/media/udp"
)

// Config of a Side.
type Config struct {
	Logger *slog.Logger
	// IPs are told to clients as candidates, in this order of preference.
	IPs []netip.Addr
	// TCPAddr is where ICE-TCP is served; empty: nowhere.
	TCPAddr string
	// DisconnectedAfter and FailedAfter are the agents' timeouts.
	DisconnectedAfter, FailedAfter time.Duration
}

// Side is what all ICE agents share: the UDP mux behind the media socket, the
// TCP mux, and the candidates for answers. Its methods are safe for concurrent use.
type Side struct {
	cfg        Config
	mux        *udp.MuxConn
	udpMux     *localMux
	tcpMux     *ice.TCPMuxDefault
	network    piontransport.Net
	candidates []string
	log        Log
}

// New makes the muxes, whose goroutines run until Close.
func New(cfg Config, conn *udp.Conn) (*Side, error) {
	bound := conn.LocalAddr()
	s := &Side{cfg: cfg, log: Log{cfg.Logger}}
	std, err := stdnet.NewNet()
	if err != nil {
		return nil, fmt.Errorf("preparing the network for ICE: %w", err)
	}
	s.network = oneInterface{Net: std}
	tcpPort := uint16(0)
	if cfg.TCPAddr != "" {
		if tcpPort, err = s.listenTCP(cfg.TCPAddr); err != nil {
			return nil, err
		}
	}
	// The mux says that it is bound to no address, so it never compares any.
	unspecified := netip.IPv4Unspecified()
	if bound.Addr().Is6() {
		unspecified = netip.IPv6Unspecified()
	}
	s.mux = conn.Mux(netip.AddrPortFrom(unspecified, bound.Port()))
	s.udpMux = &localMux{
		UDPMuxDefault: ice.NewUDPMuxDefault(ice.UDPMuxParams{
			Logger: s.log.NewLogger("ice"), UDPConn: s.mux, Net: s.network,
		}),
	}
	for i, ip := range cfg.IPs {
		s.addCandidate(i, ip.Unmap(), bound.Port(), tcpPort)
	}
	return s, nil
}

// addCandidate adds one address to the answers. An agent itself has one local
// candidate per family and transport: its checks and answers leave by the same
// socket whichever address a client was told.
func (s *Side) addCandidate(i int, ip netip.Addr, port, tcpPort uint16) {
	local := &net.UDPAddr{IP: ip.AsSlice(), Port: int(port)}
	known := false
	for _, a := range s.udpMux.listen {
		if u, ok := a.(*net.UDPAddr); ok && (u.IP.To4() != nil) == ip.Is4() {
			known = true
		}
	}
	if !known {
		s.udpMux.listen = append(s.udpMux.listen, local)
	}
	// Priorities of RFC 8445 section 5.1.2: host type 126, addresses in their order.
	preference := 65535 - i
	udpPriority := 126<<24 | preference<<8 | 255
	s.candidates = append(s.candidates, fmt.Sprintf("%d 1 udp %d %s %d typ host", i+1, udpPriority, ip, port))
	if tcpPort != 0 {
		// RFC 6544 section 4.2: passive, below every UDP candidate.
		tcpPriority := 99<<24 | (4<<13|8191-i)<<8 | 255
		s.candidates = append(s.candidates, fmt.Sprintf("%d 1 tcp %d %s %d typ host tcptype passive", 100+i, tcpPriority, ip, tcpPort))
	}
}

func (s *Side) listenTCP(addr string) (uint16, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return 0, fmt.Errorf("listening for ICE-TCP: %w", err)
	}
	s.tcpMux = ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener:        loopbackListener{l},
		Logger:          s.log.NewLogger("ice-tcp"),
		ReadBufferSize:  64,
		WriteBufferSize: 1 << 20,
	})
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("listening for ICE-TCP: not a TCP address")
	}
	return uint16(tcp.Port), nil
}

// Deliver hands over a datagram that is not media of a known address.
func (s *Side) Deliver(d udp.Datagram) { s.mux.Deliver(d) }

// Candidates are the values of a=candidate lines for answers.
func (s *Side) Candidates() []string { return s.candidates }

// Log is the log for pion's libraries.
func (s *Side) Log() Log { return s.log }

// Close closes the muxes; the UDP socket stays open.
func (s *Side) Close() error {
	err := s.udpMux.Close()
	if s.tcpMux != nil {
		err = errors.Join(err, s.tcpMux.Close())
	}
	return errors.Join(err, s.mux.Close())
}

// NewAgent makes the full, controlled agent of one endpoint. Candidates of the
// client are ignored: it is heard of by its checks alone, so nobody can point us
// at a third party's address.
func (s *Side) NewAgent(ufrag, pwd string) (*ice.Agent, error) {
	networks := []ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6}
	opts := []ice.AgentOption{
		ice.WithLocalCredentials(ufrag, pwd),
		ice.WithUDPMux(s.udpMux),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithIncludeLoopback(),
		ice.WithNet(s.network),
		ice.WithDisconnectedTimeout(s.cfg.DisconnectedAfter),
		ice.WithFailedTimeout(s.cfg.FailedAfter),
		ice.WithLoggerFactory(s.log),
		ice.WithDisableActiveTCP(),
	}
	if s.tcpMux != nil {
		networks = append(networks, ice.NetworkTypeTCP4)
		opts = append(opts, ice.WithTCPMux(s.tcpMux))
	}
	agent, err := ice.NewAgentWithOptions(append(opts, ice.WithNetworkTypes(networks))...)
	if err != nil {
		return nil, fmt.Errorf("making the ICE agent: %w", err)
	}
	return agent, nil
}

// localMux gives every agent one local candidate per address family.
type localMux struct {
	*ice.UDPMuxDefault
	listen []net.Addr
}

// GetListenAddresses implements ice.UDPMux.
func (m *localMux) GetListenAddresses() []net.Addr { return m.listen }

// oneInterface shows agents a single interface, so that they have one TCP
// candidate and ask the kernel nothing.
type oneInterface struct {
	piontransport.Net
}

// Interfaces implements piontransport.Net.
func (oneInterface) Interfaces() ([]*piontransport.Interface, error) {
	i := piontransport.NewInterface(net.Interface{Index: 1, MTU: 1500, Name: "ice", Flags: net.FlagUp | net.FlagLoopback})
	i.AddAddress(&net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)})
	return []*piontransport.Interface{i}, nil
}

// loopbackListener accepts connections that say they came to the address of
// oneInterface: the TCP mux sorts them by local address.
type loopbackListener struct {
	net.Listener
}

// Accept implements net.Listener.
func (l loopbackListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return loopbackConn{c}, nil
}

type loopbackConn struct {
	net.Conn
}

// LocalAddr implements net.Conn.
func (c loopbackConn) LocalAddr() net.Addr {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if tcp, ok := c.Conn.LocalAddr().(*net.TCPAddr); ok {
		addr.Port = tcp.Port
	}
	return addr
}

// Token returns n random letters and digits, about 5.9 bits each.
func Token(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, n)
	rand.Read(b) // never fails
	for i, v := range b {
		b[i] = letters[int(v)%len(letters)]
	}
	return string(b)
}
