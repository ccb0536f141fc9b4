package main

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// drainEvery is how often a drain looks at what is left.
	drainEvery = 500 * time.Millisecond
	// leastMoves and mostMoves bound how many clients are asked to move in a second.
	leastMoves, mostMoves = 10, 1000
	// handoverTimeout bounds the handover of one room.
	handoverTimeout = 5 * time.Second
)

// drain is how far a node's drain has come.
type drain struct {
	empty chan struct{} // closed when it has ended: nothing is left, or its time is over

	mu     sync.Mutex // guards the fields below
	until  time.Time  // zero: none
	cancel context.CancelFunc
	left   amphiv1.DrainStatus
	wg     sync.WaitGroup
	ended  bool
}

func newDrain() *drain { return &drain{empty: make(chan struct{})} }

// untilDrained is done when ctx is, after the node's drain, or when a drain that an operator asked for has ended. release
// is for after the node has stopped.
func (n *Node) untilDrained(ctx context.Context) (_ context.Context, release func()) {
	if n.mesh == nil {
		return ctx, func() {}
	}
	m := n.mesh
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		select {
		case <-ctx.Done():
			// To be told to end is a drain, but for a node that nobody could take over from.
			if !m.alone() {
				m.begin(0)
				select {
				case <-m.drain.empty:
				case <-inner.Done():
				}
			}
		case <-m.drain.empty:
		case <-inner.Done():
		}
	})
	return inner, func() { cancel(); wg.Wait(); m.drain.stop() }
}

// alone says that no other node lives that clients could go to.
func (m *mesh) alone() bool {
	for _, o := range m.members() {
		if o.id != m.self.GetId() && o.serves(0) >= 0 {
			return false
		}
	}
	return true
}

// status is nil while the node does not drain.
func (d *drain) status() *amphiv1.DrainStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until.IsZero() {
		return nil
	}
	return &amphiv1.DrainStatus{UntilMs: d.until.UnixMilli(), RoomsLeft: d.left.RoomsLeft, ClientsLeft: d.left.ClientsLeft, RelaysLeft: d.left.RelaysLeft,
		StreamsLeft: d.left.StreamsLeft}
}

// begin starts a drain, or gives the one that runs another end.
func (m *mesh) begin(within time.Duration) {
	if within == 0 {
		within = m.cfg.Drain
	}
	d := m.drain
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = time.Now().Add(within)
	if d.cancel != nil || d.ended {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.wg.Go(func() { m.empty(ctx) })
}

// undrain takes the drain back.
func (m *mesh) undrain(ctx context.Context) error {
	d := m.drain
	d.mu.Lock()
	cancel, ended := d.cancel, d.ended
	d.mu.Unlock()
	if ended {
		return proto.Errorf(proto.Conflict, "the drain has ended")
	}
	if cancel != nil {
		cancel()
	}
	d.wg.Wait()
	d.mu.Lock()
	d.until, d.cancel = time.Time{}, nil
	d.mu.Unlock()
	m.gossip.SetDraining(false)
	return m.cluster.Drain(ctx, 0)
}

// stop ends the drain's work, for a node that ends.
func (d *drain) stop() {
	d.mu.Lock()
	if d.cancel != nil {
		d.cancel()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// empty moves everything away until nothing is left or the time is over.
func (m *mesh) empty(ctx context.Context) {
	m.log.Info("the node drains")
	m.gossip.SetDraining(true)
	d := m.drain
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		d.mu.Lock()
		until := d.until
		d.mu.Unlock()
		if !time.Now().Before(until) || m.round(ctx, until) {
			d.mu.Lock()
			if d.ended = ctx.Err() == nil; d.ended {
				close(d.empty)
			}
			d.mu.Unlock()
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// round hands rooms over and asks clients to move; true: nothing is left.
func (m *mesh) round(ctx context.Context, until time.Time) bool {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if err := m.cluster.Drain(ctx, until.UnixMilli()); err != nil {
		m.log.Warn("the cluster does not know of the drain yet", "err", err)
	}
	for room := range m.node.signal.Active() {
		one, done := context.WithTimeout(ctx, handoverTimeout)
		err := m.node.signal.Handover(one, room, func(ctx context.Context) error { return m.cluster.Handover(ctx, room) })
		done()
		if err != nil {
			m.log.Info("a room stays for now", "room", room, "err", err)
		}
	}
	m.node.signal.MoveClients(ctx, movesPerSecond(m.node.signal.Stats().Clients.Open, time.Until(until)))
	left := m.left()
	m.drain.mu.Lock()
	m.drain.left.RoomsLeft, m.drain.left.ClientsLeft, m.drain.left.RelaysLeft = left.RoomsLeft, left.ClientsLeft, left.RelaysLeft
	m.drain.left.StreamsLeft = left.StreamsLeft
	m.drain.mu.Unlock()
	return left.RoomsLeft == 0 && left.ClientsLeft == 0 && left.RelaysLeft == 0 && left.StreamsLeft == 0
}

// movesPerSecond is how many of so many clients to ask in a second so that half of the time that is left is enough: each
// costs its next node a handshake, and those who are there already should not notice.
func movesPerSecond(clients uint64, left time.Duration) int {
	half := max(left.Seconds()/2, 1)
	return int(min(max(math.Ceil(float64(clients)/half), leastMoves), mostMoves))
}

// left counts what still needs this node.
func (m *mesh) left() *amphiv1.DrainStatus {
	endpoints := 0
	for _, r := range m.node.media.Stats().Routers {
		endpoints += len(r.Endpoints)
	}
	return &amphiv1.DrainStatus{
		RoomsLeft:   uint32(len(m.node.signal.Active())),
		ClientsLeft: uint32(max(m.node.signal.Stats().Clients.Open, uint64(endpoints))),
		RelaysLeft:  uint32(len(m.relays.Stats("").Relays)),
		StreamsLeft: m.streamsLeft(),
	}
}
