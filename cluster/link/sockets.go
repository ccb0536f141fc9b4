package link

import (
	"crypto/tls"
	"net"
	"sync"
)

// sockets are all open connections of the port, so that none outlives it and no node has too many.
type sockets struct {
	perNode int

	mu     sync.Mutex // guards the fields below, and socket.node and state
	open   map[*socket]struct{}
	byNode map[string]int
	closed bool
}

// socket is a connection that takes itself off the list when it is closed.
type socket struct {
	net.Conn
	list *sockets
	node string // whom it is counted for; empty: nobody
	// state is that of the connection's handshake; nil: it is not done.
	state *tls.ConnectionState
	once  sync.Once
}

func newSockets(perNode int) *sockets {
	return &sockets{perNode: perNode, open: map[*socket]struct{}{}, byNode: map[string]int{}}
}

func (l *sockets) add(raw net.Conn) *socket {
	s := &socket{Conn: raw, list: l}
	l.mu.Lock()
	l.open[s] = struct{}{}
	closed := l.closed
	l.mu.Unlock()
	if closed {
		_ = s.Close()
	}
	return s
}

// claim counts s, which was accepted, for a node, unless the node has its number.
func (l *sockets) claim(s *socket, node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.open[s]; !open || l.byNode[node] >= l.perNode {
		return false
	}
	l.byNode[node]++
	s.node = node
	return true
}

// known notes with whom a connection is.
func (l *sockets) known(s *socket, state tls.ConnectionState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.state = &state
}

// closeSuch closes connections by whom they are with, and answers how many.
func (l *sockets) closeSuch(such func(tls.ConnectionState) bool) int {
	l.mu.Lock()
	var list []*socket
	for s := range l.open {
		if s.state != nil && such(*s.state) {
			list = append(list, s)
		}
	}
	l.mu.Unlock()
	for _, s := range list {
		_ = s.Close()
	}
	return len(list)
}

func (l *sockets) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// closeAll closes what is open, and what is added from now on.
func (l *sockets) closeAll() {
	l.mu.Lock()
	l.closed = true
	all := make([]*socket, 0, len(l.open))
	for s := range l.open {
		all = append(all, s)
	}
	l.mu.Unlock()
	for _, s := range all {
		_ = s.Close()
	}
}

// Close implements net.Conn.
func (s *socket) Close() error {
	s.once.Do(func() {
		s.list.mu.Lock()
		defer s.list.mu.Unlock()
		delete(s.list.open, s)
		if s.node == "" {
			return
		}
		if s.list.byNode[s.node]--; s.list.byNode[s.node] == 0 {
			delete(s.list.byNode, s.node)
		}
	})
	return s.Conn.Close()
}

// gate bounds the handshakes that are under way: strangers may come this far.
type gate struct {
	all, perHost int

	mu     sync.Mutex // guards the fields below
	inside int
	hosts  map[string]int
}

func newGate(all, perHost int) *gate {
	return &gate{all: all, perHost: perHost, hosts: map[string]int{}}
}

// enter answers why not, or "" and counts host until it leaves.
func (g *gate) enter(host string) (reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.inside >= g.all:
		return refusedCrowd
	case g.hosts[host] >= g.perHost:
		return refusedAddress
	}
	g.inside++
	g.hosts[host]++
	return ""
}

func (g *gate) leave(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.hosts[host]--; g.hosts[host] == 0 {
		delete(g.hosts, host)
	}
}
