// Package link is how nodes speak to each other: one TLS port for all protocols of the cluster, told apart by ALPN, and
// on one of them an ordered stream of messages between each two nodes, with requests and heartbeats.
package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/cluster/refusal"
)

// Protocols of the cluster's TLS port, by ALPN.
const (
	RaftProtocol    = "amphi-raft/1"
	MessageProtocol = "amphi-link/1"
	TrunkProtocol   = "amphi-trunk/1"
	StreamProtocol  = "amphi-hls/1"
)

// Why a message is not sent. In each case it is lost and was never on the wire.
var (
	ErrUnknownNode  = errors.New("no address of this node is known")
	ErrNotConnected = errors.New("there is no connection to this node now")
	ErrQueueFull    = errors.New("the queue to this node is full")
	ErrTooLarge     = errors.New("the message is too large")
	// ErrLost ends a Call whose connection ended: nobody knows whether it was carried out.
	ErrLost = errors.New("the connection to this node was lost")
)

// Config of a Link. The zero value of each limit means its default.
type Config struct {
	Logger   *slog.Logger
	Identity *identity.Identity
	// Addr is HOST:PORT to listen on.
	Addr string
	// Heartbeat is how often each side of a connection says that it lives; default 100 ms.
	Heartbeat time.Duration
	// DeadAfter ends a connection on which nothing at all came for so long; default 3 s.
	DeadAfter time.Duration
	// StallAfter ends a connection whose other side takes nothing for so long; default 10 s.
	StallAfter time.Duration
	// HandshakeTimeout ends a connection that has not said who it is; default 5 s.
	HandshakeTimeout time.Duration
	// QueueBytes bounds what waits to be sent to one node, and what waits to be handled of one; default 16 MiB. One
	// larger message passes when nothing else waits.
	QueueBytes int
	// PerNode bounds the connections from one node, of all protocols; default 64. PerAddress bounds the handshakes
	// that one address has under way; default 32. Handshakes bounds those of all; default 256.
	PerNode, PerAddress, Handshakes int
	// Dial opens a TCP connection; default that of package net. For tests and emulated networks.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}
	}
	defaultTo(&c.Heartbeat, 100*time.Millisecond)
	defaultTo(&c.DeadAfter, 3*time.Second)
	defaultTo(&c.StallAfter, 10*time.Second)
	defaultTo(&c.HandshakeTimeout, 5*time.Second)
	defaultTo(&c.QueueBytes, 16<<20)
	defaultTo(&c.PerNode, 64)
	defaultTo(&c.PerAddress, 32)
	defaultTo(&c.Handshakes, 256)
	return c
}

func defaultTo[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Link is a node's port to the others. Handle, OnMessage, OnCall and OnChange are for before Run; all else may be used
// from many goroutines at any time.
type Link struct {
	cfg      Config
	log      *slog.Logger
	self     string
	start    time.Time // of the monotonic clock of heartbeats
	listener net.Listener
	refused  *refusal.Counter
	gate     *gate
	sockets  *sockets

	protocols map[string]func(node string, conn *tls.Conn)
	onMessage [256]func(from string, msg []byte)
	onCall    [256]func(ctx context.Context, from string, msg []byte) ([]byte, error)
	onChange  []func(node string, up bool)

	wg sync.WaitGroup // what Run waits for

	mu      sync.Mutex // guards the fields below
	peers   map[string]*peer
	running context.Context // nil before Run
}

// peer is what is known of another node. Its fields are guarded by Link.mu.
type peer struct {
	id      string
	address string // empty: not known
	conn    *conn  // nil: none
	heard   time.Time
	revoked time.Time          // when its certificate was refused last, as revoked
	stop    context.CancelFunc // ends its dialler; nil: it has none
	changed chan struct{}      // has room for one: there is a new address
}

// New opens the port.
func New(cfg Config) (*Link, error) {
	if cfg.Identity == nil {
		return nil, errors.New("a link needs an identity")
	}
	cfg = cfg.withDefaults()
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("opening the cluster's port: %w", err)
	}
	l := &Link{
		cfg: cfg, log: cfg.Logger, self: cfg.Identity.ID(), start: time.Now(), listener: listener,
		refused: refusal.New(cfg.Logger, "the cluster's port refused"),
		gate:    newGate(cfg.Handshakes, cfg.PerAddress), sockets: newSockets(cfg.PerNode),
		protocols: map[string]func(string, *tls.Conn){}, peers: map[string]*peer{},
	}
	l.protocols[MessageProtocol] = l.accepted
	return l, nil
}

// Addr is where the port is.
func (l *Link) Addr() net.Addr { return l.listener.Addr() }

// Handle has handler take the connections of a protocol. It runs on a goroutine of its own, owns conn, and may return
// before it closes it; when the Link ends, so do all connections. For before Run.
func (l *Link) Handle(protocol string, handler func(node string, conn *tls.Conn)) {
	l.protocols[protocol] = handler
}

// OnMessage has handler take the messages of a kind. They come one at a time and in order per sender, from different
// senders at once. handler owns msg and must not block long: while it does, further messages of this sender wait, then
// this sender's queue fills. For before Run.
func (l *Link) OnMessage(kind byte, handler func(from string, msg []byte)) {
	l.onMessage[kind] = handler
}

