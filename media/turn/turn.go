// Package turn is the node's TURN server (RFC 8656): it lets clients whose network passes neither UDP nor unknown
// ports reach this node's media, and nothing else. DESIGN.md tells how.
package turn

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
)

// Realm is what clients prove their password for (RFC 8489 section 9.2).
const Realm = "amphi"

// Config of a Server. The zero value of each field but Addr, Media and Peers means its default.
type Config struct {
	// Logger gets starting and stopping; what clients do is counted, not logged. Default: discards.
	Logger *slog.Logger
	// Addr is HOST:PORT of TURN over UDP and TCP.
	Addr string
	// TLSAddr is HOST:PORT of TURN over TLS; empty: nowhere. Needs TLS.
	TLSAddr string
	TLS     *tls.Config
	// Media is the socket that relays may reach, the only one: the media engine's own. Where it is bound to no
	// address, it is reached over loopback.
	Media netip.AddrPort
	// Peers are the addresses by which clients know Media: the candidates that they are told.
	Peers []netip.Addr
	// MaxAllocations bounds allocations in total, default 2,000; MaxPerUser those of one user, default 16: a
	// browser makes one for each of its networks and each URL.
	MaxAllocations, MaxPerUser int
	// BitRate bounds each direction of an allocation in bits per second, default 64,000,000.
	BitRate int
	// RequestRate bounds the requests of one client address (of one network of 64 bits in IPv6) per second, default
	// 200, five times as many at once: many clients may share an address.
	RequestRate int
	// MaxConnections bounds TCP and TLS connections in total, default 4,000; half as many of one address.
	MaxConnections int
	// CredentialLife is how long credentials allow new allocations, default 24 h.
	CredentialLife time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for value, fallback := range map[*int]int{
		&c.MaxAllocations: 2000, &c.MaxPerUser: 16, &c.BitRate: 64_000_000, &c.RequestRate: 200, &c.MaxConnections: 4000,
	} {
		if *value == 0 {
			*value = fallback
		}
		if *value < 0 {
			return c, errors.New("turn: a limit is negative")
		}
	}
	if c.CredentialLife == 0 {
		c.CredentialLife = 24 * time.Hour
	}
	if c.TLSAddr != "" && c.TLS == nil {
		return c, errors.New("turn: TLSAddr needs TLS")
	}
	if !c.Media.IsValid() || c.Media.Port() == 0 || len(c.Peers) == 0 {
		return c, errors.New("turn: Media and Peers are needed")
	}
	return c, nil
}

// Server relays between clients and one socket of this node. Its methods are safe for concurrent use.
type Server struct {
	cfg       Config
	log       *slog.Logger
	secret    [32]byte
	routes    map[string]route // by network: udp4, udp6
	packets   net.PacketConn
	listeners []net.Listener
	rates     *rates
	stats     counters

	live    sync.WaitGroup // relays and streams
	mu      sync.Mutex     // guards the fields below
	relays  map[*relay]struct{}
	users   map[string]int
	streams map[*stream]struct{}
	sources map[netip.Addr]int // streams by client address
	closing bool
}

// route is how relays of one family reach the media socket: clients know it by several addresses, we by one.
type route struct {
	peers []netip.Addr
	media netip.AddrPort
}

