// Package replica keeps this node's copies of the rooms that its clients are in: it attaches to each room's
// owner, applies its events in order, and carries requests there and answers back (PROTOCOL.md section 6).
package replica

import (
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
	"github.com/amphi-sfu/amphi/signal/room"
)

// Follower acts on what happens in a room. Its methods are called one at a time, from the room's goroutine, and
// must not block; the replica is theirs for the time of the call.
type Follower interface {
	// Reset is called with a state that does not continue the one before.
	Reset(rep *room.Replica)
	// Applied is called after each event.
	Applied(rep *room.Replica, ev *amphiv1.Event)
	// Moved is called when another node has a peer's client.
	Moved(peerID string)
	// Tick is called at least every 2 s, and when the room's plan or mode is another; rep is nil until there is one.
	Tick(rep *room.Replica, now time.Time)
	// Stopped is the last call.
	Stopped()
}

// Config of a Set.
type Config struct {
	Logger *slog.Logger
	// Node is this node's id.
	Node string
	// Linger is how long a room that nobody holds is kept; default 5 s.
	Linger time.Duration
	// Follow makes the follower of a room that is opened.
	Follow func(*Room) Follower
	// Present lists the peers whose clients are here; it is called on the room's goroutine. Where it is nil the owner
	// is not told.
	Present func(Follower) []string
}

// Set is the rooms that this node has replicas of.
type Set struct {
	cfg       Config
	carrier   exchange.Carrier
	directory exchange.Directory
	done      chan struct{} // closed when Run ends
	lastID    atomic.Uint64
	stats     counters

	mu     sync.Mutex // guards the fields below, and the holds of each Room
	wg     sync.WaitGroup
	rooms  map[string]*Room
	closed bool
}

type counters struct{ gaps, resets, repeated, timeouts, busy, stale, unknown atomic.Uint64 }

// Stats are counts since the start, but for Rooms.
type Stats struct {
	Rooms                            int
	Gaps, Resets, Repeated, Timeouts uint64
	// Dropped messages, by reason.
	Dropped map[string]uint64
}

// New makes a Set; rooms can be opened from then on, and Run ends it.
func New(cfg Config, carrier exchange.Carrier, directory exchange.Directory) (*Set, error) {
	if carrier == nil || directory == nil || cfg.Follow == nil {
		return nil, errors.New("making a replica set: carrier, directory and Follow are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Linger == 0 {
		cfg.Linger = 5 * time.Second
	}
	s := &Set{cfg: cfg, carrier: carrier, directory: directory, done: make(chan struct{}), rooms: map[string]*Room{}}
	// Ids rise over restarts of the node too: the owner may remember answers to the node's earlier life.
	s.lastID.Store(uint64(time.Now().UnixNano()))
	directory.Watch(s.changed)
	return s, nil
}

// changed is told that a room, or with "" any, may have another owner.
func (s *Set) changed(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rooms {
		if name == "" || name == r.name {
			// A room that is too busy looks again by itself.
			_ = r.inbox.Put(r.moved)
		}
	}
}

// Run returns when ctx is done and all rooms have stopped.
func (s *Set) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.done)
	s.wg.Wait()
	return nil
}

// Open holds the room's replica until as many calls of Release.
func (s *Set) Open(name string) (*Room, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, proto.Errorf(proto.Shutdown, "the node is shutting down")
	}
	r := s.rooms[name]
	if r == nil {
		r = newRoom(s, name)
		s.rooms[name] = r
		s.wg.Go(r.run)
	}
	r.holds++
	return r, nil
}

// Names lists the open rooms.
func (s *Set) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.rooms))
	for n := range s.rooms {
		names = append(names, n)
	}
	return names
}

// Deliver takes a downward message from a node. It does not block; an error means that it was dropped.
func (s *Set) Deliver(from string, m *amphiv1.RoomMessage) error {
	s.mu.Lock()
	r := s.rooms[m.GetRoom()]
	s.mu.Unlock()
	if r == nil {
		s.stats.unknown.Add(1)
		return fmt.Errorf("room %s is not open here", m.GetRoom())
	}
	return r.post(func() { r.receive(from, m) })
}

// retire takes a room out that nobody holds.
func (s *Set) retire(r *Room) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.holds > 0 || s.rooms[r.name] != r {
		return false
	}
	delete(s.rooms, r.name)
	return true
}

// Stats is a snapshot.
func (s *Set) Stats() Stats {
	s.mu.Lock()
	n := len(s.rooms)
	s.mu.Unlock()
	return Stats{
		Rooms: n, Gaps: s.stats.gaps.Load(), Resets: s.stats.resets.Load(),
		Repeated: s.stats.repeated.Load(), Timeouts: s.stats.timeouts.Load(),
		Dropped: map[string]uint64{"busy": s.stats.busy.Load(), "stale_epoch": s.stats.stale.Load(), "no_room": s.stats.unknown.Load()},
	}
}
