package api

import (
	"context"
	"slices"

	"connectrpc.com/connect"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

type sessions struct{ *services }

// ListSessions answers a page of sessions, newest first, without their attendance.
func (s sessions) ListSessions(_ context.Context, req *connect.Request[amphiv1.ListSessionsRequest]) (*connect.Response[amphiv1.ListSessionsResponse], error) {
	var all []*amphiv1.Session
	s.Registry.Read(func(reg *amphiv1.Registry) { all = slices.Clone(reg.GetSessions()) })
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b *amphiv1.Session) int { return int(min(max(b.GetStartedMs()-a.GetStartedMs(), -1), 1)) })
	if after := req.Msg.GetAfter(); after != "" {
		i := slices.IndexFunc(all, func(x *amphiv1.Session) bool { return x.GetId() == after })
		if i < 0 {
			return nil, proto.Errorf(proto.InvalidArgument, "after names no session")
		}
		all = all[i+1:]
	}
	res := &amphiv1.ListSessionsResponse{}
	limit := page(req.Msg.GetLimit())
	for _, x := range all {
		if req.Msg.GetRoom() != "" && key(x.GetRoom()) != key(req.Msg.GetRoom()) || req.Msg.GetActiveOnly() && x.GetEndedMs() != 0 {
			continue
		}
		if len(res.Sessions) == limit {
			res.Next = res.Sessions[limit-1].GetId()
			break
		}
		short := protobuf.Clone(x).(*amphiv1.Session)
		short.Attendance = nil
		res.Sessions = append(res.Sessions, short)
	}
	return connect.NewResponse(res), nil
}

// GetSession answers one session with its attendance.
func (s sessions) GetSession(_ context.Context, req *connect.Request[amphiv1.GetSessionRequest]) (*connect.Response[amphiv1.Session], error) {
	var found *amphiv1.Session
	s.Registry.Read(func(reg *amphiv1.Registry) {
		for _, x := range reg.GetSessions() {
			if x.GetId() == req.Msg.GetId() {
				found = x
			}
		}
	})
	if found == nil {
		return nil, proto.Errorf(proto.NotFound, "there is no such session")
	}
	return connect.NewResponse(found), nil
}
