package replica

import (
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

// receive takes one message of an owner; those of older epochs, and of others than the owner of this one, are dropped.
func (r *Room) receive(from string, m *amphiv1.RoomMessage) {
	if m.GetEpoch() < r.epoch || m.GetEpoch() == r.epoch && r.owner != "" && from != r.owner {
		r.set.stats.stale.Add(1)
		return
	}
	now := time.Now()
	if m.GetEpoch() > r.epoch {
		r.owner, r.epoch, r.listed = from, m.GetEpoch(), time.Time{}
	}
	r.heard = now
	first := r.answered != r.epoch
	r.answered, r.missed = r.epoch, time.Time{}
	switch b := m.GetBody().(type) {
	case *amphiv1.RoomMessage_State:
		r.reset(m.GetEpoch(), b.State)
		r.remember(m.GetAnswers())
	case *amphiv1.RoomMessage_Events:
		r.apply(m.GetEpoch(), b.Events)
	case *amphiv1.RoomMessage_Response:
		r.answer(b.Response)
	case *amphiv1.RoomMessage_PeerMoved:
		r.follower.Moved(b.PeerMoved.GetPeerId())
	case *amphiv1.RoomMessage_RelayPlan:
		r.replan(m.GetEpoch(), b.RelayPlan)
	case *amphiv1.RoomMessage_StateWanted:
		r.hand()
		r.answered = 0 // it has yet to begin
		return
	}
	if r.rep != nil && (first || m.GetState() != nil) {
		// What waited for an owner, and what the one before was asked and this one may not have heard.
		for _, q := range r.inOrder() {
			if first || q.sent.IsZero() {
				r.sendRequest(now, q)
			}
		}
	}
	if before := r.mode; first || m.GetEvents() != nil {
		r.judge(now)
		if r.mode != before {
			r.follower.Tick(r.rep, now)
		}
	}
}

// hand gives a new owner what this node knows of the room.
func (r *Room) hand() {
	if r.rep == nil {
		return
	}
	st := r.rep.Snapshot()
	st.SeqEpoch = r.seqEpoch
	known := &amphiv1.ReplicaState{State: st}
	for _, a := range r.remembered {
		known.Answers = append(known.Answers, a.answer)
	}
	r.send(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_ReplicaState{ReplicaState: known}})
}

// remembered is what a request of some node was answered.
type remembered struct {
	answer *amphiv1.StandbyAnswer
	at     time.Time
}

// rememberFor is how long answers are kept, as at the owner.
const rememberFor = 25 * time.Second

// remember keeps the answers to requests of the whole room, for a new owner.
func (r *Room) remember(answers []*amphiv1.StandbyAnswer) {
	if len(answers) == 0 {
		return
	}
	now := time.Now()
	old := 0
	for old < len(r.remembered) && now.Sub(r.remembered[old].at) > rememberFor {
		old++
	}
	r.remembered = append(r.remembered[:0], r.remembered[old:]...)
	for _, a := range answers {
		r.remembered = append(r.remembered, remembered{a, now})
	}
}

// replan takes a newer plan.
func (r *Room) replan(epoch uint64, p *amphiv1.RelayPlan) {
	if epoch == r.planned && p.GetVersion() <= r.plan.GetVersion() {
		return
	}
	r.plan, r.planned = p, epoch
	r.follower.Tick(r.rep, time.Now())
}

// reset takes the owner's state in place of what is known, unless that is as new. A new owner sends its state only where
// the replica does not continue: then its word counts, even if it knows less than the one before.
func (r *Room) reset(epoch uint64, state *amphiv1.RoomState) {
	if r.rep != nil && r.rep.SessionID() == state.GetSessionId() {
		have := r.rep.Seq()
		if state.GetSeq() == have && state.GetSeqEpoch() == r.seqEpoch || state.GetSeq() <= have && epoch == r.current {
			r.current = epoch
			return
		}
	}
	r.current, r.seqEpoch = epoch, state.GetSeqEpoch()
	other := r.rep != nil && r.rep.SessionID() != state.GetSessionId()
	r.remembered = nil
	r.set.stats.resets.Add(1)
	r.rep = room.NewReplica(state)
	r.follower.Reset(r.rep)
	for _, w := range r.waiters {
		w <- nil
	}
	r.waiters = nil
	r.release(other)
}

// apply takes events that continue the replica. Events of a new owner do so only if the one before them is the replica's
// last, in number and epoch.
func (r *Room) apply(epoch uint64, b *amphiv1.RoomEvents) {
	r.said = b.GetMode()
	if r.rep == nil {
		return
	}
	decided := b.GetEpoch()
	if decided == 0 {
		decided = epoch
	}
	events := b.GetEvents()
	for len(events) > 0 && events[0].GetSeq() <= r.rep.Seq() {
		events = events[1:]
	}
	whole := len(events) == len(b.GetEvents())
	switch {
	case len(b.GetEvents()) == 0:
		if b.GetPrevEpoch() == r.seqEpoch {
			r.current = epoch
			r.remember(b.GetAnswers())
		}
		return
	case len(events) == 0:
		return
	case events[0].GetSeq() != r.rep.Seq()+1, whole && b.GetPrevEpoch() != r.seqEpoch, !whole && decided != r.seqEpoch:
		r.missing()
		return
	}
	r.current = epoch
	r.remember(b.GetAnswers())
	for _, ev := range events {
		if err := r.rep.Apply(ev); err != nil {
			r.log.Error("event not applied", "seq", ev.GetSeq(), "err", err)
			r.missing()
			return
		}
		r.seqEpoch = decided
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
