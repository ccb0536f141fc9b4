package signal

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/owner"
)

// records is the registry as the rest of this package asks it, and the queue of what sessions leave behind.
type records struct {
	registry Registry
	log      *slog.Logger
	now      func() time.Time
	lost     atomic.Uint64
	// turn is taken while a room's record is read, changed and written, so that no change undoes another.
	turn  chan struct{}
	lanes lanes
	// syncs has an entry for each catchUp under way.
	syncs chan struct{}
}

// behind is a Registry that other nodes may be ahead of. Sync returns when it knows all that was answered anywhere before.
type behind interface{ Sync(context.Context) error }

const (
	// maxSyncs bounds how many wait for the registry at once; others are answered by what it knows already.
	maxSyncs = 16
	// syncWait bounds how long one waits: the cluster may have no leader.
	syncWait = 2 * time.Second
)

func newRecords(r Registry, log *slog.Logger, now func() time.Time) *records {
	return &records{registry: r, log: log, now: now, turn: make(chan struct{}, 1), lanes: newLanes(), syncs: make(chan struct{}, maxSyncs)}
}

// catchUp has the registry know all that was answered anywhere before; false: it may know no more than it did.
func (r *records) catchUp(ctx context.Context) bool {
	b, ok := r.registry.(behind)
	if !ok {
		return false
	}
	select {
	case r.syncs <- struct{}{}:
		defer func() { <-r.syncs }()
	default:
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, syncWait)
	defer cancel()
	return b.Sync(ctx) == nil
}

// joinable is enabled for who comes with a token or code: what it names may have been made at another node just now.
func (r *records) joinable(ctx context.Context, name string) (*amphiv1.Room, error) {
	record, err := r.enabled(name)
	if proto.CodeOf(err) == proto.NotFound && r.catchUp(ctx) {
		return r.enabled(name)
	}
	return record, err
}

// room finds a room's record, without regard to case.
func (r *records) room(name string) (*amphiv1.Room, error) {
	var room *amphiv1.Room
	r.registry.Read(func(reg *amphiv1.Registry) { room = reg.GetRooms()[key(name)] })
	if room == nil {
		return nil, proto.Errorf(proto.NotFound, "there is no room of this name")
	}
	return room, nil
}

// enabled finds the record of a room that may be joined.
func (r *records) enabled(name string) (*amphiv1.Room, error) {
	record, err := r.room(name)
	if err == nil && record.GetDisabled() {
		return nil, proto.Errorf(proto.RoomDisabled, "the room is disabled")
	}
	return record, err
}

func (r *records) template(name string) (*amphiv1.Template, error) {
	var t *amphiv1.Template
	r.registry.Read(func(reg *amphiv1.Registry) { t = reg.GetTemplates()[name] })
	if t == nil {
		return nil, proto.Errorf(proto.NotFound, "there is no template of this name")
	}
	return t, nil
}

// Key implements auth.Keys.
func (r *records) Key(id string) (*amphiv1.ApiKey, bool) {
	var k *amphiv1.ApiKey
	r.registry.Read(func(reg *amphiv1.Registry) { k = reg.GetKeys()[id] })
	return k, k != nil
}

func (r *records) code(code string) *amphiv1.RoomCode {
	var c *amphiv1.RoomCode
	r.registry.Read(func(reg *amphiv1.Registry) { c = reg.GetCodes()[code] })
	return c
}

func (r *records) secret() []byte {
	var secret []byte
	r.registry.Read(func(reg *amphiv1.Registry) { secret = reg.GetNodeSecret() })
	return secret
}

// Open implements owner.Records.
func (r *records) Open(name string) (owner.Start, error) {
	room, err := r.room(name)
	if err != nil {
		return owner.Start{}, err
	}
	template, err := r.template(room.GetTemplate())
	if err != nil {
		return owner.Start{}, err
	}
	start := owner.Start{Room: room, Template: template, Record: r.session(name)}
	r.registry.Read(func(reg *amphiv1.Registry) { start.Durable = reg.GetStore()[key(name)].GetEntries() })
	return start, nil
}

// Running implements owner.Records.
func (r *records) Running(name string) bool { return r.session(name) != nil }

