package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world draws a room: nodes in regions, some with publishers.
func world(t *rapid.T) Input {
	in := Input{FanOut: rapid.IntRange(2, 6).Draw(t, "fan-out")}
	n := rapid.IntRange(1, 40).Draw(t, "nodes")
	regions := rapid.IntRange(1, 5).Draw(t, "regions")
	for i := range n {
		node := Node{
			ID: fmt.Sprintf("n%02d", i), Region: fmt.Sprintf("r%d", rapid.IntRange(0, regions-1).Draw(t, "region")),
			Zone: fmt.Sprintf("z%d", rapid.IntRange(0, 2).Draw(t, "zone")), Load: rapid.Byte().Draw(t, "load"), Relay: rapid.Bool().Draw(t, "relay"),
		}
		in.Nodes = append(in.Nodes, node)
		if rapid.IntRange(0, 5).Draw(t, "publishes") == 0 {
			in.Homes = append(in.Homes, node.ID)
		}
	}
	seed := rapid.Uint64().Draw(t, "seed")
	in.RTT = func(a, b string) time.Duration {
		if a > b {
			a, b = b, a
		}
		var h uint64 = seed
		for _, c := range a + b {
			h = h*1099511628211 ^ uint64(c)
		}
		return time.Duration(1+h%200) * time.Millisecond
	}
	return in
}

func (in Input) regionOf(id string) string {
	for _, n := range in.Nodes {
		if n.ID == id {
			return n.Region
		}
	}
	return ""
}

// check fails unless the plan keeps the rules that hold for every input.
func check(t *rapid.T, in Input, p *Plan) {
	t.Helper()
	if len(p.Trees) != len(slices.Compact(slices.Sorted(slices.Values(in.Homes)))) {
		t.Fatalf("%d trees for the homes %v", len(p.Trees), in.Homes)
	}
	for _, tree := range p.Trees {
		seen := map[string]bool{tree.Home: true}
		children := map[string]int{}
		for _, h := range tree.Hops {
			if seen[h.Node] || !seen[h.Parent] || !seen[h.Backup] {
				t.Fatalf("home %s: %+v is out of order", tree.Home, h)
			}
			seen[h.Node] = true
			if children[h.Parent]++; children[h.Parent] > in.FanOut {
				t.Fatalf("home %s: %s has %d children", tree.Home, h.Parent, children[h.Parent])
			}
		}
		if len(seen) != len(in.Nodes) {
			t.Fatalf("home %s: %d of %d nodes are reached", tree.Home, len(seen), len(in.Nodes))
		}
	}
}

func TestNoLoopsAllReachedFanOutBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		check(t, in, Make(in))
	})
}

func TestOneCopyPerRegion(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		for _, tree := range Make(in).Trees {
			entries := map[string]int{}
			for _, h := range tree.Hops {
				if r := in.regionOf(h.Node); r != in.regionOf(h.Parent) {
					entries[r]++
					if entries[r] > 1 || r == in.regionOf(tree.Home) {
						t.Fatalf("home %s: a further copy enters %s by %+v", tree.Home, r, h)
					}
				}
			}
		}
	})
}

// fed tells which nodes get the tracks when some are dead or cannot reach each other: who gets nothing from its parent
// turns to its backup.
func fed(tree Tree, dead string) map[string]bool {
	got := map[string]bool{tree.Home: true}
	for _, h := range tree.Hops {
		got[h.Node] = h.Node != dead && (got[h.Parent] || got[h.Backup])
	}
	return got
}

func TestOneDeathStarvesNobody(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		p := Make(in)
		for _, tree := range p.Trees {
			for _, dead := range in.Nodes {
				if dead.ID == tree.Home {
					continue
				}
				for id, ok := range fed(tree, dead.ID) {
					if !ok && id != dead.ID {
						t.Fatalf("home %s: %s starves when %s dies: %+v", tree.Home, id, dead.ID, tree.Hops)
					}
				}
			}
		}
	})
}

