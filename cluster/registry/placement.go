package registry

import (
	"slices"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// MaxNodes bounds the nodes of a cluster.
	MaxNodes = 1000
	// MaxNode bounds one node's record, in bytes.
	MaxNode = 4 << 10
)

// Changed is the rooms whose placement the last command changed, by their keys, and "" for what is no room's; valid until the next
// command.
func (m *Machine) Changed() []string { return m.changed }

func (m *Machine) place(key string, p *pb.Placement) {
	m.reg.Placements[key] = p
	m.changed = append(m.changed, key)
}

// moved is the placement after old with another node or standby: the epoch rises with every change of node, and only
// with it.
func (m *Machine) moved(old *pb.Placement, node, standby string) *pb.Placement {
	p := &pb.Placement{Node: node, Standby: standby, Epoch: old.GetEpoch()}
	switch {
	case old == nil:
		p.Epoch = m.reg.GetEpochFloor() + 1
	case node != old.GetNode() && node != "":
		p.Epoch++
	}
	return p
}

// mayHold tells whether a node may own a room or hold a copy of it.
func (m *Machine) mayHold(node string) bool {
	n := m.reg.GetNodes()[node]
	return n != nil && !n.GetDown()
}

func (m *Machine) placeRoom(p *pb.PlaceRoom) error {
	key := RoomKey(p.GetRoom())
	if m.reg.GetRooms()[key] == nil {
		return missing("room", p.GetRoom())
	}
	old := m.reg.GetPlacements()[key]
	switch {
	case old.GetEpoch() != p.GetIfEpoch():
		return proto.Errorf(proto.Conflict, "the room is at epoch %d", old.GetEpoch())
	case !m.mayHold(p.GetNode()):
		return proto.Errorf(proto.Conflict, "the node %q is unknown or down", clip(p.GetNode()))
	case p.GetStandby() == p.GetNode(), p.GetStandby() != "" && !m.mayHold(p.GetStandby()):
		return proto.Errorf(proto.Conflict, "the node %q cannot be the standby", clip(p.GetStandby()))
	}
	m.place(key, m.moved(old, p.GetNode(), p.GetStandby()))
	return nil
}

// moveRooms moves what is still as the command takes it to be, and leaves the rest; a standby that has gone down in
// the meantime is left out. With down, the node has nothing afterwards: rooms that the command did not move have no owner.
func (m *Machine) moveRooms(c *pb.MoveRooms) error {
	from := c.GetFrom()
	n := m.reg.GetNodes()[from]
	switch {
	case n == nil:
		return missing("node", from)
	case c.GetDown() && n.GetIncarnation() != c.GetIncarnation():
		return proto.Errorf(proto.Conflict, "the node is at incarnation %d", n.GetIncarnation())
	case len(c.GetRooms()) > MaxRooms:
		return full("rooms", MaxRooms)
	}
	if c.GetDown() && !n.GetDown() {
		n = copied(n)
		n.Down = true
		m.reg.Nodes[from] = n
	}
	for _, p := range c.GetRooms() {
		key := RoomKey(p.GetRoom())
		old := m.reg.GetPlacements()[key]
		if old == nil || old.GetNode() != from || old.GetEpoch() != p.GetIfEpoch() || !m.mayHold(p.GetNode()) {
			continue
		}
		standby := p.GetStandby()
		if standby == p.GetNode() || !m.mayHold(standby) {
			standby = ""
		}
		m.place(key, m.moved(old, p.GetNode(), standby))
	}
	if c.GetDown() {
		m.dispossess(from)
	}
	m.changed = distinct(m.changed)
	return nil
}

// dispossess takes everything from a node: its rooms have no owner, those that it had copies of no standby.
func (m *Machine) dispossess(node string) {
	for key, p := range m.reg.GetPlacements() {
		switch node {
		case p.GetNode():
			m.place(key, m.moved(p, "", p.GetStandby()))
		case p.GetStandby():
			m.place(key, m.moved(p, p.GetNode(), ""))
		}
	}
}

func (m *Machine) putNode(cmd *pb.RegistryCommand, n *pb.ClusterNode) error {
	if err := validName("a node's id", n.GetId()); err != nil {
		return err
	}
	if err := fits(n, MaxNode); err != nil {
		return err
	}
	old := m.reg.GetNodes()[n.GetId()]
	switch {
	case old == nil && len(m.reg.GetNodes()) >= MaxNodes:
		return full("nodes", MaxNodes)
	case old != nil && cmd.GetOnlyNew():
		return exists("node")
	case old != nil && (n.GetIncarnation() < old.GetIncarnation() || old.GetDown() && n.GetIncarnation() == old.GetIncarnation()):
		return proto.Errorf(proto.Conflict, "the node is at incarnation %d", old.GetIncarnation())
	}
	n = copied(n)
	n.Down = false
	m.reg.Nodes[n.GetId()] = n
	if old != nil && !old.GetDown() && n.GetIncarnation() > old.GetIncarnation() {
		m.restarted(n.GetId())
		m.changed = distinct(m.changed)
	}
	return nil
}

// restarted takes from a node what its earlier life had: it remembers nothing of its rooms, so a standby goes on with
// them, or itself from nothing, at the next epoch; its copies are gone too.
func (m *Machine) restarted(node string) {
	for key, p := range m.reg.GetPlacements() {
		switch {
		case p.GetStandby() == node:
			m.place(key, m.moved(p, p.GetNode(), ""))
		case p.GetNode() != node:
		case m.mayHold(p.GetStandby()):
			m.place(key, m.moved(p, p.GetStandby(), ""))
		default:
			m.place(key, &pb.Placement{Node: node, Epoch: p.GetEpoch() + 1})
		}
	}
}

func (m *Machine) deleteNode(id string) error {
	if m.reg.GetNodes()[id] == nil {
		return missing("node", id)
	}
	delete(m.reg.Nodes, id)
	m.dispossess(id)
	m.changed = distinct(m.changed)
	return nil
}

// unplace drops the placement of a room that is deleted; whoever has the name next begins above its epoch.
func (m *Machine) unplace(key string) {
	p := m.reg.GetPlacements()[key]
	if p == nil {
		return
	}
	delete(m.reg.Placements, key)
	m.reg.EpochFloor = max(m.reg.GetEpochFloor(), p.GetEpoch())
	m.changed = append(m.changed, key)
}

func distinct(keys []string) []string {
	slices.Sort(keys)
	return slices.Compact(keys)
}