// session is the record of the room's running session; nil: there is none.
func (r *records) session(name string) *amphiv1.Session {
	var found *amphiv1.Session
	r.registry.Read(func(reg *amphiv1.Registry) {
		for _, s := range reg.GetSessions() {
			if s.GetEndedMs() == 0 && key(s.GetRoom()) == key(name) {
				found = s
			}
		}
	})
	return found
}

// running counts the peers of each room with a running session, as of its last record.
func (r *records) running() map[string]int {
	rooms := map[string]int{}
	r.registry.Read(func(reg *amphiv1.Registry) {
		for _, s := range reg.GetSessions() {
			if s.GetEndedMs() != 0 {
				continue
			}
			n := 0
			for _, a := range s.GetAttendance() {
				if a.GetLeftMs() == 0 {
					n++
				}
			}
			rooms[key(s.GetRoom())] = n
		}
	})
	return rooms
}

// Keep implements owner.Records.
func (r *records) Keep(cmd *amphiv1.RegistryCommand) { r.Commit(cmd, nil) }

// Commit implements owner.Records.
func (r *records) Commit(cmd *amphiv1.RegistryCommand, done func(error)) {
	cmd.Id = proto.NewID(proto.RequestPrefix)
	if cmd.TimeMs == 0 {
		cmd.TimeMs = r.now().UnixMilli()
	}
	lane := "other"
	switch b := cmd.GetBody().(type) {
	case *amphiv1.RegistryCommand_PutStore:
		lane = "store " + key(b.PutStore.GetRoom()) + " " + b.PutStore.GetEntry().GetKey()
	case *amphiv1.RegistryCommand_PutSession:
		lane = "session " + b.PutSession.GetId()
	case *amphiv1.RegistryCommand_PutRoom:
		lane = "room"
	}
	if !r.lanes.put(lane, kept{cmd, done}) {
		r.lost.Add(1)
		r.log.Error("durable change lost: the registry is too slow")
		if done != nil {
			done(proto.Errorf(proto.Unavailable, "the registry is too slow"))
		}
	}
}

// run writes what is kept until ctx ends.
func (r *records) run(ctx context.Context) {
	r.lanes.run(ctx, r.write)
}

// flush writes what was kept while everything ended.
func (r *records) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r.lanes.flush(ctx, r.write)
}

// write tries again while the registry has no quorum; commands may be repeated. That a room is to go on without its
// standby is not worth repeating: the owner asks again while it is.
func (r *records) write(ctx context.Context, k kept) {
	var err error
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err = r.propose(ctx, k.cmd)
		if err == nil || !proto.CodeOf(err).Retryable() || ctx.Err() != nil || k.cmd.GetPlaceRoom() != nil {
			break
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	if err != nil && k.cmd.GetPlaceRoom() == nil {
		r.lost.Add(1)
		r.log.Error("durable change lost", "err", err)
	}
	if k.done != nil {
		k.done(err)
	}
}

// propose writes a command once. A session knows of its room's record only what it changes: that goes into the record
// as it is, unless the room is gone.
func (r *records) propose(ctx context.Context, cmd *amphiv1.RegistryCommand) error {
	changed := cmd.GetPutRoom()
	if changed == nil {
		return r.registry.Propose(ctx, cmd)
	}
	err := r.change(ctx, changed.GetName(), cmd, func(room *amphiv1.Room) error {
		room.Locked, room.Metadata = changed.GetLocked(), changed.GetMetadata()
		return nil
	})
	if proto.CodeOf(err) == proto.NotFound {
		return nil
	}
	return err
}

// change puts a room's record as f changes it, with the id and time of cmd. On this node one change follows the other.
func (r *records) change(ctx context.Context, name string, cmd *amphiv1.RegistryCommand, f func(*amphiv1.Room) error) error {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return proto.Errorf(proto.Timeout, "the room's record is being changed")
	}
	defer func() { <-r.turn }()
	old, err := r.room(name)
	if err != nil {
		return err
	}
	changed := protobuf.Clone(old).(*amphiv1.Room)
	if err := f(changed); err != nil {
		return err
	}
	return r.registry.Propose(ctx, &amphiv1.RegistryCommand{Id: cmd.GetId(), TimeMs: cmd.GetTimeMs(),
		Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: changed}})
}
