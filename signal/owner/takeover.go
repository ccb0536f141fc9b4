package owner

import (
	"slices"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/standby"
)

const (
	// gather is how long a new owner without a copy waits for replicas that know more, and for the state of the one asked.
	gather = time.Second
	// retell is how old what is told again to those outside may be.
	retell = 30 * time.Second
	// maxEpochs bounds the history of epochs; replicas that are further behind get the state.
	maxEpochs = 16
)

// Copies are the rooms that this node is the standby of. Safe for concurrent use.
type Copies interface {
	// Seal ends the following of owners before the given epoch, and hands out what the last of them left here; nil: nothing.
	Seal(room string, epoch uint64) *standby.Copy
	// Holds tells whether there is a copy of an owner before the given epoch.
	Holds(room string, epoch uint64) bool
	// Names lists the rooms that there are copies of.
	Names() []string
}

// recovery is how a new owner finds out where the room stands: from the copy that its node has as the standby, else from
// the furthest replica, else from the records.
type recovery struct {
	copy *standby.Copy
	// begun is when the first node turned up.
	begun time.Time
	// seen are the replicas of the nodes that turned up, best is the furthest, asked when its state was asked for.
	seen  map[string]position
	best  position
	asked time.Time
	// waiting came meanwhile.
	waiting []inbound
}

// position is how far a replica's state goes.
type position struct {
	node, session string
	epoch, seq    uint64
}

// further tells whether p knows more than q, which may be of another session.
func (p position) further(q position) bool {
	return p.epoch > q.epoch || p.epoch == q.epoch && p.seq > q.seq
}

func positionOf(st *amphiv1.RoomState) position {
	return position{session: st.GetSessionId(), epoch: st.GetSeqEpoch(), seq: st.GetSeq()}
}

// recover takes the message of somebody who has to wait until the room has been found.
func (r *owned) recover(now time.Time, in inbound) {
	c := r.recovery
	if c.begun.IsZero() {
		c.begun = now
	}
	switch b := in.msg.GetBody().(type) {
	case *amphiv1.RoomMessage_ReplicaState:
		if st := b.ReplicaState.GetState(); in.from == c.best.node && !c.asked.IsZero() && !c.best.further(positionOf(st)) {
			known := &standby.Copy{State: st, Epochs: []*amphiv1.EpochStart{{Epoch: st.GetSeqEpoch(), Seq: st.GetSeq()}}}
			if c.copy != nil {
				known.Seats, known.Answers = c.copy.Seats, c.copy.Answers
			}
			for _, a := range b.ReplicaState.GetAnswers() {
				known.Answers = append(known.Answers, standby.Answer{Node: a.GetNode(), Response: a.GetResponse(), At: now})
			}
			r.recovered(now, known, true)
			return
		}
	case *amphiv1.RoomMessage_Attach:
		p := position{in.from, b.Attach.GetSessionId(), b.Attach.GetHaveEpoch(), b.Attach.GetHaveSeq()}
		if p.session != "" {
			c.seen[in.from] = p
			c.choose()
		}
		c.waiting = append(c.waiting, in)
	case *amphiv1.RoomMessage_Request:
		c.waiting = append(c.waiting, in)
	}
	r.found(now)
}

// found ends the recovery when it is clear enough what to go on from.
func (r *owned) found(now time.Time) {
	c := r.recovery
	have := position{}
	if c.copy != nil && c.copy.State != nil {
		have = positionOf(c.copy.State)
	}
	switch {
	case !c.best.further(have) && (c.copy != nil || c.best.session == "" && (r.epoch <= 1 || !r.owner.deps.Records.Running(r.name))):
		r.recovered(now, c.copy, false)
	case c.begun.IsZero() || now.Sub(c.begun) < gather && c.asked.IsZero() && c.copy == nil:
		// Others may know more.
	case c.best.further(have) && c.asked.IsZero():
		c.asked = now
		r.send(c.best.node, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_StateWanted{StateWanted: &amphiv1.StateWanted{}}})
	case !c.asked.IsZero() && now.Sub(c.asked) >= gather:
		delete(c.seen, c.best.node)
		c.choose()
		r.found(now)
	case c.asked.IsZero():
		r.recovered(now, c.copy, false)
	}
}

// choose finds the furthest replica.
func (c *recovery) choose() {
	before := c.best
	c.best = position{}
	for _, p := range c.seen {
		if p.further(c.best) || p.node == before.node && !c.best.further(p) {
			c.best = p
		}
	}
	if c.best != before {
		c.asked = time.Time{}
	}
}

// recovered goes on from a copy, nil: from the records. What a replica knew may be less than what was acknowledged.
func (r *owned) recovered(now time.Time, c *standby.Copy, replica bool) {
	waiting := r.recovery.waiting
	r.recovery = nil
	if c != nil {
		r.restore(now, c, replica)
	}
	for _, in := range waiting {
		r.handle(now, in)
	}
}

