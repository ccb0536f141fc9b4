package api

import (
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/code"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/template"
)

type rooms struct{ *services }

func stamped(cmd *amphiv1.RegistryCommand) *amphiv1.RegistryCommand {
	cmd.Id, cmd.TimeMs = proto.NewID(proto.RequestPrefix), time.Now().UnixMilli()
	return cmd
}

// room finds a room's record.
func (s *services) room(name string) (*amphiv1.Room, error) {
	var r *amphiv1.Room
	s.Registry.Read(func(reg *amphiv1.Registry) { r = reg.GetRooms()[key(name)] })
	if r == nil {
		return nil, proto.Errorf(proto.NotFound, "there is no room of this name")
	}
	return r, nil
}

// live adds what is only known while a session runs.
func live(r *amphiv1.Room, active map[string]int) *amphiv1.Room {
	r = protobuf.Clone(r).(*amphiv1.Room)
	n, runs := active[key(r.GetName())]
	r.Active, r.PeerCount = runs, uint32(n)
	return r
}

func (s rooms) answer(name string) (*connect.Response[amphiv1.Room], error) {
	r, err := s.room(name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(live(r, s.Rooms.Active())), nil
}

// CreateRoom makes a room, or answers the one there is.
func (s rooms) CreateRoom(ctx context.Context, req *connect.Request[amphiv1.CreateRoomRequest]) (*connect.Response[amphiv1.Room], error) {
	m := req.Msg
	name := m.GetName()
	if name == "" {
		name = proto.NewID("room-")
	}
	if !proto.ValidRoomName(name) {
		return nil, proto.Errorf(proto.InvalidArgument, "a room's name is 1 to %d of a-z, A-Z, 0-9, ., - and _", proto.MaxRoomName)
	}
	if r, err := s.room(name); err == nil {
		return connect.NewResponse(live(r, s.Rooms.Active())), nil
	}
	if len(m.GetMetadata()) > proto.MaxMetadata {
		return nil, proto.Errorf(proto.InvalidArgument, "metadata has more than %d bytes", proto.MaxMetadata)
	}
	template, err := s.template(m.GetTemplate())
	if err != nil {
		return nil, err
	}
	r := &amphiv1.Room{Name: name, Template: template.GetName(), Description: m.GetDescription(), Region: m.GetRegion(), Metadata: m.GetMetadata()}
	err = s.propose(ctx, &amphiv1.RegistryCommand{OnlyNew: true, Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: r}})
	if err != nil && proto.CodeOf(err) != proto.Conflict {
		return nil, err
	}
	return s.answer(name)
}

// template finds a stored template; an empty name means the only one there is, or else the default preset's.
func (s *services) template(name string) (*amphiv1.Template, error) {
	var t *amphiv1.Template
	s.Registry.Read(func(reg *amphiv1.Registry) {
		if t = reg.GetTemplates()[name]; name != "" {
			return
		}
		t = reg.GetTemplates()[template.DefaultPreset]
		if len(reg.GetTemplates()) == 1 {
			for _, only := range reg.GetTemplates() {
				t = only
			}
		}
	})
	switch {
	case t != nil:
		return t, nil
	case name == "":
		return nil, proto.Errorf(proto.InvalidArgument, "name a template")
	}
	return nil, proto.Errorf(proto.NotFound, "there is no template of this name")
}

// GetRoom answers a room's record.
func (s rooms) GetRoom(_ context.Context, req *connect.Request[amphiv1.GetRoomRequest]) (*connect.Response[amphiv1.Room], error) {
	return s.answer(req.Msg.GetRoom())
}

