package owner

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
	"github.com/amphi-sfu/amphi/signal/room"
)

const (
	// silence is how long a node may be silent before it is detached; it attaches again every 2 s.
	silence = 6 * time.Second
	// settled is when a node certainly has the answer that gave it a peer, or has given up on it (after 10 s).
	settled = 15 * time.Second
	// tailLen is how many events a node that attaches again can be given instead of the state.
	tailLen = 1024
)

type inbound struct {
	from string
	msg  *amphiv1.RoomMessage
}

// owned is one room; everything in it belongs to the goroutine in run, but for the inbox.
type owned struct {
	owner *Owner
	log   *slog.Logger
	name  string
	inbox *exchange.Inbox[inbound]
	peers atomic.Int64 // how many have a place

	epoch uint64
	// state is nil while nobody has asked for the room since its last session.
	state    *room.State
	session  string
	template *amphiv1.Template
	seq      uint64
	tail     []*amphiv1.Event
	nodes    map[string]*node
	// seats tells which node has each peer's client.
	seats map[string]seat
	// recorded is when the session's record was kept last; outdated: people came or went since.
	recorded time.Time
	outdated bool
}

// seat is where a peer's client is, and whether that node says that it is connected.
type seat struct {
	node      string
	connected bool
	since     time.Time
}

// node is an attached node. It stays known after it was detached, for its repeated requests.
type node struct {
	attached bool
	heard    time.Time
	// session is that of the state or events sent last.
	session string
	answers answers
}

func newOwned(o *Owner, name string, epoch uint64) *owned {
	return &owned{
		owner: o, name: name, epoch: epoch, inbox: exchange.NewInbox[inbound](),
		log:   o.cfg.Logger.With("room", name, "epoch", epoch),
		nodes: map[string]*node{}, seats: map[string]seat{},
	}
}

// run decides one message after the other until the node stops or nobody needs the room.
func (r *owned) run() {
	timer := time.NewTimer(silence)
	defer timer.Stop()
	defer r.finish()
	for {
		select {
		case <-r.owner.done:
			return
		case <-r.inbox.Ready():
			now := time.Now()
			for _, in := range r.inbox.Take() {
				r.handle(now, in)
			}
		case <-timer.C:
		}
		now := time.Now()
		next := r.tick(now)
		r.peers.Store(int64(len(r.seats)))
		if r.unused() && r.owner.retire(r) {
			return
		}
		timer.Reset(next.Sub(now))
	}
}

// finish keeps the record of a session that the node's end has cut off.
func (r *owned) finish() {
	if r.state != nil && !r.state.Idle() {
		r.record()
	}
	r.streamsEnded()
}

func (r *owned) unused() bool {
	if len(r.nodes) > 0 {
		return false
	}
	return r.state == nil || r.state.Idle()
}

func (r *owned) handle(now time.Time, in inbound) {
	switch {
	case in.msg.GetEpoch() < r.epoch:
		r.owner.stats.stale.Add(1)
		return
	case in.msg.GetEpoch() > r.epoch:
		// The directory gave this node the room anew: what it knows still holds, older replicas do not.
		r.epoch = in.msg.GetEpoch()
		r.log = r.owner.cfg.Logger.With("room", r.name, "epoch", r.epoch)
	}
	n := r.nodes[in.from]
	if n == nil {
		n = &node{}
		r.nodes[in.from] = n
	}
	n.heard = now
	switch b := in.msg.GetBody().(type) {
	case *amphiv1.RoomMessage_Attach:
		r.attach(now, in.from, n, b.Attach)
	case *amphiv1.RoomMessage_Detach:
		r.detach(now, in.from, n)
		delete(r.nodes, in.from)
		for peer, s := range r.seats {
			if s.node == in.from {
				// A node lets go of a room only when it has no clients in it.
				r.seats[peer] = seat{in.from, false, now}
			}
		}
	case *amphiv1.RoomMessage_Request:
		r.request(now, in.from, n, b.Request)
	}
}