// restore takes up where the owner before left off.
func (r *owned) restore(now time.Time, c *standby.Copy, replica bool) {
	for _, a := range c.Answers {
		n := r.nodes[a.Node]
		if n == nil {
			n = &node{heard: now}
			r.nodes[a.Node] = n
		}
		n.answers.add(a.At, a.Response)
	}
	// A room that was disabled meanwhile begins no session, but goes on with the one that it has.
	start, err := r.owner.deps.Records.Open(r.name)
	if c.State == nil || c.State.GetEnded() || err != nil {
		if err != nil {
			r.log.Warn("the room is not continued", "err", err)
		}
		return
	}
	homes := map[string]string{}
	for peer, s := range c.Seats {
		homes[peer] = s.GetNode()
	}
	r.state = room.Restore(room.Config{Now: now, Homes: homes, Record: start.Record}, c.State)
	r.session, r.template, r.seq = c.State.GetSessionId(), c.State.GetTemplate(), c.State.GetSeq()
	r.tail = slices.Clip(c.Tail)
	r.epochs = append(slices.Clone(c.Epochs), &amphiv1.EpochStart{Epoch: r.epoch, Seq: r.seq + 1})
	r.epochs = r.epochs[max(0, len(r.epochs)-maxEpochs):]
	r.plan.plan = c.Plan
	r.recorded, r.outdated = now, true
	r.reseat(now, c)
	r.mirror.whole, r.mirror.next = r.mirror.node != "", nil
	r.log.Info("room taken over", "session", r.session, "seq", r.seq, "peers", len(c.State.GetPeers()), "from_epoch", c.Epoch)
	r.redo(now, start.Durable, c.State, replica)
	r.restream(c.State)
	// What the owner before may not have come to say. Messages are not worth saying twice.
	for _, ev := range r.tail {
		if now.UnixMilli()-ev.GetTimeMs() < retell.Milliseconds() && ev.GetMessage() == nil {
			r.tell(r.session, ev)
		}
	}
}

// reseat notes where clients are said to be. Nodes that do not attach, and peers that no node claims, count as gone after
// the usual silence.
func (r *owned) reseat(now time.Time, c *standby.Copy) {
	var away []string
	for _, p := range c.State.GetPeers() {
		s := c.Seats[p.GetId()]
		r.seats[p.GetId()] = seat{node: s.GetNode(), connected: s == nil || s.GetConnected(), since: now}
		switch {
		case s == nil:
			r.unclaimed = now.Add(silence)
		case !s.GetConnected():
			away = append(away, p.GetId())
		}
		if node := s.GetNode(); node != "" {
			r.expect(now, node)
		}
	}
	for _, id := range away {
		r.disconnect(now, r.seats[id].node, id)
	}
}

// expect counts a node as attached that was so at the owner before.
func (r *owned) expect(now time.Time, name string) {
	n := r.nodes[name]
	if n == nil {
		n = &node{}
		r.nodes[name] = n
	}
	n.attached, n.heard = true, now
}

// claim notes the peers that a node has and nobody else is known to have.
func (r *owned) claim(now time.Time, from string, present []string) {
	for _, id := range present {
		if s, ok := r.seats[id]; ok && s.node == "" {
			r.seat(now, from, &amphiv1.Result{}, &amphiv1.PeerConnection{PeerId: id, Connected: true})
			r.connect(now, from, id)
		}
	}
}

// abandon lets the peers count as gone that no node has claimed.
func (r *owned) abandon(now time.Time) {
	r.unclaimed = time.Time{}
	for id, s := range r.seats {
		if s.node == "" && s.connected {
			r.seats[id] = seat{since: now}
			r.disconnect(now, "", id)
		}
	}
}

// redo settles what durable values the room and the registry have differently. The standby knew all values, and some that
// the owner before did not come to write; what only a replica knew may lack some that are written.
func (r *owned) redo(now time.Time, durable []*amphiv1.StoreEntry, st *amphiv1.RoomState, replica bool) {
	written := map[string]*amphiv1.StoreEntry{}
	for _, e := range durable {
		written[e.GetKey()] = e
	}
	newer := map[string]*amphiv1.StoreEntry{}
	for _, e := range st.GetStore() {
		old := written[e.GetKey()]
		delete(written, e.GetKey())
		switch {
		case e.GetDurable() && old.GetRevision() < e.GetRevision():
			r.commit(&amphiv1.PutStore{Entry: e}, "", 0)
		case old.GetRevision() > e.GetRevision():
			newer[e.GetKey()] = old
		}
	}
	for key, e := range written {
		if replica {
			newer[key] = e
			continue
		}
		gone := &amphiv1.StoreEntry{Key: key, Durable: true, Revision: e.GetRevision() + 1}
		r.commit(&amphiv1.PutStore{Entry: gone, Deleted: true}, "", 0)
	}
	for key, e := range newer {
		set := &amphiv1.Command{Body: &amphiv1.Command_SetStore{SetStore: &amphiv1.SetStore{Key: key, Value: &e.Value, Durable: true}}}
		_, events := r.state.Apply(now, room.Actor{Management: true}, set)
		r.publish(events, "", nil)
	}
}

// restream has the streams and outputs that run start on this node.
func (r *owned) restream(st *amphiv1.RoomState) {
	if r.owner.deps.Streams == nil {
		return
	}
	for _, s := range st.GetStreams() {
		switch s.GetState() {
		case amphiv1.StreamState_STREAM_STATE_STARTING, amphiv1.StreamState_STREAM_STATE_LIVE:
			s = protobuf.Clone(s).(*amphiv1.Stream)
			s.State = amphiv1.StreamState_STREAM_STATE_STARTING
			r.owner.deps.Streams.Changed(r.name, r.template, s)
		}
	}
	for _, o := range st.GetOutputs() {
		if !room.Working(o) {
			continue
		}
		if o.GetState() != amphiv1.OutputState_OUTPUT_STATE_PAUSED {
			o = protobuf.Clone(o).(*amphiv1.Output)
			o.State = amphiv1.OutputState_OUTPUT_STATE_STARTING
		}
		r.owner.deps.Streams.Output(r.name, r.session, o, st.GetSealedUrls()[o.GetId()])
	}
}
