package main

import (
	"context"
	"maps"
	"sync"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/cascade/trunk"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// pathsLook is how often a node looks whether a trunk of its own has come or gone, pathsEvery how often it says so
	// in any case, and pathsFor how long that counts.
	pathsLook  = 500 * time.Millisecond
	pathsEvery = 5 * time.Second
	pathsFor   = 3 * pathsEvery
	// cutAfter is how long a trunk may be tried before it counts as cut.
	cutAfter = 3 * time.Second
	// maxPaths and maxPathsSize bound what one node may say.
	maxPaths     = 1024
	maxPathsSize = 64 << 10
	maxRTT       = 10_000 // ms; what is longer is not known
	// steadyRTT and steadyShare are by how much a round trip must differ from what is known to count as another: plans
	// shall not follow its noise.
	steadyRTT   = 10 * time.Millisecond
	steadyShare = 4
)

// paths are the trunks between other nodes, as these tell: what a plan needs that its maker cannot see.
type paths struct {
	mu   sync.Mutex // guards the field below
	from map[string]told
}

// told is what one node has said.
type told struct {
	at   time.Duration
	rtts map[string]time.Duration // negative: cut
}

func newPaths() *paths { return &paths{from: map[string]told{}} }

// take notes what a node says at now; what cannot be read, or is too much, is false and changes nothing.
func (p *paths) take(node string, msg []byte, now time.Duration) bool {
	var s amphiv1.NodeStatus
	if len(msg) > maxPathsSize || protobuf.Unmarshal(msg, &s) != nil || len(s.GetTrunks()) > maxPaths {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.from, func(_ string, t told) bool { return now-t.at > pathsFor })
	before := p.from[node].rtts
	rtts := make(map[string]time.Duration, len(s.GetTrunks()))
	for _, t := range s.GetTrunks() {
		rtt := time.Duration(-1)
		if t.GetState() == "up" {
			rtt = 0
			if ms := t.GetRttMs(); ms > 0 && ms < maxRTT {
				rtt = time.Duration(ms * float64(time.Millisecond))
			}
			if was := before[t.GetNode()]; was > 0 && rtt >= 0 && (rtt-was).Abs() < max(steadyRTT, was/steadyShare) {
				rtt = was
			}
		}
		rtts[t.GetNode()] = rtt
	}
	p.from[node] = told{now, rtts}
	return true
}

// rtt is the round trip between two other nodes; 0: unknown, negative: one of them says that they cannot reach each other.
func (p *paths) rtt(a, b string, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b < a {
		a, b = b, a // it has no direction
	}
	var rtt time.Duration
	for _, way := range [...][2]string{{b, a}, {a, b}} {
		t := p.from[way[0]]
		if t.rtts == nil || now-t.at > pathsFor {
			continue
		}
		switch d := t.rtts[way[1]]; {
		case d < 0:
			return d
		case d > 0:
			rtt = d
		}
	}
	return rtt
}

// pathsOf says which of a node's own trunks are up, and which are down that were up before, or have been tried for long.
func pathsOf(trunks []trunk.TrunkStats, before map[string]bool) (s *amphiv1.NodeStatus, up map[string]bool) {
	s, up = &amphiv1.NodeStatus{}, map[string]bool{}
	for _, t := range trunks {
		if _, met := before[t.Node]; !t.Up && !met && t.Since < cutAfter {
			continue // it is being made
		}
		up[t.Node] = t.Up
		state := "down"
		if t.Up {
			state = "up"
		}
		s.Trunks = append(s.Trunks, &amphiv1.TrunkStatus{Node: t.Node, State: state, RttMs: float64(t.RTT.Microseconds()) / 1000})
	}
	return s, up
}

// tellPaths tells all nodes of this one's trunks: whoever owns a room plans by them.
func (m *mesh) tellPaths(ctx context.Context) error {
	look := time.NewTicker(pathsLook)
	defer look.Stop()
	before, since := map[string]bool{}, pathsEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		s, up := pathsOf(m.trunks.Stats().Trunks, before)
		same := maps.Equal(up, before)
		before = up
		if since += pathsLook; same && since < pathsEvery {
			continue
		}
		since = 0
		msg, err := protobuf.Marshal(s)
		if err != nil || len(msg) > maxPathsSize {
			continue
		}
		for _, other := range m.living() {
			if other.ID != m.self.GetId() {
				_ = m.link.Send(other.ID, kindPaths, msg) // what is lost is said again
			}
		}
	}
}
