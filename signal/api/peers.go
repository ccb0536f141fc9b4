package api

import (
	"context"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

type peers struct{ *services }

// ListPeers answers a page of the peers, by name.
func (s peers) ListPeers(ctx context.Context, req *connect.Request[amphiv1.ListPeersRequest]) (*connect.Response[amphiv1.ListPeersResult], error) {
	var list *amphiv1.ListPeersResult
	err := s.view(ctx, req.Msg.GetRoom(), func(rep *room.Replica) error {
		list = rep.List(req.Msg.GetList())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(list), nil
}

func (s peers) peer(ctx context.Context, name, id string) (*connect.Response[amphiv1.Peer], error) {
	var p *amphiv1.Peer
	err := s.view(ctx, name, func(rep *room.Replica) error {
		if p = rep.Peer(id); p == nil {
			return proto.Errorf(proto.NotFound, "there is no such peer in the room")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(p), nil
}

// GetPeer answers one peer.
func (s peers) GetPeer(ctx context.Context, req *connect.Request[amphiv1.GetPeerRequest]) (*connect.Response[amphiv1.Peer], error) {
	return s.peer(ctx, req.Msg.GetRoom(), req.Msg.GetPeerId())
}

// UpdatePeer changes a peer's name or metadata.
func (s peers) UpdatePeer(ctx context.Context, req *connect.Request[amphiv1.UpdatePeerRequest]) (*connect.Response[amphiv1.Peer], error) {
	update := req.Msg.GetUpdate()
	if _, err := s.call(ctx, req.Msg.GetRoom(), &amphiv1.Command{Body: &amphiv1.Command_UpdatePeer{UpdatePeer: update}}); err != nil {
		return nil, err
	}
	return s.peer(ctx, req.Msg.GetRoom(), update.GetPeerId())
}

// ChangeRole moves peers to a role.
func (s peers) ChangeRole(ctx context.Context, req *connect.Request[amphiv1.ChangeRoleRequest]) (*connect.Response[amphiv1.ChangeRoleResult], error) {
	res, err := s.call(ctx, req.Msg.GetRoom(), &amphiv1.Command{Body: &amphiv1.Command_ChangeRole{ChangeRole: req.Msg.GetChange()}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res.GetChangeRole()), nil
}

// MutePeers mutes tracks, or asks for them to be unmuted.
func (s peers) MutePeers(ctx context.Context, req *connect.Request[amphiv1.MutePeersRequest]) (*connect.Response[amphiv1.MutePeersResponse], error) {
	if _, err := s.call(ctx, req.Msg.GetRoom(), &amphiv1.Command{Body: &amphiv1.Command_MutePeers{MutePeers: req.Msg.GetMute()}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.MutePeersResponse{}), nil
}

// RemovePeers takes peers out of the session.
func (s peers) RemovePeers(ctx context.Context, req *connect.Request[amphiv1.RemovePeersRequest]) (*connect.Response[amphiv1.RemovePeersResponse], error) {
	if _, err := s.call(ctx, req.Msg.GetRoom(), &amphiv1.Command{Body: &amphiv1.Command_RemovePeers{RemovePeers: req.Msg.GetRemove()}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.RemovePeersResponse{}), nil
}
