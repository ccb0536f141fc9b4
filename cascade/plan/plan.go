// Package plan computes over which nodes the tracks of a room travel: for each home a tree of the room's nodes.
// Pure: no I/O, clock, goroutine or log. DESIGN.md has the rules and what a large room costs.
package plan

import (
	"cmp"
	"slices"
	"time"
)

const (
	// DefaultFanOut is how many nodes one node gives a track to.
	DefaultFanOut = 16
	// Hold is how long a gateway stays once it was chosen, unless it cannot do its work any more.
	Hold = 30 * time.Second
	// clearGain is by how much less loaded another node has to be, of 255, to become the gateway in its place.
	clearGain = 64
)

// Node is a node that has the room open.
type Node struct {
	ID, Region string
	// Zone is the failure domain within the region.
	Zone string
	// Load is 0 (idle) to 255.
	Load uint8
	// Relay says that the node is meant to give tracks to others: not a dedicated audience node.
	Relay bool
}

// Input is what is known of a room.
type Input struct {
	// Nodes are those that have the room open, in any order, each once.
	Nodes []Node
	// Homes are the ids of nodes with publishers; others than Nodes are ignored.
	Homes []string
	// RTT between two nodes; 0: unknown, negative: they cannot reach each other. It has no direction. Nil: all unknown.
	RTT func(a, b string) time.Duration
	// FanOut is at least 2; 0 is DefaultFanOut.
	FanOut int
	// Before is the plan that is in use, nil for none: it is kept to where it still serves.
	Before *Plan
	// Now is any clock that goes on, the same for every plan of a room.
	Now time.Duration
}

// Plan is how the tracks of a room travel. It is never changed.
type Plan struct {
	// Gateways by region.
	Gateways map[string]Gateway
	// Trees by home, in the order of their ids.
	Trees []Tree
}

// Gateway is the node through which tracks enter a region.
type Gateway struct {
	Node string
	// Backup takes its place when it is lost; empty: the region has no other node.
	Backup string
	// Since is when Node was chosen.
	Since time.Duration
}

// Tree is how tracks of one home reach the other nodes.
type Tree struct {
	Home string
	// Hops come after those of their Parent and their Backup, so nobody who asks only nodes before itself can make a loop.
	Hops []Hop
}

// Hop says from whom a node takes tracks.
type Hop struct {
	Node, Parent string
	// Backup is asked when Parent is lost; the same as Parent: there is no other.
	Backup string
}

// Make computes the plan. It is deterministic: the order of the input does not matter.
func Make(in Input) *Plan {
	p := newPlanner(in)
	out := &Plan{Gateways: p.gateways()}
	for _, home := range p.homes {
		out.Trees = append(out.Trees, p.tree(home, out.Gateways))
	}
	return out
}

type planner struct {
	in      Input
	nodes   []Node // by id
	at      map[string]int
	regions map[string][]int // places in nodes
	homes   []int
	isHome  []bool
	rtts    []time.Duration  // between nodes by place, row by row
	before  map[string][]Hop // of the plan before, by home
}

func newPlanner(in Input) *planner {
	if in.FanOut == 0 {
		in.FanOut = DefaultFanOut
	}
	in.FanOut = max(in.FanOut, 2)
	p := &planner{in: in, nodes: slices.Clone(in.Nodes), at: map[string]int{}, regions: map[string][]int{}, before: map[string][]Hop{}}
	slices.SortFunc(p.nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	p.nodes = slices.CompactFunc(p.nodes, func(a, b Node) bool { return a.ID == b.ID })
	for i, n := range p.nodes {
		p.at[n.ID] = i
		p.regions[n.Region] = append(p.regions[n.Region], i)
	}
	p.isHome = make([]bool, len(p.nodes))
	for _, id := range slices.Compact(slices.Sorted(slices.Values(in.Homes))) {
		if i, ok := p.at[id]; ok {
			p.homes = append(p.homes, i)
			p.isHome[i] = true
		}
	}
	if in.Before != nil {
		for _, t := range in.Before.Trees {
			p.before[t.Home] = t.Hops
		}
	}
	p.rtts = make([]time.Duration, len(p.nodes)*len(p.nodes))
	if in.RTT != nil {
		for a := range p.nodes {
			for b := range a {
				d := in.RTT(p.nodes[a].ID, p.nodes[b].ID)
				p.rtts[a*len(p.nodes)+b], p.rtts[b*len(p.nodes)+a] = d, d
			}
		}
	}
	return p
}

func (p *planner) rtt(a, b int) time.Duration { return p.rtts[a*len(p.nodes)+b] }

func (p *planner) reach(a, b int) bool { return p.rtt(a, b) >= 0 }

// gateways chooses each region's, and keeps the one that there is unless another is clearly better.
func (p *planner) gateways() map[string]Gateway {
	out := make(map[string]Gateway, len(p.regions))
	for region, members := range p.regions {
		best := slices.Clone(members)
		slices.SortFunc(best, p.fitter)
		chosen, since := best[0], p.in.Now
		if p.in.Before != nil {
			old := p.in.Before.Gateways[region]
			if i, ok := p.at[old.Node]; ok && p.nodes[i].Region == region && p.keeps(i, best[0], old.Since) {
				chosen, since = i, old.Since
			}
		}
		g := Gateway{Node: p.nodes[chosen].ID, Since: since}
		if b := p.backupGateway(best, chosen, region); b >= 0 {
			g.Backup = p.nodes[b].ID
		}
		out[region] = g
	}
	return out
}

// fitter puts the node first that makes the better gateway.
func (p *planner) fitter(a, b int) int {
	return cmp.Or(
		cmp.Compare(p.cutOff(a), p.cutOff(b)),
		-compareBool(p.nodes[a].Relay, p.nodes[b].Relay),
		cmp.Compare(p.nodes[a].Load, p.nodes[b].Load),
		cmp.Compare(p.nodes[a].ID, p.nodes[b].ID))
}

// cutOff counts the homes and the neighbours in its region that a node cannot reach.
func (p *planner) cutOff(i int) int {
	n := 0
	for _, h := range p.homes {
		if p.nodes[h].Region != p.nodes[i].Region && !p.reach(i, h) {
			n++
		}
	}
	for _, m := range p.regions[p.nodes[i].Region] {
		if !p.reach(i, m) {
			n++
		}
	}
	return n
}

func (p *planner) keeps(old, best int, since time.Duration) bool {
	switch {
	case p.cutOff(old) > p.cutOff(best):
		return false
	case p.nodes[old].Relay != p.nodes[best].Relay: // it drains, say
		return p.nodes[old].Relay
	case p.in.Now-since < Hold:
		return true
	}
	return int(p.nodes[old].Load)-int(p.nodes[best].Load) < clearGain
}

// backupGateway is the one that there is, if it still serves: else the best of another zone, else the best.
func (p *planner) backupGateway(best []int, chosen int, region string) int {
	other := slices.IndexFunc(best, func(i int) bool { return i != chosen && p.nodes[i].Zone != p.nodes[chosen].Zone })
	if other < 0 {
		other = slices.IndexFunc(best, func(i int) bool { return i != chosen })
	}
	if other < 0 {
		return -1
	}
	other = best[other]
	if p.in.Before == nil {
		return other
	}
	old, ok := p.at[p.in.Before.Gateways[region].Backup]
	if !ok || old == chosen || p.nodes[old].Region != region || p.cutOff(old) > p.cutOff(other) ||
		p.nodes[old].Zone == p.nodes[chosen].Zone && p.nodes[other].Zone != p.nodes[chosen].Zone {
		return other
	}
	return old
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
