package owner

import (
	"cmp"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

// request executes a command once, and answers after its events.
func (r *owned) request(now time.Time, from string, n *node, q *amphiv1.RoomRequest) {
	known, old := n.answers.find(q.GetId())
	switch {
	case known != nil && (known.waiting || r.writes[q.GetCommand().GetSetStore().GetKey()] > 0):
		// It is answered when the value is durable, or when it is asked for again after that.
		r.owner.stats.repeated.Add(1)
	case known != nil:
		r.owner.stats.repeated.Add(1)
		r.answer(from, known.resp, true)
	case old:
		r.answer(from, &amphiv1.RoomResponse{Id: q.GetId(), Seq: r.seq, Result: errorResult(
			proto.Errorf(proto.Timeout, "too late to tell whether this was done"))}, false)
	case r.handing:
		r.handover.waiting = append(r.handover.waiting, inbound{from: from, msg: &amphiv1.RoomMessage{Epoch: r.epoch,
			Body: &amphiv1.RoomMessage_Request{Request: q}}})
	default:
		r.owner.stats.requests.Add(1)
		r.decide(now, from, n, q)
	}
	r.peers.Store(int64(len(r.seats)))
	r.endIfOver()
}

// decide answers a request that was not made before.
func (r *owned) decide(now time.Time, from string, n *node, q *amphiv1.RoomRequest) {
	if err := r.mayDecide(q.GetCommand()); err != nil {
		r.owner.stats.waiting.Add(1)
		resp := &amphiv1.RoomResponse{Id: q.GetId(), Result: errorResult(err)}
		n.answers.add(now, resp)
		r.send(from, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Response{Response: resp}})
		return
	}
	firm := !provisional(q.GetCommand())
	if firm && r.elsewhere(now, from, q.GetPeerId()) {
		resp := &amphiv1.RoomResponse{Id: q.GetId(), Result: errorResult(proto.Errorf(proto.Replaced, "another connection resumed this peer"))}
		n.answers.add(now, resp)
		r.answer(from, resp, false)
		return
	}
	result, events := r.execute(now, from, q)
	resp := &amphiv1.RoomResponse{Id: q.GetId(), Result: result, Seq: r.seq}
	if len(events) > 0 {
		resp.Seq = events[len(events)-1].GetSeq()
	}
	a := n.answers.add(now, resp)
	if u := r.mirror.added(); u != nil {
		u.Answers = append(u.Answers, &amphiv1.StandbyAnswer{Node: from, Response: resp})
	}
	a.waiting = durable(events)
	r.publish(events, from, resp)
	if !a.waiting {
		r.answer(from, resp, firm)
	}
}

// elsewhere tells whether another node has had a peer's client for so long that what this one says for it is from before: it was
// cut off, and would undo what the peer has done since. Only moves that were decided here count: where clients are said to be
// after a takeover may be from before, too.
func (r *owned) elsewhere(now time.Time, from, peer string) bool {
	s, seated := r.seats[peer]
	return seated && s.moved && s.connected && s.node != from && now.Sub(s.since) > overlap
}

// answer says what a request came to.
func (r *owned) answer(to string, resp *amphiv1.RoomResponse, firm bool) {
	if b := r.encode(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Response{Response: resp}}); b != nil {
		r.say(held{to: to, msg: b, firm: firm})
	}
}

// mayDecide refuses what has to wait now.
func (r *owned) mayDecide(cmd *amphiv1.Command) error {
	switch {
	case r.mirror.full():
		return proto.Errorf(proto.Unavailable, "the room waits for its standby")
	case !r.leased && !provisional(cmd):
		return proto.Errorf(proto.Unavailable, "the room is frozen: its owner cannot reach the cluster")
	}
	return nil
}

// provisional tells the commands that go on without a lease: who comes and goes, and what they publish. Should there be
// another owner by now, its word counts in the end.
func provisional(cmd *amphiv1.Command) bool {
	switch cmd.GetBody().(type) {
	case *amphiv1.Command_Join, *amphiv1.Command_Leave, *amphiv1.Command_PeerConnection, *amphiv1.Command_StreamReport, *amphiv1.Command_OutputReport,
		*amphiv1.Command_Publish, *amphiv1.Command_Unpublish, *amphiv1.Command_UpdateTrack, *amphiv1.Command_ListPeers:
		return true
	}
	return false
}

// durable tells whether one of the events has to reach the registry before it counts as done.
func durable(events []*amphiv1.Event) bool {
	for _, ev := range events {
		if ev.GetStoreChanged().GetEntry().GetDurable() {
			return true
		}
	}
	return false
}

func errorResult(err error) *amphiv1.Result {
	return &amphiv1.Result{Body: &amphiv1.Result_Error{Error: proto.Wire(err)}}
}

