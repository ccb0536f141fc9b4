package replica

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
	"github.com/amphi-sfu/amphi/signal/room"
)

const (
	// listEvery is how often it tells the owner which peers are here.
	listEvery = 10 * time.Second
	// silence is after what time without a word the owner counts as lost to this node.
	silence = 3 * time.Second
	// keepalive is how often the replica attaches again.
	keepalive = 2 * time.Second
	// hurry is how often it looks after what is pending.
	hurry = 250 * time.Millisecond
	// repeatAfter is when an unanswered request is sent again, giveUp when its asker is told.
	repeatAfter = 1500 * time.Millisecond
	giveUp      = 10 * time.Second
)

// Room is this node's replica of one room. Its methods are safe for concurrent use; its inner fields belong to
// the goroutine in run.
type Room struct {
	set   *Set
	name  string
	log   *slog.Logger
	inbox *exchange.Inbox[func()]
	over  chan struct{} // closed when run has returned
	holds int           // guarded by set.mu

	follower Follower
	rep      *room.Replica
	owner    string
	epoch    uint64 // the highest heard of
	current  uint64 // the owner's of whom the replica is a copy for certain
	seqEpoch uint64 // in which the last event was decided
	// answered is the epoch whose owner has answered: only then requests are sent to it.
	answered uint64
	heard    time.Time // when the owner said something last
	missed   time.Time // since when there is no owner, or none that answers
	said     amphiv1.RoomMode
	mode     amphiv1.RoomMode
	plan     *amphiv1.RelayPlan
	planned  uint64    // the plan's epoch
	attached time.Time // when attach was sent last
	listed   time.Time // when it listed the peers last
	unused   time.Time // since when nobody holds it
	pending  map[uint64]*request
	early    []early
	// remembered are the newest answers of the whole room.
	remembered []remembered
	waiters    []chan error
}

// request waits for its answer.
type request struct {
	msg   *amphiv1.RoomRequest
	since time.Time
	sent  time.Time
	done  func(*amphiv1.Result)
}

// early is an answer that came before the events that it caused.
type early struct {
	seq    uint64
	result *amphiv1.Result
	done   func(*amphiv1.Result)
}

func newRoom(s *Set, name string) *Room {
	r := &Room{
		set: s, name: name, log: s.cfg.Logger.With("room", name), inbox: exchange.NewInbox[func()](),
		over: make(chan struct{}), pending: map[uint64]*request{},
	}
	r.follower = s.cfg.Follow(r)
	return r
}

// Name is the room's name.
func (r *Room) Name() string { return r.name }

// Hold adds a hold; the caller has one already.
func (r *Room) Hold() {
	r.set.mu.Lock()
	defer r.set.mu.Unlock()
	r.holds++
}

// Owner is the node that decides, and its epoch; for the room's goroutine.
func (r *Room) Owner() (node string, epoch uint64) { return r.owner, r.epoch }

// Mode is how far the room's owner can decide now; for the room's goroutine.
func (r *Room) Mode() amphiv1.RoomMode { return r.mode }

// Plan is the owner's last relay plan, nil before there is one; for the room's goroutine.
func (r *Room) Plan() *amphiv1.RelayPlan { return r.plan }

// Over is closed when the room has stopped.
func (r *Room) Over() <-chan struct{} { return r.over }

// Release gives back one hold.
func (r *Room) Release() {
	r.set.mu.Lock()
	defer r.set.mu.Unlock()
	r.holds--
}

// Follower is what Config.Follow made.
func (r *Room) Follower() Follower { return r.follower }

// post queues work for the room's goroutine without blocking.
func (r *Room) post(f func()) error {
	select {
	case <-r.over:
		return proto.Errorf(proto.Unavailable, "the room has just closed here")
	default:
	}
	if !r.inbox.Put(f) {
		r.set.stats.busy.Add(1)
		return proto.Errorf(proto.Unavailable, "the room is too busy")
	}
	return nil
}

