package main

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestPlansChangeOnlyWithTheirRoom(t *testing.T) {
	t.Parallel()
	nodes := town()
	p := newPlanner(func() []member { return nodes }, func(string, string) time.Duration { return time.Millisecond })
	all := []string{"s1", "s2", "a1", "t1"}
	homes := map[string]string{"pe_a": "s1"}
	first := p.Plan("hall", nil, all, homes)
	if first.GetVersion() != 1 || len(first.GetTrees()) != 1 || len(first.GetTrees()[0].GetHops()) != 3 {
		t.Fatalf("%v", first)
	}
	if again := p.Plan("hall", first, all, homes); again != nil {
		t.Errorf("nothing changed, and yet %v", again)
	}
	second := p.Plan("hall", first, all, map[string]string{"pe_a": "s1", "pe_b": "s1"})
	if second.GetVersion() != 2 || len(second.GetHomes()) != 2 {
		t.Errorf("another publisher: %v", second)
	}
	// Another owner goes on with what is in use.
	heir := newPlanner(func() []member { return nodes }, func(string, string) time.Duration { return 0 })
	if got := heir.Plan("hall", second, all, map[string]string{"pe_a": "s1", "pe_b": "s1"}); got != nil {
		t.Errorf("the heir changed the plan to %v", got)
	}
	without := heir.Plan("hall", second, []string{"s1", "s2", "t1"}, map[string]string{"pe_a": "s1", "pe_b": "t1"})
	if without.GetVersion() != 3 || len(without.GetTrees()) != 2 {
		t.Errorf("a node less and a home more: %v", without)
	}
}

// TestDrainingGatewayIsReplaced: other nodes have another parent before a node that drains is gone.
func TestDrainingGatewayIsReplaced(t *testing.T) {
	t.Parallel()
	nodes := []member{
		{id: "e1", region: "eu", roles: []string{roleStage}, alive: true},
		{id: "u1", region: "us", roles: []string{roleStage}, alive: true},
		{id: "u2", region: "us", roles: []string{roleStage}, alive: true},
	}
	p := newPlanner(func() []member { return nodes }, func(string, string) time.Duration { return time.Millisecond })
	all, homes := []string{"e1", "u1", "u2"}, map[string]string{"pe_a": "e1"}
	first := p.Plan("hall", nil, all, homes)
	kept, err := plan.Decode(first)
	if err != nil {
		t.Fatal(err)
	}
	parents := func(p *plan.Plan) map[string]string {
		out := map[string]string{}
		for _, h := range p.Trees[0].Hops {
			out[h.Node] = h.Parent
		}
		return out
	}
	before := parents(kept)
	for i := range nodes {
		nodes[i].draining = before["u1"] == nodes[i].id || before["u2"] == nodes[i].id
	}
	nodes[0].draining = false
	second := p.Plan("hall", first, all, homes)
	if second == nil {
		t.Fatal("the plan stays as it was")
	}
	if kept, err = plan.Decode(second); err != nil {
		t.Fatal(err)
	}
	after := parents(kept)
	for _, id := range []string{"u1", "u2"} {
		if before[id] == "e1" && after[id] == "e1" || before[id] != "e1" && after[id] != "e1" {
			t.Errorf("%s had its tracks from %q, and now from %q", id, before[id], after[id])
		}
	}
}

func TestPlansLeaveOutNodesThatAreNotKnown(t *testing.T) {
	t.Parallel()
	p := newPlanner(town, func(string, string) time.Duration { return 0 })
	got := p.Plan("hall", &amphiv1.RelayPlan{Nodes: []string{"x"}, Trees: []*amphiv1.RelayTree{{Home: 7}}}, []string{"s1", "x"}, map[string]string{"pe_a": "s1", "pe_x": "x"})
	if len(got.GetTrees()) != 1 || len(got.GetTrees()[0].GetHops()) != 0 || len(got.GetHomes()) != 1 {
		t.Errorf("%v", got)
	}
}
