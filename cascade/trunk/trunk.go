// Package trunk carries media and messages between two nodes: RTP as encrypted records over
// one UDP socket for all trunks of a node, messages over a TLS connection that others make.
// It notices within half a second when a path no longer carries anything, asks for what was
// lost, and sends only as much as the path carries, the least important given up first.
package trunk

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/udp"
)

// ALPN is the protocol of control connections.
const ALPN = "amphi-trunk/1"

// Defaults of Config, in bits per second.
const (
	DefaultInitial = 100_000_000
	DefaultMin     = 200_000
	DefaultMax     = 10_000_000_000
)

// MaxTrunks is how many trunks a Set has at most.
const MaxTrunks = 1024

// Config of a Set. The zero value of a field means its default.
type Config struct {
	// Logger takes what is worth telling; nil for none.
	Logger *slog.Logger
	// Node is this node's id.
	Node string
	// UDPAddr is where records are received, as in net.ListenUDP.
	UDPAddr string
	// Now is a monotonic clock in nanoseconds, the one by which arrivals are told.
	Now func() int64
	// Initial, Min and Max are the first and the extreme budgets of a trunk, in bits per second.
	Initial, Min, Max int64
}

// Handler is told what happens. Up, message and down of one trunk come in this order from one
// goroutine of the trunk; media from the socket's reader, which no method may block. All
// methods may call the Set.
type Handler interface {
	// TrunkUp tells that records pass both ways. TrunkDown follows sooner or later.
	TrunkUp(node string)
	TrunkDown(node, reason string)
	// TrunkMessage is a message of the other end, in the order of its calls of Message.
	TrunkMessage(node string, msg []byte)
	// TrunkMedia takes one RTP packet, valid during the call; ext is its sequence number
	// extended to 48 bits. It may come twice, and late. False says that the label was never
	// assigned.
	TrunkMedia(node string, label uint32, ext uint64, rtp []byte, arrivalNS int64) bool
	// TrunkPacket appends an RTP packet that was sent before to dst; dst as it was when it
	// is no longer there.
	TrunkPacket(node string, label uint32, ext uint64, dst []byte) []byte
	// TrunkBudget tells what the path carries, in bits per second, when that has changed.
	TrunkBudget(node string, bitsPerSecond int64)
}

// Deps are a Set's surroundings.
type Deps struct {
	// Dial makes a TLS 1.3 connection with ALPN to a node, whose identity it has checked.
	Dial    func(ctx context.Context, node string) (*tls.Conn, error)
	Handler Handler
	// Shed, when there is one, tells that a label is no longer sent, or sent again (which
	// wants a keyframe).
	Shed func(node string, label uint32, shed bool)
	// Flush, when there is one, is called by the socket's reader after a batch of packets was handed over.
	Flush func()
}

// Errors of Message.
var (
	ErrNoTrunk = errors.New("trunk: there is no trunk to this node")
	ErrBusy    = errors.New("trunk: too much waits for this node")
	ErrTooLong = errors.New("trunk: message too long")
)

// Set is all trunks of one node. Its methods may be called concurrently.
type Set struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	sock *udp.Conn
	boot uint64
	wake chan struct{}

	table atomic.Pointer[table]
	drops dropCounts

	mu      sync.Mutex // guards the fields below, and changes of table
	peers   map[string]*peer
	running context.Context // the object's own lifetime; nil before Run
	closed  bool
	wg      sync.WaitGroup
}

// table is what connections there are; it is replaced, never changed.
type table struct {
	byID   map[uint32]*connection
	byNode map[string]*connection
	list   []*connection
}

// New makes a Set and opens its socket.
func New(cfg Config, deps Deps) (*Set, error) {
	set := func(v *int64, def int64) {
		if *v == 0 {
			*v = def
		}
	}
	set(&cfg.Initial, DefaultInitial)
	set(&cfg.Min, DefaultMin)
	set(&cfg.Max, DefaultMax)
	switch {
	case cfg.Node == "":
		return nil, errors.New("trunk: no node id")
	case deps.Dial == nil || deps.Handler == nil:
		return nil, errors.New("trunk: Dial and Handler are needed")
	case cfg.Min < 0 || cfg.Min > cfg.Initial || cfg.Initial > cfg.Max:
		return nil, errors.New("trunk: Min, Initial, Max must ascend")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		start := time.Now()
		cfg.Now = func() int64 { return int64(time.Since(start)) + 1 }
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("drawing a boot id: %w", err)
	}
	sock, err := udp.Listen(udp.Config{
		Addr: cfg.UDPAddr, MaxDatagram: record.MaxPayload + record.Overhead, Single: true, Arrivals: true,
	})
	if err != nil {
		return nil, err
	}
	s := &Set{
		cfg: cfg, deps: deps, log: cfg.Logger, sock: sock, boot: binary.BigEndian.Uint64(random[:]),
		wake: make(chan struct{}, 1), peers: map[string]*peer{},
	}
	s.table.Store(&table{})
	return s, nil
}

// LocalAddr is where records are received.
func (s *Set) LocalAddr() netip.AddrPort { return s.sock.LocalAddr() }

// Run serves until ctx ends, which is not an error. A Set runs once.
func (s *Set) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.running != nil || s.closed {
		s.mu.Unlock()
		return errors.New("trunk: a set runs once")
	}
	s.running = ctx
	for _, p := range s.peers {
		s.startLocked(p)
	}
	s.mu.Unlock()
	var loops sync.WaitGroup
	loops.Go(s.read)
	loops.Go(func() { s.write(ctx) })
	loops.Go(func() { s.tellDrops(ctx) })
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait() // connections say goodbye, keepers end
	err := s.sock.Close()
	loops.Wait()
	return err
}

// Close closes the socket of a Set that never ran; one that runs ends with its context.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return nil
	}
	s.closed = true
	return s.sock.Close()
}

// Send queues one RTP packet to a node's trunk and returns at once; rtp is copied. What waits
// is sent by class, or given up: see Class. Without a trunk it is dropped.
func (s *Set) Send(node string, label uint32, ext uint64, class Class, rtp []byte) {
	c := s.table.Load().byNode[node]
	if c == nil {
		s.drops.add(dropNoTrunk)
		return
	}
	c.line.send(label, ext, class, rtp, s.cfg.Now())
	s.poke(c)
}

// Message queues a message to a node, at most MaxMessage long; msg must not be changed any
// more. Messages arrive in order, unless the trunk goes down: what is under way then is lost.
func (s *Set) Message(node string, msg []byte) error {
	if len(msg) > MaxMessage {
		return ErrTooLong
	}
	c := s.table.Load().byNode[node]
	if c == nil {
		return ErrNoTrunk
	}
	if !c.out.put(appendFrame(make([]byte, 0, frameHeader+len(msg)), frameMessage, msg)) {
		return ErrBusy
	}
	return nil
}

// poke makes the writer poll c.
func (s *Set) poke(c *connection) {
	if c.dirty.Load() || c.dirty.Swap(true) {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
