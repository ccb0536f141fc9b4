package cli

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/auth"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"amphi": func() {
		root := &cobra.Command{Use: "amphi", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(Commands()...)
		err := root.Execute()
		if err != nil {
			fmt.Fprintln(os.Stderr, "amphi:", err)
		}
		os.Exit(ExitCode(err))
	}})
}

// server answers the management API as the real one does, from a little memory of its own.
type server struct {
	amphiv1connect.UnimplementedRoomServiceHandler
	amphiv1connect.UnimplementedPeerServiceHandler
	amphiv1connect.UnimplementedTemplateServiceHandler
	amphiv1connect.UnimplementedStreamServiceHandler
	amphiv1connect.UnimplementedSessionServiceHandler
	amphiv1connect.UnimplementedNodeServiceHandler

	mu        sync.Mutex // guards the fields below
	rooms     map[string]*amphiv1.Room
	templates map[string]*amphiv1.Template
	codes     []*amphiv1.RoomCode
}

func refused(code proto.Code, format string, args ...any) error {
	e := proto.Errorf(code, format, args...)
	ce := connect.NewError(connect.CodeFailedPrecondition, e)
	if d, err := connect.NewErrorDetail(proto.Wire(e)); err == nil {
		ce.AddDetail(d)
	}
	return ce
}

func startServer(t *testing.T) string {
	t.Helper()
	s := &server{rooms: map[string]*amphiv1.Room{}, templates: map[string]*amphiv1.Template{}}
	auth := connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if !signedByDevKey(req.Header().Get("Authorization")) {
				return nil, refused(proto.Unauthenticated, "the token is not valid here")
			}
			return next(ctx, req)
		}
	}))
	mux := http.NewServeMux()
	mux.Handle(amphiv1connect.NewRoomServiceHandler(s, auth))
	mux.Handle(amphiv1connect.NewPeerServiceHandler(s, auth))
	mux.Handle(amphiv1connect.NewTemplateServiceHandler(s, auth))
	mux.Handle(amphiv1connect.NewStreamServiceHandler(s, auth))
	mux.Handle(amphiv1connect.NewSessionServiceHandler(s, auth))
	mux.Handle(amphiv1connect.NewNodeServiceHandler(s, auth))
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

// devKeys knows the development key only.
type devKeys struct{}

func (devKeys) Key(id string) (*amphiv1.ApiKey, bool) {
	return &amphiv1.ApiKey{Id: devKey, Secret: devSecret}, id == devKey
}

func signedByDevKey(header string) bool {
	_, err := auth.NewVerifier(devKeys{}).Verify(time.Now(), strings.TrimPrefix(header, "Bearer "), auth.Management)
	return err == nil
}

func (s *server) CreateRoom(_ context.Context, r *connect.Request[amphiv1.CreateRoomRequest]) (*connect.Response[amphiv1.Room], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !proto.ValidRoomName(r.Msg.GetName()) {
		return nil, refused(proto.InvalidArgument, "room name %q", r.Msg.GetName())
	}
	room := &amphiv1.Room{Name: r.Msg.GetName(), Template: r.Msg.GetTemplate(), Description: r.Msg.GetDescription(), CreatedMs: 1_700_000_000_000}
	s.rooms[room.GetName()] = room
	return connect.NewResponse(room), nil
}

func (s *server) room(name string) (*amphiv1.Room, error) {
	r, ok := s.rooms[name]
	if !ok {
		return nil, refused(proto.NotFound, "no room %q", name)
	}
	return r, nil
}

func (s *server) GetRoom(_ context.Context, r *connect.Request[amphiv1.GetRoomRequest]) (*connect.Response[amphiv1.Room], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	room, err := s.room(r.Msg.GetRoom())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(room), nil
}

