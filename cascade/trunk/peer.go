package trunk

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net/netip"
	"time"
)

const (
	// retryFirst and retryMost bound the pause before a node is dialled again.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
	// dialTime is how long a dial may take.
	dialTime = 5 * time.Second
	// yield is how long the node with the higher id lets the other one dial first.
	yield = time.Second
	// steady is how long a trunk must have lasted for the pauses to begin anew.
	steady = 10 * time.Second
)

// peer is a node that should have a trunk.
type peer struct {
	node   string
	addr   netip.AddrPort
	cancel context.CancelFunc // ends the keeper; nil while there is none
}

// SetPeers says which nodes should have a trunk, and where they receive records; an invalid
// address means beside their control connection. Others' dials are accepted all the same.
func (s *Set) SetPeers(peers map[string]netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, p := range s.peers {
		if _, stays := peers[node]; stays {
			continue
		}
		delete(s.peers, node)
		if p.cancel != nil {
			p.cancel()
		}
		if c := s.table.Load().byNode[node]; c != nil && c.dialled {
			c.end(reasonUnwanted)
		}
	}
	for node, addr := range peers {
		if node == s.cfg.Node {
			continue
		}
		p := s.peers[node]
		if p == nil {
			p = &peer{node: node}
			s.peers[node] = p
		}
		p.addr = addr
		if s.running != nil && !s.closed {
			s.startLocked(p)
		}
	}
}

// startLocked starts a peer's keeper.
func (s *Set) startLocked(p *peer) {
	if p.cancel != nil {
		return
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(s.running)
	s.wg.Go(func() { s.keep(ctx, p) })
}

// keep dials a node whenever there is no trunk to it.
func (s *Set) keep(ctx context.Context, p *peer) {
	pause := time.Duration(0)
	if s.cfg.Node > p.node {
		pause = yield
	}
	retry := retryFirst
	for wait(ctx, pause) {
		if s.table.Load().byNode[p.node] != nil {
			pause = retryFirst
			continue
		}
		began := time.Now()
		err := s.dial(ctx, p)
		if err != nil && ctx.Err() == nil {
			s.log.Debug("no trunk", "node", p.node, "err", err)
		}
		if err == nil && time.Since(began) > steady {
			retry = retryFirst
		}
		pause = retry/2 + rand.N(retry)
		retry = min(2*retry, retryMost)
	}
}

// wait is false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// dial makes a control connection and serves it to its end.
func (s *Set) dial(ctx context.Context, p *peer) error {
	dialling, cancel := context.WithTimeout(ctx, dialTime)
	conn, err := s.deps.Dial(dialling, p.node)
	cancel()
	if err != nil {
		return err
	}
	return s.serve(ctx, p.node, conn, true, s.addrOf(p.node))
}

// addrOf is where a node receives records, as far as SetPeers has told.
func (s *Set) addrOf(node string) netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[node]; p != nil {
		return p.addr
	}
	return netip.AddrPort{}
}

// Accept takes over a control connection that another node has made, whose identity has been
// checked, and returns at once; the Set closes it.
func (s *Set) Accept(node string, conn *tls.Conn) {
	addr := s.addrOf(node)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || s.closed || node == s.cfg.Node {
		conn.Close()
		return
	}
	ctx := s.running
	s.wg.Go(func() {
		if err := s.serve(ctx, node, conn, false, addr); err != nil && ctx.Err() == nil {
			s.log.Debug("no trunk", "node", node, "err", err)
		}
	})
}
