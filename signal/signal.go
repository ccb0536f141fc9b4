// Package signal is the side of Amphi that clients talk to: the WebSocket with rooms, roles and permissions, the
// management API, WHIP and WHEP, and the media that the room's state allows each of them. DESIGN.md tells how.
package signal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/exchange"
	"github.com/amphi-sfu/amphi/signal/owner"
	"github.com/amphi-sfu/amphi/signal/replica"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/standby"
	"github.com/amphi-sfu/amphi/signal/ws"
)

// Config of a Server. The zero value of each field but Node means its default.
type Config struct {
	Logger *slog.Logger
	// Node is this node's id, Region and Version are shown to clients.
	Node, Region, Version string
	// ICEServers are what a peer is told that reached this node by the name or address host, as its request had it:
	// not to be trusted. Nil: there are none. Any goroutine.
	ICEServers func(peerID, host string) []*amphiv1.IceServer
	// WebSocket has the limits of clients.
	WebSocket ws.Config
	// TokensPerMinute is how many wrong room codes one address may try per minute, default 60, after half as many
	// at once; right ones count a tenth.
	TokensPerMinute int
	// Drain bounds how long Run waits for clients to close on shutdown; default 3 s.
	Drain time.Duration
	// Now is the wall clock, by which tokens are valid and records are dated; default time.Now.
	Now func() time.Time
}

// Deps are a Server's neighbours.
type Deps struct {
	Registry  Registry
	Directory exchange.Directory
	// Carrier brings messages to other nodes; nil where there are none.
	Carrier exchange.Carrier
	// Media, Streams, Outputs, Assets and Nodes may be nil: then what needs them answers unavailable.
	Media   Media
	Streams Streams
	Outputs Outputs
	Assets  Assets
	Nodes   Nodes
	// Webhooks is told what happens in the rooms that this node owns, Chat the messages to everybody there; both may be nil.
	// Chat must not block.
	Webhooks Webhooks
	Chat     func(room string, m *amphiv1.Message)
	// Guide is nil where there is one node.
	Guide Guide
	// Planner and Relays are nil where rooms stay on one node.
	Planner Planner
	Relays  Relays
}

// Server serves the clients of one node, decides for the rooms that the node owns, and follows those that it
// has clients in.
type Server struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	verifier *auth.Verifier
	records  *records
	owner    *owner.Owner
	replicas *replica.Set
	standbys *standby.Keeper
	sockets  *ws.Server
	clients  clients
	stages   stages
	streams  *streams
	headless *headless
	// addresses bounds the tries at room codes.
	addresses *addresses
	handler   http.Handler
	stopping  chan struct{} // closed when Run is to end
	tasks     sync.WaitGroup
}

// New makes a Server. It takes requests and messages from then on; Run makes it live and ends it.
func New(cfg Config, deps Deps) (*Server, error) {
	if cfg.Node == "" || deps.Registry == nil || deps.Directory == nil {
		return nil, errors.New("making a signal server: node, registry and directory are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.TokensPerMinute = cmp.Or(cfg.TokensPerMinute, 60)
	cfg.Drain = cmp.Or(cfg.Drain, 3*time.Second)
	cfg.WebSocket.Logger = cfg.Logger
	s := &Server{cfg: cfg, deps: deps, log: cfg.Logger, stopping: make(chan struct{})}
	s.records = newRecords(deps.Registry, cfg.Logger, cfg.Now)
	s.verifier = auth.NewVerifier(s.records)
	s.streams, s.headless, s.addresses = newStreams(s), newHeadless(s), newAddresses(cfg.TokensPerMinute)
	s.sockets = ws.New(cfg.WebSocket)
	var err error
	s.standbys, err = standby.New(standby.Config{Logger: cfg.Logger, Node: cfg.Node}, carrier{s}, deps.Directory)
	if err != nil {
		return nil, fmt.Errorf("making a signal server: %w", err)
	}
	var events owner.Events
	if deps.Webhooks != nil || deps.Chat != nil {
		events = hooks{s}
	}
	s.owner, err = owner.New(owner.Config{Logger: cfg.Logger, Node: cfg.Node},
		owner.Deps{Carrier: carrier{s}, Directory: deps.Directory, Records: s.records, Streams: s.streams, Events: events, Planner: deps.Planner, Copies: s.standbys})
	if err != nil {
		return nil, fmt.Errorf("making a signal server: %w", err)
	}
	s.replicas, err = replica.New(replica.Config{Logger: cfg.Logger, Node: cfg.Node,
		Follow:  func(r *replica.Room) replica.Follower { return newEdge(s, r) },
		Present: func(f replica.Follower) []string { return f.(*edge).present() }}, carrier{s}, deps.Directory)
	if err != nil {
		return nil, fmt.Errorf("making a signal server: %w", err)
	}
	s.handler = s.routes()
	return s, nil
}

// Run serves until ctx ends; then it says goodbye to the clients, and returns when everything has stopped.
func (s *Server) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.records.run(inner) })
	wg.Go(func() { s.streams.run(inner) })
	wg.Go(func() { _ = s.replicas.Run(inner) })
	wg.Go(func() { _ = s.standbys.Run(inner) })
	<-ctx.Done()
	close(s.stopping)
	s.clients.drain(s.cfg.Drain)
	stop()
	wg.Wait()
	// The owner goes last: what the replicas say on their way out is still heard.
	_ = s.owner.Run(inner)
	s.tasks.Wait()
	s.records.flush()
	return nil
}

// Handler serves the paths of PROTOCOL.md that are this package's.
func (s *Server) Handler() http.Handler { return s.handler }

