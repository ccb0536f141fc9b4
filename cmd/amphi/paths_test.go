package main

import (
	"math"
	"testing"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/cascade/plan"
	"github.com/amphi-sfu/amphi/cascade/trunk"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func said(t *testing.T, trunks ...*amphiv1.TrunkStatus) []byte {
	msg, err := protobuf.Marshal(&amphiv1.NodeStatus{Trunks: trunks})
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func TestPathsBetweenOthers(t *testing.T) {
	t.Parallel()
	p := newPaths()
	up := func(node string, ms float64) *amphiv1.TrunkStatus {
		return &amphiv1.TrunkStatus{Node: node, State: "up", RttMs: ms}
	}
	check := func(what string, now, want time.Duration) {
		t.Helper()
		if ab, ba := p.rtt("a", "b", now), p.rtt("b", "a", now); ab != want || ba != want {
			t.Errorf("%s: %v and back %v, want %v", what, ab, ba, want)
		}
	}
	check("nothing was said", 0, 0)
	p.take("a", said(t, up("b", 80)), time.Second)
	check("one end says", time.Second, 80*time.Millisecond)
	p.take("a", said(t, up("b", 86)), 2*time.Second)
	check("noise", 2*time.Second, 80*time.Millisecond)
	p.take("a", said(t, up("b", 200)), 3*time.Second)
	check("a longer way", 3*time.Second, 200*time.Millisecond)
	p.take("b", said(t, &amphiv1.TrunkStatus{Node: "a", State: "down"}), 4*time.Second)
	check("one end says that it is cut", 4*time.Second, -1)
	p.take("b", said(t, up("a", 100)), 5*time.Second)
	check("it is back", 5*time.Second, 200*time.Millisecond)
	p.take("a", said(t, up("b", math.NaN())), 6*time.Second)
	check("a round trip that is no number is not known", 6*time.Second, 100*time.Millisecond)
	check("what was said is old", 6*time.Second+pathsFor, 0)
	p.take("c", said(t, up("d", 1)), time.Minute)
	p.take("c", said(t, &amphiv1.TrunkStatus{Node: "d", State: "down"}), time.Minute+time.Second)
	if got := p.rtt("c", "d", time.Minute+time.Second); got >= 0 {
		t.Errorf("a short way that is cut counts as %v", got)
	}
	for name, bad := range map[string][]byte{
		"garbage": {0xff, 1, 2}, "too much": make([]byte, maxPathsSize+1), "too many": said(t, make([]*amphiv1.TrunkStatus, maxPaths+1)...),
	} {
		if p.take("a", bad, time.Minute) {
			t.Errorf("%s was taken", name)
		}
	}
}

// FuzzPaths has nodes say anything: what is known stays sane.
func FuzzPaths(f *testing.F) {
	for _, s := range []*amphiv1.NodeStatus{
		{}, {Trunks: []*amphiv1.TrunkStatus{{Node: "b", State: "up", RttMs: 80}, {Node: "b", State: "down"}, {State: "up", RttMs: math.Inf(-1)}}},
	} {
		b, err := protobuf.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 1, 2})
	f.Fuzz(func(t *testing.T, msg []byte) {
		p := newPaths()
		for i := range 2 {
			now := time.Duration(i) * time.Second
			p.take("a", msg, now)
			if rtt := p.rtt("a", "b", now); rtt < -1 || rtt > time.Duration(maxRTT*float64(time.Millisecond)) {
				t.Fatalf("a round trip of %v", rtt)
			}
		}
	})
}

func TestOwnPaths(t *testing.T) {
	t.Parallel()
	s, first := pathsOf([]trunk.TrunkStats{{Node: "a", Up: true, RTT: time.Millisecond}, {Node: "b", Since: time.Second}, {Node: "c", Since: time.Minute}}, nil)
	if len(s.GetTrunks()) != 2 || !first["a"] || len(first) != 2 {
		t.Errorf("one is up, one is being made, one has been tried for long: %v", s)
	}
	down := []trunk.TrunkStats{{Node: "a", Since: time.Millisecond}}
	for range 2 {
		if s, first = pathsOf(down, first); len(s.GetTrunks()) != 1 || s.GetTrunks()[0].GetState() != "down" {
			t.Fatalf("it was up before: %v", s)
		}
	}
}

// TestPlanAvoidsCutPairs: a node takes its tracks over another one that it can reach.
func TestPlanAvoidsCutPairs(t *testing.T) {
	t.Parallel()
	nodes := town()
	cut := false
	p := newPlanner(func() []member { return nodes }, func(a, b string) time.Duration {
		if cut && (a == "s2" && b == "t1" || a == "t1" && b == "s2") {
			return -1
		}
		return time.Millisecond
	})
	all, homes := []string{"s1", "s2", "a1", "t1"}, map[string]string{"pe_a": "s2"}
	first := p.Plan("hall", nil, all, homes)
	cut = true
	second := p.Plan("hall", first, all, homes)
	if second == nil {
		t.Fatal("the plan stays as it was")
	}
	made, err := plan.Decode(second)
	if err != nil {
		t.Fatal(err)
	}
	for _, hop := range made.Trees[0].Hops {
		if hop.Node == "t1" && (hop.Parent == "s2" || hop.Backup == "s2") || hop.Node == "s2" && hop.Parent == "t1" {
			t.Errorf("a cut pair in the plan: %+v", hop)
		}
	}
}
