// Package api is the management API: the Connect services of amphi/v1/api.proto.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/room"
)

// Registry is the durable records.
type Registry interface {
	// Read runs f with the records as they are now; f must be quick and neither change nor keep them.
	Read(f func(*amphiv1.Registry))
	// Propose changes them and returns when that is durable.
	Propose(ctx context.Context, cmd *amphiv1.RegistryCommand) error
}

// Rooms is the running sessions. Room names come in lower case; errors have codes.
type Rooms interface {
	// Call has the room's owner carry out a command with every permission.
	Call(ctx context.Context, room string, cmd *amphiv1.Command) (*amphiv1.Result, error)
	// View runs f with the room's state as the owner has it.
	View(ctx context.Context, room string, f func(*room.Replica)) error
	// Active counts the peers of each room with a running session.
	Active() map[string]int
}

// Nodes is what is known of nodes.
type Nodes interface {
	Nodes() []*amphiv1.NodeInfo
	// Status is a node's, this one's for an empty id; nil where it is not to be had.
	Status(id string) *amphiv1.NodeStatus
	// Drain moves everything away from a node, which ends when it is empty or after within; 0 is its default.
	Drain(ctx context.Context, id string, within time.Duration) (*amphiv1.NodeInfo, error)
	// Undrain takes a drain back that has not ended.
	Undrain(ctx context.Context, id string) (*amphiv1.NodeInfo, error)
	// Revoke makes the node's certificates that were issued before a time count no more. Unless forced, it refuses what would shut this
	// node out, or leave too few voters.
	Revoke(ctx context.Context, id string, before time.Time, force bool) (*amphiv1.NodeInfo, error)
}

// Deps are what the services work with.
type Deps struct {
	Registry Registry
	Rooms    Rooms
	// Nodes, Assets and Webhooks may be nil.
	Nodes    Nodes
	Assets   Assets
	Webhooks Webhooks
	// SealURL checks where a push may go, and answers the URL encrypted, and without its secrets; OpenURL undoes it.
	SealURL func(url string) (sealed []byte, redacted string, err error)
	OpenURL func(sealed []byte) (string, error)
	// Authorize checks a management token.
	Authorize func(token string) error
	// ChangeRoom puts a room's record as f changes it, one change after the other, with the id and time of cmd.
	ChangeRoom func(ctx context.Context, room string, cmd *amphiv1.RegistryCommand, f func(*amphiv1.Room) error) error
	// Playback makes a viewer's URL of a stream; no life is the usual one.
	Playback func(room, stream, viewer string, life time.Duration) (*amphiv1.Playback, error)
	// CatchUp has the registry know all that was answered at any node before; false: it may know no more than it did.
	CatchUp func(context.Context) bool
	Logger  *slog.Logger
}

// maxBody bounds a request, in bytes; templates are the largest.
const maxBody = 1 << 20

// Handler serves all services below /amphi.v1.
func Handler(d Deps) http.Handler {
	s := &services{Deps: d}
	opts := []connect.HandlerOption{
		connect.WithReadMaxBytes(maxBody), connect.WithInterceptors(connect.UnaryInterceptorFunc(s.intercept)),
	}
	mux := http.NewServeMux()
	mux.Handle(amphiv1connect.NewRoomServiceHandler(rooms{s}, opts...))
	mux.Handle(amphiv1connect.NewPeerServiceHandler(peers{s}, opts...))
	mux.Handle(amphiv1connect.NewTemplateServiceHandler(templates{s}, opts...))
	mux.Handle(amphiv1connect.NewStreamServiceHandler(streams{s, make(chan struct{}, 1)},
		append(slices.Clone(opts), connect.WithReadMaxBytes(maxPictureBody))...))
	mux.Handle(amphiv1connect.NewRecordingServiceHandler(recordings{s}, opts...))
	mux.Handle(amphiv1connect.NewPushServiceHandler(pushes{s}, opts...))
	mux.Handle(amphiv1connect.NewAssetServiceHandler(assets{s}, opts...))
	mux.Handle(amphiv1connect.NewWebhookServiceHandler(webhooks{s}, opts...))
	mux.Handle(amphiv1connect.NewSessionServiceHandler(sessions{s}, opts...))
	mux.Handle(amphiv1connect.NewNodeServiceHandler(nodes{s}, opts...))
	return mux
}

type services struct{ Deps }

// intercept checks who asks, tries again what was not found here if it may have been made at another node just now, and gives
// every error its Connect code and the Error as a detail.
func (s *services) intercept(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := s.authorize(req.Header()); err != nil {
			return nil, s.refusal(req, err)
		}
		res, err := next(ctx, req)
		if proto.CodeOf(err) == proto.NotFound && s.CatchUp(ctx) {
			res, err = next(ctx, req)
		}
		if err != nil {
			return nil, s.refusal(req, err)
		}
		return res, nil
	}
}

func (s *services) authorize(h http.Header) error {
	scheme, token, ok := strings.Cut(h.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return proto.Errorf(proto.Unauthenticated, "a management token is needed: Authorization: Bearer")
	}
	return s.Authorize(strings.TrimSpace(token))
}

func (s *services) refusal(req connect.AnyRequest, err error) error {
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	code := proto.CodeOf(err)
	if code == proto.Internal {
		s.Logger.Error("management request failed", "procedure", req.Spec().Procedure, "err", err)
	}
	wire := proto.Wire(err)
	out := connect.NewError(connectCode(code), errors.New(wire.GetMessage()))
	if detail, err := connect.NewErrorDetail(wire); err == nil {
		out.AddDetail(detail)
	}
	return out
}

// connectCode is the nearest code of Connect.
func connectCode(c proto.Code) connect.Code {
	switch c {
	case proto.Conflict:
		return connect.CodeAborted
	case proto.LimitExceeded, proto.RoomFull, proto.RoleFull:
		return connect.CodeResourceExhausted
	case proto.AlreadyJoined:
		return connect.CodeAlreadyExists
	}
	switch c.HTTPStatus() {
	case http.StatusBadRequest:
		return connect.CodeInvalidArgument
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusNotFound:
		return connect.CodeNotFound
	case http.StatusConflict, http.StatusGone:
		return connect.CodeFailedPrecondition
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	case http.StatusServiceUnavailable, http.StatusMisdirectedRequest:
		return connect.CodeUnavailable
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return connect.CodeDeadlineExceeded
	}
	return connect.CodeInternal
}

// call has the room's owner carry out a command.
func (s *services) call(ctx context.Context, name string, cmd *amphiv1.Command) (*amphiv1.Result, error) {
	record, err := s.room(name)
	if err != nil {
		return nil, err
	}
	return s.Rooms.Call(ctx, key(record.GetName()), cmd)
}

// view looks at the room's running session.
func (s *services) view(ctx context.Context, name string, f func(*room.Replica) error) error {
	record, err := s.room(name)
	if err != nil {
		return err
	}
	var inner error
	err = s.Rooms.View(ctx, key(record.GetName()), func(rep *room.Replica) {
		if rep.Idle() || rep.Ended() {
			inner = proto.Errorf(proto.NotFound, "no session runs in this room")
			return
		}
		inner = f(rep)
	})
	if err != nil {
		return err
	}
	return inner
}

// propose gives the command an id and its time.
func (s *services) propose(ctx context.Context, cmd *amphiv1.RegistryCommand) error {
	return s.Registry.Propose(ctx, stamped(cmd))
}

// page is how many entries a list answers.
func page(limit uint32) int {
	const most, usual = 100, 50
	if limit == 0 {
		return usual
	}
	return int(min(limit, most))
}

func key(name string) string { return strings.ToLower(name) }
