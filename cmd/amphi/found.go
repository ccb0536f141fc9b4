package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/template"
)

const (
	// loadEvery is how often a node tells how busy it is.
	loadEvery = time.Second
	// foundAgain is how long after a failure the first records are tried again.
	foundAgain = time.Second
)

// found makes what a cluster needs once in its life, and the keys of this node's configuration, as soon as there is a
// leader. It then waits for ctx, as all services do.
func (m *mesh) found(ctx context.Context) error {
	for ctx.Err() == nil {
		err := m.seed(ctx)
		if err == nil {
			break
		}
		m.log.Debug("the first records have to wait", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(foundAgain):
		}
	}
	<-ctx.Done()
	return nil
}

func (m *mesh) seed(ctx context.Context) error {
	// What this node has not heard of yet must not look missing.
	if err := m.cluster.Sync(ctx); err != nil {
		return err
	}
	var wanted []*amphiv1.RegistryCommand
	now := m.node.cfg.Now().UnixMilli()
	m.cluster.Read(func(r *amphiv1.Registry) { wanted = firstRecords(r, m.cfg.Keys) })
	for _, cmd := range wanted {
		cmd.Id, cmd.TimeMs, cmd.OnlyNew = proto.NewID(proto.RequestPrefix), now, true
		// Another node may have been quicker.
		if err := m.cluster.Propose(ctx, cmd); err != nil && proto.CodeOf(err) != proto.Conflict {
			return err
		}
	}
	return nil
}

// firstRecords are the secret, the keys and the preset templates that are missing.
func firstRecords(r *amphiv1.Registry, keys []*amphiv1.ApiKey) (wanted []*amphiv1.RegistryCommand) {
	if len(r.GetNodeSecret()) == 0 {
		secret := make([]byte, 32)
		// crypto/rand.Read never fails since Go 1.24.
		_, _ = rand.Read(secret)
		wanted = append(wanted, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_SetNodeSecret{SetNodeSecret: secret}})
	}
	for _, k := range keys {
		if r.GetKeys()[k.GetId()] == nil {
			wanted = append(wanted, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutKey{PutKey: k}})
		}
	}
	for _, name := range template.PresetNames() {
		if p, err := template.Preset(name); err == nil && r.GetTemplates()[name] == nil {
			wanted = append(wanted, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutTemplate{PutTemplate: p}})
		}
	}
	return wanted
}

// foundAlone makes what a node without others needs, and ends in its records what ended with the process before.
func (n *Node) foundAlone() error {
	var wanted []*amphiv1.RegistryCommand
	now := n.cfg.Now().UnixMilli()
	n.registry.Read(func(r *amphiv1.Registry) {
		wanted = firstRecords(r, n.cfg.Keys)
		// A node that was killed left its sessions open; nobody else could be running them.
		for _, session := range r.GetSessions() {
			if session.GetEndedMs() == 0 {
				wanted = append(wanted, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutSession{PutSession: cutShort(session, now)}})
			}
		}
	})
	for _, cmd := range wanted {
		cmd.Id, cmd.TimeMs = proto.NewID(proto.RequestPrefix), now
		if err := n.registry.Propose(context.Background(), cmd); err != nil {
			return fmt.Errorf("making the first records: %w", err)
		}
	}
	return nil
}

// cutShort is the record of a session that ended with its node.
func cutShort(session *amphiv1.Session, now int64) *amphiv1.Session {
	ended := protobuf.Clone(session).(*amphiv1.Session)
	ended.EndedMs = now
	for _, a := range ended.GetAttendance() {
		if a.GetLeftMs() == 0 {
			a.LeftMs, a.Reason = now, amphiv1.LeaveReason_LEAVE_REASON_LOST
		}
	}
	return ended
}

// tellLoad lets the others know how busy this node is.
func (m *mesh) tellLoad(ctx context.Context) error {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.gossip.SetLoad(loadOf(m.node.usage.CPU(), runtime.NumCPU()))
		}
	}
}

// loadOf is used cores as a part of all, 0 to 255.
func loadOf(used float64, cores int) uint8 {
	return uint8(max(0, min(255, used/float64(cores)*255)))
}
