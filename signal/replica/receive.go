package replica

import (
	"errors"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

// receive takes one message of an owner; those of older epochs are dropped.
func (r *Room) receive(from string, m *amphiv1.RoomMessage) {
	if m.GetEpoch() < r.epoch {
		r.set.stats.stale.Add(1)
		return
	}
	r.owner, r.epoch = from, m.GetEpoch()
	switch b := m.GetBody().(type) {
	case *amphiv1.RoomMessage_State:
		r.reset(m.GetEpoch(), b.State)
	case *amphiv1.RoomMessage_Events:
		r.apply(b.Events.GetEvents())
	case *amphiv1.RoomMessage_Response:
		r.answer(b.Response)
	case *amphiv1.RoomMessage_PeerMoved:
		r.follower.Moved(b.PeerMoved.GetPeerId())
	}
}

// reset takes the owner's state in place of what is known, unless that is as new. Another epoch's owner may know
// less than the one before: then its word counts.
func (r *Room) reset(epoch uint64, state *amphiv1.RoomState) {
	if r.rep != nil && r.rep.SessionID() == state.GetSessionId() {
		if have := r.rep.Seq(); state.GetSeq() == have || state.GetSeq() < have && epoch == r.current {
			r.current = epoch
			return
		}
	}
	r.current = epoch
	other := r.rep != nil && r.rep.SessionID() != state.GetSessionId()
	r.set.stats.resets.Add(1)
	r.rep = room.NewReplica(state)
	r.follower.Reset(r.rep)
	for _, w := range r.waiters {
		w <- nil
	}
	r.waiters = nil
	now := time.Now()
	for _, q := range r.pending {
		if q.sent.IsZero() {
			r.sendRequest(now, q)
		}
	}
	r.release(other)
}

func (r *Room) apply(events []*amphiv1.Event) {
	if r.rep == nil {
		return
	}
	for _, ev := range events {
		if ev.GetSeq() <= r.rep.Seq() {
			continue
		}
		if err := r.rep.Apply(ev); err != nil {
			if !errors.Is(err, room.ErrGap) {
				r.log.Error("event not applied", "seq", ev.GetSeq(), "err", err)
			}
			r.missing()
			return
		}
		r.follower.Applied(r.rep, ev)
	}
	r.release(false)
}

// missing asks for the events that others have shown to be missing: once, then as often as for anything pending.
func (r *Room) missing() {
	r.set.stats.gaps.Add(1)
	if now := time.Now(); now.Sub(r.attached) >= hurry {
		r.attach(now)
	}
}

// answer hands a result to who asked, after the events that it caused.
func (r *Room) answer(resp *amphiv1.RoomResponse) {
	if resp.GetId() == 0 {
		r.refuse(proto.FromWire(resp.GetResult().GetError()))
		return
	}
	q := r.pending[resp.GetId()]
	if q == nil {
		return
	}
	delete(r.pending, resp.GetId())
	if r.rep != nil && r.rep.Seq() < resp.GetSeq() {
		r.early = append(r.early, early{resp.GetSeq(), resp.GetResult(), q.done})
		r.missing()
		return
	}
	q.done(resp.GetResult())
}

// release hands out early answers whose events have come; all of them, when another session has begun.
func (r *Room) release(all bool) {
	kept := r.early[:0]
	ready := []early(nil)
	for _, e := range r.early {
		if all || e.seq <= r.rep.Seq() {
			ready = append(ready, e)
		} else {
			kept = append(kept, e)
		}
	}
	r.early = kept
	for _, e := range ready {
		e.done(e.result)
	}
}

// refuse tells everybody who waits that the owner does not take this room.
func (r *Room) refuse(err error) {
	if err == nil {
		return
	}
	for _, w := range r.waiters {
		w <- err
	}
	r.waiters = nil
	pending := r.pending
	r.pending = map[uint64]*request{}
	for _, q := range pending {
		q.done(errorResult(err))
	}
}
