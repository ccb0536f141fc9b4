package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/group"
	"github.com/amphi-sfu/amphi/cluster/registry"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// behind is by how many entries a node's log may be behind the leader's when it gets a vote.
const behind = 1000

// duties are what the leader looks after, several times within a lease, until ctx ends: nodes that are dead, rooms
// without a standby, and the group itself.
func (t *term) duties(ctx context.Context) {
	every := t.c.cfg.LeaseTTL / 12
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	turn := make(chan struct{}, 1) // who commits
	last := t.c.cfg.Monotonic()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		now := t.c.cfg.Monotonic()
		if now-last > t.c.cfg.LeaseTTL/3 {
			// This node was paused: renewals may wait unread.
			t.mu.Lock()
			t.table.Extend(now)
			t.mu.Unlock()
		}
		last = now
		select {
		case turn <- struct{}{}:
			wg.Go(func() {
				t.work(ctx)
				<-turn
			})
		default: // still committing
		}
	}
}

func (t *term) work(ctx context.Context) {
	members := t.c.alive()
	for _, id := range t.dead() {
		t.bury(id, members)
	}
	if ctx.Err() != nil {
		return
	}
	t.standbys(members)
	t.reshape(members)
}

// commit adds an entry whose refusal is no surprise.
func (t *term) commit(id string, body *pb.MoveRooms) {
	cmd := &pb.RegistryCommand{Id: id, Body: &pb.RegistryCommand_MoveRooms{MoveRooms: body}}
	entry, err := gproto.Marshal(cmd)
	if err == nil {
		_, err = t.c.commit(entry)
	}
	if err != nil && !errors.Is(err, errNoLeader) {
		t.c.log.Warn("rooms could not be moved", "from", body.GetFrom(), "err", err)
	}
}

// bury takes a dead node's rooms away, in one entry.
func (t *term) bury(id string, members map[string]Member) {
	hosts := t.c.hosts(t.renewing(members))
	var move *pb.MoveRooms
	t.c.Read(func(r *pb.Registry) { move = registry.Takeover(r, id, hosts) })
	t.c.log.Warn("a node is dead; its rooms move", "node", id, "incarnation", move.GetIncarnation(), "rooms", len(move.GetRooms()))
	t.commit(fmt.Sprintf("down-%d-%.40s", move.GetIncarnation(), id), move)
}

// standbys gives one to the rooms that have none.
func (t *term) standbys(members map[string]Member) {
	hosts := t.c.hosts(t.renewing(members))
	var moves []*pb.MoveRooms
	t.c.Read(func(r *pb.Registry) {
		if r.GetRevision() == t.looked && slices.Equal(hosts, t.among) {
			return
		}
		moves = registry.Standbys(r, hosts)
		t.looked, t.among = r.GetRevision(), hosts
	})
	for _, m := range moves {
		t.commit("", m)
	}
}

// reshape makes the one change that the group needs most, if any.
func (t *term) reshape(members map[string]Member) {
	servers := t.c.group.Servers()
	change, wanted := group.Next(servers, t.facts(servers, members), group.Limits{Least: max(t.c.cfg.BootstrapExpect, 3), Most: t.c.cfg.MaxVoters})
	if !wanted {
		return
	}
	if err := t.c.group.Change(change); err != nil {
		t.c.log.Warn("the Raft group could not be changed", "node", change.ID, "err", err)
		return
	}
	t.c.log.Info("the Raft group has changed", "node", change.ID, "change", change.Kind.String())
}

// facts are what this leader knows of the servers and of living members.
func (t *term) facts(servers []group.Server, members map[string]Member) []group.Fact {
	var ids []string
	for _, s := range servers {
		ids = append(ids, s.ID)
	}
	for id := range members {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	now, index := t.c.cfg.Monotonic(), t.c.replica.index()
	t.mu.Lock()
	defer t.mu.Unlock()
	var facts []group.Fact
	for _, id := range ids {
		n := t.c.replica.node(id)
		m, member := members[id]
		f := group.Fact{ID: id, Alive: member || t.table.Renewing(now, id)}
		if n != nil {
			f.Voter = slices.Contains(n.GetRoles(), "voter")
		} else {
			f.Voter = slices.Contains(m.Roles, "voter")
		}
		if t.table.Renewing(now, id) && !n.GetDown() {
			delete(t.gone, id)
			since, ok := t.well[id]
			if !ok {
				since = now
				t.well[id] = now
			}
			f.Stable = now-since >= t.c.cfg.StableAfter && t.applied[id]+behind >= index
		} else {
			delete(t.well, id)
			since, ok := t.gone[id]
			if !ok {
				since = now
				t.gone[id] = now
			}
			f.Gone = now-since >= t.c.cfg.DeadAfter && !t.table.Runs(now, id)
			f.Alive = member && !f.Gone
			f.Deleted = n == nil && f.Gone && !member
		}
		facts = append(facts, f)
	}
	return facts
}

// measure is the longest round trip to a voter, waited for a little: Raft's time-outs follow from it, and one of them
// cannot be changed later.
func (c *Cluster) measure(ctx context.Context) time.Duration {
	founded, err := c.group.Founded()
	patience := 1500 * time.Millisecond
	if err == nil && !founded && c.cfg.BootstrapExpect != 1 {
		patience = 5 * time.Second // it has nothing to do before it sees others
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		rtt, voters, missing := c.roundTrip()
		if missing == 0 && (voters > 0 && voters+1 >= c.cfg.BootstrapExpect || c.cfg.BootstrapExpect == 1) {
			return rtt
		}
		select {
		case <-ctx.Done():
			return rtt
		case <-time.After(pause):
		}
	}
}

// roundTrip is the longest to the other voters that live, how many these are, and of how many it is not known.
func (c *Cluster) roundTrip() (longest time.Duration, voters, missing int) {
	for _, m := range c.deps.Members() {
		if m.ID == c.id || !slices.Contains(m.Roles, "voter") {
			continue
		}
		voters++
		if d := c.deps.Peers.RTT(m.ID); d > 0 {
			longest = max(longest, d)
		} else {
			missing++
		}
	}
	return longest, voters, missing
}

// adaptHeartbeat lets Raft's time-outs grow with the round trips, and shrink again, every few seconds.
func (c *Cluster) adaptHeartbeat(ctx context.Context) {
	ticks := time.NewTicker(5 * time.Second)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		rtt, _, _ := c.roundTrip()
		if c.cfg.Heartbeat != 0 {
			continue
		}
		if err := c.group.SetHeartbeat(group.Heartbeat(rtt)); err != nil {
			c.log.Warn("Raft's time-outs cannot follow the round trips", "rtt", rtt, "err", err)
		}
	}
}
