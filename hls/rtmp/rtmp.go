// Package rtmp takes what encoders publish over RTMP: H.264 and AAC. It checks, bounds
// and takes apart; who may publish, and what becomes of it, is its Stage's business.
package rtmp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Request is an encoder's wish to publish.
type Request struct {
	// App and Key are the parts of rtmp://host/app/key. Key is a secret.
	App, Key string
	// Remote is the encoder's address.
	Remote string
}

// Format says what a publication consists of; it does not change.
type Format struct {
	// SPS and PPS of H.264, nil without pictures.
	SPS, PPS []byte
	// Width and Height of the pictures.
	Width, Height int
	// AudioConfig is the AudioSpecificConfig (ISO 14496-3) of AAC, nil without sound.
	AudioConfig []byte
}

// Stage admits encoders. Its methods are called from many goroutines.
type Stage interface {
	// Publish answers a wish; an error closes the connection. It is done within Config.Handshake, when ctx ends.
	Publish(ctx context.Context, r Request) (Publication, error)
}

// Publication takes what one encoder sends. Its methods are called one at a time. Bytes are valid during a call only.
type Publication interface {
	// Begin says what comes, before it does. An error closes the connection.
	Begin(ctx context.Context, f Format) error
	// Video is an access unit (Annex B, with SPS and PPS before an IDR) in decoding order, shown at pts; it must not block for long.
	Video(pts time.Duration, key bool, annexB []byte)
	// Audio is a raw data block.
	Audio(pts time.Duration, au []byte)
	// Gone is closed when nobody takes the publication any more.
	Gone() <-chan struct{}
	// Close ends it; nothing is called after that.
	Close()
}

// Config of a Server.
type Config struct {
	Logger *slog.Logger // default: slog.Default
	// Addr is HOST:PORT to listen on.
	Addr string
	// MaxConnections at once, and MaxPerAddress from one IPv4 address or IPv6 network of 64 bits; default 64 and 8.
	MaxConnections, MaxPerAddress int
	// Handshake bounds the time from the connection to the publication; default 10 s. Idle is how long nothing may come; default 10 s.
	Handshake, Idle time.Duration
	// MaxBitrate of one publication in bit/s, over some seconds; default 25,000,000.
	MaxBitrate int
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, d := range []struct {
		v   *int
		def int
	}{{&c.MaxConnections, 64}, {&c.MaxPerAddress, 8}, {&c.MaxBitrate, 25_000_000}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.Handshake == 0 {
		c.Handshake = 10 * time.Second
	}
	if c.Idle == 0 {
		c.Idle = 10 * time.Second
	}
	return c
}

// Stats counts connections.
type Stats struct {
	// Open now; Accepted, Refused (too many) and Published so far.
	Open, Accepted, Refused, Published int64
}

// Server listens for encoders.
type Server struct {
	cfg      Config
	log      *slog.Logger
	stage    Stage
	listener net.Listener

	accepted, refused, published atomic.Int64

	mu    sync.Mutex // guards the fields below
	open  int
	from  map[netip.Prefix]int
	conns map[net.Conn]struct{}
	over  bool
}

// New opens the port.
func New(cfg Config, stage Stage) (*Server, error) {
	cfg = cfg.withDefaults()
	if stage == nil {
		return nil, errors.New("making an RTMP server: no stage")
	}
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("opening the RTMP port: %w", err)
	}
	return &Server{cfg: cfg, log: cfg.Logger, stage: stage, listener: l, from: map[netip.Prefix]int{}, conns: map[net.Conn]struct{}{}}, nil
}

// Addr is the address that it listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close closes the port, for a Server that does not run.
func (s *Server) Close() error { return s.listener.Close() }

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := int64(s.open)
	s.mu.Unlock()
	return Stats{Open: open, Accepted: s.accepted.Load(), Refused: s.refused.Load(), Published: s.published.Load()}
}

// acceptPause is how long to wait when the machine has no descriptors left.
const acceptPause = 100 * time.Millisecond

// Run serves until ctx ends; then it closes all connections and waits for them.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() {
		_ = s.listener.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.over = true
		for c := range s.conns {
			_ = c.Close()
		}
	})
	defer stop()
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accepting RTMP: %w", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		network := networkOf(conn)
		if !s.enter(conn, network) {
			s.refused.Add(1)
			_ = conn.Close()
			continue
		}
		s.accepted.Add(1)
		wg.Go(func() {
			defer s.leave(conn, network)
			s.serve(ctx, conn)
		})
	}
}

// networkOf is whose connections are counted together.
func networkOf(conn net.Conn) netip.Prefix {
	a, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if !a.Addr().Unmap().Is4() {
		bits = 64
	}
	p, err := a.Addr().Unmap().WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (s *Server) enter(conn net.Conn, network netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.open >= s.cfg.MaxConnections || s.from[network] >= s.cfg.MaxPerAddress {
		return false
	}
	s.open++
	s.from[network]++
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) leave(conn net.Conn, network netip.Prefix) {
	_ = conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.from[network]--; s.from[network] == 0 {
		delete(s.from, network)
	}
	delete(s.conns, conn)
}
