package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// directEvery is how often the owner of a room looks whether the origins of its streams are there, keepEvery how often
	// it tells them to go on.
	directEvery = 250 * time.Millisecond
	keepEvery   = 2 * time.Second
	// goneAfter is after what silence an origin counts as gone: heartbeats come every 100 ms.
	goneAfter = 1500 * time.Millisecond
	// orderTimeout bounds one order, placeTimeout the choice of an origin.
	orderTimeout = 3 * time.Second
	placeTimeout = 8 * time.Second
	// homeless is how long a stream that ran may be without an origin before it counts as failed.
	homeless = 30 * time.Second
)

// director has the streams of the rooms that this node owns made: by this node where it can, else by another.
type director struct {
	node    string
	region  string
	log     *slog.Logger
	records originRecords
	// members are all nodes; heard is when another one said something last; order carries an order to a node; owns: a room is
	// this node's, or nobody's any more; report tells it how a stream does.
	members func() []member
	heard   func(node string) time.Time
	order   func(ctx context.Context, node string, o *amphiv1.OriginOrder) (*amphiv1.OriginAnswer, error)
	owns    func(room string) bool
	report  func(room string, stream *amphiv1.Stream)
	// admit says whether this node has room for a stream.
	admit func(room string, settings *amphiv1.StreamSettings) error
	// moved is told which node makes a stream now; cue puts something into a stream that a node makes. cue does not block.
	moved func(room, stream, node string)
	cue   func(node, room, stream string, c *amphiv1.StreamCue)

	base context.Context // of all streams; ends with run
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex // guards the fields below
	made map[string]*direction
	// ended is when this node stopped the streams that players may still see the end of.
	ended map[string]time.Time
	// firsts counts the streams of rooms that are about to have a record.
	firsts map[string]int
}

// direction is one stream. What is below the gap is guarded by director.mu, and origin written by the stream's goroutine only.
type direction struct {
	room     string
	name     string
	settings *amphiv1.StreamSettings
	cancel   context.CancelFunc
	done     chan struct{}

	stream *amphiv1.Stream // as the room wants it
	origin *amphiv1.StreamOrigin
}

func newDirector() *director {
	d := &director{made: map[string]*direction{}, ended: map[string]time.Time{}, firsts: map[string]int{}}
	d.base, d.end = context.WithCancel(context.Background())
	return d
}

// run ends everything when ctx does.
func (d *director) run(ctx context.Context) error {
	<-ctx.Done()
	d.end()
	d.wg.Wait()
	return nil
}

// Start implements signal.Streams.
func (d *director) Start(room string, settings *amphiv1.StreamSettings, stream *amphiv1.Stream) error {
	x := &direction{room: room, name: stream.GetName(), settings: settings, stream: stream, done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(d.base, placeTimeout)
	defer cancel()
	if err := d.adopt(ctx, x); err != nil {
		if err := d.place(ctx, x, "", false); err != nil {
			return err
		}
	}
	ctx, x.cancel = context.WithCancel(d.base)
	d.mu.Lock()
	d.made[registry.OriginKey(room, stream.GetName())] = x
	d.mu.Unlock()
	d.wg.Go(func() {
		defer close(x.done)
		d.keep(ctx, x)
	})
	return nil
}

// Admit implements owner.Admitter: only where no other node could make the stream is it known before that there is no room for it.
func (d *director) Admit(room string, settings *amphiv1.StreamSettings) error {
	if fit := d.candidates(""); len(fit) == 1 && fit[0] == d.node {
		return d.admit(room, settings)
	}
	return nil
}

// adopt goes on with the program that an earlier owner of the room had started, if it runs.
func (d *director) adopt(ctx context.Context, x *direction) error {
	known := d.records.of(x.room, x.name)
	if known.GetNode() == "" || d.gone(known.GetNode()) {
		return proto.Errorf(proto.NotFound, "the stream does not run")
	}
	answer, err := d.order(ctx, known.GetNode(), d.ordered(x, amphiv1.OriginOrder_ACTION_LAYOUT, known.GetEpoch()))
	if err != nil {
		return err
	}
	d.mu.Lock()
	x.origin = answer.GetProgram()
	d.mu.Unlock()
	d.report(x.room, answer.GetStream())
	d.log.Info("the stream goes on where it is made", "room", x.room, "stream", x.name, "origin", known.GetNode())
	return nil
}

// ordered is an order about the stream.
func (d *director) ordered(x *direction, action amphiv1.OriginOrder_Action, epoch uint64) *amphiv1.OriginOrder {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &amphiv1.OriginOrder{Action: action, Room: x.room, Stream: x.stream, Epoch: epoch}
}

// untilLive waits for the first picture of a program that is to replace one which still goes on.
func (d *director) untilLive(ctx context.Context, x *direction, p *amphiv1.StreamOrigin) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	for ctx.Err() == nil {
		answer, err := d.order(ctx, p.GetNode(), d.ordered(x, amphiv1.OriginOrder_ACTION_KEEP, p.GetEpoch()))
		if err == nil && answer.GetStream().GetState() == amphiv1.StreamState_STREAM_STATE_LIVE {
			return
		}
		pause(ctx, directEvery/2)
	}
}