// open makes the state of a new session where there is none.
func (r *owned) open(now time.Time) error {
	if r.state != nil {
		return nil
	}
	start, err := r.owner.deps.Records.Open(r.name)
	if err != nil {
		return err
	}
	r.session = proto.NewID(proto.SessionPrefix)
	r.state = room.New(room.Config{
		Room: start.Room.GetName(), SessionID: r.session, Template: start.Template,
		Locked: start.Room.GetLocked(), Metadata: start.Room.GetMetadata(), Durable: start.Durable, Now: now,
	})
	r.template = start.Template
	r.seq, r.tail = r.state.Snapshot().GetSeq(), nil
	clear(r.seats)
	for name, n := range r.nodes {
		if n.attached {
			r.sendState(name, n)
		}
	}
	return nil
}

// attach answers with the state, or with what the node misses; a node that misses nothing gets no events, which
// tells it that the owner lives.
func (r *owned) attach(now time.Time, from string, n *node, a *amphiv1.Attach) {
	if err := r.open(now); err != nil {
		r.send(from, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Response{
			Response: &amphiv1.RoomResponse{Result: errorResult(err)}}})
		return
	}
	if a.GetListsPeers() {
		r.missing(now, from, a.GetPeers())
	}
	if !n.attached {
		n.attached = true
		r.reconnect(now, from)
	}
	missed, ok := r.since(a.GetHaveSeq())
	if n.session != r.session || a.GetHaveSeq() == 0 || !ok {
		r.sendState(from, n)
		return
	}
	r.send(from, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Events{Events: &amphiv1.RoomEvents{Events: missed}}})
}

func (r *owned) sendState(to string, n *node) {
	n.session = r.session
	r.send(to, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_State{State: r.state.Snapshot()}})
}

// since lists the events after seq, if the tail reaches back that far.
func (r *owned) since(seq uint64) ([]*amphiv1.Event, bool) {
	missing := r.seq - seq
	if seq > r.seq || missing > uint64(len(r.tail)) {
		return nil, false
	}
	return r.tail[uint64(len(r.tail))-missing:], true
}

// detach lets the peers of a node that has gone count as disconnected.
func (r *owned) detach(now time.Time, from string, n *node) {
	if !n.attached {
		return
	}
	n.attached = false
	if r.state != nil {
		r.state.DetachNode(now, from)
	}
}

// reconnect takes back what detach did, for a node that was only silent for a while: it tells of each client
// that it really lost.
func (r *owned) reconnect(now time.Time, from string) {
	for peer, s := range r.seats {
		if s.node != from || !s.connected {
			continue
		}
		cmd := &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{
			PeerConnection: &amphiv1.PeerConnection{PeerId: peer, Connected: true}}}
		_, events := r.state.Apply(now, room.Actor{Node: from}, cmd)
		r.publish(events)
	}
}

// missing lets the peers count as disconnected whose clients should be on a node that does not know of them: the answer
// that gave it the peer was lost for good. Before settled it may still be under way.
func (r *owned) missing(now time.Time, from string, present []string) {
	here := make(map[string]bool, len(present))
	for _, id := range present {
		here[id] = true
	}
	for peer, s := range r.seats {
		if s.node != from || !s.connected || here[peer] || now.Sub(s.since) < settled {
			continue
		}
		r.log.Info("a node does not know of a peer", "node", from, "peer", peer)
		r.seats[peer] = seat{from, false, now}
		cmd := &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{PeerConnection: &amphiv1.PeerConnection{PeerId: peer}}}
		_, events := r.state.Apply(now, room.Actor{Node: from}, cmd)
		r.publish(events)
	}
}

// request executes a command once, and answers after its events.
func (r *owned) request(now time.Time, from string, n *node, q *amphiv1.RoomRequest) {
	resp, old := n.answers.find(q.GetId())
	switch {
	case resp != nil:
		r.owner.stats.repeated.Add(1)
	case old:
		resp = &amphiv1.RoomResponse{Id: q.GetId(), Seq: r.seq, Result: errorResult(
			proto.Errorf(proto.Timeout, "too late to tell whether this was done"))}
	default:
		r.owner.stats.requests.Add(1)
		resp = &amphiv1.RoomResponse{Id: q.GetId(), Result: r.execute(now, from, q), Seq: r.seq}
		n.answers.add(now, resp)
	}
	r.peers.Store(int64(len(r.seats)))
	r.send(from, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Response{Response: resp}})
	r.endIfOver()
}