// ListRooms answers a page of rooms by name.
func (s rooms) ListRooms(_ context.Context, req *connect.Request[amphiv1.ListRoomsRequest]) (*connect.Response[amphiv1.ListRoomsResponse], error) {
	active := s.Rooms.Active()
	res := &amphiv1.ListRoomsResponse{}
	limit := page(req.Msg.GetLimit())
	s.Registry.Read(func(reg *amphiv1.Registry) {
		for _, k := range slices.Sorted(maps.Keys(reg.GetRooms())) {
			if _, runs := active[k]; k <= key(req.Msg.GetAfter()) || req.Msg.GetActiveOnly() && !runs {
				continue
			}
			if len(res.Rooms) == limit {
				res.Next = res.Rooms[limit-1].GetName()
				return
			}
			res.Rooms = append(res.Rooms, live(reg.GetRooms()[k], active))
		}
	})
	return connect.NewResponse(res), nil
}

// UpdateRoom changes a room's record, and lock and metadata of the session that runs.
func (s rooms) UpdateRoom(ctx context.Context, req *connect.Request[amphiv1.UpdateRoomRequest]) (*connect.Response[amphiv1.Room], error) {
	m := req.Msg
	old, err := s.room(m.GetRoom())
	if err != nil {
		return nil, err
	}
	if len(m.GetMetadata()) > proto.MaxMetadata {
		return nil, proto.Errorf(proto.InvalidArgument, "metadata has more than %d bytes", proto.MaxMetadata)
	}
	err = s.ChangeRoom(ctx, old.GetName(), stamped(&amphiv1.RegistryCommand{}), func(r *amphiv1.Room) error {
		set(&r.Disabled, m.Disabled)
		set(&r.Locked, m.Locked)
		set(&r.Description, m.Description)
		set(&r.Metadata, m.Metadata)
		if m.Template != nil {
			t, err := s.template(m.GetTemplate())
			if err != nil {
				return err
			}
			r.Template = t.GetName()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, runs := s.Rooms.Active()[key(old.GetName())]; runs && (m.Locked != nil || m.Metadata != nil) {
		cmd := &amphiv1.Command{Body: &amphiv1.Command_UpdateRoom{UpdateRoom: &amphiv1.UpdateRoomState{Locked: m.Locked, Metadata: m.Metadata}}}
		if _, err := s.call(ctx, old.GetName(), cmd); err != nil && proto.CodeOf(err) != proto.NotFound {
			return nil, err
		}
	}
	return s.answer(old.GetName())
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// DeleteRoom ends the session that runs and forgets the room with its codes.
func (s rooms) DeleteRoom(ctx context.Context, req *connect.Request[amphiv1.DeleteRoomRequest]) (*connect.Response[amphiv1.DeleteRoomResponse], error) {
	r, err := s.room(req.Msg.GetRoom())
	if err != nil {
		return nil, err
	}
	if _, runs := s.Rooms.Active()[key(r.GetName())]; runs {
		if err := s.end(ctx, r.GetName(), &amphiv1.EndRoom{Reason: "the room was deleted"}); err != nil && proto.CodeOf(err) != proto.NotFound {
			return nil, err
		}
	}
	if err := s.propose(ctx, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_DeleteRoom{DeleteRoom: r.GetName()}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.DeleteRoomResponse{}), nil
}

func (s rooms) end(ctx context.Context, name string, end *amphiv1.EndRoom) error {
	_, err := s.call(ctx, name, &amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: end}})
	return err
}

// EndRoom ends the session that runs.
func (s rooms) EndRoom(ctx context.Context, req *connect.Request[amphiv1.EndRoomRequest]) (*connect.Response[amphiv1.EndRoomResponse], error) {
	if err := s.end(ctx, req.Msg.GetRoom(), &amphiv1.EndRoom{Reason: req.Msg.GetReason(), Lock: req.Msg.GetLock()}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.EndRoomResponse{}), nil
}

// GetState answers the running session's state as the owner has it.
func (s rooms) GetState(ctx context.Context, req *connect.Request[amphiv1.GetStateRequest]) (*connect.Response[amphiv1.RoomState], error) {
	var state *amphiv1.RoomState
	err := s.view(ctx, req.Msg.GetRoom(), func(rep *room.Replica) error {
		state = rep.Overview()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(state), nil
}

// CreateCodes makes a code for each role that has none, or one more for the roles named.
func (s rooms) CreateCodes(ctx context.Context, req *connect.Request[amphiv1.CreateCodesRequest]) (*connect.Response[amphiv1.CodesResponse], error) {
	r, err := s.room(req.Msg.GetRoom())
	if err != nil {
		return nil, err
	}
	template, err := s.template(r.GetTemplate())
	if err != nil {
		return nil, err
	}
	var known []string
	for _, role := range template.GetRoles() {
		known = append(known, role.GetName())
	}
	wanted := req.Msg.GetRoles()
	for _, role := range wanted {
		if !slices.Contains(known, role) {
			return nil, proto.Errorf(proto.NotFound, "this room has no role %q", role)
		}
	}
	if len(wanted) == 0 {
		have := map[string]bool{}
		for _, c := range s.codes(r.GetName()) {
			have[c.GetRole()] = true
		}
		wanted = slices.DeleteFunc(known, func(role string) bool { return have[role] })
	}
	for _, role := range wanted {
		if err := s.createCode(ctx, r.GetName(), role); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&amphiv1.CodesResponse{Codes: s.codes(r.GetName())}), nil
}

// createCode tries again in the rare case that a code is taken.
func (s rooms) createCode(ctx context.Context, name, role string) error {
	for range 5 {
		c := &amphiv1.RoomCode{Code: code.New(), Room: name, Role: role}
		err := s.propose(ctx, &amphiv1.RegistryCommand{OnlyNew: true, Body: &amphiv1.RegistryCommand_PutCode{PutCode: c}})
		if proto.CodeOf(err) != proto.Conflict {
			return err
		}
	}
	return proto.Errorf(proto.Unavailable, "no free code was found")
}

// codes lists a room's codes by role.
func (s rooms) codes(name string) []*amphiv1.RoomCode {
	var list []*amphiv1.RoomCode
	s.Registry.Read(func(reg *amphiv1.Registry) {
		for _, k := range slices.Sorted(maps.Keys(reg.GetCodes())) {
			if c := reg.GetCodes()[k]; key(c.GetRoom()) == key(name) {
				list = append(list, c)
			}
		}
	})
	return list
}

// ListCodes answers a room's codes.
func (s rooms) ListCodes(_ context.Context, req *connect.Request[amphiv1.ListCodesRequest]) (*connect.Response[amphiv1.CodesResponse], error) {
	r, err := s.room(req.Msg.GetRoom())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.CodesResponse{Codes: s.codes(r.GetName())}), nil
}

// UpdateCode disables or enables a code.
func (s rooms) UpdateCode(ctx context.Context, req *connect.Request[amphiv1.UpdateCodeRequest]) (*connect.Response[amphiv1.RoomCode], error) {
	parsed, ok := code.Parse(req.Msg.GetCode())
	var c *amphiv1.RoomCode
	s.Registry.Read(func(reg *amphiv1.Registry) { c = reg.GetCodes()[parsed] })
	if !ok || c == nil {
		return nil, proto.Errorf(proto.CodeUnknown, "there is no such room code")
	}
	c = protobuf.Clone(c).(*amphiv1.RoomCode)
	c.Disabled = req.Msg.GetDisabled()
	if err := s.propose(ctx, &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutCode{PutCode: c}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(c), nil
}

// SendMessage speaks in the room in nobody's name.
func (s rooms) SendMessage(ctx context.Context, req *connect.Request[amphiv1.SendMessageRequest]) (*connect.Response[amphiv1.SendResult], error) {
	res, err := s.call(ctx, req.Msg.GetRoom(), &amphiv1.Command{Body: &amphiv1.Command_Send{Send: req.Msg.GetMessage()}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res.GetSend()), nil
}

// SetStore writes a key of the session store.
func (s rooms) SetStore(ctx context.Context, req *connect.Request[amphiv1.SetStoreRequest]) (*connect.Response[amphiv1.StoreResult], error) {
	res, err := s.call(ctx, req.Msg.GetRoom(), &amphiv1.Command{Body: &amphiv1.Command_SetStore{SetStore: req.Msg.GetSet()}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res.GetStore()), nil
}
