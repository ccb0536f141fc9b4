package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// What a fault is done to.
const (
	publisherEdge = "publisher's edge"
	audienceEdge  = "audience edge"
	gateway       = "gateway"
	owner         = "owner"
	standby       = "standby"
	leader        = "leader"
	origin        = "origin"
	combined      = "owner+leader+gateway"
	everything    = "all"
)

// casting is which node does what for a room now.
type casting struct {
	owner, standby, leader string
	gateways               []string // nodes that others of their region hang on, the most of them first
	epoch                  uint64
	mode                   string
}

// cast asks all nodes; one that does not answer says nothing.
func (l *Lab) casting(ctx context.Context, room string) (casting, error) {
	statuses := make([]*amphiv1.NodeStatus, len(l.nodes))
	errs := make([]error, len(l.nodes))
	var wg sync.WaitGroup
	for i, p := range l.nodes {
		wg.Go(func() { statuses[i], errs[i] = l.status(ctx, p) })
	}
	wg.Wait()
	var c casting
	for i, s := range statuses {
		if s == nil {
			continue
		}
		if leading := s.GetCluster(); leading.GetLeader() != "" && (c.leader == "" || leading.GetRaftState() == "leader") {
			c.leader = leading.GetLeader()
		}
		for _, r := range s.GetRooms() {
			if !strings.EqualFold(r.GetName(), room) {
				continue
			}
			// The owner itself knows best; among others the newest epoch counts.
			if own := r.GetOwner() == l.nodes[i].ID; own || r.GetEpoch() >= c.epoch && c.owner != r.GetOwner() {
				c.owner, c.epoch = r.GetOwner(), r.GetEpoch()
				if own {
					c.standby, c.mode = r.GetStandby(), r.GetMode()
					c.gateways = l.gateways(r.GetPlan())
				}
			}
		}
	}
	if l.cfg.Topology.Alone {
		// Its id is made anew at each start, and it does everything.
		id := l.nodes[0].ID
		c.owner, c.leader, c.gateways = id, id, []string{id}
	}
	if c.owner == "" {
		return c, errors.Join(append(errs, fmt.Errorf("no node knows the owner of room %s", room))...)
	}
	return c, nil
}

// gateways finds the nodes that get a track from another region and pass it on in their own.
func (l *Lab) gateways(plan *amphiv1.RelayPlan) []string {
	children := map[string]int{}
	name := func(i uint32) *process {
		if int(i) >= len(plan.GetNodes()) {
			return nil
		}
		return l.node(plan.GetNodes()[i])
	}
	for _, tree := range plan.GetTrees() {
		for _, hop := range tree.GetHops() {
			node, parent := name(hop.GetNode()), name(hop.GetParent())
			if node != nil && parent != nil && node.Region == parent.Region && hop.GetParent() != tree.GetHome() {
				children[parent.ID]++
			}
		}
	}
	var out []string
	for id := range children {
		out = append(out, id)
	}
	slices.SortFunc(out, func(a, b string) int {
		if children[a] != children[b] {
			return children[b] - children[a]
		}
		return strings.Compare(a, b)
	})
	return out
}

// errNoSuchRole is why a scenario is left out: nothing in this topology is what it is about.
var errNoSuchRole = errors.New("no node of this kind")

// find is the node that a scenario is about.
func (s *stage) find(c casting, target string) (*process, error) {
	id := ""
	switch target {
	case publisherEdge:
		id = s.publishers()[0].home
	case audienceEdge:
		id = s.audienceEdge(c)
	case gateway:
		// One that is nothing else, if there is one.
		for _, g := range c.gateways {
			if id == "" || len(c.roles(g)) < len(c.roles(id)) {
				id = g
			}
		}
	case owner:
		id = c.owner
	case standby:
		id = c.standby
	case leader:
		id = c.leader
	case origin:
		i := slices.IndexFunc(s.lab.nodes, func(p *process) bool { return contains(p.Roles, "origin") })
		if i >= 0 {
			id = s.lab.nodes[i].ID
		}
	case combined:
		if c.owner == c.leader && slices.Contains(c.gateways, c.owner) {
			id = c.owner
		}
	case everything:
		return nil, nil
	}
	if p := s.lab.node(id); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: %s (%+v)", errNoSuchRole, target, c)
}

// audienceEdge is a node with viewers alone, if there is one that is nothing else besides.
func (s *stage) audienceEdge(c casting) string {
	best, least := "", 100
	for _, a := range s.cast {
		if _, publishes := a.Publisher(); publishes {
			continue
		}
		roles := len(c.roles(a.home))
		for _, p := range s.publishers() {
			if p.home == a.home {
				roles += 10
			}
		}
		if roles <= least {
			best, least = a.home, roles
		}
	}
	return best
}

// roles are what a node is besides an edge.
func (c casting) roles(id string) []string {
	var out []string
	if id == c.owner {
		out = append(out, owner)
	}
	if id == c.standby {
		out = append(out, standby)
	}
	if id == c.leader {
		out = append(out, leader)
	}
	if slices.Contains(c.gateways, id) {
		out = append(out, gateway)
	}
	return out
}
