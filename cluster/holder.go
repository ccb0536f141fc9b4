package cluster

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/lease"
	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// holder keeps this node registered and its lease renewed.
type holder struct {
	c     *Cluster
	every time.Duration
	again chan struct{} // holds a token when the node has to register again; put in under mu

	mu          sync.Mutex // guards the fields below; the registry's lock is taken inside it
	lease       lease.Holder
	incarnation uint64 // 0: not registered
	drainUntil  int64
	failures    int // of renewals, one after the other
	ended       bool
}

func newHolder(c *Cluster) *holder {
	return &holder{c: c, every: c.cfg.LeaseTTL * time.Duration(lease.Every) / time.Duration(lease.TTL), again: make(chan struct{}, 1)}
}

func (h *holder) life() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.incarnation
}

// end gives the lease up for good, and returns the life that ends; 0: the node was not registered.
func (h *holder) end() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.lease.Drop()
	return h.incarnation
}

func (h *holder) leased() bool {
	// The clock is read first: whatever happens after that, the lease ran then or it did not.
	now := h.c.cfg.Monotonic()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.incarnation != 0 && h.lease.Valid(now) && h.registered(h.incarnation)
}

// registered tells whether the registry, as this node has it, takes it to be in this life, and not down.
func (h *holder) registered(incarnation uint64) bool {
	n := h.c.replica.node(h.c.id)
	return n.GetIncarnation() == incarnation && !n.GetDown()
}

func (h *holder) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { h.announce(ctx) })
	if !h.register(ctx) {
		return
	}
	ticks := time.NewTicker(h.every)
	defer ticks.Stop()
	inFlight := make(chan struct{}, 4)
	for {
		elected := h.c.nextLeader()
		select {
		case inFlight <- struct{}{}:
			wg.Go(func() {
				h.renew(ctx)
				<-inFlight
			})
		default:
		}
		select {
		case <-ctx.Done():
			return
		case <-h.again:
			if !h.register(ctx) {
				return
			}
		case <-elected:
			// The one before may have been silent for most of the lease.
			h.mu.Lock()
			h.failures = 0
			h.mu.Unlock()
			// Those that waited for that one end now; they have had all the places, perhaps.
			select {
			case inFlight <- struct{}{}:
				<-inFlight
			case <-ctx.Done():
				return
			}
		case <-ticks.C:
		}
	}
}

// announce tells the watchers when the lease begins to run, and when it has run out.
func (h *holder) announce(ctx context.Context) {
	ticks := time.NewTicker(max(h.every/12, time.Millisecond))
	defer ticks.Stop()
	was := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		if is := h.leased(); is != was {
			was = is
			h.c.replica.watchers.tell("")
		}
	}
}

// register makes the node known, in a life of its own: above any that the registry has had. It tries until ctx ends
// (false).
func (h *holder) register(ctx context.Context) bool {
	h.mu.Lock()
	h.lease.Drop()
	h.incarnation = 0
	select {
	case <-h.again: // meant the life that has just ended
	default:
	}
	h.mu.Unlock()
	for {
		if h.c.Sync(ctx) == nil {
			incarnation := h.c.replica.node(h.c.id).GetIncarnation() + 1
			err := h.put(ctx, incarnation)
			if err == nil {
				h.mu.Lock()
				h.incarnation, h.failures = incarnation, 0
				h.mu.Unlock()
				return true
			}
			h.c.log.Warn("the node is not registered yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(h.every):
		}
	}
}

// put writes the node's record.
func (h *holder) put(ctx context.Context, incarnation uint64) error {
	n := gproto.Clone(h.c.cfg.Node).(*pb.ClusterNode)
	n.Incarnation, n.Rules = incarnation, registry.Rules
	h.mu.Lock()
	n.DrainUntilMs = h.drainUntil
	h.mu.Unlock()
	return h.c.Propose(ctx, &pb.RegistryCommand{Body: &pb.RegistryCommand_PutNode{PutNode: n}})
}

// renew asks for another term once, until there may be another leader. The lease runs from before the question.
func (h *holder) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, h.c.cfg.LeaseTTL)
	defer cancel()
	elected := h.c.nextLeader()
	ctx, stop := withEnd(ctx, elected)
	defer stop()
	h.mu.Lock()
	incarnation, failures := h.incarnation, h.failures
	h.mu.Unlock()
	if incarnation == 0 {
		return // begun just before the node had to register again, which run is doing
	}
	sent := h.c.cfg.Monotonic()
	err := h.ask(ctx, failures, &pb.RenewLease{
		Node: h.c.id, Incarnation: incarnation, Unheard: h.unheard(), Applied: h.c.replica.index(),
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.incarnation != incarnation || h.ended:
	case err == nil:
		h.lease.Granted(sent, h.c.cfg.LeaseTTL)
		h.failures = 0
	case proto.CodeOf(err) == proto.Conflict:
		// The cluster took this node for dead.
		h.lease.Drop()
		select {
		case h.again <- struct{}{}:
		default:
		}
	case !closed(elected):
		h.failures++
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ask puts the renewal to the leader, every other time after a failure through another node: the way to the leader may
// be the only one that is cut.
func (h *holder) ask(ctx context.Context, failures int, r *pb.RenewLease) error {
	to := h.c.group.Leader()
	if failures%2 == 1 {
		if others := h.others(to); len(others) > 0 {
			to = others[rand.IntN(len(others))]
		}
	}
	call := &pb.RegistryCall{Body: &pb.RegistryCall_Renew{Renew: r}}
	var reply *pb.RegistryReply
	switch to {
	case "":
		return errNoLeader
	case h.c.id:
		reply = h.c.handle(ctx, h.c.id, call)
	default:
		var err error
		if reply, err = h.c.call(ctx, to, call); err != nil {
			return errNoLeader
		}
	}
	if reply.GetError() != nil {
		return proto.FromWire(reply.GetError())
	}
	return nil
}

// others are living nodes but this one and the leader. Of those that died just now the members may not know yet.
func (h *holder) others(leader string) []string {
	var ids []string
	for _, m := range h.c.deps.Members() {
		if m.ID != h.c.id && m.ID != leader && !h.silent(m.ID) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// unheard are the registered nodes that this one has not heard for two thirds of a lease.
func (h *holder) unheard() []string {
	var ids []string
	for _, n := range h.c.Nodes() {
		if n.GetId() != h.c.id && h.silent(n.GetId()) {
			ids = append(ids, n.GetId())
		}
	}
	slices.Sort(ids)
	return ids
}

func (h *holder) silent(node string) bool {
	return time.Since(h.c.deps.Peers.Heard(node)) > h.c.cfg.LeaseTTL*2/3
}

// Drain marks the node as leaving until a time in Unix milliseconds, or with 0 as staying: it takes no new rooms and
// copies. Moving what it has is Handover's.
func (c *Cluster) Drain(ctx context.Context, until int64) error {
	c.holder.mu.Lock()
	incarnation := c.holder.incarnation
	c.holder.drainUntil = until
	c.holder.mu.Unlock()
	if incarnation == 0 {
		return proto.Errorf(proto.Unavailable, "the node is not registered yet")
	}
	return c.holder.put(ctx, incarnation)
}