func errorResult(err error) *amphiv1.Result {
	return &amphiv1.Result{Body: &amphiv1.Result_Error{Error: proto.Wire(err)}}
}

func (r *owned) execute(now time.Time, from string, q *amphiv1.RoomRequest) *amphiv1.Result {
	if err := r.open(now); err != nil {
		return errorResult(err)
	}
	actor := room.Actor{PeerID: q.GetPeerId(), Node: from, Management: q.GetPeerId() == "" && asManagement(q.GetCommand())}
	result, events := r.state.Apply(now, actor, q.GetCommand())
	r.seat(now, from, result, q.GetCommand().GetPeerConnection())
	r.publish(events)
	return result
}

// asManagement tells commands of the management API from those that nodes give on their own account: a request
// that names no peer comes from a node, which has checked the management token.
func asManagement(cmd *amphiv1.Command) bool {
	switch cmd.GetBody().(type) {
	case *amphiv1.Command_Join, *amphiv1.Command_PeerConnection, *amphiv1.Command_StreamReport:
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
			r.seats[peer.GetId()] = seat{from, true, now}
		}
	case conn.GetConnected():
		before := r.seats[id].node
		r.seats[id] = seat{from, true, now}
		if before != "" && before != from {
			r.send(before, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_PeerMoved{PeerMoved: &amphiv1.PeerMoved{PeerId: id}}})
		}
	case r.seats[id].node == from:
		r.seats[id] = seat{from, false, now}
	}
}

// publish sends decisions to every attached node and keeps what outlives the session.
func (r *owned) publish(events []*amphiv1.Event) {
	if len(events) == 0 {
		return
	}
	r.seq = events[len(events)-1].GetSeq()
	r.tail = append(r.tail, events...)
	if extra := len(r.tail) - tailLen; extra > tailLen {
		r.tail = append([]*amphiv1.Event(nil), r.tail[extra:]...)
	}
	r.owner.stats.events.Add(uint64(len(events)))
	b, err := exchange.Encode(&amphiv1.RoomMessage{Room: r.name, Epoch: r.epoch,
		Body: &amphiv1.RoomMessage_Events{Events: &amphiv1.RoomEvents{Events: events}}})
	if err != nil {
		r.log.Error("events lost", "err", err)
		return
	}
	for name, n := range r.nodes {
		if n.attached {
			r.sendBytes(name, b)
		}
	}
	for _, ev := range events {
		r.follow(ev)
	}
}

// tick lets time pass and answers when it has to happen again.
func (r *owned) tick(now time.Time) time.Time {
	next := now.Add(silence)
	for name, n := range r.nodes {
		if quiet := n.heard.Add(silence); now.Before(quiet) {
			next = earlier(next, quiet)
			continue
		}
		if n.attached {
			r.log.Info("node is silent", "node", name)
			r.detach(now, name, n)
		}
		if now.Sub(n.heard) > rememberFor {
			delete(r.nodes, name)
		}
	}
	if r.state == nil {
		return next
	}
	if due, ok := r.state.Deadline(); ok && !now.Before(due) {
		r.publish(r.state.Tick(now))
		r.endIfOver()
	}
	if due, ok := r.recordDue(); ok && !now.Before(due) {
		r.record()
	}
	if r.state != nil {
		if due, ok := r.state.Deadline(); ok {
			next = earlier(next, due)
		}
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// send completes and sends a message for one node.
func (r *owned) send(to string, m *amphiv1.RoomMessage) {
	m.Room, m.Epoch = r.name, r.epoch
	b, err := exchange.Encode(m)
	if err != nil {
		r.log.Error("message lost", "err", err)
		return
	}
	r.sendBytes(to, b)
}

func (r *owned) sendBytes(to string, b []byte) {
	if err := r.owner.deps.Carrier.Send(to, r.name, b); err != nil {
		// The node attaches again and gets what it missed.
		r.log.Debug("message not sent", "node", to, "err", err)
	}
}
