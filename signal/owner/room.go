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
	// overlap is for how long a peer that moved may still ask over the connection that it leaves.
	overlap = 2 * time.Second
	// tailLen is how many events a node that attaches again can be given instead of the state.
	tailLen = 1024
)

// inbound is a message of a node, or something to do in the room's turn.
type inbound struct {
	from string
	msg  *amphiv1.RoomMessage
	do   func(now time.Time)
}

// owned is one room at one epoch; everything in it belongs to the goroutine in run, but for the inbox.
type owned struct {
	owner *Owner
	log   *slog.Logger
	name  string
	inbox *exchange.Inbox[inbound]
	peers atomic.Int64 // how many have a place
	epoch uint64
	// before is closed when this node's owner of an earlier epoch has stopped, nil: there is none; over when this one has.
	before <-chan struct{}
	over   chan struct{}

	// recovery is nil once it is clear where the room stands.
	recovery *recovery
	// leased: this node may decide, as far as was known when the present work began; lax: it may not, and the standby is
	// silent; moved: another node or epoch owns the room.
	leased, lax, moved bool

	// state is nil while nobody has asked for the room since its last session.
	state    *room.State
	session  string
	template *amphiv1.Template
	seq      uint64
	tail     []*amphiv1.Event
	epochs   []*amphiv1.EpochStart
	nodes    map[string]*node
	// seats tells which node has each peer's client; unclaimed is until when nodes may claim those of unknown peers.
	seats     map[string]seat
	unclaimed time.Time
	// writes counts the durable values being written, by key.
	writes map[string]int
	mirror mirror
	plan   planning
	// handing: the room is being handed over.
	handing  bool
	handover handover
	// recorded is when the session's record was kept last; outdated: people came or went since.
	recorded time.Time
	outdated bool
}

// seat is where a peer's client is, and whether that node says that it is connected.
type seat struct {
	node      string
	connected bool
	since     time.Time
	moved     bool // this owner itself let the node have the peer, as its client came from elsewhere
}

// node is an attached node. It stays known after it was detached, for its repeated requests.
type node struct {
	attached bool
	heard    time.Time
	answers  answers
}

func newOwned(o *Owner, name string, epoch uint64) *owned {
	return &owned{
		owner: o, name: name, epoch: epoch, inbox: exchange.NewInbox[inbound](), over: make(chan struct{}),
		log:   o.cfg.Logger.With("room", name, "epoch", epoch),
		nodes: map[string]*node{}, seats: map[string]seat{}, writes: map[string]int{},
	}
}

