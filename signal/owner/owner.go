// Package owner decides for the rooms that this node owns: it runs each room's state machine, answers the
// requests of replicas and sends them every decision (PROTOCOL.md section 6).
package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
)

// Config of an Owner.
type Config struct {
	Logger *slog.Logger
	// Node is this node's id.
	Node string
}

// Records are the durable things around a session. Safe for concurrent use.
type Records interface {
	// Open answers what a session of the room starts from, or an error with a code.
	Open(room string) (Start, error)
	// Keep is told what outlives the session: its record when it began and ended, durable store entries, and
	// of the room's record name, lock and metadata when they changed. It must not block.
	Keep(cmd *amphiv1.RegistryCommand)
}

// Start is what a session starts from.
type Start struct {
	Room     *amphiv1.Room
	Template *amphiv1.Template
	Durable  []*amphiv1.StoreEntry
}

// Streams carries out what the room wants of its streams. It must not block.
type Streams interface {
	// Changed is told each StreamChanged, in order, and that the session ended (a nil stream).
	Changed(room string, settings *amphiv1.Template, s *amphiv1.Stream)
}

// Deps are an Owner's neighbours.
type Deps struct {
	Carrier   exchange.Carrier
	Directory exchange.Directory
	Records   Records
	// Streams may be nil.
	Streams Streams
}

// errBusy is a room's answer when its inbox is full.
var errBusy = errors.New("the room's inbox is full")

// Owner runs the rooms that this node owns.
type Owner struct {
	cfg   Config
	deps  Deps
	done  chan struct{} // closed when Run ends
	stats counters

	mu     sync.Mutex // guards the fields below
	wg     sync.WaitGroup
	rooms  map[string]*owned
	closed bool
}

type counters struct{ requests, repeated, events, notOwner, stale, busy atomic.Uint64 }

// Stats are counts since the start, but for Rooms.
type Stats struct {
	Rooms                      int
	Requests, Repeated, Events uint64
	// Dropped messages, by reason.
	Dropped map[string]uint64
}

// New makes an Owner; it takes messages from then on, and Run ends it.
func New(cfg Config, deps Deps) (*Owner, error) {
	if deps.Carrier == nil || deps.Directory == nil || deps.Records == nil {
		return nil, errors.New("making an owner: carrier, directory and records are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Owner{cfg: cfg, deps: deps, done: make(chan struct{}), rooms: map[string]*owned{}}, nil
}

// Run returns when ctx is done and all rooms have stopped.
func (o *Owner) Run(ctx context.Context) error {
	<-ctx.Done()
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	close(o.done)
	o.wg.Wait()
	return nil
}

// Deliver takes an upward message from a node. It does not block; an error means that it was dropped.
func (o *Owner) Deliver(from string, m *amphiv1.RoomMessage) error {
	placed, err := o.deps.Directory.Owner(m.GetRoom())
	if err != nil {
		return fmt.Errorf("finding the owner: %w", err)
	}
	node, epoch := placed.GetNode(), placed.GetEpoch()
	if node != o.cfg.Node {
		o.stats.notOwner.Add(1)
		return fmt.Errorf("room %s: node %s is the owner", m.GetRoom(), node)
	}
	if m.GetEpoch() < epoch {
		o.stats.stale.Add(1)
		return fmt.Errorf("room %s: message of epoch %d, now %d", m.GetRoom(), m.GetEpoch(), epoch)
	}
	return o.push(m.GetRoom(), epoch, inbound{from, m})
}

// push hands the message to the room's goroutine, which is started when there is none.
func (o *Owner) push(name string, epoch uint64, in inbound) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return proto.Errorf(proto.Shutdown, "the node is shutting down")
	}
	r := o.rooms[name]
	if r == nil {
		r = newOwned(o, name, epoch)
		o.rooms[name] = r
		o.wg.Go(r.run)
	}
	// Holding the lock keeps the room from retiring meanwhile.
	if !r.inbox.Put(in) {
		o.stats.busy.Add(1)
		return errBusy
	}
	return nil
}

// retire takes the room out unless a message came in meanwhile.
func (o *Owner) retire(r *owned) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !r.inbox.Empty() {
		return false
	}
	delete(o.rooms, r.name)
	return true
}

// Active counts the peers of each room with a running session.
func (o *Owner) Active() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	active := map[string]int{}
	for name, r := range o.rooms {
		if n := r.peers.Load(); n > 0 {
			active[name] = int(n)
		}
	}
	return active
}

// Stats is a snapshot.
func (o *Owner) Stats() Stats {
	o.mu.Lock()
	n := len(o.rooms)
	o.mu.Unlock()
	return Stats{
		Rooms: n, Requests: o.stats.requests.Load(), Repeated: o.stats.repeated.Load(), Events: o.stats.events.Load(),
		Dropped: map[string]uint64{"not_owner": o.stats.notOwner.Load(), "stale_epoch": o.stats.stale.Load(), "busy": o.stats.busy.Load()},
	}
}
