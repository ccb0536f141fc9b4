package plan

import (
	"fmt"
	"testing"
	"time"
)

// Unit costs and sizes that DESIGN.md computes with.
const (
	scaleNodes   = 100
	scaleRegions = 5
	scaleViewers = 100_000
	// One viewer: a speaker in 720p, six small pictures, three microphones.
	viewerPackets = 160 + 6*25 + 3*50
	viewerKbps    = 1500 + 6*150 + 3*40
	// A track in all its layers, which somebody in every region wants.
	trackPackets = 160 + 60 + 25
	trackKbps    = 1500 + 500 + 150
	audioPackets = 50
	audioKbps    = 40
	publishers   = 10
)

// largeRoom is 100 nodes in 5 regions, of which in each one is an origin of publishers and one more takes stage peers;
// the others are for the audience.
func largeRoom() Input {
	in := Input{RTT: func(a, b string) time.Duration {
		if a[:2] == b[:2] {
			return time.Millisecond
		}
		return time.Duration(40+20*(int(a[1]-'0')+int(b[1]-'0'))) * time.Millisecond
	}}
	for i := range scaleNodes {
		region := i % scaleRegions
		n := Node{ID: fmt.Sprintf("r%d-n%02d", region, i), Region: fmt.Sprintf("r%d", region), Zone: fmt.Sprint(i / scaleRegions % 3), Relay: i < 2*scaleRegions}
		in.Nodes = append(in.Nodes, n)
		if i < scaleRegions {
			in.Homes = append(in.Homes, n.ID)
		}
	}
	return in
}

// load is what a plan makes the nodes and the lines between regions carry.
type load struct {
	copies   map[[2]string]int // of each home's tracks, by regions
	children map[string]int    // over all trees
	depth    int
}

func loadOf(in Input, p *Plan) load {
	l := load{copies: map[[2]string]int{}, children: map[string]int{}}
	region := map[string]string{}
	for _, n := range in.Nodes {
		region[n.ID] = n.Region
	}
	for _, tree := range p.Trees {
		depth := map[string]int{}
		for _, h := range tree.Hops {
			depth[h.Node] = depth[h.Parent] + 1
			l.depth = max(l.depth, depth[h.Node])
			l.children[h.Parent]++
			if region[h.Node] != region[h.Parent] {
				l.copies[[2]string{region[tree.Home], region[h.Node]}]++
			}
		}
	}
	return l
}

// TestLargeRoomLoad holds the table in DESIGN.md against the plan of that room.
func TestLargeRoomLoad(t *testing.T) {
	t.Parallel()
	in := largeRoom()
	p := Make(in)
	l := loadOf(in, p)
	for pair, n := range l.copies {
		if n != 1 {
			t.Errorf("%d copies from %s to %s", n, pair[0], pair[1])
		}
	}
	if len(l.copies) != scaleRegions*(scaleRegions-1) {
		t.Errorf("%d pairs of regions have a copy", len(l.copies))
	}
	busiest := 0
	for _, n := range l.children {
		busiest = max(busiest, n)
	}
	perHome := publishers / scaleRegions
	relayed := busiest * perHome * (trackPackets + audioPackets)
	viewers := scaleViewers / scaleNodes * viewerPackets
	t.Logf("deepest %d hops; one copy of %d kbit/s for each ordered pair of regions", l.depth, perHome*(trackKbps+audioKbps))
	t.Logf("busiest node: %d relays of a home's tracks, %d packets/s on trunks, %d packets/s and %d Mbit/s to viewers",
		busiest, relayed, viewers, scaleViewers/scaleNodes*viewerKbps/1000)
	if l.depth > 3 {
		t.Errorf("%d hops to the furthest node", l.depth)
	}
	// A gateway gives the tracks of four foreign homes to at most FanOut nodes each, its own to the others.
	if most := scaleRegions * DefaultFanOut; busiest > most {
		t.Errorf("a node has %d children", busiest)
	}
}

// BenchmarkLargeRoom plans one room of 100 nodes; its figure is C15's.
func BenchmarkLargeRoom(b *testing.B) {
	in := largeRoom()
	for b.Loop() {
		Make(in)
	}
}

// BenchmarkLargeRoomReplan plans it again after one node has gone.
func BenchmarkLargeRoomReplan(b *testing.B) {
	in := largeRoom()
	in.Before = Make(in)
	in.Nodes = in.Nodes[1:]
	for b.Loop() {
		Make(in)
	}
}

// BenchmarkThousandRooms plans 1,000 rooms of 20 peers on up to 6 of 100 nodes.
func BenchmarkThousandRooms(b *testing.B) {
	all := largeRoom()
	rooms := make([]Input, 1000)
	for i := range rooms {
		rooms[i].RTT = all.RTT
		for k := range 6 {
			n := all.Nodes[(i*7+k*13)%len(all.Nodes)]
			rooms[i].Nodes = append(rooms[i].Nodes, n)
			rooms[i].Homes = append(rooms[i].Homes, n.ID)
		}
	}
	for b.Loop() {
		for _, r := range rooms {
			Make(r)
		}
	}
}
