package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/lease"
	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// leader is what this node does for all while it leads the Raft group.
type leader struct {
	c *Cluster

	mu      sync.Mutex    // guards the fields below
	term    *term         // nil while this node does not lead, or is not sure yet
	changed chan struct{} // closed, and made anew, when term may have changed
}

func newLeader(c *Cluster) *leader { return &leader{c: c, changed: make(chan struct{})} }

func (l *leader) current() *term {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term
}

func (l *leader) set(t *term) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = t
	close(l.changed)
	l.changed = make(chan struct{})
}

// await is the present term, waited for where this node has been elected and does not serve yet; nil: there is none.
func (l *leader) await(ctx context.Context) *term {
	for {
		l.mu.Lock()
		t, changed := l.term, l.changed
		l.mu.Unlock()
		if t != nil || !l.c.group.Leading() {
			return t
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *leader) run(ctx context.Context) {
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return
		case leads := <-l.c.group.Leadership():
			end()
			end = func() {}
			if !leads {
				continue
			}
			inner, cancel := context.WithCancel(ctx)
			var wg sync.WaitGroup
			wg.Go(func() { l.serve(inner) })
			end = func() {
				cancel()
				wg.Wait()
			}
		}
	}
}

// serve is one term of leadership. It begins when everything that earlier leaders have committed is known here.
func (l *leader) serve(ctx context.Context) {
	number := l.c.group.Term()
	defer l.set(nil)
	if l.c.group.Barrier() != nil || !l.c.group.Leading() || l.c.group.Term() != number {
		return
	}
	t := newTerm(l.c, number)
	l.set(t)
	l.c.log.Info("this node leads the cluster", "term", number)
	var wg sync.WaitGroup
	wg.Go(func() { t.confirmations(ctx) })
	t.duties(ctx)
	wg.Wait()
}

// index is one up to which this node's registry has everything that was answered anywhere before.
func (l *leader) index(ctx context.Context) (uint64, error) {
	t := l.current()
	if t == nil {
		return 0, errNoLeader
	}
	// Not what is applied here: another node may have applied, and shown, more than this one.
	index, err := l.c.group.Committed()
	if err != nil {
		return 0, err
	}
	return index, t.confirm(ctx)
}

// renew gives a node another term of its lease.
func (l *leader) renew(ctx context.Context, r *pb.RenewLease) error {
	t := l.await(ctx)
	if t == nil {
		return errNoLeader
	}
	if err := t.received(r); err != nil {
		return err
	}
	return t.confirm(ctx)
}

// term is this node's memory as the leader of one Raft term.
type term struct {
	c      *Cluster
	number uint64
	asked  chan struct{} // holds a token when next is set

	mu        sync.Mutex // guards the fields below; the registry's lock is taken inside it
	table     *lease.Table
	condemned map[string]uint64        // nodes whose death has been proposed, with their incarnation
	applied   map[string]uint64        // how far the nodes' registries have come
	well      map[string]time.Duration // since when nodes have renewed without a break
	gone      map[string]time.Duration // since when they have not
	next      *round

	// Of what standbys were looked for last; the duties' own.
	looked uint64
	among  []registry.Host
}

// round is one question to the voters whether there is a newer leader.
type round struct {
	done chan struct{}
	err  error
}

func newTerm(c *Cluster, number uint64) *term {
	return &term{
		c: c, number: number, asked: make(chan struct{}, 1), table: lease.NewTable(c.cfg.Monotonic(), c.cfg.LeaseTTL),
		condemned: map[string]uint64{}, applied: map[string]uint64{}, well: map[string]time.Duration{}, gone: map[string]time.Duration{},
	}
}

// received notes a renewal, unless the node is down or about to be.
func (t *term) received(r *pb.RenewLease) error {
	now := t.c.cfg.Monotonic()
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.c.replica.node(r.GetNode())
	switch incarnation, dying := t.condemned[r.GetNode()]; {
	case n == nil:
		return proto.Errorf(proto.Conflict, "the node is not registered")
	case n.GetDown() || n.GetIncarnation() != r.GetIncarnation():
		return proto.Errorf(proto.Conflict, "the node is at incarnation %d, or down", n.GetIncarnation())
	case dying && incarnation == r.GetIncarnation():
		return proto.Errorf(proto.Unavailable, "the node is being taken for dead")
	}
	delete(t.condemned, r.GetNode())
	t.table.Renewed(now, r.GetNode(), r.GetUnheard())
	t.applied[r.GetNode()] = r.GetApplied()
	return nil
}

// confirm returns when a majority of the voters, asked after it was called, knew of no newer term than this leader's: no
// other leader had been elected when it was called. What it grants then began before any other leader's term.
func (t *term) confirm(ctx context.Context) error {
	t.mu.Lock()
	if t.next == nil {
		t.next = &round{done: make(chan struct{})}
	}
	r := t.next
	t.mu.Unlock()
	select {
	case t.asked <- struct{}{}:
	default:
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return errNoLeader
	}
}

// confirmations asks for all who wait, one round after the other.
func (t *term) confirmations(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.asked:
		}
		t.mu.Lock()
		r := t.next
		t.next = nil
		t.mu.Unlock()
		if r == nil {
			continue
		}
		if !t.majority(ctx) {
			r.err = errNoLeader
		}
		close(r.done)
	}
}

// majority asks the voters once.
func (t *term) majority(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, t.c.cfg.LeaseTTL/2)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	voters, same := 0, 0
	answers := make(chan bool)
	for _, s := range t.c.group.Servers() {
		if !s.Voter {
			continue
		}
		voters++
		wg.Go(func() {
			is := t.sees(ctx, s.ID)
			select {
			case answers <- is:
			case <-ctx.Done():
			}
		})
	}
	for range voters {
		select {
		case is := <-answers:
			if is {
				same++
			}
		case <-ctx.Done():
			return false
		}
		if same > voters/2 {
			return true
		}
	}
	return false
}

// sees tells whether the voter knows of no newer term.
func (t *term) sees(ctx context.Context, voter string) bool {
	if voter == t.c.id {
		return t.c.group.Term() == t.number
	}
	reply, err := t.c.call(ctx, voter, &pb.RegistryCall{Body: &pb.RegistryCall_Term{Term: true}})
	return err == nil && reply.GetError() == nil && reply.GetTerm() <= t.number
}

// dead condemns the nodes that are dead now: from here on their renewals are refused.
func (t *term) dead() []string {
	var nodes []string
	incarnations := map[string]uint64{}
	for _, n := range t.c.Nodes() {
		if !n.GetDown() {
			nodes = append(nodes, n.GetId())
			incarnations[n.GetId()] = n.GetIncarnation()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	dead := t.table.Dead(t.c.cfg.Monotonic(), nodes)
	for _, id := range dead {
		t.condemned[id] = incarnations[id]
	}
	for id := range t.condemned {
		if !slices.Contains(nodes, id) {
			delete(t.condemned, id) // it is down, and has been told
		}
	}
	return dead
}

// renewing are the members whose leases run because they renew them.
func (t *term) renewing(members map[string]Member) map[string]Member {
	now := t.c.cfg.Monotonic()
	t.mu.Lock()
	defer t.mu.Unlock()
	living := map[string]Member{}
	for _, n := range t.c.Nodes() {
		if _, dying := t.condemned[n.GetId()]; dying || !t.table.Renewing(now, n.GetId()) {
			continue
		}
		m := members[n.GetId()]
		m.ID = n.GetId()
		living[m.ID] = m
	}
	return living
}
