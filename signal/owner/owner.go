// Package owner decides for the rooms that this node owns: it runs each room's state machine, answers the
// requests of replicas and sends them every decision (PROTOCOL.md section 6).
package owner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
)

// Config of an Owner.
type Config struct {
	Logger *slog.Logger
	// Node is this node's id.
	Node string
	// StandbySilence is after what time a standby that does not acknowledge is reported to the directory; default 0.8 s.
	StandbySilence time.Duration
}

// Records are the durable things around a session. Safe for concurrent use.
type Records interface {
	// Open answers what a session of the room starts from, or an error with a code.
	Open(room string) (Start, error)
	// Running tells whether the room has a session, as far as the records know.
	Running(room string) bool
	// Keep is told what outlives the session: its record when it began and ended, and of the room's record name, lock and
	// metadata when they changed; and that the room is to go on without its standby. It must not block.
	Keep(cmd *amphiv1.RegistryCommand)
	// Commit writes a durable store value, each key's in order, and calls done when it is written or refused, from any
	// goroutine. It must not block.
	Commit(cmd *amphiv1.RegistryCommand, done func(error))
}

// Start is what a session starts from.
type Start struct {
	Room     *amphiv1.Room
	Template *amphiv1.Template
	Durable  []*amphiv1.StoreEntry
	// Record is that of the running session; nil: there is none.
	Record *amphiv1.Session
}

// Streams carries out what the room wants of its streams and outputs. It must not block.
type Streams interface {
	// Changed is told each StreamChanged, in order, and that the session ended (a nil stream).
	Changed(room string, settings *amphiv1.Template, s *amphiv1.Stream)
	// Output is told each OutputChanged, in order with what is told of streams; sealedURL is a push's encrypted URL.
	Output(room, session string, o *amphiv1.Output, sealedURL []byte)
	// Cue is told what a stream that runs is to get beside picture and sound.
	Cue(room string, cue *amphiv1.StreamCue)
}

// Events is for those outside who want to know what happens. It must not block.
type Events interface {
	// Happened is told sessions, peers, roles, streams, outputs and messages to everybody, each room's in order, when it is certain.
	// who is the attendance of a peer that left. A new owner tells again what was decided shortly before.
	Happened(room, session string, ev *amphiv1.Event, who *amphiv1.Attendance)
}

// Admitter is a Streams that knows whether there is room for one more.
type Admitter interface {
	// Admit answers an error with a code where a stream could not be composed now. It must not block.
	Admit(room string, settings *amphiv1.StreamSettings) error
}

// Deps are an Owner's neighbours.
type Deps struct {
	Carrier   exchange.Carrier
	Directory exchange.Directory
	Records   Records
	// Streams, Events, Planner and Copies may be nil.
	Streams Streams
	Events  Events
	Planner Planner
	Copies  Copies
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

type counters struct{ requests, repeated, events, notOwner, stale, early, busy, waiting atomic.Uint64 }

// Stats are counts since the start, but for Rooms.
type Stats struct {
	Rooms int
	// Waiting requests were refused for the time being: the room is frozen, or its standby does not follow.
	Requests, Repeated, Events, Waiting uint64
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
	cfg.StandbySilence = cmp.Or(cfg.StandbySilence, 800*time.Millisecond)
	o := &Owner{cfg: cfg, deps: deps, done: make(chan struct{}), rooms: map[string]*owned{}}
	deps.Directory.Watch(o.changed)
	return o, nil
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
	switch {
	case err != nil:
		return fmt.Errorf("finding the owner: %w", err)
	case m.GetEpoch() > placed.GetEpoch():
		// The node knows of a placement that this one has yet to learn of; it will ask again.
		o.stats.early.Add(1)
		return fmt.Errorf("room %s: message of epoch %d, still %d here", m.GetRoom(), m.GetEpoch(), placed.GetEpoch())
	case placed.GetNode() != o.cfg.Node:
		o.stats.notOwner.Add(1)
		return fmt.Errorf("room %s: node %s is the owner", m.GetRoom(), placed.GetNode())
	case m.GetEpoch() < placed.GetEpoch():
		o.stats.stale.Add(1)
		return fmt.Errorf("room %s: message of epoch %d, now %d", m.GetRoom(), m.GetEpoch(), placed.GetEpoch())
	}
	return o.push(m.GetRoom(), placed.GetEpoch(), inbound{from: from, msg: m})
}

// push hands work to the room's goroutine, which is started when there is none at this epoch.
func (o *Owner) push(name string, epoch uint64, in inbound) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return proto.Errorf(proto.Shutdown, "the node is shutting down")
	}
	r := o.rooms[name]
	if r == nil || r.epoch < epoch {
		r = o.startLocked(name, epoch, r)
	}
	// Holding the lock keeps the room from retiring meanwhile.
	if !r.inbox.Put(in) {
		o.stats.busy.Add(1)
		return errBusy
	}
	return nil
}

// startLocked starts a room, after its owner of an earlier epoch, if any, has stopped.
func (o *Owner) startLocked(name string, epoch uint64, before *owned) *owned {
	r := newOwned(o, name, epoch)
	if before != nil {
		r.before = before.over
		_ = before.inbox.Put(inbound{do: func(time.Time) { before.moved = true }})
	}
	o.rooms[name] = r
	o.wg.Go(r.run)
	return r
}

// changed is told that the placement of a room, or of any, may be another, or the lease: owners that are none any more stop,
// and the standby of a room whose owner it is now begins.
func (o *Owner) changed(room string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	for name, r := range o.rooms {
		if room == "" || room == name {
			_ = r.inbox.Put(inbound{do: func(time.Time) { r.locate() }})
		}
	}
	if o.deps.Copies == nil {
		return
	}
	// The directory may be telling this in the middle of its own work: it is asked later.
	o.wg.Go(func() {
		names := []string{room}
		if room == "" {
			names = o.deps.Copies.Names()
		}
		for _, name := range names {
			placed, err := o.deps.Directory.Owner(name)
			if err == nil && placed.GetNode() == o.cfg.Node && o.deps.Copies.Holds(name, placed.GetEpoch()) {
				_ = o.push(name, placed.GetEpoch(), inbound{do: func(time.Time) {}})
			}
		}
	})
}

// forget takes a room out that has stopped for good.
func (o *Owner) forget(r *owned) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rooms[r.name] == r {
		delete(o.rooms, r.name)
	}
}

// insist hands work to a room however busy it is, unless it is over.
func (o *Owner) insist(r *owned, in inbound) {
	again := time.NewTicker(insistEvery)
	defer again.Stop()
	for !r.inbox.Put(in) {
		select {
		case <-r.over:
			return
		case <-again.C:
		}
	}
}

// insistEvery is how often a room that is too busy is asked again.
const insistEvery = 50 * time.Millisecond

// retire takes the room out unless a message came in meanwhile.
func (o *Owner) retire(r *owned) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !r.inbox.Empty() {
		return false
	}
	if o.rooms[r.name] == r {
		delete(o.rooms, r.name)
	}
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
		Rooms: n, Requests: o.stats.requests.Load(), Repeated: o.stats.repeated.Load(), Events: o.stats.events.Load(), Waiting: o.stats.waiting.Load(),
		Dropped: map[string]uint64{"not_owner": o.stats.notOwner.Load(), "stale_epoch": o.stats.stale.Load(),
			"early_epoch": o.stats.early.Load(), "busy": o.stats.busy.Load()},
	}
}
