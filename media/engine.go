// Package media is one node's data plane: endpoints (one per remote
// RTCPeerConnection), the tracks they publish, and forwarding those to
// subscribers. DESIGN.md explains how.
package media

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3/pkg/crypto/selfsign"

	"github.com/amphi-sfu/amphi/media/ice"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/udp"
)

// ErrClosed is returned by what needs a running engine, router or endpoint that is closed.
var ErrClosed = errors.New("media: closed")

// Engine is the data plane of a node: one media socket, its readers and workers,
// and the routers of all rooms. Its methods are safe for concurrent use.
type Engine struct {
	cfg        Config
	log        *slog.Logger
	start      time.Time
	conn       *udp.Conn
	connector  *connector
	handshakes chan struct{} // one place for each DTLS handshake under way
	identity   identity
	workers    []*worker
	patient    *patient
	clock      *clock
	notify     *notifier
	pool       packet.Pool
	drops      dropCounters
	done       chan struct{} // closed when the engine is closed
	closeOnce  sync.Once
	nextSource atomic.Uint32
	remotes    remotes
	sooner     chan struct{} // wakes the clock

	mu        sync.Mutex // guards the fields below
	routers   map[string]*Router
	endpoints map[*Endpoint]struct{}
	// publishing are the endpoints that the clock looks after.
	publishing map[*Endpoint]struct{}
	running    bool
	closed     bool
}

// identity is what clients verify the node by (RFC 8122).
type identity struct {
	certificate tls.Certificate
	fingerprint negotiate.Fingerprint
}

func newIdentity() (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("making the DTLS key: %w", err)
	}
	cert, err := selfsign.SelfSign(key)
	if err != nil {
		return identity{}, fmt.Errorf("making the DTLS certificate: %w", err)
	}
	digest := sha256.Sum256(cert.Certificate[0])
	return identity{cert, negotiate.Fingerprint{Hash: "sha-256", Value: negotiate.FormatFingerprint(digest[:])}}, nil
}

// New opens the sockets. The engine serves from the call of Run on; one that is
// never run has to be closed.
func New(cfg Config) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	id, err := newIdentity()
	if err != nil {
		return nil, err
	}
	segments := 0
	if cfg.NoGSO {
		segments = 1
	}
	conn, err := udp.Listen(udp.Config{Addr: cfg.UDPAddr, MaxDatagram: packet.MaxSize, MaxSegments: segments})
	if err != nil {
		return nil, fmt.Errorf("opening the media socket: %w", err)
	}
	e := &Engine{
		cfg: cfg, log: cfg.Logger, start: time.Now(), conn: conn, identity: id,
		notify:     newNotifier(),
		done:       make(chan struct{}),
		sooner:     make(chan struct{}, 1),
		handshakes: make(chan struct{}, handshakesPerCore*runtime.GOMAXPROCS(0)),
		routers:    map[string]*Router{},
		endpoints:  map[*Endpoint]struct{}{},
		publishing: map[*Endpoint]struct{}{},
	}
	e.patient, e.clock = newPatient(conn.NewPatientReader()), newClock(e)
	ips, err := cfg.candidateIPs(conn.LocalAddr().Addr())
	if err == nil {
		e.connector, err = newConnector(e, ips)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("preparing ICE: %w", err)
	}
	for i := range cfg.Workers {
		e.workers = append(e.workers, newWorker(e, i))
	}
	return e, nil
}

// Run serves until ctx ends, then closes everything and waits for it.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.closed || e.running {
		e.mu.Unlock()
		return ErrClosed
	}
	e.running = true
	e.mu.Unlock()

	var clients, rest sync.WaitGroup
	stop := make(chan struct{})
	rest.Go(func() { e.readSocket(e.conn.NewReader()) })
	if e.patient.reader != nil {
		rest.Go(e.readPatient)
	}
	if e.connector.tcp != nil {
		rest.Go(func() { e.connector.tcp.Run(context.WithoutCancel(ctx)) }) // ends when the engine closes it
	}
	for _, w := range e.workers {
		rest.Go(func() { w.run(stop) })
	}
	rest.Go(func() { e.notify.run(stop) })
	clients.Go(func() { e.runClock(e.done) })

	select {
	case <-ctx.Done():
	case <-e.done:
	}
	e.close()
	clients.Wait()
	close(stop)
	rest.Wait()
	for _, w := range e.workers {
		w.drainAfterStop()
	}
	if err := ctx.Err(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("running the media engine: %w", err)
	}
	return nil
}

