package main

import (
	"context"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/cluster/gossip"
	"github.com/amphi-sfu/amphi/cluster/identity"
	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// revokedFile keeps which nodes' certificates count no more, in a node's data directory.
const revokedFile = "revoked.json"

// saveAgain is after what time a file that could not be written is tried again.
const saveAgain = 5 * time.Second

// Revoke implements signal.Nodes.
func (n *Node) Revoke(ctx context.Context, id string, before time.Time, force bool) (*amphiv1.NodeInfo, error) {
	if n.mesh == nil {
		return nil, proto.Errorf(proto.Unavailable, "this node is alone: there is none that it could shut out")
	}
	return n.mesh.revoke(ctx, id, before, force)
}

// revoke has the cluster refuse certificates of a node.
func (m *mesh) revoke(ctx context.Context, id string, before time.Time, force bool) (*amphiv1.NodeInfo, error) {
	if err := m.mayRevoke(id); err != nil && (!force || proto.CodeOf(err) == proto.InvalidArgument) {
		return nil, err
	}
	if err := m.cluster.Propose(ctx, &amphiv1.RegistryCommand{TimeMs: m.node.cfg.Now().UnixMilli(), Body: &amphiv1.RegistryCommand_RevokeNode{
		RevokeNode: &amphiv1.Revocation{Node: id, IssuedBeforeMs: before.UnixMilli()}}}); err != nil {
		return nil, err
	}
	m.log.Warn("certificates of a node were revoked here", "node", id, "issued_before", before.UTC(), "forced", force)
	for _, info := range m.nodes() {
		if info.GetId() == id {
			return info, nil
		}
	}
	return &amphiv1.NodeInfo{Id: id, State: "down", RevokedBeforeMs: before.UnixMilli()}, nil
}

// mayRevoke says why a node is not to be shut out.
func (m *mesh) mayRevoke(id string) error {
	known := slices.ContainsFunc(m.all(), func(g gossip.Member) bool { return g.ID == id }) ||
		slices.ContainsFunc(m.cluster.Nodes(), func(n *amphiv1.ClusterNode) bool { return n.GetId() == id })
	switch {
	case !identity.ValidNode(id):
		return proto.Errorf(proto.InvalidArgument, "that is no node's id")
	case !known:
		return proto.Errorf(proto.NotFound, "there is no node %q", id)
	case id == m.self.GetId():
		return proto.Errorf(proto.Conflict, "the node %q would shut itself out: ask another one, or force it", id)
	}
	voters, left, votes := 0, 0, false
	for _, s := range m.cluster.Status().Servers {
		switch {
		case !s.Voter:
			continue
		case s.ID == id:
			votes = true
		case s.ID == m.self.GetId() || time.Since(m.link.Heard(s.ID)) < goneAfter:
			left++
		}
		voters++
	}
	if most := voters/2 + 1; votes && left < most {
		return proto.Errorf(proto.Conflict,
			"without %q only %d of %d voters would answer, and %d are needed: nothing could be decided any more; start others first, or force it", id, left, voters, most)
	}
	return nil
}

// shutOut says that a node's certificates were revoked and that it has not come back with a new one.
func (m *mesh) shutOut(id string) bool {
	return !m.revoked.Before(id).IsZero() && time.Since(m.link.Heard(id)) > goneAfter
}

// heed carries out what the registry says of certificates that count no more, until ctx ends.
func (m *mesh) heed(ctx context.Context) error {
	for {
		var before map[string]time.Time
		m.cluster.Read(func(r *amphiv1.Registry) { before = registry.Revoked(r) })
		if nodes := m.revoked.Add(before); len(nodes) > 0 {
			closed := m.link.Reexamine()
			for _, id := range nodes {
				m.log.Warn("certificates of a node count no more", "node", id, "issued_before", before[id].UTC(), "connections_closed", closed)
			}
		}
		again := make(<-chan time.Time)
		if err := m.revoked.Save(); err != nil {
			m.log.Error("which certificates count no more will not be known before this node's registry is, after a restart", "err", err)
			again = time.After(saveAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.revoking:
		case <-again:
		}
	}
}
