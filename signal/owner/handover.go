package owner

import (
	"context"
	"time"

	"github.com/amphi-sfu/amphi/proto"
)

// handover is a room that waits to be another node's: it decides nothing new until the directory has moved it, or until that
// has failed.
type handover struct {
	ready   chan<- error // nil: nobody waits
	waiting []inbound
}

func (h *handover) end(err error) {
	if h.ready != nil {
		h.ready <- err
		h.ready = nil
	}
}

var errMoved = proto.Errorf(proto.NotFound, "this node does not own the room")

// Handover gives a room to its standby without losing or delaying more than it must: it stops deciding, waits until the
// standby knows everything, and calls move, which has the directory name the standby. Requests that come meanwhile are
// decided there; if move fails, here. An error has a code: "unavailable" where there is no standby.
func (o *Owner) Handover(ctx context.Context, room string, move func(context.Context) error) error {
	o.mu.Lock()
	r := o.rooms[room]
	o.mu.Unlock()
	if r == nil {
		return errMoved
	}
	ready := make(chan error, 1)
	if !r.inbox.Put(inbound{do: func(time.Time) { r.handingOver(ready) }}) {
		return proto.Errorf(proto.Unavailable, "the room is too busy")
	}
	var err error
	select {
	case err = <-ready:
	case <-r.over:
		return errMoved
	case <-ctx.Done():
		err = proto.Errorf(proto.Timeout, "the standby does not follow")
	}
	if err == nil {
		err = move(ctx)
	}
	if err != nil {
		// A full inbox is emptied: this comes through in the end, or the room is over.
		o.insist(r, inbound{do: r.handingBack})
	}
	return err
}

// handingOver stops deciding until the room is another node's.
func (r *owned) handingOver(ready chan<- error) {
	switch {
	case r.handing:
		ready <- proto.Errorf(proto.Conflict, "the room is being handed over")
	case r.mirror.node == "" || r.recovery != nil:
		ready <- proto.Errorf(proto.Unavailable, "the room has no standby")
	default:
		r.handing, r.handover = true, handover{ready: ready}
	}
}

// handOver says that the standby knows everything, when it does.
func (r *owned) handOver() {
	if m := &r.mirror; r.handing && m.node != "" && !m.dirty() && len(m.unacked) == 0 && len(m.held) == 0 && len(r.writes) == 0 {
		r.handover.end(nil)
	}
}

// handingBack goes on here.
func (r *owned) handingBack(now time.Time) {
	waiting := r.handover.waiting
	r.handing, r.handover = false, handover{}
	for _, in := range waiting {
		r.handle(now, in)
	}
}
