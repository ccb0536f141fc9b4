package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

func TestEveryCodeHasItsConnectCode(t *testing.T) {
	t.Parallel()
	for _, c := range proto.Codes() {
		got := connectCode(c)
		if (got == connect.CodeInternal) != (c == proto.Internal) {
			t.Errorf("%s is %s", c, got)
		}
		if c.Retryable() && c != proto.Internal {
			switch got {
			case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted, connect.CodeFailedPrecondition:
			default:
				t.Errorf("%s may be tried again, but is %s", c, got)
			}
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	for asked, want := range map[uint32]int{0: 50, 1: 1, 100: 100, 1 << 31: 100} {
		if got := page(asked); got != want {
			t.Errorf("%d gives %d", asked, got)
		}
	}
}

// desk is everything that the services work with, in memory.
type desk struct{ reg *amphiv1.Registry }

func (d *desk) Read(f func(*amphiv1.Registry)) { f(d.reg) }
func (d *desk) Propose(context.Context, *amphiv1.RegistryCommand) error {
	return context.DeadlineExceeded
}
func (d *desk) View(context.Context, string, func(*room.Replica)) error { return nil }
func (d *desk) Active() map[string]int                                  { return nil }
func (d *desk) Nodes() []*amphiv1.NodeInfo                              { return []*amphiv1.NodeInfo{{Id: "no_a"}} }
func (d *desk) Drain(_ context.Context, id string, within time.Duration) (*amphiv1.NodeInfo, error) {
	return &amphiv1.NodeInfo{Id: id, DrainUntilMs: within.Milliseconds()}, nil
}
func (d *desk) Revoke(_ context.Context, id string, before time.Time, force bool) (*amphiv1.NodeInfo, error) {
	if id == "self" && !force {
		return nil, proto.Errorf(proto.Conflict, "the node would shut itself out")
	}
	return &amphiv1.NodeInfo{Id: id, RevokedBeforeMs: before.UnixMilli()}, nil
}

func (d *desk) Undrain(_ context.Context, id string) (*amphiv1.NodeInfo, error) {
	return &amphiv1.NodeInfo{Id: id}, nil
}
func (d *desk) Status(id string) *amphiv1.NodeStatus {
	if id != "" {
		return nil
	}
	return &amphiv1.NodeStatus{Clients: 3}
}

func (d *desk) Call(context.Context, string, *amphiv1.Command) (*amphiv1.Result, error) {
	return nil, proto.Errorf(proto.Timeout, "too slow")
}

func post(h http.Handler, method, token, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/amphi.v1."+method, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func handler() http.Handler {
	d := &desk{reg: &amphiv1.Registry{Rooms: map[string]*amphiv1.Room{"hall": {Name: "hall"}}}}
	return Handler(Deps{Registry: d, Rooms: d, Nodes: d, Logger: slog.New(slog.DiscardHandler), CatchUp: func(context.Context) bool { return false }, Authorize: func(token string) error {
		if token != "good" {
			return proto.Errorf(proto.Unauthenticated, "no")
		}
		return nil
	}})
}

func TestPlainJSON(t *testing.T) {
	t.Parallel()
	h := handler()
	for name, tt := range map[string]struct {
		method, token, body string
		status              int
		answer              string
	}{
		"a list":            {"RoomService/ListRooms", "Bearer good", `{}`, 200, `"hall"`},
		"no token":          {"RoomService/ListRooms", "", `{}`, 401, "unauthenticated"},
		"another scheme":    {"RoomService/ListRooms", "Basic good", `{}`, 401, "unauthenticated"},
		"malformed":         {"RoomService/ListRooms", "Bearer good", `{"limit":`, 400, "invalid_argument"},
		"too large":         {"RoomService/ListRooms", "Bearer good", `{"after":"` + strings.Repeat("x", maxBody) + `"}`, 429, "resource_exhausted"},
		"slow owner":        {"RoomService/EndRoom", "Bearer good", `{"room":"hall"}`, 504, "deadline_exceeded"},
		"no room":           {"RoomService/EndRoom", "Bearer good", `{"room":"attic"}`, 404, "not_found"},
		"an inner fault":    {"RoomService/DeleteRoom", "Bearer good", `{"room":"hall"}`, 500, "something went wrong"},
		"nodes":             {"NodeService/ListNodes", "Bearer good", `{}`, 200, "no_a"},
		"this node":         {"NodeService/GetNode", "Bearer good", `{}`, 200, `"clients":3`},
		"another node":      {"NodeService/GetNode", "Bearer good", `{"id":"no_b"}`, 404, "not_found"},
		"a stolen key":      {"NodeService/RevokeNode", "Bearer good", `{"id":"no_b","issuedBeforeMs":"1500"}`, 200, `"revokedBeforeMs":"2000"`},
		"its own key":       {"NodeService/RevokeNode", "Bearer good", `{"id":"self"}`, 409, "aborted"},
		"of nobody":         {"NodeService/RevokeNode", "Bearer good", `{}`, 400, "invalid_argument"},
		"of the future":     {"NodeService/RevokeNode", "Bearer good", `{"id":"no_b","issuedBeforeMs":"99999999999999"}`, 400, "invalid_argument"},
		"of prehistory":     {"NodeService/RevokeNode", "Bearer good", `{"id":"no_b","issuedBeforeMs":"-1"}`, 400, "invalid_argument"},
		"no such procedure": {"RoomService/Nothing", "Bearer good", `{}`, 404, ""},
	} {
		w := post(h, tt.method, tt.token, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
