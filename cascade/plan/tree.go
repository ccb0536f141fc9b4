package plan

import (
	"cmp"
	"maps"
	"slices"
)

// tree is one home's, while it grows.
type tree struct {
	*planner
	home     int
	gateways map[string]Gateway
	hops     []Hop
	placed   []int // nodes in order, the home first
	depth    []int // of each node; -1: not placed
	children []int
	parent   []int
	// beforeRank and beforeParent are those of the plan before; -1: none.
	beforeRank, beforeParent []int
	// kept counts the nodes that were a node's children before and have not been placed yet: their seats are theirs.
	kept []int
	// reserved is how many children of the home are to be gateways.
	reserved int
}

func (p *planner) tree(home int, gateways map[string]Gateway) Tree {
	t := &tree{planner: p, home: home, gateways: gateways, placed: []int{home},
		depth: make([]int, len(p.nodes)), children: make([]int, len(p.nodes)), parent: make([]int, len(p.nodes)),
		beforeRank: make([]int, len(p.nodes)), beforeParent: make([]int, len(p.nodes)),
		kept: make([]int, len(p.nodes))}
	for i := range t.depth {
		t.depth[i], t.parent[i], t.beforeRank[i], t.beforeParent[i] = -1, -1, -1, -1
	}
	for rank, h := range p.before[p.nodes[home].ID] {
		n, ok := p.at[h.Node]
		if !ok {
			continue
		}
		t.beforeRank[n] = rank
		if parent, ok := p.at[h.Parent]; ok {
			t.beforeParent[n] = parent
			t.kept[parent]++
		}
	}
	t.depth[home] = 0
	own := p.nodes[home].Region
	regions := slices.Collect(maps.Keys(p.regions))
	regions = slices.DeleteFunc(regions, func(r string) bool { return r == own })
	// The nearest region first: the others may turn to its gateway.
	slices.SortFunc(regions, func(a, b string) int {
		return cmp.Or(cmp.Compare(t.away(a), t.away(b)), cmp.Compare(a, b))
	})
	t.reserved = min(len(regions), p.in.FanOut-1)
	for _, n := range t.order(own) {
		t.place(n)
	}
	t.reserved = 0
	for _, r := range regions {
		for _, n := range t.order(r) {
			t.place(n)
		}
	}
	return Tree{Home: p.nodes[home].ID, Hops: t.hops}
}

// away is how far a region's gateway is from the home; unreachable ones are last, unknown ones before them.
func (t *tree) away(region string) int64 {
	d := t.rtt(t.home, t.at[t.gateways[region].Node])
	switch {
	case d < 0:
		return 1 << 62
	case d == 0:
		return 1 << 61
	}
	return int64(d)
}

// order is in which order the nodes of a region are placed: the gateway and its backup, who has publishers of its own,
// then those that were there before, in their old order.
func (t *tree) order(region string) []int {
	g := t.gateways[region]
	rank := func(i int) (class, old int) {
		id := t.nodes[i].ID
		if old = t.beforeRank[i]; old < 0 {
			old = 1<<30 + i
		}
		switch {
		case region != t.nodes[t.home].Region && id == g.Node:
			return 0, old
		case region != t.nodes[t.home].Region && id == g.Backup:
			return 1, old
		case t.isHome[i]:
			return 2, old
		case t.nodes[i].Relay:
			return 3, old
		}
		return 4, old
	}
	members := slices.DeleteFunc(slices.Clone(t.regions[region]), func(i int) bool { return i == t.home })
	slices.SortFunc(members, func(a, b int) int {
		ca, oa := rank(a)
		cb, ob := rank(b)
		return cmp.Or(cmp.Compare(ca, cb), cmp.Compare(oa, ob))
	})
	return members
}

// isGateway says that tracks of the home enter the node's region through it.
func (t *tree) isGateway(i int) bool {
	r := t.nodes[i].Region
	return r != t.nodes[t.home].Region && t.gateways[r].Node == t.nodes[i].ID
}

