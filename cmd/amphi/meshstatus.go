package main

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Questions of one node to another: a byte, and for a drain its seconds in four more.
const (
	askForStatus byte = iota + 1
	askForDrain
	askForUndrain
)

// nodes are all that are known, as operators see them.
func (m *mesh) nodes() []*amphiv1.NodeInfo {
	status := m.cluster.Status()
	var voters []string
	for _, s := range status.Servers {
		if s.Voter {
			voters = append(voters, s.ID)
		}
	}
	drains, revoked := map[string]int64{}, map[string]time.Time{}
	m.cluster.Read(func(r *amphiv1.Registry) {
		for id, n := range r.GetNodes() {
			drains[id] = n.GetDrainUntilMs()
		}
		revoked = registry.Revoked(r)
	})
	var list []*amphiv1.NodeInfo
	for _, g := range m.seen() {
		info := &amphiv1.NodeInfo{
			Id: g.ID, Region: g.Region, Zone: g.Zone, Roles: g.Roles, Version: g.Version, StartedMs: g.StartedMs, Address: g.URL,
			State: stateOf(g), Load: uint32(g.Load), Leader: g.ID == status.Leader, Voter: slices.Contains(voters, g.ID),
			DrainUntilMs: drains[g.ID],
		}
		if before, ok := revoked[g.ID]; ok {
			info.RevokedBeforeMs = before.UnixMilli()
		}
		if rtt := m.link.RTT(g.ID); g.ID != m.self.GetId() && rtt > 0 {
			info.RttMs = float64(rtt.Microseconds()) / 1000
		}
		list = append(list, info)
	}
	return list
}

func stateOf(g gossip.Member) string {
	switch {
	case g.State == gossip.Dead || g.State == gossip.Left:
		return "down"
	case g.State == gossip.Suspect:
		return "suspect"
	case g.Draining:
		return "draining"
	}
	return "alive"
}

// complete adds to this node's own description what only a node of a cluster has.
func (m *mesh) complete(info *amphiv1.NodeInfo) {
	info.Roles, info.Zone, info.Address = m.self.GetRoles(), m.self.GetZone(), m.self.GetUrl()
	for _, other := range m.nodes() {
		if other.GetId() == info.GetId() {
			info.State, info.Leader, info.Voter, info.DrainUntilMs = other.GetState(), other.GetLeader(), other.GetVoter(), other.GetDrainUntilMs()
		}
	}
}

// addCluster fills in how the cluster looks from here.
func (m *mesh) addCluster(s *amphiv1.NodeStatus) {
	raft, gossiped := m.cluster.Status(), m.gossip.Stats()
	states := map[gossip.State]uint32{}
	for _, g := range m.seen() {
		states[g.State]++
	}
	c := &amphiv1.ClusterStatus{
		RaftState: "follower", Leader: raft.Leader, Term: raft.Term, CommitIndex: raft.Committed, AppliedIndex: raft.Applied, Leased: raft.Leased,
		Alive: states[gossip.Alive], Suspect: states[gossip.Suspect], Dead: states[gossip.Dead],
		Refused: map[string]uint64{},
	}
	votes := false
	for _, server := range raft.Servers {
		if server.Voter {
			c.Voters = append(c.Voters, server.ID)
			votes = votes || server.ID == m.self.GetId()
		}
	}
	switch {
	case raft.Leading:
		c.RaftState = "leader"
	case !votes:
		c.RaftState = "non-voter"
	case raft.Leader == "":
		c.RaftState = "candidate"
	}
	relays, trunks := m.relays.Stats(""), m.trunks.Stats()
	for prefix, counts := range map[string]map[string]uint64{
		"gossip: ": gossiped.Refused, "port: ": m.link.Stats().Refused, "trunk: ": trunks.Drops, "relay: ": relays.Refused,
	} {
		for reason, n := range counts {
			if n > 0 {
				c.Refused[prefix+reason] = n
			}
		}
	}
	s.Cluster, s.Drain, s.Edge = c, m.drain.status(), m.edgeStatus()
	in, out := map[string]uint32{}, map[string]uint32{}
	rooms := map[string]*amphiv1.RoomStatus{}
	for _, r := range s.GetRooms() {
		rooms[r.GetName()] = r
	}
	for _, r := range relays.Relays {
		out[r.To]++
		if room := rooms[r.Room]; room != nil {
			room.Relays = append(room.Relays, &amphiv1.RelayStatus{TrackId: r.Track, Home: r.Home, From: r.From, To: r.To,
				Layer: int32(r.Layer), BitrateKbps: uint32(r.Bitrate / 1000)})
		}
	}
	for _, p := range relays.Parents {
		in[p.Parent] += uint32(p.Tracks)
	}
	for _, t := range trunks.Trunks {
		ts := &amphiv1.TrunkStatus{Node: t.Node, State: "connecting", RttMs: float64(t.RTT.Microseconds()) / 1000, Loss: t.LossIn,
			InKbps: uint32(t.ReceivedRate / 1000), OutKbps: uint32(t.SentRate / 1000), BudgetKbps: uint32(t.Budget / 1000),
			QueueMs: float64(t.QueueP95.Microseconds()) / 1000, RelaysIn: in[t.Node], RelaysOut: out[t.Node]}
		if t.Up {
			ts.State, ts.UpSinceMs = "up", s.GetTimeMs()-t.Since.Milliseconds()
		}
		s.Trunks = append(s.Trunks, ts)
	}
}

// askStatus is another node's status; nil when it does not answer.
func (m *mesh) askStatus(id string) *amphiv1.NodeStatus {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	b, err := m.link.Call(ctx, id, kindStatus, []byte{askForStatus})
	if err != nil {
		return nil
	}
	s := &amphiv1.NodeStatus{}
	if protobuf.Unmarshal(b, s) != nil {
		return nil
	}
	return s
}

// askDrain starts or takes back the drain of a node.
func (m *mesh) askDrain(ctx context.Context, id string, start bool, within time.Duration) (*amphiv1.NodeInfo, error) {
	question := []byte{askForUndrain}
	if start {
		question = binary.BigEndian.AppendUint32([]byte{askForDrain}, uint32(within/time.Second))
	}
	var b []byte
	var err error
	if id == m.self.GetId() {
		b, err = m.answerStatus(ctx, id, question)
	} else {
		b, err = m.link.Call(ctx, id, kindStatus, question)
	}
	if err != nil {
		return nil, proto.Errorf(proto.Unavailable, "the node %q does not answer: %v", id, err)
	}
	info := &amphiv1.NodeInfo{}
	if err := protobuf.Unmarshal(b, info); err != nil {
		return nil, proto.Errorf(proto.Internal, "the node %q gave no answer that makes sense", id)
	}
	return info, nil
}

// answerStatus answers another node's operator.
func (m *mesh) answerStatus(ctx context.Context, _ string, question []byte) ([]byte, error) {
	switch {
	case len(question) == 1 && question[0] == askForStatus:
		return protobuf.Marshal(m.node.Status(""))
	case len(question) == 5 && question[0] == askForDrain:
		if m.alone() {
			return nil, proto.Errorf(proto.Unavailable, "no other node could take over from this one")
		}
		m.begin(time.Duration(binary.BigEndian.Uint32(question[1:])) * time.Second)
	case len(question) == 1 && question[0] == askForUndrain:
		if err := m.undrain(ctx); err != nil {
			return nil, err
		}
	default:
		return nil, proto.Errorf(proto.InvalidMessage, "the question is not known")
	}
	return protobuf.Marshal(m.node.info())
}