// New opens the sockets. The server serves from the call of Run on; one that is never run has to be closed.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, routes: routes(cfg.Media, cfg.Peers), rates: newRates(cfg.RequestRate),
		relays: map[*relay]struct{}{}, users: map[string]int{}, streams: map[*stream]struct{}{}, sources: map[netip.Addr]int{},
	}
	// Never fails since Go 1.24.
	_, _ = rand.Read(s.secret[:])
	if err := s.listen(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func routes(media netip.AddrPort, peers []netip.Addr) map[string]route {
	found := map[string]route{}
	bound := media.Addr().Unmap()
	for _, peer := range peers {
		peer = peer.Unmap()
		network, local := "udp4", netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if peer.Is6() {
			network, local = "udp6", netip.IPv6Loopback()
		}
		if !bound.IsUnspecified() {
			local = bound
		}
		if local.Is4() != peer.Is4() || peer.Is6() && bound == netip.IPv4Unspecified() {
			continue // Media isn't reached by this family
		}
		found[network] = route{append(found[network].peers, peer), netip.AddrPortFrom(local, media.Port())}
	}
	return found
}

func (s *Server) listen() error {
	udp, tcp, err := listenBoth(s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listening for TURN: %w", err)
	}
	s.packets = udp
	s.listeners = append(s.listeners, &listener{Listener: tcp, server: s})
	if s.cfg.TLSAddr == "" {
		return nil
	}
	if tcp, err = net.Listen("tcp", s.cfg.TLSAddr); err != nil {
		return fmt.Errorf("listening for TURN over TLS: %w", err)
	}
	// Clients of TURN know nothing of HTTP's protocol names.
	config := s.cfg.TLS.Clone()
	config.NextProtos = nil
	s.listeners = append(s.listeners, &listener{Listener: tcp, server: s, tls: config})
	return nil
}

// bindAttempts is how many ports are tried for two sockets: one that is free for UDP may be taken for TCP.
const bindAttempts = 16

// listenBoth opens both transports on one port; with port 0 on any that is free for both.
func listenBoth(address string) (udp net.PacketConn, tcp net.Listener, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	for range bindAttempts {
		if udp, err = net.ListenPacket("udp", address); err != nil {
			return nil, nil, err
		}
		_, bound, _ := net.SplitHostPort(udp.LocalAddr().String())
		if tcp, err = net.Listen("tcp", net.JoinHostPort(host, bound)); err == nil {
			return udp, tcp, nil
		}
		_ = udp.Close()
		if port != "0" {
			break
		}
	}
	return nil, nil, err
}

// Port is that of TURN over UDP and TCP.
func (s *Server) Port() int {
	if udp, ok := s.packets.LocalAddr().(*net.UDPAddr); ok {
		return udp.Port
	}
	return 0
}

// TLSPort is that of TURN over TLS; 0 when there is none.
func (s *Server) TLSPort() int {
	if s.cfg.TLSAddr == "" {
		return 0
	}
	if tcp, ok := s.listeners[1].Addr().(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

// Run serves until ctx ends, then closes everything and waits for it.
func (s *Server) Run(ctx context.Context) error {
	relays := generator{s}
	config := turn.ServerConfig{
		Realm: Realm, AuthHandler: s.authenticate, QuotaHandler: s.mayAllocate, LoggerFactory: silence{},
		EventHandler: turn.EventHandler{OnAuth: s.authenticated},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn: &packets{PacketConn: s.packets, server: s}, RelayAddressGenerator: relays, PermissionHandler: s.permit,
		}},
	}
	for _, l := range s.listeners {
		config.ListenerConfigs = append(config.ListenerConfigs, turn.ListenerConfig{
			Listener: l, RelayAddressGenerator: relays, PermissionHandler: s.permit,
		})
	}
	server, err := turn.NewServer(config)
	if err != nil {
		return errors.Join(fmt.Errorf("starting TURN: %w", err), s.Close())
	}
	<-ctx.Done()
	// The sockets are closed once, by the library.
	err = server.Close()
	s.end()
	if err != nil {
		return fmt.Errorf("closing TURN: %w", err)
	}
	return nil
}

// Close frees the sockets of a server that never ran.
func (s *Server) Close() error {
	var err error
	if s.packets != nil {
		err = s.packets.Close()
	}
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// end closes what clients had and waits until it is gone.
func (s *Server) end() {
	s.mu.Lock()
	s.closing = true
	var open []net.Conn
	for c := range s.streams {
		open = append(open, c)
	}
	var relays []*relay
	for r := range s.relays {
		relays = append(relays, r)
	}
	s.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	for _, r := range relays {
		_ = r.Close()
	}
	s.live.Wait()
}

// mayAllocate implements turn.QuotaHandler.
func (s *Server) mayAllocate(user, _ string, _ net.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason := s.refusalLocked(user)
	if reason != "" {
		s.stats.refuse(reason)
	}
	return reason == ""
}

func (s *Server) refusalLocked(user string) Reason {
	switch {
	case s.closing || len(s.relays) >= s.cfg.MaxAllocations:
		return ReasonCapacity
	case s.users[user] >= s.cfg.MaxPerUser:
		return ReasonQuota
	}
	return ""
}

// permit implements turn.PermissionHandler: nobody is reached but the media socket.
func (s *Server) permit(_ net.Addr, ip net.IP) bool {
	peer, _ := netip.AddrFromSlice(ip)
	for _, r := range s.routes {
		if slices.Contains(r.peers, peer.Unmap()) {
			return true
		}
	}
	s.stats.refuse(ReasonPeer)
	return false
}

// silence is the log of the library: what clients do wrong is counted here, by reason.
type silence struct{}

// NewLogger implements logging.LoggerFactory.
func (silence) NewLogger(string) logging.LeveledLogger { return silence{} }

func (silence) Trace(string)          {}
func (silence) Tracef(string, ...any) {}
func (silence) Debug(string)          {}
func (silence) Debugf(string, ...any) {}
func (silence) Info(string)           {}
func (silence) Infof(string, ...any)  {}
func (silence) Warn(string)           {}
func (silence) Warnf(string, ...any)  {}
func (silence) Error(string)          {}
func (silence) Errorf(string, ...any) {}
