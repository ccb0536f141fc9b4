// Package standby keeps copies of rooms that other nodes own, so that this node can go on as their owner (PROTOCOL.md
// section 6). An owner tells nobody what its standby has not acknowledged.
package standby

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
)

// maxRooms bounds the copies of one node.
const maxRooms = 16384

// sweepEvery is how often copies are looked at that nobody needs any more.
const sweepEvery = 10 * time.Second

// Config of a Keeper.
type Config struct {
	Logger *slog.Logger
	// Node is this node's id.
	Node string
}

// Keeper is the copies on this node. Safe for concurrent use.
type Keeper struct {
	cfg       Config
	carrier   exchange.Carrier
	directory exchange.Directory
	changed   *exchange.Inbox[string] // rooms whose placement is another; "": any
	stats     counters

	mu    sync.Mutex // guards the field below
	rooms map[string]*kept
}

// kept is one room. A room that this node has sealed stays known, so that no older owner is followed.
type kept struct {
	mirror  *mirror   // nil: no copy
	sealed  uint64    // epochs below are refused
	missing time.Time // since when the directory has no such room; zero: it has
}

type counters struct{ updates, wholes, stale, refused, full atomic.Uint64 }

// Stats are counts since the start, but for Rooms.
type Stats struct {
	// Rooms is how many copies there are.
	Rooms int
	// Wholes of the Updates brought a whole copy.
	Updates, Wholes uint64
	// Dropped messages, by reason.
	Dropped map[string]uint64
}

// New makes a Keeper; it takes updates from then on. Run lets go of copies that are not needed any more.
func New(cfg Config, carrier exchange.Carrier, directory exchange.Directory) (*Keeper, error) {
	if carrier == nil || directory == nil {
		return nil, errors.New("making a keeper of copies: carrier and directory are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg, carrier: carrier, directory: directory, changed: exchange.NewInbox[string](), rooms: map[string]*kept{}}
	// A change that finds the inbox full is made up for by the next sweep.
	directory.Watch(func(room string) { _ = k.changed.Put(room) })
	return k, nil
}

// Run returns when ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	again := time.NewTicker(sweepEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			k.sweep()
		case <-k.changed.Ready():
			for _, room := range k.changed.Take() {
				if room == "" {
					k.sweep()
				} else {
					k.check(room)
				}
			}
		}
	}
}

// Deliver takes a StandbyUpdate of a room's owner and acknowledges it. An error means that it was dropped. Updates about
// one room come one at a time.
func (k *Keeper) Deliver(from string, m *amphiv1.RoomMessage) error {
	u := m.GetStandbyUpdate()
	if u == nil {
		return errors.New("the message is no standby update")
	}
	placed, err := k.directory.Owner(m.GetRoom())
	switch {
	case err != nil || placed.GetEpoch() < m.GetEpoch():
		// This node learns of the placement later than the owner.
	case placed.GetEpoch() > m.GetEpoch():
		k.stats.stale.Add(1)
		return fmt.Errorf("room %s: update of epoch %d, now %d", m.GetRoom(), m.GetEpoch(), placed.GetEpoch())
	case placed.GetNode() != from || placed.GetStandby() != k.cfg.Node:
		k.stats.refused.Add(1)
		return fmt.Errorf("room %s: this node is not the standby of %s", m.GetRoom(), from)
	}
	ack, err := k.apply(m, u)
	if err != nil {
		return err
	}
	k.stats.updates.Add(1)
	if u.GetWhole() {
		k.stats.wholes.Add(1)
	}
	b, err := exchange.Encode(&amphiv1.RoomMessage{Room: m.GetRoom(), Epoch: m.GetEpoch(),
		Body: &amphiv1.RoomMessage_StandbyAck{StandbyAck: ack}})
	if err == nil {
		err = k.carrier.Send(from, m.GetRoom(), b)
	}
	if err != nil {
		// The owner sends its update again.
		k.cfg.Logger.Debug("acknowledgement not sent", "room", m.GetRoom(), "node", from, "err", err)
	}
	return nil
}

