package lab

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/nodefile"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestTopologies(t *testing.T) {
	t.Parallel()
	for name, nodes := range map[string]int{"solo": 1, "three": 6, "eight": 8} {
		top, err := Builtin(name)
		if err != nil || len(top.Nodes) != nodes {
			t.Errorf("%s: %v, %d nodes", name, err, len(top.Nodes))
		}
		seen := map[string]bool{}
		for _, h := range top.hosts() {
			if seen[h.addr.String()] {
				t.Errorf("%s: two hosts have %v", name, h.addr)
			}
			seen[h.addr.String()] = true
		}
		data, err := json.Marshal(top)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "topology.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadTopology(file); err != nil || len(again.Nodes) != nodes || again.RegionDefault != top.RegionDefault {
			t.Errorf("%s: read back %+v, %v", name, again, err)
		}
	}
	if _, err := Builtin("nothing"); err == nil {
		t.Error("an unknown topology was found")
	}
	for _, bad := range []Topology{
		{}, {Nodes: []Node{{ID: "a"}}}, {Nodes: []Node{{ID: "a", Region: "r", Roles: []string{"stage"}}}, Local: Quality{Loss: 101}},
		{Nodes: slices.Repeat([]Node{{ID: "a", Region: "r", Roles: []string{"stage"}}}, 2)},
	} {
		if bad.check() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestWays(t *testing.T) {
	t.Parallel()
	top, err := Builtin("three")
	if err != nil {
		t.Fatal(err)
	}
	top.Links = []RegionLink{{A: "us", B: "eu", Quality: Quality{RTT: 60, Kbps: 500}}}
	node := func(region string) host { return host{name: "n" + region, region: region} }
	client := func(region string) host { return host{name: "c" + region, region: region, client: true} }
	for _, c := range []struct {
		a, b host
		rtt  float64
	}{
		{node("eu"), node("eu"), 1}, {node("eu"), node("us"), 60}, {node("eu"), node("ap"), 80},
		{client("eu"), node("eu"), 10}, {client("eu"), node("us"), 70}, {client("eu"), client("ap"), 100},
	} {
		if got := top.way(c.a, c.b); got.RTT != c.rtt {
			t.Errorf("%s to %s: %v ms, want %v", c.a.name, c.b.name, got.RTT, c.rtt)
		}
	}
	q := top.way(client("eu"), node("us"))
	if p := q.params(); p.Delay != 35*time.Millisecond || p.Rate != 500_000 {
		t.Errorf("params %+v", p)
	}
	if sum := (Quality{Loss: 10}).plus(Quality{Loss: 50}); sum.Loss != 55 {
		t.Errorf("10 %% and 50 %% loss make %v %%", sum.Loss)
	}
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	for _, short := range []bool{false, true} {
		all := Matrix(short)
		seen := map[string]bool{}
		for _, sc := range all {
			if seen[sc.Name()] {
				t.Errorf("two scenarios are called %q", sc.Name())
			}
			seen[sc.Name()] = true
		}
		for _, target := range []string{publisherEdge, gateway, audienceEdge, owner, standby, leader, origin, combined} {
			if !seen["kill -9: "+target] {
				t.Errorf("%s is never killed", target)
			}
		}
	}
	all := Matrix(true)
	if got := Choose(all, false, false, []string{"kill -9: owner"}); len(got) != 1 {
		t.Errorf("a whole name chose %d", len(got))
	}
	if got := Choose(all, false, false, []string{"% loss", "drain"}); len(got) != 19 {
		t.Errorf("parts of names chose %d, want 19", len(got))
	}
	kinds := map[string]bool{}
	chosen := Choose(all, true, false, nil)
	for _, sc := range chosen {
		if sc.measure == nil {
			kinds[sc.fault.name] = true
		}
	}
	// 2 % stands for 10 %, 200 ms for 80 ms, one clock step for both.
	if len(chosen) > 30 || len(kinds) != 16 {
		t.Errorf("the short form has %d scenarios of %d kinds", len(chosen), len(kinds))
	}
	for _, sc := range Choose(all, true, true, nil) {
		if sc.target != owner {
			t.Errorf("a node alone gets %s", sc.Name())
		}
	}
}

func TestReadFreezes(t *testing.T) {
	t.Parallel()
	const log = "[Parsed_freezedetect_0 @ 0x1] lavfi.freezedetect.freeze_start: 4.5\n" +
		"[Parsed_freezedetect_0 @ 0x1] lavfi.freezedetect.freeze_duration: 0.633333\n[Parsed_freezedetect_0 @ 0x1] lavfi.freezedetect.freeze_end: 5.1\n"
	const short = "lavfi.freezedetect.freeze_start: 8\nlavfi.freezedetect.freeze_duration: 0.1\n"
	for text, want := range map[string]time.Duration{"": 0, log: 633 * time.Millisecond, log + short: 633 * time.Millisecond} {
		if got, err := readFreezes(text); err != nil || got.Truncate(time.Millisecond) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := readFreezes(short + "freeze_start: 9\n"); !errors.Is(err, errStands) {
		t.Errorf("one that does not end: %v", err)
	}
}

func TestGateways(t *testing.T) {
	t.Parallel()
	top, err := Builtin("eight")
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{cfg: Config{Topology: top}}
	for _, n := range top.Nodes {
		l.nodes = append(l.nodes, &process{Node: n})
	}
	plan := &amphiv1.RelayPlan{Nodes: []string{"eu-1", "eu-2", "us-1", "us-2", "us-3", "ap-1", "ap-2", "gone"}, Trees: []*amphiv1.RelayTree{{
		Home: 0, Hops: []*amphiv1.RelayHop{
			{Node: 1, Parent: 0}, {Node: 2, Parent: 0}, {Node: 3, Parent: 2}, {Node: 4, Parent: 2}, {Node: 5, Parent: 0}, {Node: 6, Parent: 5},
			{Node: 7, Parent: 99},
		},
	}}}
	if got := l.gateways(plan); !slices.Equal(got, []string{"us-1", "ap-1"}) {
		t.Errorf("gateways %v", got)
	}
	c := casting{owner: "us-1", leader: "us-1", standby: "us-2", gateways: []string{"us-1"}}
	s := &stage{lab: l}
	for target, want := range map[string]string{owner: "us-1", standby: "us-2", combined: "us-1", origin: "eu-1"} {
		if p, err := s.find(c, target); err != nil || p.ID != want {
			t.Errorf("%s: %v, %v; want %s", target, p, err, want)
		}
	}
	if _, err := s.find(casting{owner: "us-1", leader: "eu-1"}, combined); err == nil {
		t.Error("a node was found that is everything")
	}
}

func TestConfigurationOfANode(t *testing.T) {
	t.Parallel()
	top, err := Builtin("three")
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{cfg: Config{Topology: top}, net: &network{hosts: top.hosts()}}
	l.secret = strings.Repeat("s3cret", 4)
	for i, n := range top.Nodes {
		addr := l.net.hosts[i].addr.String()
		text := l.configuration(&process{Node: n, url: "http://" + addr + ":7880"}, addr)
		cfg, err := nodefile.Parse("/lab/"+n.ID+"/node.yaml", []byte(text))
		if err != nil || cfg.Node != n.ID || cfg.Cluster == nil || !slices.Equal(cfg.Roles, n.Roles) || len(cfg.Keys) != 1 {
			t.Errorf("%s: %+v, %v\n%s", n.ID, cfg, err, text)
		}
	}
	p := &process{Node: top.Nodes[2], url: "http://10.66.2.1:7880"}
	got := l.configuration(p, "10.66.2.1")
	for _, want := range []string{
		"node: us-1\n", "region: us\n", "roles: [stage, voter]\n", "http: \"10.66.2.1:7880\"\n", "bootstrap_expect: 3\n", "{id: lab, secret: s3crets3crets3crets3cret}",
		"seeds: [\"10.66.1.1:7946\", \"10.66.1.2:7946\", \"10.66.2.2:7946\", \"10.66.3.1:7946\", \"10.66.3.2:7946\"]\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the configuration lacks %q:\n%s", want, got)
		}
	}
}

