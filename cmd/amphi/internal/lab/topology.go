// Package lab runs a cluster of real node processes in network namespaces of one machine, joined by an
// emulated network, breaks it by script, and tells what clients noticed.
package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/media/netem"
)

// Topology is the network and what runs in it. Times are in milliseconds, shares in percent, rates in kbit/s.
type Topology struct {
	Name  string `json:"name"`
	Nodes []Node `json:"nodes"`
	// Links between regions; a pair that is not listed has RegionDefault.
	Links         []RegionLink `json:"links,omitempty"`
	RegionDefault Quality      `json:"region_default"`
	// Local is between nodes of one region, Access between a client and a node of its region.
	Local  Quality `json:"local"`
	Access Quality `json:"access"`
	// Alone: each node is a platform of its own ("amphi dev"), not a member of a cluster.
	Alone bool `json:"alone,omitempty"`
}

// Node is one node process.
type Node struct {
	ID     string   `json:"id"`
	Region string   `json:"region"`
	Zone   string   `json:"zone,omitempty"`
	Roles  []string `json:"roles"`
}

// RegionLink is the way between two regions, the same in both directions.
type RegionLink struct {
	A string `json:"a"`
	B string `json:"b"`
	Quality
}

// Quality of a way.
type Quality struct {
	RTT    float64 `json:"rtt_ms"`
	Jitter float64 `json:"jitter_ms,omitempty"`
	Loss   float64 `json:"loss_percent,omitempty"`
	Kbps   int64   `json:"kbps,omitempty"`
}

// queueLimit is how long packets may wait before a bottleneck.
const queueLimit = 200 * time.Millisecond

// params are those of one direction.
func (q Quality) params() netem.Params {
	return netem.Params{
		Delay:  time.Duration(q.RTT / 2 * float64(time.Millisecond)),
		Jitter: time.Duration(q.Jitter * float64(time.Millisecond)),
		Loss:   q.Loss / 100, Rate: q.Kbps * 1000, QueueDelay: queueLimit,
	}
}

// plus is one way after the other.
func (q Quality) plus(o Quality) Quality {
	sum := Quality{RTT: q.RTT + o.RTT, Jitter: q.Jitter + o.Jitter, Loss: 100 - (100-q.Loss)*(100-o.Loss)/100, Kbps: q.Kbps}
	if o.Kbps > 0 && (sum.Kbps == 0 || o.Kbps < sum.Kbps) {
		sum.Kbps = o.Kbps
	}
	return sum
}

// Builtin is a topology that comes with the lab: "solo", "three" (three regions of two nodes), "eight".
func Builtin(name string) (Topology, error) {
	stage := func(id, region, zone string, more ...string) Node {
		return Node{ID: id, Region: region, Zone: zone, Roles: append([]string{"stage"}, more...)}
	}
	t := Topology{
		Name: name, RegionDefault: Quality{RTT: 80, Loss: 1}, Local: Quality{RTT: 1}, Access: Quality{RTT: 10},
	}
	switch name {
	case "solo":
		t.Alone = true
		t.Nodes = []Node{stage("solo", "local", "a", "origin")}
	case "three", "eight":
		t.Nodes = []Node{
			stage("eu-1", "eu", "a", "voter", "origin"), stage("eu-2", "eu", "b", "audience"),
			stage("us-1", "us", "a", "voter"), stage("us-2", "us", "b", "audience"),
			stage("ap-1", "ap", "a", "voter"), stage("ap-2", "ap", "b", "audience"),
		}
		if name == "eight" {
			t.Nodes = append(t.Nodes, stage("eu-3", "eu", "c", "audience", "voter"), stage("us-3", "us", "c", "audience", "voter"))
		}
	default:
		return Topology{}, fmt.Errorf("no topology %q: want solo, three, eight or a file", name)
	}
	return t, t.check()
}

// ReadTopology reads a JSON file, or a built-in topology by its name.
func ReadTopology(name string) (Topology, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return Builtin(name)
	}
	if err != nil {
		return Topology{}, fmt.Errorf("reading the topology: %w", err)
	}
	var t Topology
	if err := json.Unmarshal(data, &t); err != nil {
		return Topology{}, fmt.Errorf("reading the topology %s: %w", name, err)
	}
	return t, t.check()
}

// maxNodes is what one machine can bear.
const maxNodes = 16

func (t *Topology) check() error {
	if len(t.Nodes) == 0 || len(t.Nodes) > maxNodes {
		return fmt.Errorf("topology %s has %d nodes: want 1 to %d", t.Name, len(t.Nodes), maxNodes)
	}
	seen := map[string]bool{}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if n.ID == "" || n.Region == "" || len(n.Roles) == 0 || seen[n.ID] {
			return fmt.Errorf("topology %s: node %q needs an id of its own, a region and roles", t.Name, n.ID)
		}
		if n.Zone == "" {
			n.Zone = n.ID
		}
		seen[n.ID] = true
	}
	for _, q := range t.qualities() {
		if q.RTT < 0 || q.Jitter < 0 || q.Loss < 0 || q.Loss > 100 || q.Kbps < 0 {
			return fmt.Errorf("topology %s: %+v is no quality of a link", t.Name, q)
		}
	}
	return nil
}

func (t *Topology) qualities() []Quality {
	all := []Quality{t.RegionDefault, t.Local, t.Access}
	for _, l := range t.Links {
		all = append(all, l.Quality)
	}
	return all
}

// regions in the order of their first node.
func (t *Topology) regions() []string {
	var out []string
	for _, n := range t.Nodes {
		if !slices.Contains(out, n.Region) {
			out = append(out, n.Region)
		}
	}
	return out
}

// between is the way between regions.
func (t *Topology) between(a, b string) Quality {
	if a == b {
		return t.Local
	}
	for _, l := range t.Links {
		if l.A == a && l.B == b || l.A == b && l.B == a {
			return l.Quality
		}
	}
	return t.RegionDefault
}

// host is something with an address in the lab: a node, or all clients of a region.
type host struct {
	name   string
	region string
	client bool
	addr   netip.Addr
}

// hosts numbers the network 10.66.0.0/16: 10.66.REGION.NODE, clients at 10.66.REGION.200.
func (t *Topology) hosts() []host {
	var out []host
	counts := map[string]byte{}
	regions := t.regions()
	address := func(region string, n byte) netip.Addr {
		return netip.AddrFrom4([4]byte{10, 66, byte(slices.Index(regions, region) + 1), n})
	}
	for _, n := range t.Nodes {
		counts[n.Region]++
		out = append(out, host{name: n.ID, region: n.Region, addr: address(n.Region, counts[n.Region])})
	}
	for _, r := range regions {
		out = append(out, host{name: clientsOf(r), region: r, client: true, addr: address(r, 200)})
	}
	return out
}

// clientsOf is the name of the host of a region's clients.
func clientsOf(region string) string { return "clients-" + region }

// way is the quality between two hosts when nothing is broken.
func (t *Topology) way(a, b host) Quality {
	q := t.between(a.region, b.region)
	switch {
	case a.client && b.client:
		return t.Access.plus(t.Access).plus(q)
	case !a.client && !b.client:
		return q
	case a.region == b.region:
		return t.Access
	}
	return t.Access.plus(q)
}
