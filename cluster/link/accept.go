package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/amphi-sfu/amphi/cluster/identity"
)

// Reasons why the port refuses, the labels of its counters.
const (
	refusedCrowd      = "too_many_handshakes"
	refusedAddress    = "too_many_handshakes_of_address"
	refusedTimeout    = "handshake_timeout"
	refusedGarbage    = "not_tls"
	refusedForeign    = "foreign_certificate"
	refusedExpired    = "expired_certificate"
	refusedNode       = "wrong_node"
	refusedRevoked    = "revoked_certificate"
	refusedByOther    = "other_side_refused" // it does not take this node's certificate, or speaks none of its protocols
	refusedHandshake  = "handshake_failed"
	refusedProtocol   = "unknown_protocol"
	refusedPerNode    = "too_many_connections_of_node"
	refusedDirection  = "wrong_direction"
	refusedSecond     = "second_connection" // it takes the place of the first
	refusedFrame      = "bad_frame"
	refusedKind       = "unknown_kind"
	refusedManyCalls  = "too_many_calls"
	acceptPauseOnFail = 50 * time.Millisecond
)

// revokedPause is for how long a node whose certificate was revoked is not called again, by whatever protocol.
const revokedPause = time.Second

// welcome is what the port sends when it has taken a connection. TLS 1.3 lets a client think that it is connected
// before the server has looked at its certificate; with this, Dial fails where the connection was refused.
const welcome = 1

func (l *Link) accept(ctx context.Context) error {
	for {
		raw, err := l.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("the cluster's port: %w", err)
		}
		if err != nil {
			// Out of file descriptors, or a client that was gone already.
			l.refused.Add("accept_failed", "", err)
			pause(ctx, acceptPauseOnFail)
			continue
		}
		host := hostOf(raw.RemoteAddr())
		if reason := l.gate.enter(host); reason != "" {
			l.refused.Add(reason, host, nil)
			_ = raw.Close()
			continue
		}
		l.wg.Go(func() { l.serve(ctx, raw, host) })
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func hostOf(address net.Addr) string {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return host
}

// serve does the handshake and hands the connection to who speaks its protocol.
func (l *Link) serve(ctx context.Context, raw net.Conn, host string) {
	s := l.sockets.add(raw)
	conn, node, reason, err := l.handshake(ctx, s)
	l.gate.leave(host)
	if reason == "" && !l.sockets.claim(s, node) {
		reason = refusedPerNode
	}
	if reason == "" {
		_ = conn.SetDeadline(time.Now().Add(l.cfg.HandshakeTimeout))
		if _, werr := conn.Write([]byte{welcome}); werr != nil {
			reason, err = refusedHandshake, werr
		}
		_ = conn.SetDeadline(time.Time{})
	}
	if reason != "" {
		if ctx.Err() == nil { // before the other side can know of it
			l.refused.Add(reason, host, err)
		}
		_ = s.Close()
		return
	}
	l.protocols[conn.ConnectionState().NegotiatedProtocol](node, conn)
}

func (l *Link) handshake(ctx context.Context, s *socket) (conn *tls.Conn, node, reason string, err error) {
	protocols := make([]string, 0, len(l.protocols))
	for p := range l.protocols {
		protocols = append(protocols, p)
	}
	conn = tls.Server(s, l.cfg.Identity.Server(protocols...))
	ctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	if err = conn.HandshakeContext(ctx); err != nil {
		return nil, "", reasonOf(err), err
	}
	state := conn.ConnectionState()
	if l.protocols[state.NegotiatedProtocol] == nil {
		return nil, "", refusedProtocol, nil
	}
	node, err = l.cfg.Identity.PeerID(state)
	if err == nil && node == l.self {
		err = fmt.Errorf("%w: %q is this node's own id", identity.ErrWrongNode, node)
	}
	if err != nil {
		return nil, "", refusedNode, err
	}
	if err := l.admit(s, state); err != nil {
		return nil, "", refusedRevoked, err
	}
	return conn, node, "", nil
}

// admit notes with whom a connection is, and refuses a side whose certificate was revoked since the handshake began.
func (l *Link) admit(s *socket, state tls.ConnectionState) error {
	l.sockets.known(s, state)
	return l.cfg.Identity.Revoked(state)
}

// Reexamine closes the connections, of all protocols, to nodes whose certificates count no more, and answers how many.
func (l *Link) Reexamine() int {
	return l.sockets.closeSuch(func(state tls.ConnectionState) bool { return l.cfg.Identity.Revoked(state) != nil })
}

func reasonOf(err error) string {
	var garbage tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.Is(err, identity.ErrForeign):
		return refusedForeign
	case errors.Is(err, identity.ErrExpired):
		return refusedExpired
	case errors.Is(err, identity.ErrRevoked):
		return refusedRevoked
	case errors.Is(err, identity.ErrWrongNode):
		return refusedNode
	case errors.As(err, &garbage):
		return refusedGarbage
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return refusedTimeout
	// How crypto/tls tells of an alert that came.
	case errors.As(err, &alert) && alert.Op == "remote error":
		return refusedByOther
	}
	return refusedHandshake
}

// Dial opens a connection to node for a protocol, which the caller owns. It returns when node has taken it. It ends
// with the Link at the latest.
func (l *Link) Dial(ctx context.Context, node, protocol string) (*tls.Conn, error) {
	l.mu.Lock()
	address, revoked := "", false
	if p := l.peers[node]; p != nil {
		address, revoked = p.address, time.Since(p.revoked) < revokedPause
	}
	l.mu.Unlock()
	switch {
	case address == "":
		return nil, fmt.Errorf("connecting to %s: %w", node, ErrUnknownNode)
	case revoked:
		return nil, fmt.Errorf("connecting to %s: %w", node, identity.ErrRevoked)
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	raw, err := l.cfg.Dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", node, err)
	}
	s := l.sockets.add(raw)
	conn := tls.Client(s, l.cfg.Identity.Client(node, protocol))
	err = l.greet(ctx, conn, protocol)
	if err == nil {
		err = l.admit(s, conn.ConnectionState())
	}
	if err != nil {
		_ = s.Close()
		if errors.Is(err, identity.ErrRevoked) {
			l.mu.Lock()
			l.peerLocked(node).revoked = time.Now()
			l.mu.Unlock()
		}
		return nil, fmt.Errorf("connecting to %s at %s: %w", node, address, err)
	}
	return conn, nil
}

func (l *Link) greet(ctx context.Context, conn *tls.Conn, protocol string) error {
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != protocol {
		return fmt.Errorf("%q is not spoken there", protocol)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	var b [1]byte
	_, err := conn.Read(b[:])
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("it refused this node: %w", err)
	}
	if b[0] != welcome {
		return errors.New("it did not answer as a node does")
	}
	return nil
}