func TestLostTrunksAreCountedOnce(t *testing.T) {
	t.Parallel()
	w := &watch{trunks: map[[2]string]int64{}}
	for _, look := range []struct {
		up    bool
		since int64
		want  int
	}{
		{false, 0, 0}, {true, 10_000, 0}, {true, 10_001, 0}, {false, 0, 1}, {false, 0, 1}, {true, 20_000, 1}, {true, 25_000, 2},
	} {
		if w.trunk([2]string{"a", "b"}, look.up, look.since); w.downs != look.want {
			t.Errorf("after %+v %d were lost", look, w.downs)
		}
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i)*time.Millisecond)
	}
	if s := spread(all); s.N != 100 || s.P50 != 51*time.Millisecond || s.P95 != 96*time.Millisecond || s.Max != 100*time.Millisecond {
		t.Errorf("%+v", s)
	}
	if s := spread(nil); s.String() != "-" {
		t.Errorf("nothing is %v", s)
	}
}

func TestSoundExcusesOnlyTheMachine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what         string
		value, limit float64
		want         bool
	}{
		{"acknowledged messages lost", 1, 0, false}, {"messages out of order", 2, 0, false}, {"acknowledged durable writes lost", 1, 0, false},
		{"gap of others ms", 5000, 600, true}, {"gap of others ms", 6001, 600, false}, {"packets missing", 9, 0, true},
	} {
		r := &Result{}
		r.check("", c.what, c.value, c.limit)
		if r.Sound() != c.want || r.Passed() {
			t.Errorf("%s %g of %g: sound %v", c.what, c.value, c.limit, r.Sound())
		}
	}
	if (&Result{Failed: "it"}).Sound() {
		t.Error("a scenario that failed is sound")
	}
}
