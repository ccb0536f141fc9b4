package owner

import (
	"slices"
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// attach answers with the state, or with what the node misses; a node that misses nothing gets no events, which
// tells it that the owner lives.
func (r *owned) attach(now time.Time, from string, n *node, a *amphiv1.Attach) {
	if err := r.open(now); err != nil {
		r.send(from, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Response{
			Response: &amphiv1.RoomResponse{Result: errorResult(err)}}})
		return
	}
	if a.GetListsPeers() {
		r.claim(now, from, a.GetPeers())
		r.missing(now, from, a.GetPeers())
	}
	if !n.attached {
		n.attached, r.plan.due = true, true
		r.reconnect(now, from)
	}
	missed, ok := r.since(a)
	if !ok {
		r.sendState(from)
	} else {
		r.sendMissed(from, a.GetHaveSeq(), missed)
	}
	r.sendPlan(from)
}

func (r *owned) sendState(to string) {
	for i := range r.mirror.held {
		if h := &r.mirror.held[i]; h.to == to && h.session == r.session {
			return // it is under way, with the events after it
		}
	}
	// The answers come with it: a replica that lost them would have a new owner do twice what was asked.
	m := &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_State{State: r.snapshot()}, Answers: r.answered(0)}
	if b := r.encode(m); b != nil {
		r.say(held{to: to, msg: b, session: r.session})
	}
}

// answered lists the answers to requests that may have caused events after a number. Nobody but this node needs to know as
// long as there is no other.
func (r *owned) answered(after uint64) (list []*amphiv1.StandbyAnswer) {
	if !r.shared() {
		return nil
	}
	for name, n := range r.nodes {
		for _, a := range n.answers.order {
			if resp := n.answers.byID[a.id].resp; resp.GetSeq() > after && resp.GetResult().GetError() == nil {
				list = append(list, &amphiv1.StandbyAnswer{Node: name, Response: resp})
			}
		}
	}
	return list
}

// shared tells whether other nodes follow the room.
func (r *owned) shared() bool {
	return len(r.nodes) > 1 || len(r.nodes) == 1 && r.nodes[r.owner.cfg.Node] == nil
}

// snapshot is the state with the epoch of its last event.
func (r *owned) snapshot() *amphiv1.RoomState {
	st := r.state.Snapshot()
	st.SeqEpoch = r.epochOf(st.GetSeq())
	return st
}

// epochOf answers in which epoch an event was decided; 0: that was too long ago.
func (r *owned) epochOf(seq uint64) uint64 {
	for i := len(r.epochs) - 1; i >= 0; i-- {
		if r.epochs[i].GetSeq() <= seq {
			return r.epochs[i].GetEpoch()
		}
	}
	return 0
}

// sendMissed sends events, each epoch's on its own. Without any the answer holds nothing that the standby has to know.
func (r *owned) sendMissed(to string, after uint64, events []*amphiv1.Event) {
	if len(events) == 0 {
		r.send(to, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Events{Events: &amphiv1.RoomEvents{
			PrevEpoch: r.epochOf(after), Mode: r.mode()}}})
		return
	}
	answers := r.answered(after)
	for len(events) > 0 {
		epoch := r.epochOf(events[0].GetSeq())
		n := slices.IndexFunc(events, func(ev *amphiv1.Event) bool { return r.epochOf(ev.GetSeq()) != epoch })
		if n < 0 {
			n = len(events)
		}
		b := r.encode(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Events{Events: &amphiv1.RoomEvents{
			Events: events[:n], PrevEpoch: r.epochOf(events[0].GetSeq() - 1), Epoch: epoch, Mode: r.mode(), Answers: answers}}})
		if b != nil {
			r.say(held{to: to, msg: b})
		}
		events, answers = events[n:], nil
	}
}

// mode is how far this owner can decide.
func (r *owned) mode() amphiv1.RoomMode {
	switch {
	case !r.leased:
		return amphiv1.RoomMode_ROOM_MODE_FROZEN
	case r.mirror.node == "":
		return amphiv1.RoomMode_ROOM_MODE_SOLO
	}
	return amphiv1.RoomMode_ROOM_MODE_NORMAL
}

// since lists the events after those that a node has, if it has the same ones and the tail reaches back that far.
func (r *owned) since(a *amphiv1.Attach) ([]*amphiv1.Event, bool) {
	seq := a.GetHaveSeq()
	missing := r.seq - seq
	if a.GetSessionId() != r.session || seq > r.seq || missing > uint64(len(r.tail)) || r.epochOf(seq) != a.GetHaveEpoch() {
		return nil, false
	}
	return r.tail[uint64(len(r.tail))-missing:], true
}