// Deliver takes an encoded RoomMessage of another node. It does not block and may be called from any goroutine;
// messages of one node about one room must come in order.
func (s *Server) Deliver(from string, msg []byte) error {
	m, err := exchange.Decode(msg)
	if err != nil {
		return err
	}
	switch {
	case exchange.Upwards(m):
		return s.owner.Deliver(from, m)
	case m.GetStandbyUpdate() != nil:
		return s.standbys.Deliver(from, m)
	}
	return s.replicas.Deliver(from, m)
}

// Handover gives a room of this node to its standby: move has the directory name the standby as the owner, and is called when
// the standby knows all that was answered. Requests that come meanwhile are decided there, or here if move fails. An error
// has a code: "unavailable" where there is no standby, "not_found" where this node does not own the room or nobody uses it.
func (s *Server) Handover(ctx context.Context, room string, move func(context.Context) error) error {
	return s.owner.Handover(ctx, key(room), move)
}

// carrier keeps messages for this node itself inside the process.
type carrier struct{ *Server }

// Send implements exchange.Carrier.
func (c carrier) Send(node, room string, msg []byte) error {
	if node == c.cfg.Node {
		return c.Deliver(node, msg)
	}
	if c.deps.Carrier == nil {
		return fmt.Errorf("no carrier to node %s", node)
	}
	return c.deps.Carrier.Send(node, room, msg)
}

// background runs what waits for others, such as closing an endpoint; Run waits for it.
func (s *Server) background(f func()) { s.tasks.Go(f) }

// insist has f run on the room's goroutine even when that is too busy to take more work now, unless the room closes.
func (s *Server) insist(r *replica.Room, f func(*room.Replica)) {
	if r.Do(f) == nil {
		return
	}
	s.background(func() {
		again := time.NewTicker(insistEvery)
		defer again.Stop()
		for {
			select {
			case <-r.Over():
				return
			case <-again.C:
			}
			if r.Do(f) == nil {
				return
			}
		}
	})
}

// insistEvery is how often a room that is too busy is asked again.
const insistEvery = 100 * time.Millisecond

// resumeFor bounds the life of a resume token; what ends it earlier is that the peer's place is given up.
const resumeFor = 7 * 24 * time.Hour

func (s *Server) resumeToken(e *edge, peerID string) string {
	return auth.SealResume(s.records.secret(), auth.Resume{Room: e.room.Name(), PeerID: peerID,
		SessionID: e.rep.SessionID(), Node: s.cfg.Node, Expires: s.cfg.Now().Add(resumeFor)})
}

func (s *Server) ticket(token string) (auth.Resume, error) {
	return auth.OpenResume(s.records.secret(), s.cfg.Now(), token)
}

func (s *Server) verify(token string, want auth.Type) (auth.Grant, error) {
	return s.verifier.Verify(s.cfg.Now(), token, want)
}

func (s *Server) info() *amphiv1.ServerInfo {
	return &amphiv1.ServerInfo{
		Node: s.cfg.Node, Region: s.cfg.Region, Version: s.cfg.Version,
		PingIntervalMs: 5000, PingTimeoutMs: uint32(cmp.Or(s.cfg.WebSocket.Silence, 15*time.Second).Milliseconds()),
		ResumeWindowMs: 60000, TimeMs: s.cfg.Now().UnixMilli(),
	}
}

// infoFor is info with the credentials of a peer that has joined.
func (s *Server) infoFor(peerID, host string) *amphiv1.ServerInfo {
	info := s.info()
	info.IceServers = s.iceServers(peerID, host)
	return info
}

func (s *Server) iceServers(peerID, host string) []*amphiv1.IceServer {
	if s.cfg.ICEServers == nil {
		return nil
	}
	return s.cfg.ICEServers(peerID, host)
}

// logInternal keeps what clients are not told.
func (s *Server) logInternal(err error) {
	if proto.CodeOf(err) == proto.Internal {
		s.log.Error("request failed", "err", err)
	}
}

// Stats is everything that a Server counts.
type Stats struct {
	Clients ws.Stats
	Owner   owner.Stats
	Replica replica.Stats
	Standby standby.Stats
	// Lost counts durable changes that could not be written.
	Lost uint64
}

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	return Stats{Clients: s.sockets.Stats(), Owner: s.owner.Stats(), Replica: s.replicas.Stats(), Standby: s.standbys.Stats(), Lost: s.records.lost.Load()}
}

// clients is the open connections, for the goodbye.
type clients struct {
	mu       sync.Mutex // guards the fields below
	open     map[*client]struct{}
	draining bool
	empty    chan struct{} // closed when draining and the last has gone
}

func (c *clients) add(cl *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*client]struct{}{}
	}
	c.open[cl] = struct{}{}
	if c.draining {
		cl.conn.Close(proto.Errorf(proto.Shutdown, "the node is shutting down"))
	}
}

func (c *clients) remove(cl *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, cl)
	if c.draining && len(c.open) == 0 {
		select {
		case <-c.empty:
		default:
			close(c.empty)
		}
	}
}

// drain says goodbye to everybody and waits until they have gone, but not for ever.
func (c *clients) drain(most time.Duration) {
	c.mu.Lock()
	c.draining, c.empty = true, make(chan struct{})
	if len(c.open) == 0 {
		close(c.empty)
	}
	for cl := range c.open {
		cl.conn.Close(proto.Errorf(proto.Shutdown, "the node is shutting down"))
	}
	c.mu.Unlock()
	select {
	case <-c.empty:
	case <-time.After(most):
	}
}