func (k *Keeper) apply(m *amphiv1.RoomMessage, u *amphiv1.StandbyUpdate) (*amphiv1.StandbyAck, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.rooms[m.GetRoom()]
	switch {
	case r == nil && len(k.rooms) >= maxRooms:
		k.stats.full.Add(1)
		return nil, errors.New("too many rooms have their standby here")
	case r == nil:
		r = &kept{}
		k.rooms[m.GetRoom()] = r
	case m.GetEpoch() < r.sealed, r.mirror != nil && m.GetEpoch() < r.mirror.epoch:
		k.stats.stale.Add(1)
		return nil, fmt.Errorf("room %s: update of epoch %d came after the seal", m.GetRoom(), m.GetEpoch())
	}
	if r.mirror != nil && r.mirror.epoch == m.GetEpoch() {
		return r.mirror.update(time.Now(), u), nil
	}
	// The copy of an older owner stays until there is a newer one.
	fresh := &mirror{epoch: m.GetEpoch()}
	ack := fresh.update(time.Now(), u)
	if fresh.number > 0 {
		r.mirror = fresh
	}
	return ack, nil
}

// Seal refuses updates of epochs before the given one from now on, and hands out the copy if there is one of those.
func (k *Keeper) Seal(room string, epoch uint64) *Copy {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.rooms[room]
	if r == nil {
		r = &kept{}
		k.rooms[room] = r
	}
	r.sealed = max(r.sealed, epoch)
	if r.mirror == nil || r.mirror.epoch >= epoch {
		return nil
	}
	c := r.mirror.copy()
	r.mirror = nil
	return c
}

// Holds tells whether there is a copy of an epoch before the given one.
func (k *Keeper) Holds(room string, epoch uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.rooms[room]
	return r != nil && r.mirror != nil && r.mirror.epoch < epoch
}

// Names lists the rooms that there are copies of.
func (k *Keeper) Names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := make([]string, 0, len(k.rooms))
	for name, r := range k.rooms {
		if r.mirror != nil {
			names = append(names, name)
		}
	}
	return names
}

// sweep lets go of what is not needed.
func (k *Keeper) sweep() {
	k.mu.Lock()
	names := make([]string, 0, len(k.rooms))
	for name := range k.rooms {
		names = append(names, name)
	}
	k.mu.Unlock()
	for _, name := range names {
		k.check(name)
	}
}

// check lets go of a room's copy when another node is its standby or there is none: it would miss what is decided from now
// on. What the directory fences by itself needs no seal either. A room that was deleted is forgotten when it has been missing for a
// while: of one that is new this node may learn later than its owner.
func (k *Keeper) check(room string) {
	placed, err := k.directory.Owner(room)
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.rooms[room]
	switch {
	case r == nil:
		return
	case proto.CodeOf(err) == proto.NotFound:
		if r.missing.IsZero() {
			r.missing = time.Now()
		} else if time.Since(r.missing) >= sweepEvery {
			delete(k.rooms, room)
		}
		return
	}
	r.missing = time.Time{}
	if err != nil {
		return
	}
	if r.mirror != nil && r.mirror.epoch <= placed.GetEpoch() && placed.GetStandby() != k.cfg.Node && placed.GetNode() != k.cfg.Node {
		r.mirror = nil
	}
	if r.mirror == nil && placed.GetEpoch() >= r.sealed {
		delete(k.rooms, room)
	}
}

// Stats is a snapshot.
func (k *Keeper) Stats() Stats {
	return Stats{
		Rooms: len(k.Names()), Updates: k.stats.updates.Load(), Wholes: k.stats.wholes.Load(),
		Dropped: map[string]uint64{"stale_epoch": k.stats.stale.Load(), "not_standby": k.stats.refused.Load(), "full": k.stats.full.Load()},
	}
}