// place chooses an origin other than not, starts the stream there, and has everybody know: at once, or when there is a
// picture, if the program before lives.
func (d *director) place(ctx context.Context, x *direction, not string, lives bool) error {
	for {
		before, epoch := d.records.next(x.room, x.name)
		if before != nil {
			return d.start(ctx, x, not, lives, before, epoch)
		}
		err := d.first(ctx, x, not, epoch)
		// Streams of other rooms may have raised the floor meanwhile, or another one of this room taken the last place.
		if ctx.Err() != nil || !d.records.passed(err, x.room, x.name, epoch) {
			return err
		}
	}
}

// start has the first candidate that can make the stream at an epoch, after the program before; nil: the first.
func (d *director) start(ctx context.Context, x *direction, not string, lives bool, before *amphiv1.StreamOrigin, epoch uint64) error {
	err := error(proto.Errorf(proto.StreamFailed, "no node here composes streams: it takes the role origin and the program %s", compositorName))
	for _, node := range d.candidates(not) {
		o := d.ordered(x, amphiv1.OriginOrder_ACTION_RUN, epoch)
		o.Settings, o.Before = x.settings, before
		var answer *amphiv1.OriginAnswer
		if answer, err = d.try(ctx, node, o); err != nil {
			d.log.Warn("a node does not make a stream", "origin", node, "room", x.room, "stream", x.name, "err", err)
			continue
		}
		if lives {
			d.untilLive(ctx, x, answer.GetProgram())
		}
		if err = d.records.put(ctx, answer.GetProgram(), before == nil); err != nil {
			_, _ = d.try(ctx, node, d.ordered(x, amphiv1.OriginOrder_ACTION_STOP, answer.GetProgram().GetEpoch()))
			return err
		}
		d.mu.Lock()
		x.origin = answer.GetProgram()
		d.mu.Unlock()
		d.log.Info("the stream has an origin", "room", x.room, "stream", x.name, "origin", node, "epoch", x.origin.GetEpoch(),
			"first_msn", x.origin.GetFirstMsn())
		return nil
	}
	return err
}

func (d *director) try(ctx context.Context, node string, o *amphiv1.OriginOrder) (*amphiv1.OriginAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	return d.order(ctx, node, o)
}

// candidates are the nodes that may make a stream, the best first: this one, then the least loaded of its region, then of
// others.
func (d *director) candidates(not string) []string {
	var fit []member
	for _, m := range d.members() {
		if m.has(roleOrigin) && m.alive && !m.draining && m.id != not && !d.gone(m.id) {
			fit = append(fit, m)
		}
	}
	rank := func(m member) int {
		switch {
		case m.id == d.node:
			return 0
		case m.region == d.region:
			return 1
		}
		return 2
	}
	slices.SortFunc(fit, func(a, b member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.load, b.load), cmp.Compare(a.id, b.id))
	})
	list := make([]string, 0, len(fit))
	for _, m := range fit {
		list = append(list, m.id)
	}
	return list
}

// gone says that nothing is heard of a node.
func (d *director) gone(node string) bool {
	return node != d.node && time.Since(d.heard(node)) > goneAfter
}

// leaves says that a node is to make no streams any more.
func (d *director) leaves(node string) bool {
	return slices.ContainsFunc(d.members(), func(m member) bool { return m.id == node && m.draining })
}

