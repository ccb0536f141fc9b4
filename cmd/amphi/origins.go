package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// seenEnded is for how long players are to see that a stream has ended, rather than that there is none: as long as programs linger.
const seenEnded = time.Minute

// originRecords are what the registry has of the origins of streams.
type originRecords struct {
	registry interface {
		Read(f func(*amphiv1.Registry))
		Propose(ctx context.Context, cmd *amphiv1.RegistryCommand) error
	}
}

// of is a stream's; nil: there is none.
func (r originRecords) of(room, stream string) *amphiv1.StreamOrigin {
	o, _ := r.next(room, stream)
	return o
}

// next is a stream's, and the epoch of its next program.
func (r originRecords) next(room, stream string) (before *amphiv1.StreamOrigin, epoch uint64) {
	r.registry.Read(func(reg *amphiv1.Registry) {
		before = reg.GetOrigins()[registry.OriginKey(room, stream)]
		epoch = reg.GetOriginFloor() + 1
	})
	if before != nil {
		epoch = before.GetEpoch() + 1
	}
	return before, epoch
}

// in are those of a room.
func (r originRecords) in(room string) (list []*amphiv1.StreamOrigin) {
	r.registry.Read(func(reg *amphiv1.Registry) { list = registry.RoomOrigins(reg, room) })
	return list
}

// passed says that err only tells that the registry went on since the first program of a stream was given its epoch.
func (r originRecords) passed(err error, room, stream string, epoch uint64) bool {
	before, now := r.next(room, stream)
	switch proto.CodeOf(err) {
	case proto.Conflict:
		return before == nil && now != epoch
	case proto.LimitExceeded:
		return before == nil
	}
	return false
}

// put writes a stream's; first: there is none yet.
func (r originRecords) put(ctx context.Context, o *amphiv1.StreamOrigin, first bool) error {
	return r.propose(ctx, &amphiv1.RegistryCommand{OnlyNew: first, Body: &amphiv1.RegistryCommand_PutOrigin{PutOrigin: o}})
}

// forget drops a stream's, if it is still this one.
func (r originRecords) forget(ctx context.Context, o *amphiv1.StreamOrigin) error {
	return r.propose(ctx, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_ForgetOrigin{
		ForgetOrigin: &amphiv1.ForgetOrigin{Room: o.GetRoom(), Stream: o.GetStream(), Epoch: o.GetEpoch()}}})
}

func (r originRecords) propose(ctx context.Context, cmd *amphiv1.RegistryCommand) error {
	cmd.Id, cmd.TimeMs = proto.NewID(proto.RequestPrefix), time.Now().UnixMilli()
	return r.registry.Propose(ctx, cmd)
}

// first starts a stream that the registry has no record of.
func (d *director) first(ctx context.Context, x *direction, not string, epoch uint64) error {
	key := registry.RoomKey(x.room)
	d.mu.Lock()
	d.firsts[key]++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.firsts[key]--; d.firsts[key] == 0 {
			delete(d.firsts, key)
		}
	}()
	if err := d.makeRoom(ctx, x.room); err != nil {
		return err
	}
	return d.start(ctx, x, not, false, nil, epoch)
}

// fits says that the registry has place for all streams of the room that are about to have a record.
func (d *director) fits(room string) bool {
	n := len(d.records.in(room))
	d.mu.Lock()
	defer d.mu.Unlock()
	return n+d.firsts[registry.RoomKey(room)] <= registry.MaxOrigins
}

// makeRoom has the registry forget streams of a room that have ended, while there is no place for those that begin: first those
// whose end nobody looks at any more.
func (d *director) makeRoom(ctx context.Context, room string) error {
	if d.fits(room) {
		return nil
	}
	for _, o := range d.unwanted(room) {
		if d.runs(ctx, o) {
			continue
		}
		// Another stream that begins may have been quicker.
		if err := d.records.forget(ctx, o); err != nil && proto.CodeOf(err) != proto.NotFound {
			d.log.Warn("a stream that has ended is not forgotten", "room", room, "stream", o.GetStream(), "err", err)
		}
		if d.fits(room) {
			return nil
		}
	}
	return proto.Errorf(proto.LimitExceeded, "the room has %d streams already, and none of them is known to have ended", registry.MaxOrigins)
}

// unwanted are the streams of a room that are not to run: those that this node did not stop lately, in the order of their starts, then the
// others in that of their ends.
func (d *director) unwanted(room string) []*amphiv1.StreamOrigin {
	list := d.records.in(room)
	d.mu.Lock()
	defer d.mu.Unlock()
	key := func(o *amphiv1.StreamOrigin) string { return registry.OriginKey(o.GetRoom(), o.GetStream()) }
	list = slices.DeleteFunc(list, func(o *amphiv1.StreamOrigin) bool { return d.made[key(o)] != nil })
	slices.SortStableFunc(list, func(a, b *amphiv1.StreamOrigin) int {
		return cmp.Or(d.ended[key(a)].Compare(d.ended[key(b)]), cmp.Compare(a.GetStartedMs(), b.GetStartedMs()))
	})
	return list
}

// endsLocked notes the end of a stream, and forgets those whose end nobody looks at any more.
func (d *director) endsLocked(key string, now time.Time) {
	maps.DeleteFunc(d.ended, func(_ string, at time.Time) bool { return now.Sub(at) > seenEnded })
	d.ended[key] = now
}

// runs asks the origin of a stream; one that is gone runs nothing, one that does not answer may.
func (d *director) runs(ctx context.Context, o *amphiv1.StreamOrigin) bool {
	alive := func(m member) bool { return m.id == o.GetNode() && m.alive }
	if o.GetNode() != d.node && !slices.ContainsFunc(d.members(), alive) {
		return false
	}
	_, err := d.try(ctx, o.GetNode(), &amphiv1.OriginOrder{
		Action: amphiv1.OriginOrder_ACTION_KEEP, Room: o.GetRoom(), Stream: &amphiv1.Stream{Name: o.GetStream()}, Epoch: o.GetEpoch()})
	return proto.CodeOf(err) != proto.NotFound
}
