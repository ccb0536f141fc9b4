package main

import (
	"context"
	"os/exec"
	"slices"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/cluster/registry"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

// kindOrigin is the call with which a room's owner orders streams of other nodes.
const kindOrigin byte = 20

// direct makes what has streams made by whatever node, in place of the node's own origin alone.
func (m *mesh) direct(s *streams) signal.Streams {
	m.desk = &desk{node: m.self.GetId(), streams: s, log: m.log, jobs: map[string]*job{}, record: m.streamOrigin,
		follow: func(room string) (func(), error) { return m.node.signal.Follow(room) }, next: s.next,
		owned: func(room, stream, by string) { m.node.outputs.owned(room, stream, by, time.Now()) }}
	s.current = m.desk.current
	m.link.OnCall(kindOrigin, m.desk.answerOrder)
	d := newDirector()
	d.node, d.region, d.log = m.self.GetId(), m.self.GetRegion(), m.log
	d.members, d.heard, d.records, d.order = m.members, m.link.Heard, originRecords{m.cluster}, m.orderStream
	d.owns = func(room string) bool {
		var at *amphiv1.Placement
		m.cluster.Read(func(r *amphiv1.Registry) { at = r.GetPlacements()[registry.RoomKey(room)] })
		return at == nil || at.GetNode() == m.self.GetId() // a room that was deleted is nobody else's
	}
	d.report = func(room string, stream *amphiv1.Stream) {
		if stream.GetState() != amphiv1.StreamState_STREAM_STATE_UNSPECIFIED {
			m.node.signal.ReportStream(room, stream)
		}
	}
	d.admit = s.Admit
	d.cue = func(node, room, stream string, c *amphiv1.StreamCue) {
		if node == m.self.GetId() {
			s.Cue(room, stream, c)
			return
		}
		m.tellOutput(node, &amphiv1.OutputOrder{Action: amphiv1.OutputOrder_ACTION_CUE, Room: room, Stream: stream, Cue: c})
	}
	m.director = d
	return d
}

// directOutputs makes what has outputs made where their streams are, in place of this node alone.
func (m *mesh) directOutputs(local *outputs) *farOutputs {
	f := &farOutputs{node: m.self.GetId(), log: m.log, local: local, at: map[string]*farOutput{}, send: m.tellOutput,
		report: func(room string, o *amphiv1.Output) { m.node.signal.ReportOutput(room, o) },
		cue:    func(room, stream string, c *amphiv1.StreamCue) { m.node.streams.Cue(room, stream, c) },
		origin: m.director.at}
	f.call = func(ctx context.Context, node string, o *amphiv1.OutputOrder) error {
		question, err := protobuf.Marshal(o)
		if err == nil {
			_, err = m.link.Call(ctx, node, kindOutput, question)
		}
		return err
	}
	m.link.OnCall(kindOutput, f.answer)
	m.link.OnMessage(kindOutputNews, f.hear)
	local.told, m.director.moved = f.told, f.moved
	return f
}

// tellOutput sends a node something about an output or a stream. It does not block.
func (m *mesh) tellOutput(node string, o *amphiv1.OutputOrder) {
	b, err := protobuf.Marshal(o)
	if err == nil {
		err = m.link.Send(node, kindOutputNews, b)
	}
	if err != nil {
		m.log.Warn("a node was not told about an output", "node", node, "room", o.GetRoom(), "err", err)
	}
}

// roles are the node's: without the program that composes it makes no streams.
func (m *mesh) roles() []string {
	if !slices.Contains(m.cfg.Roles, roleOrigin) {
		return m.cfg.Roles
	}
	path, err := compositorPath(m.node.cfg.CompositorPath)
	if err == nil {
		_, err = exec.LookPath(path)
	}
	if err == nil {
		return m.cfg.Roles
	}
	m.log.Warn("this node makes no streams", "err", err)
	return slices.DeleteFunc(slices.Clone(m.cfg.Roles), func(r string) bool { return r == roleOrigin })
}

// streamServices are what runs for streams. Other nodes are cut off before the streams here end, so that they ask
// elsewhere and do not take the end of the node for that of the stream.
func (m *mesh) streamServices() []service {
	return []service{
		{"streams of other nodes", m.edge.Run},
		{"streams that are made here", m.desk.watch},
		{"streams for other nodes", m.origins.run},
		{"origins of streams", m.director.run},
	}
}

// streamOrigin is what the registry has of a stream's origin; nil: nothing.
func (m *mesh) streamOrigin(room, stream string) (o *amphiv1.StreamOrigin) {
	m.cluster.Read(func(r *amphiv1.Registry) { o = r.GetOrigins()[registry.OriginKey(room, stream)] })
	return o
}

// orderStream carries an order to a node, this one too.
func (m *mesh) orderStream(ctx context.Context, node string, o *amphiv1.OriginOrder) (*amphiv1.OriginAnswer, error) {
	if node == m.self.GetId() {
		return m.desk.carry("", o)
	}
	question, err := protobuf.Marshal(o)
	if err != nil {
		return nil, err
	}
	b, err := m.link.Call(ctx, node, kindOrigin, question)
	if err != nil {
		return nil, err
	}
	answer := &amphiv1.OriginAnswer{}
	if err := protobuf.Unmarshal(b, answer); err != nil {
		return nil, proto.Errorf(proto.Internal, "the node %q gave no answer that makes sense", node)
	}
	return answer, nil
}

// streamsLeft counts the streams that are made here, while another node could make them.
func (m *mesh) streamsLeft() uint32 {
	if len(m.director.candidates(m.self.GetId())) == 0 {
		return 0
	}
	m.desk.mu.Lock()
	defer m.desk.mu.Unlock()
	return uint32(len(m.desk.jobs))
}

// edgeStatus is how this node serves other nodes' streams.
func (m *mesh) edgeStatus() *amphiv1.EdgeStatus {
	s := m.edge.Stats()
	return &amphiv1.EdgeStatus{
		Playlists: uint32(s.Playlists), Waiting: uint32(s.Waiting), Upstream: uint32(s.Upstream), Hits: s.Hits, Misses: s.Misses, Shared: s.Shared,
		UpstreamRequests: s.Requests, UpstreamFailures: s.Failures, BytesIn: s.BytesIn, BytesOut: s.BytesOut,
		Objects: uint32(s.Objects), CachedBytes: uint64(s.CachedBytes),
	}
}