// differ tells where two plans part.
func differ(a, b *Plan) string {
	for i := range min(len(a.Trees), len(b.Trees)) {
		x, y := a.Trees[i], b.Trees[i]
		for j := range min(len(x.Hops), len(y.Hops)) {
			if x.Hops[j] != y.Hops[j] {
				return fmt.Sprintf("home %s, hop %d: %+v became %+v; gateways %+v became %+v", x.Home, j, x.Hops[j], y.Hops[j], a.Gateways, b.Gateways)
			}
		}
	}
	return fmt.Sprintf("%d trees became %d", len(a.Trees), len(b.Trees))
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		want := Make(in)
		in.Nodes = rapid.Permutation(in.Nodes).Draw(t, "nodes")
		in.Homes = rapid.Permutation(in.Homes).Draw(t, "homes")
		if got := Make(in); !got.Same(want) {
			t.Fatal(differ(want, got))
		}
	})
}

func TestUnchangedRoomsKeepTheirPlan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		in.Before = Make(in)
		in.Now = Hold * 2
		for i := range in.Nodes { // some noise of load
			in.Nodes[i].Load = uint8(min(255, int(in.Nodes[i].Load)+rapid.IntRange(0, clearGain/2-1).Draw(t, "more")))
		}
		if got := Make(in); !got.Same(in.Before) {
			t.Fatal(differ(in.Before, got))
		}
	})
}

// TestNewcomersMoveNobody: a node that joins is placed last, as long as it does not become a gateway or its backup.
func TestNewcomersMoveNobody(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		in.FanOut = DefaultFanOut // with less there may be no other free place
		in.Before = Make(in)
		in.Nodes = append(in.Nodes, Node{ID: "zz", Region: in.Nodes[0].Region, Zone: in.Nodes[0].Zone, Load: 255})
		after := Make(in)
		check(t, in, after)
		if g := after.Gateways[in.Nodes[0].Region]; g.Node == "zz" || g.Backup == "zz" || g.Backup != in.Before.Gateways[in.Nodes[0].Region].Backup {
			return
		}
		for i, tree := range after.Trees {
			for _, h := range in.Before.Trees[i].Hops {
				if !slices.ContainsFunc(tree.Hops, func(x Hop) bool { return x.Node == h.Node && x.Parent == h.Parent }) {
					t.Fatalf("home %s: %+v was moved: %+v", tree.Home, h, tree.Hops)
				}
			}
		}
	})
}

func TestCutNeighboursTakeAnotherWay(t *testing.T) {
	t.Parallel()
	in := Input{
		Nodes: []Node{
			{ID: "home", Region: "a", Relay: true}, {ID: "g1", Region: "b", Zone: "1", Relay: true},
			{ID: "g2", Region: "b", Zone: "2", Relay: true, Load: 1}, {ID: "edge", Region: "b", Zone: "1", Load: 2}},
		Homes: []string{"home"},
	}
	in.Before = Make(in)
	if g := in.Before.Gateways["b"]; g.Node != "g1" || g.Backup != "g2" {
		t.Fatalf("gateways %+v", in.Before.Gateways)
	}
	in.RTT = func(a, b string) time.Duration {
		if a == "home" && b == "g1" || a == "g1" && b == "home" {
			return -1
		}
		return time.Millisecond
	}
	// At once, although the gateway has just been chosen.
	p := Make(in)
	want := []Hop{{"g2", "home", "home"}, {"edge", "g2", "home"}, {"g1", "g2", "edge"}}
	if !slices.Equal(p.Trees[0].Hops, want) {
		t.Fatalf("%+v", p.Trees[0].Hops)
	}
}