func (r *owned) execute(now time.Time, from string, q *amphiv1.RoomRequest) (*amphiv1.Result, []*amphiv1.Event) {
	if err := r.open(now); err != nil {
		return errorResult(err), nil
	}
	if q.GetCommand().GetOutputReport() != nil && from != r.owner.cfg.Node {
		// The owner's node has the outputs made, and hears of them: this is from the one before, which has let go of them.
		return errorResult(proto.Errorf(proto.NotFound, "this node does not make the room's outputs")), nil
	}
	actor := room.Actor{PeerID: q.GetPeerId(), Node: from, Management: q.GetPeerId() == "" && asManagement(q.GetCommand())}
	actor.NoRoom = r.admit(q.GetCommand().GetControlStream())
	result, events := r.state.Apply(now, actor, q.GetCommand())
	r.seat(now, from, result, q.GetCommand().GetPeerConnection())
	if cue := result.GetStreamCue().GetCue(); cue != nil && r.owner.deps.Streams != nil {
		r.owner.deps.Streams.Cue(r.name, cue)
	}
	return result, events
}

// admit asks whether there is room for the stream that a command starts.
func (r *owned) admit(w *amphiv1.ControlStream) error {
	a, ok := r.owner.deps.Streams.(Admitter)
	if !ok || w.GetAction() != amphiv1.ControlStream_ACTION_START {
		return nil
	}
	for _, s := range r.template.GetStreams() {
		if s.GetName() == cmp.Or(w.GetName(), room.DefaultStream) {
			return a.Admit(r.name, s)
		}
	}
	return nil
}

// asManagement tells commands of the management API from those that nodes give on their own account: a request
// that names no peer comes from a node, which has checked the management token.
func asManagement(cmd *amphiv1.Command) bool {
	switch cmd.GetBody().(type) {
	case *amphiv1.Command_Join, *amphiv1.Command_PeerConnection, *amphiv1.Command_StreamReport, *amphiv1.Command_OutputReport:
		return false
	}
	return true
}

// seat notes which node has a peer's client, and tells the one that had it before.
func (r *owned) seat(now time.Time, from string, result *amphiv1.Result, conn *amphiv1.PeerConnection) {
	id := conn.GetPeerId()
	switch {
	case result.GetError() != nil:
	case conn == nil:
		if peer := result.GetJoin().GetPeer(); peer != nil {
			r.place(peer.GetId(), seat{node: from, connected: true, since: now})
		}
	case conn.GetConnected():
		before := r.seats[id].node
		r.place(id, seat{from, true, now, before != "" && (before != from || r.seats[id].moved)})
		if before != "" && before != from {
			r.plan.due = true
			if b := r.encode(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_PeerMoved{PeerMoved: &amphiv1.PeerMoved{PeerId: id}}}); b != nil {
				r.say(held{to: before, msg: b})
			}
		}
	case r.seats[id].node == from:
		r.place(id, seat{node: from, since: now})
	}
}

// place notes a peer's seat, for the standby too; the zero seat: it has no place any more.
func (r *owned) place(id string, s seat) {
	if u := r.mirror.added(); u != nil {
		u.Seats = append(u.Seats, &amphiv1.StandbySeat{PeerId: id, Node: s.node, Connected: s.connected})
	}
	if s.node == "" {
		delete(r.seats, id)
	} else {
		r.seats[id] = s
	}
}

// connect and disconnect tell the state what has become of a peer's client.
func (r *owned) connect(now time.Time, from, id string) {
	r.report(now, from, &amphiv1.PeerConnection{PeerId: id, Connected: true})
}

func (r *owned) disconnect(now time.Time, from, id string) {
	r.report(now, from, &amphiv1.PeerConnection{PeerId: id})
}

func (r *owned) report(now time.Time, from string, pc *amphiv1.PeerConnection) {
	cmd := &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{PeerConnection: pc}}
	_, events := r.state.Apply(now, room.Actor{Node: from}, cmd)
	r.publish(events, "", nil)
}

// commit has a durable value written. The request of a node that caused it, if any, is answered afterwards.
func (r *owned) commit(p *amphiv1.PutStore, from string, id uint64) {
	p.Room = r.name
	key := p.GetEntry().GetKey()
	r.writes[key]++
	cmd := &amphiv1.RegistryCommand{TimeMs: p.GetEntry().GetUpdatedMs(), Body: &amphiv1.RegistryCommand_PutStore{PutStore: p}}
	r.owner.deps.Records.Commit(cmd, func(err error) {
		r.owner.insist(r, inbound{do: func(time.Time) { r.committed(key, from, id, err) }})
	})
}

// committed answers the request that wrote a durable value.
func (r *owned) committed(key, from string, id uint64, err error) {
	if r.writes[key]--; r.writes[key] <= 0 {
		delete(r.writes, key)
	}
	n := r.nodes[from]
	if n == nil {
		return
	}
	a, _ := n.answers.find(id)
	if a == nil || !a.waiting {
		return
	}
	a.waiting = false
	if err != nil {
		a.resp = &amphiv1.RoomResponse{Id: id, Seq: a.resp.GetSeq(), Result: errorResult(err)}
		if u := r.mirror.added(); u != nil {
			u.Answers = append(u.Answers, &amphiv1.StandbyAnswer{Node: from, Response: a.resp})
		}
	}
	r.answer(from, a.resp, true)
}
