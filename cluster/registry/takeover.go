package registry

import (
	"cmp"
	"maps"
	"slices"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Host is a living node that may own rooms and hold copies of them.
type Host struct {
	ID, Region, Zone string
	// Load is 0 to 255.
	Load int
	// Draining nodes take over only what they have a copy of.
	Draining bool
}

// balance gives rooms out to hosts: the same for the same input, and evenly, counting what it has given already.
type balance struct {
	hosts []Host // by id
	given []int  // rooms and copies, by index of hosts
	// The indices of hosts to choose from, first choices first, by region and by owner; made on first use.
	owners, standbys map[string][2][]int
}

func newBalance(hosts []Host) *balance {
	hosts = slices.SortedFunc(slices.Values(hosts), func(a, b Host) int { return cmp.Compare(a.ID, b.ID) })
	return &balance{hosts: hosts, given: make([]int, len(hosts)), owners: map[string][2][]int{}, standbys: map[string][2][]int{}}
}

func (b *balance) find(id string) (Host, bool) {
	i, ok := slices.BinarySearchFunc(b.hosts, id, func(h Host, id string) int { return cmp.Compare(h.ID, id) })
	if !ok {
		return Host{}, false
	}
	return b.hosts[i], true
}

// ranked lists hosts that are not draining by rank, leaving out negative ones.
func (b *balance) ranked(rank func(Host) int) [2][]int {
	var ranks [2][]int
	for i, h := range b.hosts {
		if r := rank(h); r >= 0 && !h.Draining {
			ranks[r] = append(ranks[r], i)
		}
	}
	return ranks
}

// least picks from the first rank that has any host the one with the least to do. A room that was given counts as one
// step of load.
func (b *balance) least(ranks [2][]int) string {
	among := ranks[0]
	if len(among) == 0 {
		among = ranks[1]
	}
	if len(among) == 0 {
		return ""
	}
	best := slices.MinFunc(among, func(i, j int) int { return cmp.Compare(b.hosts[i].Load+b.given[i], b.hosts[j].Load+b.given[j]) })
	b.given[best]++
	return b.hosts[best].ID
}

// owner picks a node in the region, or else anywhere.
func (b *balance) owner(region string) string {
	ranks, ok := b.owners[region]
	if !ok {
		ranks = b.ranked(func(h Host) int {
			if h.Region == region {
				return 0
			}
			return 1
		})
		b.owners[region] = ranks
	}
	return b.least(ranks)
}

// standby picks another node of the owner's region, in another zone if there is one; "" leaves the room solo, rather
// than let every decision wait for another region.
func (b *balance) standby(owner string) string {
	ranks, ok := b.standbys[owner]
	if !ok {
		if o, known := b.find(owner); known {
			ranks = b.ranked(func(h Host) int {
				switch {
				case h.ID == owner || h.Region != o.Region:
					return -1
				case h.Zone != o.Zone || h.Zone == "":
					return 0
				}
				return 1
			})
		}
		b.standbys[owner] = ranks
	}
	return b.least(ranks)
}

// Choose places a room that nobody owns in the region: at the node that asks if that is a host there and not draining, else at
// another one there, else anywhere; node is empty when there are no hosts.
func Choose(hosts []Host, asking, region string) (node, standby string) {
	b := newBalance(hosts)
	if h, ok := b.find(asking); ok && !h.Draining && h.Region == region {
		node = asking
	} else if node = b.owner(region); node == "" {
		return "", ""
	}
	return node, b.standby(node)
}

// Takeover is the one entry that takes all rooms of a dead node away: each goes to its standby where that lives, else
// to a host in the node's region, else anywhere, and gets a new standby. hosts are all that live.
func Takeover(reg *pb.Registry, dead string, hosts []Host) *pb.MoveRooms {
	n := reg.GetNodes()[dead]
	return move(reg, dead, n.GetRegion(), hosts, &pb.MoveRooms{From: dead, Down: true, Incarnation: n.GetIncarnation()})
}

// Handover moves a living node's rooms, or the one that is named, as Takeover does. Rooms for which there is no other
// host stay.
func Handover(reg *pb.Registry, node, room string, hosts []Host) *pb.MoveRooms {
	c := &pb.MoveRooms{From: node}
	if room != "" {
		p := reg.GetPlacements()[RoomKey(room)]
		reg = &pb.Registry{Nodes: reg.GetNodes(), Placements: map[string]*pb.Placement{RoomKey(room): p}}
	}
	return move(reg, node, reg.GetNodes()[node].GetRegion(), hosts, c)
}

func move(reg *pb.Registry, from, region string, hosts []Host, c *pb.MoveRooms) *pb.MoveRooms {
	b := newBalance(slices.DeleteFunc(slices.Clone(hosts), func(h Host) bool { return h.ID == from }))
	for _, room := range rooms(reg, func(p *pb.Placement) bool { return p.GetNode() == from }) {
		p := reg.GetPlacements()[room]
		node := p.GetStandby()
		if _, lives := b.find(node); !lives {
			node = b.owner(region)
		}
		if node == "" {
			continue
		}
		c.Rooms = append(c.Rooms, &pb.PlaceRoom{Room: room, Node: node, Standby: b.standby(node), IfEpoch: p.GetEpoch()})
	}
	return c
}

// rooms are the keys of the placements that match, in order.
func rooms(reg *pb.Registry, match func(*pb.Placement) bool) []string {
	var keys []string
	for key, p := range reg.GetPlacements() {
		if match(p) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Standbys are the entries, one for each owner, that give a standby to rooms that have none, or one that is draining,
// and could have one. The owner, and with it the epoch, stays.
func Standbys(reg *pb.Registry, hosts []Host) []*pb.MoveRooms {
	b := newBalance(hosts)
	byOwner := map[string]*pb.MoveRooms{}
	need := func(p *pb.Placement) bool {
		h, _ := b.find(p.GetStandby())
		return p.GetNode() != "" && (p.GetStandby() == "" || h.Draining)
	}
	for _, room := range rooms(reg, need) {
		p := reg.GetPlacements()[room]
		standby := b.standby(p.GetNode())
		if standby == "" {
			continue
		}
		c := byOwner[p.GetNode()]
		if c == nil {
			c = &pb.MoveRooms{From: p.GetNode()}
			byOwner[p.GetNode()] = c
		}
		c.Rooms = append(c.Rooms, &pb.PlaceRoom{Room: room, Node: p.GetNode(), Standby: standby, IfEpoch: p.GetEpoch()})
	}
	var all []*pb.MoveRooms
	for _, owner := range slices.Sorted(maps.Keys(byOwner)) {
		all = append(all, byOwner[owner])
	}
	return all
}