// OnCall has handler answer the calls of a kind, on a goroutine per call. ctx ends when the caller gives up or is lost;
// handler must obey it. A proto.Error reaches the caller with its code, others as "internal". For before Run.
func (l *Link) OnCall(kind byte, handler func(ctx context.Context, from string, msg []byte) ([]byte, error)) {
	l.onCall[kind] = handler
}

// OnChange tells of connections that begin and end, in order per node, before the first and after the last message of
// each. f must not block. For before Run.
func (l *Link) OnChange(f func(node string, up bool)) { l.onChange = append(l.onChange, f) }

// SetPeers says where nodes are: HOST:PORT by id. Of two nodes the one with the smaller id keeps a connection to the
// other. A node that is no longer listed keeps its connection while it lives.
func (l *Link) SetPeers(addresses map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, p := range l.peers {
		if _, listed := addresses[id]; !listed && p.address != "" {
			p.address = ""
			l.dialLocked(p)
		}
	}
	for id, address := range addresses {
		if id == l.self {
			continue
		}
		p := l.peerLocked(id)
		if p.address != address {
			p.address = address
			signal(p.changed)
		}
		l.dialLocked(p)
	}
}

func (l *Link) peerLocked(id string) *peer {
	p := l.peers[id]
	if p == nil {
		p = &peer{id: id, changed: make(chan struct{}, 1)}
		l.peers[id] = p
	}
	return p
}

// dialLocked starts or ends the dialler of p.
func (l *Link) dialLocked(p *peer) {
	wanted := p.address != "" && l.self < p.id && l.running != nil && l.running.Err() == nil
	switch {
	case wanted && p.stop == nil:
		var ctx context.Context
		ctx, p.stop = context.WithCancel(l.running)
		l.wg.Go(func() { l.keep(ctx, p) })
	case !wanted && p.stop != nil:
		p.stop()
		p.stop = nil
	}
}

// Run accepts and keeps connections until ctx is done, and returns when all its goroutines have.
func (l *Link) Run(ctx context.Context) error {
	// The goroutines end with Run also when the port fails.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.running = ctx
	for _, p := range l.peers {
		l.dialLocked(p)
	}
	l.mu.Unlock()
	l.wg.Go(func() {
		<-ctx.Done()
		_ = l.listener.Close()
		l.sockets.closeAll()
	})
	err := l.accept(ctx)
	cancel()
	// Who starts a dialler holds the lock: from here on nobody does.
	l.mu.Lock()
	l.running = nil
	l.mu.Unlock()
	l.wg.Wait()
	return err
}

// Close frees the port of a Link that never ran.
func (l *Link) Close() error {
	l.sockets.closeAll()
	if err := l.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing the cluster's port: %w", err)
	}
	return nil
}

// Send queues msg, which must not change any more, for node. It never blocks. Messages arrive in order and once while
// one connection lives; those under way when it ends are lost, without an error here: protocols above begin anew when
// OnChange tells of a connection.
func (l *Link) Send(node string, kind byte, msg []byte) error {
	if len(msg) > MaxMessage {
		return ErrTooLarge
	}
	c := l.conn(node)
	if c == nil {
		return ErrNotConnected
	}
	return c.send(frame{typ: message, kind: kind, body: msg})
}

func (l *Link) conn(node string) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.peers[node]; p != nil {
		return p.conn
	}
	return nil
}

// Connected tells whether there is a connection to node now.
func (l *Link) Connected(node string) bool { return l.conn(node) != nil }

// Heard is when the last byte of node's messages or heartbeats came, by the monotonic clock; zero: never.
func (l *Link) Heard(node string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[node]
	if p == nil {
		return time.Time{}
	}
	if p.conn != nil {
		return p.conn.heard()
	}
	return p.heard
}

// RTT is the round-trip time to node, the least of the last few heartbeats'; 0: not connected, or not measured yet.
func (l *Link) RTT(node string) time.Duration {
	if c := l.conn(node); c != nil {
		return time.Duration(c.rtt.Load())
	}
	return 0
}

// PeerStats is what the link to one node did. The byte and drop counts are of the present connection.
type PeerStats struct {
	Node                string
	Address             string
	Connected           bool
	RTT                 time.Duration
	Heard               time.Time
	Sent, Received      uint64 // bytes of frames
	Queued              int    // bytes
	Dropped             uint64 // messages that did not fit into the queue
	Messages, Delivered uint64
}

// Stats is a snapshot, by node id, and of what the port refused, by reason, since the start.
type Stats struct {
	Peers   []PeerStats
	Refused map[string]uint64
	Sockets int
}

// Stats may be asked at any time.
func (l *Link) Stats() Stats {
	s := Stats{Refused: l.refused.Totals(), Sockets: l.sockets.count()}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(l.peers)) {
		p := l.peers[id]
		ps := PeerStats{Node: id, Address: p.address, Heard: p.heard}
		if c := p.conn; c != nil {
			ps.Connected, ps.RTT, ps.Heard = true, time.Duration(c.rtt.Load()), c.heard()
			ps.Sent, ps.Received, ps.Dropped = c.sent.Load(), c.received.Load(), c.dropped.Load()
			ps.Messages, ps.Delivered = c.messages.Load(), c.delivered.Load()
			ps.Queued = c.out.queued()
		}
		s.Peers = append(s.Peers, ps)
	}
	return s
}