// place gives a node its parent and backup among those placed before.
func (t *tree) place(n int) {
	if was := t.beforeParent[n]; was >= 0 {
		t.kept[was]--
	}
	parent := t.pick(n, -1)
	backup := t.pick(n, parent)
	if backup < 0 {
		backup = parent
	}
	t.depth[n], t.parent[n] = t.depth[parent]+1, parent
	t.children[parent]++
	t.placed = append(t.placed, n)
	t.hops = append(t.hops, Hop{Node: t.nodes[n].ID, Parent: t.nodes[parent].ID, Backup: t.nodes[backup].ID})
}

// pick finds the best parent of a node, or with a parent in not the best one to turn to instead; -1: there is none.
func (t *tree) pick(n, not int) int {
	best := -1
	var bestCost cost
	for _, c := range t.placed {
		if c == not {
			continue
		}
		k := t.costOf(n, c, not)
		if best < 0 || k.compare(bestCost) < 0 {
			best, bestCost = c, k
		}
	}
	if not >= 0 && best >= 0 && bestCost.cut > 0 {
		return -1
	}
	return best
}

// cost orders the candidates for a parent; smaller is better, the first difference decides.
type cost struct {
	cut   int // 1: cannot be reached
	full  int // 1: what is free was somebody else's; 2: nothing is free
	class int // how far from what the rules want
	kept  int // 0: it is the parent already
	depth int
	rtt   int64
	id    string
}

func (a cost) compare(b cost) int {
	return cmp.Or(cmp.Compare(a.cut, b.cut), cmp.Compare(a.full, b.full), cmp.Compare(a.class, b.class),
		cmp.Compare(a.kept, b.kept), cmp.Compare(a.depth, b.depth), cmp.Compare(a.rtt, b.rtt), cmp.Compare(a.id, b.id))
}

func (t *tree) costOf(n, c, not int) cost {
	k := cost{depth: t.depth[c], rtt: int64(t.rtt(n, c)), id: t.nodes[c].ID, kept: 1}
	if !t.reach(n, c) {
		k.cut = 1
	}
	backup := not >= 0
	switch room := t.room(n, c); {
	case backup:
	case t.children[c] >= room:
		k.full = 2
	case t.children[c]+t.kept[c] >= room && t.beforeParent[n] != c:
		k.full = 1
	}
	if backup {
		k.class = t.backupClass(n, c, not)
		return k
	}
	k.class = t.parentClass(n, c)
	if t.beforeParent[n] == c {
		k.kept = 0
	}
	return k
}

// room is how many children a node may have when n is to become one.
func (t *tree) room(n, c int) int {
	if c == t.home && !t.isGateway(n) {
		return t.in.FanOut - t.reserved
	}
	return t.in.FanOut
}

// parentClass: a gateway takes from the home, else from another gateway or a neighbour of the home; everybody else from
// its own region, as near to the home as there is room.
func (t *tree) parentClass(n, c int) int {
	same := t.nodes[n].Region == t.nodes[c].Region
	switch {
	case t.isGateway(n):
		switch {
		case c == t.home:
			return 0
		case t.isGateway(c) || t.nodes[c].Region == t.nodes[t.home].Region:
			return 1
		}
		return 2
	case same:
		return 0
	case c == t.home:
		return 1
	}
	return 2
}

// backupClass wants a way that does not lead over the parent: the home itself for the backup gateway, the backup
// gateway for its region.
func (t *tree) backupClass(n, c, parent int) int {
	region := t.nodes[n].Region
	g := t.gateways[region]
	over := 0
	if t.leadsOver(c, parent) {
		over = 4
	}
	switch {
	case t.isGateway(n):
		if t.nodes[c].Region == t.nodes[t.home].Region {
			return over
		}
		return over + 1
	case region != t.nodes[t.home].Region && g.Backup == t.nodes[n].ID:
		if c == t.home {
			return 0
		}
		return over + 1
	case region != t.nodes[t.home].Region && g.Backup == t.nodes[c].ID:
		return 0 // its own backup is the home
	case t.nodes[c].Region == region:
		return over + 1
	}
	return over + 2
}

// leadsOver says that c takes the track over the node via.
func (t *tree) leadsOver(c, via int) bool {
	if via == t.home {
		return false
	}
	for ; c >= 0; c = t.parent[c] {
		if c == via {
			return true
		}
	}
	return false
}