// Close closes every endpoint and the sockets. It is for engines that are never
// run; otherwise it makes Run return.
func (e *Engine) Close() error {
	e.mu.Lock()
	running := e.running
	e.mu.Unlock()
	e.closeOnce.Do(func() { close(e.done) })
	if !running {
		for _, w := range e.workers {
			w.drainAfterStop()
		}
		e.close()
	}
	return nil
}

func (e *Engine) close() {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	endpoints := make([]*Endpoint, 0, len(e.endpoints))
	for ep := range e.endpoints {
		endpoints = append(endpoints, ep)
	}
	routers := make([]*Router, 0, len(e.routers))
	for _, r := range e.routers {
		routers = append(routers, r)
	}
	e.mu.Unlock()
	var wg sync.WaitGroup
	for _, ep := range endpoints {
		wg.Go(func() { ep.Close() })
	}
	wg.Wait()
	for _, r := range routers {
		r.Close()
	}
	e.closeOnce.Do(func() { close(e.done) })
	if err := e.connector.close(); err != nil {
		e.log.Debug("closing ICE-TCP", "err", err)
	}
	if err := e.conn.Close(); err != nil {
		e.log.Warn("closing the media socket", "err", err)
	}
}

// UDPAddr is the address of the media socket.
func (e *Engine) UDPAddr() netip.AddrPort { return e.conn.LocalAddr() }

// Router returns the router of a room, making it on first use. It is nil when
// the engine is closed.
func (e *Engine) Router(room string) *Router {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.routers[room]; r != nil {
		return r
	}
	if e.closed {
		return nil
	}
	r := newRouter(e, room)
	e.routers[room] = r
	return r
}

// LookupRouter returns the router of a room if there is one; it makes none.
func (e *Engine) LookupRouter(room string) (r *Router, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, ok = e.routers[room]
	return r, ok
}

func (e *Engine) removeRouter(r *Router) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.routers[r.room] == r {
		delete(e.routers, r.room)
	}
}

func (e *Engine) addEndpoint(ep *Endpoint) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.endpoints[ep] = struct{}{}
	return nil
}

func (e *Engine) removeEndpoint(ep *Endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.endpoints, ep)
}

// chooseWorker picks the worker for an endpoint: the first that is not full, else the
// one with the fewest. Few workers with much to do wake up less often per packet than
// many with little.
func (e *Engine) chooseWorker() *worker {
	best := e.workers[0]
	for _, w := range e.workers {
		n := w.load.Load()
		if n < workerFull {
			best = w
			break
		}
		if n < best.load.Load() {
			best = w
		}
	}
	best.load.Add(1)
	return best
}

// now is the node's monotonic clock in nanoseconds. It is never zero.
func (e *Engine) now() int64 { return int64(time.Since(e.start)) + 1 }

// readPause is how long the reader rests after an error of the media socket.
const readPause = 100 * time.Millisecond

// datagrams is the reading side of a socket, as udp.Reader.
type datagrams interface {
	ReadBatch() ([]udp.Datagram, error)
	// Await waits for something to read, for a time at most.
	Await(time.Duration) bool
}

// readSocket is the goroutine of the media socket: what a batch means for
// subscribers is done at once, by work.
func (e *Engine) readSocket(r datagrams) {
	for {
		if !e.readBatch(r) {
			return
		}
		for until := e.now() + int64(holdMost); e.holding() && r.Await(time.Duration(until-e.now())); {
			if !e.readBatch(r) {
				return
			}
		}
		e.work()
		e.alongside()
	}
}

// readBatch takes what has arrived; it is false when the socket is closed.
func (e *Engine) readBatch(r datagrams) bool {
	batch, err := r.ReadBatch()
	if err != nil {
		if errors.Is(err, net.ErrClosed) {
			return false
		}
		e.log.Warn("reading the media socket", "err", err)
		time.Sleep(readPause)
		return true
	}
	e.take(batch, e.now())
	return true
}

// take gives datagrams to whom they are for.
func (e *Engine) take(batch []udp.Datagram, now int64) {
	var from netip.AddrPort
	var t *transport
	for _, d := range batch {
		if d.From != from {
			from, t = d.From, e.connector.at(d.From)
		}
		if t != nil && len(d.Data) > 0 && d.Data[0] >= 128 && d.Data[0] < 192 {
			t.ep.in.datagram(d.Data, now)
			continue
		}
		e.connector.datagram(d.Data, ice.Path{Addr: d.From}, t)
		from = netip.AddrPort{} // it may have become known by that
	}
}