// run decides one message after the other until the node stops, another owner decides, or nobody needs the room.
func (r *owned) run() {
	defer close(r.over)
	if r.before != nil {
		<-r.before
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	r.begin(time.Now())
	defer r.finish()
	for {
		select {
		case <-r.owner.done:
			return
		case <-r.inbox.Ready():
			now := time.Now()
			r.locate()
			for _, in := range r.inbox.Take() {
				if r.moved {
					return
				}
				r.handle(now, in)
			}
		case <-timer.C:
			r.locate()
		}
		if r.moved {
			return
		}
		now := time.Now()
		next := r.tick(now)
		r.settle(now)
		r.peers.Store(int64(len(r.seats)))
		if r.unused() && r.owner.retire(r) {
			return
		}
		timer.Reset(next.Sub(now))
	}
}

// begin finds out what there is to go on from.
func (r *owned) begin(now time.Time) {
	r.recovery = &recovery{seen: map[string]position{}}
	if r.owner.deps.Copies != nil {
		r.recovery.copy = r.owner.deps.Copies.Seal(r.name, r.epoch)
	}
	r.locate()
	if r.recovery.copy != nil && !r.moved {
		r.found(now)
	}
}

// locate looks whether this node is still the owner and may decide, and who the standby is. The lease counts only if it was
// there before and after: between two leases the room may have been another's.
func (r *owned) locate() {
	before := r.owner.deps.Directory.Leased()
	defer r.lease(time.Now(), before)
	placed, err := r.owner.deps.Directory.Owner(r.name)
	if err != nil {
		return
	}
	if placed.GetEpoch() > r.epoch || placed.GetNode() != r.owner.cfg.Node {
		r.moved = true
		r.log.Info("the room has another owner", "owner", placed.GetNode(), "epoch_now", placed.GetEpoch())
		return
	}
	node := placed.GetStandby()
	if node == r.owner.cfg.Node {
		node = ""
	}
	if node != r.mirror.node {
		r.log.Info("the room has another standby", "standby", node)
		r.mirror.follow(node)
	}
}

// lease looks whether this node may decide. Who was silent meanwhile may have been cut off, as this node was.
func (r *owned) lease(now time.Time, before bool) {
	was := r.leased
	r.leased = before && r.owner.deps.Directory.Leased()
	if r.leased && !was {
		for _, n := range r.nodes {
			n.heard = now
		}
	}
}

// settle tells the standby what was decided, and others what they may know by now.
func (r *owned) settle(now time.Time) {
	r.flush(now)
	if len(r.mirror.held) > 0 {
		r.release()
	}
	r.handOver()
}

// finish keeps the record of a session that the node's end has cut off. One that goes on elsewhere is not this node's any
// more: nothing is said or kept.
func (r *owned) finish() {
	r.owner.forget(r)
	if r.state != nil && !r.state.Idle() && !r.moved {
		r.record()
	}
	r.streamsEnded()
	r.handover.end(errMoved)
}

func (r *owned) unused() bool {
	if c := r.recovery; len(r.nodes) > 0 || c != nil && (c.copy != nil || !c.begun.IsZero()) || len(r.writes) > 0 {
		return false
	}
	return r.state == nil || r.state.Idle()
}

func (r *owned) handle(now time.Time, in inbound) {
	if in.do != nil {
		in.do(now)
		return
	}
	if in.msg.GetEpoch() != r.epoch {
		r.owner.stats.stale.Add(1)
		return
	}
	if ack := in.msg.GetStandbyAck(); ack != nil {
		r.acked(now, in.from, ack)
		return
	}
	if r.recovery != nil {
		r.recover(now, in)
		return
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
				r.place(peer, seat{node: in.from, since: now})
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
	if start.Room.GetDisabled() {
		return proto.Errorf(proto.RoomDisabled, "the room is disabled")
	}
	r.session = proto.NewID(proto.SessionPrefix)
	r.state = room.New(room.Config{
		Room: start.Room.GetName(), SessionID: r.session, Template: start.Template,
		Locked: start.Room.GetLocked(), Metadata: start.Room.GetMetadata(), Durable: start.Durable, Now: now,
	})
	r.template = start.Template
	r.seq, r.tail = r.state.Snapshot().GetSeq(), nil
	r.epochs = []*amphiv1.EpochStart{{Epoch: r.epoch, Seq: r.seq}}
	r.mirror.whole, r.mirror.next = r.mirror.node != "", nil
	clear(r.seats)
	for name, n := range r.nodes {
		if n.attached {
			r.sendState(name)
		}
	}
	return nil
}

// detach lets the peers of a node that has gone count as disconnected.
func (r *owned) detach(now time.Time, from string, n *node) {
	if !n.attached {
		return
	}
	n.attached, r.plan.due = false, true
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
		r.connect(now, from, peer)
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
		r.place(peer, seat{node: from, since: now})
		r.disconnect(now, from, peer)
	}
}

// publish sends decisions to the standby, then to every attached node, and keeps what outlives the session. From names the
// node and resp is the answer of the request that caused them, nil: none did.
func (r *owned) publish(events []*amphiv1.Event, from string, resp *amphiv1.RoomResponse) {
	if len(events) == 0 {
		return
	}
	first := events[0].GetSeq()
	r.seq = events[len(events)-1].GetSeq()
	r.tail = append(r.tail, events...)
	if extra := len(r.tail) - tailLen; extra > tailLen {
		r.tail = append([]*amphiv1.Event(nil), r.tail[extra:]...)
	}
	r.owner.stats.events.Add(uint64(len(events)))
	if u := r.mirror.added(); u != nil {
		u.Events = append(u.Events, events...)
	}
	for _, ev := range events {
		r.note(ev)
	}
	told := &amphiv1.RoomEvents{Events: events, PrevEpoch: r.epochOf(first - 1), Mode: r.mode()}
	if resp != nil && r.shared() {
		told.Answers = []*amphiv1.StandbyAnswer{{Node: from, Response: resp}}
	}
	b := r.encode(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Events{Events: told}})
	if b == nil {
		return
	}
	for name, n := range r.nodes {
		if n.attached {
			r.say(held{to: name, msg: b})
		}
	}
	for _, ev := range events {
		if consequential(ev) || r.owner.deps.Events != nil && outward(ev) {
			r.say(held{ev: ev, from: from, id: resp.GetId(), session: r.session})
		}
	}
}

// tick lets time pass and answers when it has to happen again.
func (r *owned) tick(now time.Time) time.Time {
	next := now.Add(silence)
	if r.recovery != nil {
		r.found(now)
		if r.recovery != nil {
			next = now.Add(gather / 10)
		}
	}
	for name, n := range r.nodes {
		if !r.leased {
			break
		}
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
	if due, ok := r.nudge(now); ok {
		next = earlier(next, due)
	}
	if r.state == nil {
		return next
	}
	next = earlier(next, r.tickState(now))
	if r.state != nil {
		next = earlier(next, r.replan(now))
	}
	return next
}

// tickState gives up what has waited long enough. Without a lease nobody is given up: another owner may know better.
func (r *owned) tickState(now time.Time) time.Time {
	next := now.Add(silence)
	if !r.leased {
		return now.Add(frozenLook)
	}
	if !r.unclaimed.IsZero() && !now.Before(r.unclaimed) {
		r.abandon(now)
	}
	if due, ok := r.state.Deadline(); ok && !now.Before(due) {
		r.publish(r.state.Tick(now), "", nil)
		r.endIfOver()
	}
	if due, ok := r.recordDue(); ok && !now.Before(due) {
		r.record()
	}
	if !r.unclaimed.IsZero() {
		next = earlier(next, r.unclaimed)
	}
	if r.state != nil {
		if due, ok := r.state.Deadline(); ok {
			next = earlier(next, due)
		}
	}
	return next
}

// frozenLook is how often a room without a lease looks whether there is one again, should nobody tell.
const frozenLook = 250 * time.Millisecond

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// encode completes a message and makes bytes of it; nil: it could not be.
func (r *owned) encode(m *amphiv1.RoomMessage) []byte {
	m.Room, m.Epoch = r.name, r.epoch
	b, err := exchange.Encode(m)
	if err != nil {
		r.log.Error("message lost", "err", err)
		return nil
	}
	return b
}

// send sends a message at once: one that holds no decision.
func (r *owned) send(to string, m *amphiv1.RoomMessage) {
	if b := r.encode(m); b != nil {
		r.sendBytes(to, b)
	}
}

// sendBytes tells whether the message is under way.
func (r *owned) sendBytes(to string, b []byte) bool {
	err := r.owner.deps.Carrier.Send(to, r.name, b)
	if err != nil {
		// The node attaches again and gets what it missed.
		r.log.Debug("message not sent", "node", to, "err", err)
	}
	return err == nil
}