// keep watches over a stream's origin until ctx ends, and puts another one in its place.
func (d *director) keep(ctx context.Context, x *direction) {
	t := time.NewTicker(directEvery)
	defer t.Stop()
	var told, lost time.Time
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now, node := time.Now(), x.origin.GetNode()
		replace := d.gone(node) || d.leaves(node) && len(d.candidates(node)) > 0
		if !replace && now.Sub(told) >= keepEvery {
			told = now
			replace = !d.tell(ctx, x, &failures)
		}
		if !replace || ctx.Err() != nil {
			lost = time.Time{}
			continue
		}
		if lost.IsZero() {
			lost = now
		}
		err := d.replace(ctx, x)
		if err == nil {
			d.moved(x.room, x.name, x.origin.GetNode())
		}
		if err != nil {
			d.log.Warn("a stream has no other origin yet", "room", x.room, "stream", x.name, "err", err)
			pause(ctx, keepEvery/4)
		}
		if err != nil && time.Since(lost) > homeless {
			d.report(x.room, &amphiv1.Stream{Name: x.name, State: amphiv1.StreamState_STREAM_STATE_FAILED, Failure: proto.Wire(err).GetMessage()})
			return
		}
	}
}

// pause waits for so long, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tell has an origin go on; false: it does not, or cannot.
func (d *director) tell(ctx context.Context, x *direction, failures *int) bool {
	node := x.origin.GetNode()
	answer, err := d.try(ctx, node, d.ordered(x, amphiv1.OriginOrder_ACTION_KEEP, x.origin.GetEpoch()))
	switch {
	case err == nil && answer.GetStream().GetState() != amphiv1.StreamState_STREAM_STATE_FAILED:
		*failures = 0
		d.note(ctx, x, answer.GetProgram())
		return true
	case err == nil:
		// It goes on trying, but others may be able to.
		return len(d.candidates(node)) == 0
	case proto.CodeOf(err) == proto.NotFound:
		return false
	}
	*failures++
	return *failures < 2
}

// note has the registry know that a program has used more media sequence numbers than it seemed, for whoever makes the stream next.
func (d *director) note(ctx context.Context, x *direction, p *amphiv1.StreamOrigin) {
	known := d.records.of(x.room, x.name)
	if p.GetEpoch() != known.GetEpoch() || p.GetFirstMsn() <= known.GetFirstMsn() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	if err := d.records.put(ctx, p, false); err != nil {
		d.log.Warn("the cluster does not know yet how far a stream has come", "room", x.room, "stream", x.name, "err", err)
	}
}

// replace has another origin make the stream.
func (d *director) replace(ctx context.Context, x *direction) error {
	ctx, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	old := x.origin
	d.log.Warn("a stream needs another origin", "room", x.room, "stream", x.name, "origin", old.GetNode())
	not := old.GetNode()
	if !d.gone(not) && len(d.candidates(not)) == 0 {
		not = "" // it has forgotten, as after a new start
	}
	// The owner before may have placed it just then.
	if d.records.of(x.room, x.name).GetEpoch() > old.GetEpoch() && d.adopt(ctx, x) == nil {
		return nil
	}
	return d.place(ctx, x, not, not != "" && !d.gone(not))
}

// SetLayout implements signal.Streams.
func (d *director) SetLayout(room string, stream *amphiv1.Stream) {
	d.mu.Lock()
	x := d.made[registry.OriginKey(room, stream.GetName())]
	if x == nil {
		d.mu.Unlock()
		return
	}
	x.stream = stream
	epoch, node := x.origin.GetEpoch(), x.origin.GetNode()
	d.mu.Unlock()
	if _, err := d.try(d.base, node, d.ordered(x, amphiv1.OriginOrder_ACTION_LAYOUT, epoch)); err != nil {
		d.log.Warn("setting a layout", "room", room, "stream", stream.GetName(), "origin", node, "err", err)
	}
}

// Cue implements signal.Streams.
func (d *director) Cue(room, stream string, c *amphiv1.StreamCue) {
	if node := d.at(room, stream); node != "" {
		d.cue(node, room, stream, c)
	}
}

// at is the node that makes a stream of a room that this node owns; empty: none does.
func (d *director) at(room, stream string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.made[registry.OriginKey(room, stream)]; x != nil {
		return x.origin.GetNode()
	}
	return ""
}

// Stop implements signal.Streams. A stream of a room that another node owns by now is that one's to stop.
func (d *director) Stop(room, stream string) {
	key := registry.OriginKey(room, stream)
	d.mu.Lock()
	x := d.made[key]
	delete(d.made, key)
	if x != nil {
		d.endsLocked(key, time.Now())
	}
	d.mu.Unlock()
	if x == nil {
		return
	}
	x.cancel()
	<-x.done
	if !d.owns(room) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if _, err := d.order(ctx, x.origin.GetNode(), d.ordered(x, amphiv1.OriginOrder_ACTION_STOP, x.origin.GetEpoch())); err != nil {
		d.log.Warn("stopping a stream", "room", room, "stream", stream, "origin", x.origin.GetNode(), "err", err)
	}
}
