package main

import (
	"maps"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// forgetPlan is after how long a plan is forgotten that nobody asked for: owners ask every 5 s.
const forgetPlan = time.Minute

// planner implements signal.Planner: it plans the rooms that this node owns.
type planner struct {
	// members are all nodes that are known; rtt is that between two of them, 0 unknown, negative: they cannot reach each other.
	members func() []member
	rtt     func(a, b string) time.Duration
	started time.Time

	mu    sync.Mutex // guards the field below
	rooms map[string]planned
}

// planned is the plan of a room that was made last.
type planned struct {
	plan *plan.Plan
	wire *amphiv1.RelayPlan
	used time.Duration
}

func newPlanner(members func() []member, rtt func(a, b string) time.Duration) *planner {
	return &planner{members: members, rtt: rtt, started: time.Now(), rooms: map[string]planned{}}
}

// Plan implements signal.Planner.
func (p *planner) Plan(room string, before *amphiv1.RelayPlan, nodes []string, homes map[string]string) *amphiv1.RelayPlan {
	known := map[string]member{}
	for _, m := range p.members() {
		known[m.id] = m
	}
	now := time.Since(p.started)
	in := plan.Input{Now: now, RTT: p.rtt}
	for _, id := range nodes {
		if m, ok := known[id]; ok {
			in.Nodes = append(in.Nodes, plan.Node{ID: id, Region: m.region, Zone: m.zone, Load: m.load, Relay: m.has(roleStage) && !m.draining})
		}
	}
	for _, home := range homes {
		in.Homes = append(in.Homes, home)
	}
	in.Before = p.before(room, before, known)
	made := plan.Make(in)
	wire := plan.Encode(made, before.GetVersion()+1, homes)
	same := before != nil && made.Same(in.Before) && maps.Equal(homesOf(before), homesOf(wire))
	if same {
		wire = before
	}
	p.keep(room, planned{made, wire, now})
	if same {
		return nil
	}
	return wire
}

// before is the plan in use: the one that was made here, or another owner's.
func (p *planner) before(room string, wire *amphiv1.RelayPlan, known map[string]member) *plan.Plan {
	p.mu.Lock()
	kept := p.rooms[room]
	p.mu.Unlock()
	switch {
	case wire == nil:
		return nil
	case kept.wire == wire:
		return kept.plan
	}
	decoded, err := plan.Decode(wire)
	if err != nil {
		return nil
	}
	decoded.FindGateways(func(id string) string { return known[id].region })
	return decoded
}

func (p *planner) keep(room string, made planned) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rooms[room] = made
	maps.DeleteFunc(p.rooms, func(_ string, k planned) bool { return made.used-k.used > forgetPlan })
}

// homesOf is the home of each peer by its name.
func homesOf(wire *amphiv1.RelayPlan) map[string]string {
	homes := make(map[string]string, len(wire.GetHomes()))
	for peer, i := range wire.GetHomes() {
		if int(i) < len(wire.GetNodes()) {
			homes[peer] = wire.GetNodes()[i]
		}
	}
	return homes
}