func TestGatewayMovesOnlyForAClearGain(t *testing.T) {
	t.Parallel()
	in := Input{Nodes: []Node{{ID: "h", Region: "a"}, {ID: "x", Region: "b", Load: 10}, {ID: "y", Region: "b", Load: 20}}, Homes: []string{"h"}}
	in.Before = Make(in)
	steps := []struct {
		load uint8
		now  time.Duration
		want string
	}{{70, Hold * 2, "x"}, {200, Hold / 2, "x"}, {200, Hold * 2, "y"}, {60, Hold * 5 / 2, "y"}}
	for _, s := range steps {
		in.Nodes[1].Load, in.Now = s.load, s.now
		p := Make(in)
		if got := p.Gateways["b"].Node; got != s.want {
			t.Fatalf("with load %d after %v: %s", s.load, s.now, got)
		}
		in.Before = p
	}
}

func TestPublishersAreTwoHopsApart(t *testing.T) {
	t.Parallel()
	var in Input
	for i := range 100 {
		n := Node{ID: fmt.Sprintf("n%03d", i), Region: fmt.Sprintf("r%d", i%5), Relay: i < 25}
		in.Nodes = append(in.Nodes, n)
		if i < 25 {
			in.Homes = append(in.Homes, n.ID)
		}
	}
	for _, tree := range Make(in).Trees {
		depth := map[string]int{}
		for _, h := range tree.Hops {
			depth[h.Node] = depth[h.Parent] + 1
			if slices.Contains(in.Homes, h.Node) && depth[h.Node] > 2 {
				t.Fatalf("from %s to %s are %d hops", tree.Home, h.Node, depth[h.Node])
			}
		}
	}
}

func TestEncodedPlans(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		p := Make(in)
		homes := map[string]string{"gone": "nowhere"}
		for _, h := range in.Homes {
			homes["peer at "+h] = h
		}
		m := Encode(p, 7, homes)
		got, err := Decode(m)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Same(p) || m.GetVersion() != 7 || len(m.GetHomes()) != len(homes)-1 {
			t.Fatalf("%+v\nbecame %+v, homes %v", p, got, m.GetHomes())
		}
		if len(p.Trees) > 0 {
			got.FindGateways(in.regionOf)
			for r, g := range got.Gateways {
				if want := p.Gateways[r]; len(p.Trees) == 1 && (g.Node != want.Node || g.Backup != want.Backup) {
					t.Fatalf("region %s: %+v, was %+v", r, g, want)
				}
			}
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	good := func() Input {
		return Input{Nodes: []Node{{ID: "a", Region: "r"}, {ID: "b", Region: "r"}, {ID: "c", Region: "s"}}, Homes: []string{"a"}}
	}
	for name, spoil := range map[string]func(h []int){
		"a parent that comes later": func(h []int) { h[0], h[1] = 1, 2 },
		"a node that is not there":  func(h []int) { h[0] = 99 },
	} {
		m := Encode(Make(good()), 1, nil)
		idx := []int{int(m.Trees[0].Hops[0].Node), int(m.Trees[0].Hops[0].Parent)}
		spoil(idx)
		m.Trees[0].Hops[0].Node, m.Trees[0].Hops[0].Parent = uint32(idx[0]), uint32(idx[1])
		if _, err := Decode(m); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	m := Encode(Make(good()), 1, nil)
	m.Trees[0].Hops = append(m.Trees[0].Hops, m.Trees[0].Hops...)
	if _, err := Decode(m); err == nil {
		t.Error("a node with two parents was taken")
	}
}

// TestAnyHistoryKeepsTheRules lets nodes come, go and lose each other, each plan made from the one before.
func TestAnyHistoryKeepsTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := world(t)
		all := in.Nodes
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for step := range 8 {
			in.Nodes = slices.Clone(all)
			rng.Shuffle(len(in.Nodes), func(i, j int) { in.Nodes[i], in.Nodes[j] = in.Nodes[j], in.Nodes[i] })
			in.Nodes = in.Nodes[:1+rng.IntN(len(all))]
			in.Homes = nil
			for _, n := range in.Nodes {
				if rng.IntN(4) == 0 {
					in.Homes = append(in.Homes, n.ID)
				}
			}
			in.Now = time.Duration(step) * Hold / 2
			p := Make(in)
			check(t, in, p)
			in.Before = p
		}
	})
}