// Do runs f on the room's goroutine, later; rep is nil while the owner has not answered. An error means that f
// will not run.
func (r *Room) Do(f func(rep *room.Replica)) error {
	return r.post(func() { f(r.rep) })
}

// Await waits for the owner's state.
func (r *Room) Await(ctx context.Context) error {
	ready := make(chan error, 1)
	err := r.post(func() {
		if r.rep != nil {
			ready <- nil
			return
		}
		r.waiters = append(r.waiters, ready)
	})
	if err != nil {
		return err
	}
	select {
	case err := <-ready:
		return err
	case <-r.over:
		return proto.Errorf(proto.Unavailable, "the room has just closed here")
	case <-ctx.Done():
		return proto.Errorf(proto.Timeout, "the room's owner does not answer")
	}
}

// View runs f on the room's goroutine with its replica and waits for it.
func (r *Room) View(ctx context.Context, f func(rep *room.Replica)) error {
	if err := r.Await(ctx); err != nil {
		return err
	}
	done := make(chan struct{})
	if err := r.Do(func(rep *room.Replica) { f(rep); close(done) }); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-r.over:
		return proto.Errorf(proto.Unavailable, "the room has just closed here")
	case <-ctx.Done():
		return proto.Errorf(proto.Timeout, "the room is too busy")
	}
}

// Request sends a command to the owner, in the name of a peer or, without one, of this node. done is called on
// the room's goroutine, after the events that the command caused have been applied; exactly once unless an error
// is returned.
func (r *Room) Request(peerID string, cmd *amphiv1.Command, done func(*amphiv1.Result)) error {
	id := r.set.lastID.Add(1)
	return r.post(func() {
		now := time.Now()
		q := &request{msg: &amphiv1.RoomRequest{Id: id, PeerId: peerID, Command: cmd}, since: now, done: done}
		r.pending[id] = q
		if r.rep != nil && r.answered == r.epoch {
			r.sendRequest(now, q)
		}
	})
}

// Call sends a command and waits for its result; a refusal is an error with a code.
func (r *Room) Call(ctx context.Context, peerID string, cmd *amphiv1.Command) (*amphiv1.Result, error) {
	answer := make(chan *amphiv1.Result, 1)
	if err := r.Request(peerID, cmd, func(res *amphiv1.Result) { answer <- res }); err != nil {
		return nil, err
	}
	select {
	case res := <-answer:
		if res.GetError() != nil {
			return nil, proto.FromWire(res.GetError())
		}
		return res, nil
	case <-r.over:
		return nil, proto.Errorf(proto.Unavailable, "the room has just closed here")
	case <-ctx.Done():
		return nil, proto.Errorf(proto.Timeout, "the room's owner does not answer")
	}
}

// run does one piece of work after the other until the set ends or nobody holds the room.
func (r *Room) run() {
	defer close(r.over)
	defer r.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.set.done:
			return
		case <-r.inbox.Ready():
			r.work()
			continue
		case <-timer.C:
		}
		now := time.Now()
		if r.idle(now) && r.set.retire(r) {
			r.send(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Detach{Detach: &amphiv1.Detach{}}})
			return
		}
		timer.Reset(r.tick(now))
	}
}

func (r *Room) work() {
	for _, f := range r.inbox.Take() {
		f()
	}
}

// stop answers everybody who still waits.
func (r *Room) stop() {
	r.work()
	err := proto.Errorf(proto.Unavailable, "the room has just closed here")
	r.refuse(err)
	for _, e := range r.early {
		e.done(e.result)
	}
	r.follower.Stopped()
}

func (r *Room) idle(now time.Time) bool {
	r.set.mu.Lock()
	held := r.holds > 0
	r.set.mu.Unlock()
	if held {
		r.unused = time.Time{}
		return false
	}
	if r.unused.IsZero() {
		r.unused = now
	}
	return now.Sub(r.unused) >= r.set.cfg.Linger
}

