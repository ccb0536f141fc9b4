package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// MaxNodes bounds the nodes of one room.
const MaxNodes = 4096

// ErrLoop is for a plan in which a node asks one that does not come before it.
var ErrLoop = errors.New("a relay plan has a hop whose parent does not come before it")

// Encode makes the plan as nodes tell each other. homes gives the node of each peer that publishes; those at nodes that
// are not in the plan are left out.
func Encode(p *Plan, version uint64, homes map[string]string) *amphiv1.RelayPlan {
	out := &amphiv1.RelayPlan{Version: version, Homes: map[string]uint32{}}
	places := map[string]uint32{}
	place := func(id string) uint32 {
		i, ok := places[id]
		if !ok {
			i = uint32(len(out.Nodes))
			places[id] = i
			out.Nodes = append(out.Nodes, id)
		}
		return i
	}
	for _, t := range p.Trees {
		tree := &amphiv1.RelayTree{Home: place(t.Home)}
		for _, h := range t.Hops {
			tree.Hops = append(tree.Hops, &amphiv1.RelayHop{Node: place(h.Node), Parent: place(h.Parent), Backup: place(h.Backup)})
		}
		out.Trees = append(out.Trees, tree)
	}
	for _, peer := range slices.Sorted(maps.Keys(homes)) {
		if i, ok := places[homes[peer]]; ok {
			out.Homes[peer] = i
		}
	}
	return out
}

// Decode checks and reads the trees of a plan of another node; it has no gateways.
func Decode(m *amphiv1.RelayPlan) (*Plan, error) {
	if len(m.GetNodes()) > MaxNodes || len(m.GetTrees()) > len(m.GetNodes()) {
		return nil, fmt.Errorf("a relay plan has at most %d nodes, and a tree for each", MaxNodes)
	}
	name := func(i uint32) (string, error) {
		if int64(i) >= int64(len(m.GetNodes())) {
			return "", fmt.Errorf("a relay plan of %d nodes has no node %d", len(m.GetNodes()), i)
		}
		return m.GetNodes()[i], nil
	}
	out := &Plan{}
	for _, t := range m.GetTrees() {
		home, err := name(t.GetHome())
		if err != nil {
			return nil, err
		}
		if len(t.GetHops()) >= len(m.GetNodes()) {
			return nil, fmt.Errorf("a relay tree of %d nodes has too many hops", len(m.GetNodes()))
		}
		tree := Tree{Home: home}
		seen := map[string]bool{home: true}
		for _, h := range t.GetHops() {
			node, e1 := name(h.GetNode())
			parent, e2 := name(h.GetParent())
			backup, e3 := name(h.GetBackup())
			if err := errors.Join(e1, e2, e3); err != nil {
				return nil, err
			}
			if seen[node] || !seen[parent] || !seen[backup] {
				return nil, ErrLoop
			}
			seen[node] = true
			tree.Hops = append(tree.Hops, Hop{Node: node, Parent: parent, Backup: backup})
		}
		out.Trees = append(out.Trees, tree)
	}
	return out, nil
}

// FindGateways finds those of a plan that was decoded, so that its successor can keep them. region gives the region of a
// node, empty for one that is not known any more.
func (p *Plan) FindGateways(region func(node string) string) {
	p.Gateways = map[string]Gateway{}
	for _, t := range p.Trees {
		for _, h := range t.Hops {
			r := region(h.Node)
			if r == "" || r == region(t.Home) {
				continue
			}
			// The first of a region in a tree is its gateway, the second its backup.
			g := p.Gateways[r]
			switch {
			case g.Node == "":
				g.Node = h.Node
			case g.Backup == "" && g.Node != h.Node:
				g.Backup = h.Node
			}
			p.Gateways[r] = g
		}
	}
}

// Same says that two plans, nil for none, carry tracks the same way.
func (p *Plan) Same(o *Plan) bool {
	if p == nil || o == nil {
		return p == o
	}
	return slices.EqualFunc(p.Trees, o.Trees, func(a, b Tree) bool {
		return a.Home == b.Home && slices.Equal(a.Hops, b.Hops)
	})
}