func (s *server) ListRooms(context.Context, *connect.Request[amphiv1.ListRoomsRequest]) (*connect.Response[amphiv1.ListRoomsResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &amphiv1.ListRoomsResponse{Next: "more"}
	for _, r := range s.rooms {
		res.Rooms = append(res.Rooms, r)
	}
	return connect.NewResponse(res), nil
}

func (s *server) UpdateRoom(_ context.Context, r *connect.Request[amphiv1.UpdateRoomRequest]) (*connect.Response[amphiv1.Room], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	room, err := s.room(r.Msg.GetRoom())
	if err != nil {
		return nil, err
	}
	if r.Msg.Locked != nil {
		room.Locked = r.Msg.GetLocked()
	}
	if r.Msg.Disabled != nil {
		room.Disabled = r.Msg.GetDisabled()
	}
	return connect.NewResponse(room), nil
}

func (s *server) CreateCodes(_ context.Context, r *connect.Request[amphiv1.CreateCodesRequest]) (*connect.Response[amphiv1.CodesResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes = append(s.codes, &amphiv1.RoomCode{Code: fmt.Sprintf("abc-defg-%03d", len(s.codes)), Room: r.Msg.GetRoom(), Role: "host"})
	return connect.NewResponse(&amphiv1.CodesResponse{Codes: s.codes}), nil
}

func (s *server) UpdateCode(_ context.Context, r *connect.Request[amphiv1.UpdateCodeRequest]) (*connect.Response[amphiv1.RoomCode], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.codes {
		if c.GetCode() == r.Msg.GetCode() {
			c.Disabled = r.Msg.GetDisabled()
			return connect.NewResponse(c), nil
		}
	}
	return nil, refused(proto.CodeUnknown, "no code %q", r.Msg.GetCode())
}

func (s *server) ListCodes(context.Context, *connect.Request[amphiv1.ListCodesRequest]) (*connect.Response[amphiv1.CodesResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return connect.NewResponse(&amphiv1.CodesResponse{Codes: s.codes}), nil
}

func (s *server) ListPeers(_ context.Context, r *connect.Request[amphiv1.ListPeersRequest]) (*connect.Response[amphiv1.ListPeersResult], error) {
	return connect.NewResponse(&amphiv1.ListPeersResult{Total: 1, Peers: []*amphiv1.Peer{{
		Id: "pe_a", Name: "Ada\t\x1b[31m", Role: "host", HandRaisedMs: 5,
		Tracks: []*amphiv1.Track{{Source: "mic", Muted: true}, {Source: "camera"}},
	}}}), nil
}

func (s *server) ChangeRole(_ context.Context, r *connect.Request[amphiv1.ChangeRoleRequest]) (*connect.Response[amphiv1.ChangeRoleResult], error) {
	c := r.Msg.GetChange()
	switch {
	case c.GetRole() == "full":
		return connect.NewResponse(&amphiv1.ChangeRoleResult{Failed: map[string]string{c.GetPeers()[0]: "role_full"}}), nil
	case len(c.GetFromRoles()) > 0:
		return connect.NewResponse(&amphiv1.ChangeRoleResult{Changed: []string{"pe_a", "pe_b"}}), nil
	case c.GetForce():
		return connect.NewResponse(&amphiv1.ChangeRoleResult{Changed: c.GetPeers()}), nil
	}
	return connect.NewResponse(&amphiv1.ChangeRoleResult{RequestId: "rq_1"}), nil
}

func (s *server) StartStream(_ context.Context, r *connect.Request[amphiv1.StartStreamRequest]) (*connect.Response[amphiv1.Stream], error) {
	if r.Msg.GetRoom() == "broken" {
		return connect.NewResponse(&amphiv1.Stream{
			Name: "main", State: amphiv1.StreamState_STREAM_STATE_FAILED, Failure: "no compositor",
		}), nil
	}
	return connect.NewResponse(&amphiv1.Stream{
		Name: "main", State: amphiv1.StreamState_STREAM_STATE_STARTING, Layout: r.Msg.GetLayout(), Url: "/v1/hls/demo/main/index.m3u8",
	}), nil
}

func (s *server) ListStreams(context.Context, *connect.Request[amphiv1.ListStreamsRequest]) (*connect.Response[amphiv1.ListStreamsResponse], error) {
	return connect.NewResponse(&amphiv1.ListStreamsResponse{Streams: []*amphiv1.Stream{{Name: "main", LayoutOptions: &amphiv1.LayoutOptions{MaxTiles: 7}}}}), nil
}

func (s *server) SetLayout(_ context.Context, r *connect.Request[amphiv1.SetLayoutRequest]) (*connect.Response[amphiv1.Stream], error) {
	return connect.NewResponse(&amphiv1.Stream{Name: "main", Layout: r.Msg.GetLayout(), LayoutOptions: r.Msg.GetLayoutOptions()}), nil
}

func (s *server) PutPicture(_ context.Context, r *connect.Request[amphiv1.PutPictureRequest]) (*connect.Response[amphiv1.Picture], error) {
	return connect.NewResponse(&amphiv1.Picture{Name: r.Msg.GetName(), Width: 4, Height: 2, Bytes: uint32(len(r.Msg.GetData()))}), nil
}

func (s *server) SetTemplate(_ context.Context, r *connect.Request[amphiv1.SetTemplateRequest]) (*connect.Response[amphiv1.Template], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := r.Msg.GetTemplate()
	old := s.templates[t.GetName()]
	if r.Msg.IfRevision != nil && r.Msg.GetIfRevision() != old.GetRevision() {
		return nil, refused(proto.Conflict, "the template is at revision %d", old.GetRevision())
	}
	t.Revision = old.GetRevision() + 1
	s.templates[t.GetName()] = t
	return connect.NewResponse(t), nil
}

func (s *server) GetTemplate(_ context.Context, r *connect.Request[amphiv1.GetTemplateRequest]) (*connect.Response[amphiv1.Template], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.templates[r.Msg.GetName()]; ok {
		return connect.NewResponse(t), nil
	}
	return nil, refused(proto.NotFound, "no template %q", r.Msg.GetName())
}

func (s *server) GetNode(context.Context, *connect.Request[amphiv1.GetNodeRequest]) (*connect.Response[amphiv1.NodeStatus], error) {
	return connect.NewResponse(&amphiv1.NodeStatus{
		Info: &amphiv1.NodeInfo{Id: "no_a", Roles: []string{"stage", "origin"}}, CpuCores: 0.5, RssBytes: 50 << 20,
		Drops: map[string]uint64{"muted": 3},
		Rooms: []*amphiv1.RoomStatus{{Name: "demo", PeersByLevel: map[uint32]uint32{1: 2}, Peers: []*amphiv1.PeerStatus{{
			PeerId: "pe_b", Down: []*amphiv1.DownTrackStatus{{TrackId: "tr_1", Max: 2, Target: 1, Current: 0, Reason: "bandwidth", Publisher: "pe_a"}},
		}}}},
		Streams: []*amphiv1.StreamStatus{{Room: "demo", Stream: &amphiv1.Stream{Name: "main"}, LatencyMs: 812, Framerate: 30, Tiles: 3}},
	}), nil
}

func (s *server) RevokeNode(_ context.Context, req *connect.Request[amphiv1.RevokeNodeRequest]) (*connect.Response[amphiv1.NodeInfo], error) {
	if req.Msg.GetId() == "self" && !req.Msg.GetForce() {
		return nil, refused(proto.Conflict, "the node would shut itself out")
	}
	return connect.NewResponse(&amphiv1.NodeInfo{Id: req.Msg.GetId(), State: "down", RevokedBeforeMs: req.Msg.GetIssuedBeforeMs()}), nil
}

func (s *server) ListSessions(context.Context, *connect.Request[amphiv1.ListSessionsRequest]) (*connect.Response[amphiv1.ListSessionsResponse], error) {
	return connect.NewResponse(&amphiv1.ListSessionsResponse{Sessions: []*amphiv1.Session{{Id: "se_1", Room: "demo", PeakPeers: 7}}}), nil
}

func TestScripts(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/fake",
		Setup: func(env *testscript.Env) error {
			env.Setenv("AMPHI_URL", url)
			return nil
		},
	})
}

// A certificate that nobody vouches for is no answer of the server.
func TestUntrustedServer(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	root := &cobra.Command{Use: "amphi", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands()...)
	root.SetArgs([]string{"room", "list", "--url", srv.URL})
	err := root.Execute()
	if ExitCode(err) != exitUnreachable || !strings.Contains(err.Error(), "can't be trusted") || !strings.Contains(err.Error(), "--insecure") {
		t.Errorf("exit code %d: %v", ExitCode(err), err)
	}
}

func TestCleanStripsControls(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "-", "a\tb\nc": "a b c", "\x1b[2Jx": " [2Jx", "żółć 🎉": "żółć 🎉", "a\u009bb": "a b"} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestClockVerdicts(t *testing.T) {
	t.Parallel()
	for off, want := range map[time.Duration]string{0: good, -2 * time.Second: good, 5 * time.Second: warn, -40 * time.Second: bad} {
		if got := checkClock(off).Verdict; got != want {
			t.Errorf("%v away: %s, want %s", off, got, want)
		}
	}
}

func TestEveryAdviceIsForAKnownCode(t *testing.T) {
	t.Parallel()
	known := map[proto.Code]bool{}
	for _, c := range proto.Codes() {
		known[c] = true
	}
	for c := range advice {
		if !known[c] {
			t.Errorf("advice for %q, which is no code", c)
		}
	}
}