// tick keeps the attachment alive and looks after what is pending; it answers when to come again.
func (r *Room) tick(now time.Time) time.Duration {
	every := keepalive
	if r.rep == nil || r.answered != r.epoch || !r.missed.IsZero() {
		every = hurry
	}
	if now.Sub(r.attached) >= every {
		r.attach(now)
	}
	for _, q := range r.inOrder() {
		switch {
		case now.Sub(q.since) >= giveUp:
			r.set.stats.timeouts.Add(1)
			delete(r.pending, q.msg.GetId())
			q.done(errorResult(proto.Errorf(proto.Timeout, "the room's owner does not answer")))
		case r.rep != nil && r.answered == r.epoch && now.Sub(q.sent) >= repeatAfter:
			r.set.stats.repeated.Add(1)
			r.sendRequest(now, q)
		}
	}
	r.judge(now)
	r.follower.Tick(r.rep, now)
	if every == hurry || len(r.pending) > 0 {
		return hurry
	}
	return keepalive / 2
}

// inOrder lists what is pending as it was asked.
func (r *Room) inOrder() []*request {
	list := make([]*request, 0, len(r.pending))
	for _, q := range r.pending {
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b *request) int { return cmp.Compare(a.msg.GetId(), b.msg.GetId()) })
	return list
}

// judge finds the room's mode.
func (r *Room) judge(now time.Time) {
	r.mode = r.said
	if !r.missed.IsZero() && now.Sub(r.missed) >= hurry || r.rep != nil && now.Sub(r.heard) >= silence {
		r.mode = amphiv1.RoomMode_ROOM_MODE_NO_OWNER
	}
}

func errorResult(err error) *amphiv1.Result {
	return &amphiv1.Result{Body: &amphiv1.Result_Error{Error: proto.Wire(err)}}
}

// attach asks the present owner for what is missing; it is the keepalive too.
func (r *Room) attach(now time.Time) {
	r.attached = now
	if !r.locate(now) {
		return
	}
	a := &amphiv1.Attach{}
	if r.rep != nil && !r.rep.Ended() { // nothing goes on from a session that has ended, at a new owner either
		a.HaveSeq, a.SessionId, a.HaveEpoch = r.rep.Seq(), r.rep.SessionID(), r.seqEpoch
	}
	if r.rep != nil && r.set.cfg.Present != nil && now.Sub(r.listed) >= listEvery {
		r.listed = now
		a.ListsPeers, a.Peers = true, r.set.cfg.Present(r.follower)
	}
	r.send(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Attach{Attach: a}})
}

// locate asks the directory who the owner is; false: nobody.
func (r *Room) locate(now time.Time) bool {
	placed, err := r.set.directory.Owner(r.name)
	if err == nil && placed.GetNode() == "" {
		err = errNobody
	}
	if err != nil {
		r.log.Debug("no owner", "err", err)
	} else if placed.GetEpoch() > r.epoch || placed.GetEpoch() == r.epoch && placed.GetNode() != r.owner {
		r.owner, r.epoch, r.listed = placed.GetNode(), placed.GetEpoch(), time.Time{}
	}
	switch {
	case err == nil && r.answered == r.epoch:
		r.missed = time.Time{}
	case r.missed.IsZero():
		r.missed = now
	}
	return err == nil
}

var errNobody = errors.New("nobody owns the room")

// moved attaches at once to another owner.
func (r *Room) moved() {
	now := time.Now()
	if before := r.epoch; r.locate(now) && r.epoch > before {
		r.attach(now)
	}
}

func (r *Room) sendRequest(now time.Time, q *request) {
	q.sent = now
	r.send(&amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Request{Request: q.msg}})
}

func (r *Room) send(m *amphiv1.RoomMessage) {
	m.Room, m.Epoch = r.name, r.epoch
	b, err := exchange.Encode(m)
	if err == nil {
		err = r.set.carrier.Send(r.owner, r.name, b)
	}
	if err != nil {
		// Attaching and repeating make up for it.
		r.log.Debug("message not sent", "owner", r.owner, "err", err)
	}
}
