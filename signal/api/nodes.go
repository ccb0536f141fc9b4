package api

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// maxDrain bounds the deadline of a drain.
const maxDrain = 24 * time.Hour

// revokeAhead is how far the clocks of who revokes and who carries it out may differ.
const revokeAhead = 5 * time.Minute

func errNoNodes() error { return proto.Errorf(proto.Unavailable, "this node cannot tell") }

type nodes struct{ *services }

// ListNodes answers the nodes.
func (s nodes) ListNodes(context.Context, *connect.Request[amphiv1.ListNodesRequest]) (*connect.Response[amphiv1.ListNodesResponse], error) {
	if s.Nodes == nil {
		return nil, errNoNodes()
	}
	return connect.NewResponse(&amphiv1.ListNodesResponse{Nodes: s.Nodes.Nodes()}), nil
}

// GetNode answers what the dashboard shows of a node.
func (s nodes) GetNode(_ context.Context, req *connect.Request[amphiv1.GetNodeRequest]) (*connect.Response[amphiv1.NodeStatus], error) {
	if s.Nodes == nil {
		return nil, errNoNodes()
	}
	status := s.Nodes.Status(req.Msg.GetId())
	if status == nil {
		return nil, proto.Errorf(proto.NotFound, "there is no such node, or it cannot be asked from here")
	}
	return connect.NewResponse(status), nil
}

// DrainNode moves everything away from a node.
func (s nodes) DrainNode(ctx context.Context, req *connect.Request[amphiv1.DrainNodeRequest]) (*connect.Response[amphiv1.NodeInfo], error) {
	within := time.Duration(req.Msg.GetDeadlineS()) * time.Second
	switch {
	case s.Nodes == nil:
		return nil, errNoNodes()
	case req.Msg.GetId() == "":
		return nil, proto.Errorf(proto.InvalidArgument, "say which node")
	case within > maxDrain:
		return nil, proto.Errorf(proto.InvalidArgument, "a drain takes at most %v", maxDrain)
	}
	info, err := s.Nodes.Drain(ctx, req.Msg.GetId(), within)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(info), nil
}

// UndrainNode takes a drain back.
func (s nodes) UndrainNode(ctx context.Context, req *connect.Request[amphiv1.UndrainNodeRequest]) (*connect.Response[amphiv1.NodeInfo], error) {
	switch {
	case s.Nodes == nil:
		return nil, errNoNodes()
	case req.Msg.GetId() == "":
		return nil, proto.Errorf(proto.InvalidArgument, "say which node")
	}
	info, err := s.Nodes.Undrain(ctx, req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(info), nil
}

// RevokeNode shuts a node out whose key was stolen.
func (s nodes) RevokeNode(ctx context.Context, req *connect.Request[amphiv1.RevokeNodeRequest]) (*connect.Response[amphiv1.NodeInfo], error) {
	now := time.Now()
	before := now
	if ms := req.Msg.GetIssuedBeforeMs(); ms != 0 {
		before = time.UnixMilli(ms)
	}
	switch {
	case s.Nodes == nil:
		return nil, errNoNodes()
	case req.Msg.GetId() == "":
		return nil, proto.Errorf(proto.InvalidArgument, "say which node")
	case before.After(now.Add(revokeAhead)) || before.UnixMilli() < 0:
		return nil, proto.Errorf(proto.InvalidArgument, "certificates of the future cannot be revoked: no new one of the node would count")
	}
	// Certificates tell the second in which they were issued.
	before = before.Add(time.Second - 1).Truncate(time.Second)
	info, err := s.Nodes.Revoke(ctx, req.Msg.GetId(), before, req.Msg.GetForce())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(info), nil
}
