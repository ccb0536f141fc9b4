package signal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// bearer adds a token to every call.
func bearer(tok string) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+tok)
			return next(ctx, req)
		}
	}))
}

func manager(t *testing.T) connect.ClientOption {
	return bearer(tokenOf(t, auth.Signer{KeyID: "k", Secret: testSecret}, auth.Grant{Type: auth.Management}))
}

// refusedWith checks the Error in the details of a Connect error.
func refusedWith(t *testing.T, err error, status connect.Code, want proto.Code) {
	t.Helper()
	var ce *connect.Error
	if !asConnect(err, &ce) || ce.Code() != status || len(ce.Details()) != 1 {
		t.Errorf("%v, not %s", err, want)
		return
	}
	v, err := ce.Details()[0].Value()
	if e, ok := v.(*amphiv1.Error); err != nil || !ok || e.GetCode() != string(want) {
		t.Errorf("%v %v, not %s", v, err, want)
	}
}

func asConnect(err error, to **connect.Error) bool {
	ce, ok := err.(*connect.Error)
	*to = ce
	return ok
}

func TestManagementOfARunningRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, w.url, manager(t))
	peers := amphiv1connect.NewPeerServiceClient(http.DefaultClient, w.url, manager(t))
	streams := amphiv1connect.NewStreamServiceClient(http.DefaultClient, w.url, manager(t), connect.WithProtoJSON())
	_, err := rooms.GetState(ctx, connect.NewRequest(&amphiv1.GetStateRequest{Room: "hall"}))
	refusedWith(t, err, connect.CodeNotFound, proto.NotFound)

	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	room, err := rooms.GetRoom(ctx, connect.NewRequest(&amphiv1.GetRoomRequest{Room: "HALL"}))
	if err != nil || !room.Msg.GetActive() || room.Msg.GetPeerCount() != 2 {
		t.Errorf("%v %v", room, err)
	}
	state, err := rooms.GetState(ctx, connect.NewRequest(&amphiv1.GetStateRequest{Room: "hall"}))
	if err != nil || len(state.Msg.GetPeers()) != 2 {
		t.Errorf("%v %v", state, err)
	}
	list, err := peers.ListPeers(ctx, connect.NewRequest(&amphiv1.ListPeersRequest{Room: "hall", List: &amphiv1.ListPeers{Search: "bo"}}))
	if err != nil || len(list.Msg.GetPeers()) != 1 || list.Msg.GetPeers()[0].GetId() != bob.self {
		t.Errorf("%v %v", list, err)
	}
	res, err := peers.ChangeRole(ctx, connect.NewRequest(&amphiv1.ChangeRoleRequest{Room: "hall", Change: &amphiv1.ChangeRole{Peers: []string{bob.self}, Role: "singer", Force: true}}))
	if err != nil || len(res.Msg.GetChanged()) != 1 {
		t.Errorf("%v %v", res, err)
	}
	bob.event("the new role", func(e *amphiv1.Event) bool { return e.GetPeerUpdated().GetPeer().GetRole() == "singer" })
	name := "Robert"
	p, err := peers.UpdatePeer(ctx, connect.NewRequest(&amphiv1.UpdatePeerRequest{Room: "hall", Update: &amphiv1.UpdatePeer{PeerId: bob.self, Name: &name}}))
	if err != nil || p.Msg.GetName() != name {
		t.Errorf("%v %v", p, err)
	}
	mic := bob.publish(audio, "mic", false)
	if _, err := peers.MutePeers(ctx, connect.NewRequest(&amphiv1.MutePeersRequest{Room: "hall", Mute: &amphiv1.MutePeers{Peers: []string{bob.self}, Muted: true}})); err != nil {
		t.Error(err)
	}
	bob.event("the mute", func(e *amphiv1.Event) bool {
		return e.GetTrackUpdated().GetTrack().GetId() == mic && e.GetTrackUpdated().GetTrack().GetMuted()
	})
	if _, err := rooms.SendMessage(ctx, connect.NewRequest(&amphiv1.SendMessageRequest{Room: "hall", Message: &amphiv1.SendMessage{Text: "from above"}})); err != nil {
		t.Error(err)
	}
	ann.hears("from above")
	value := `{"a":1}`
	store, err := rooms.SetStore(ctx, connect.NewRequest(&amphiv1.SetStoreRequest{Room: "hall", Set: &amphiv1.SetStore{Key: "k", Value: &value}}))
	if err != nil || store.Msg.GetRevision() == 0 {
		t.Errorf("%v %v", store, err)
	}
	// No composer is joined: the stream is asked for and fails with a word that says why.
	stream, err := streams.StartStream(ctx, connect.NewRequest(&amphiv1.StartStreamRequest{Room: "hall"}))
	if err != nil || stream.Msg.GetName() != "main" {
		t.Errorf("%v %v", stream, err)
	}
	ann.event("the failure", func(e *amphiv1.Event) bool {
		return e.GetStreamChanged().GetStream().GetState() == amphiv1.StreamState_STREAM_STATE_FAILED && e.GetStreamChanged().GetStream().GetFailure() != ""
	})
	locked := true
	if _, err := rooms.UpdateRoom(ctx, connect.NewRequest(&amphiv1.UpdateRoomRequest{Room: "hall", Locked: &locked})); err != nil {
		t.Error(err)
	}
	ann.event("the lock", func(e *amphiv1.Event) bool { return e.GetRoomUpdated().GetLocked() })
	if _, err := peers.RemovePeers(ctx, connect.NewRequest(&amphiv1.RemovePeersRequest{Room: "hall", Remove: &amphiv1.RemovePeers{Peers: []string{bob.self}}})); err != nil {
		t.Error(err)
	}
	if status, code := bob.ends(); status != 4004 || code != proto.Removed {
		t.Errorf("bob closed with %d %s", status, code)
	}
	if _, err := rooms.EndRoom(ctx, connect.NewRequest(&amphiv1.EndRoomRequest{Room: "hall", Reason: "late"})); err != nil {
		t.Error(err)
	}
	if status, code := ann.ends(); status != 4005 || code != proto.RoomEnded {
		t.Errorf("ann closed with %d %s", status, code)
	}
}

func TestManagementOfRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, w.url, manager(t))
	templates := amphiv1connect.NewTemplateServiceClient(http.DefaultClient, w.url, manager(t))
	presets, err := templates.ListTemplates(ctx, connect.NewRequest(&amphiv1.ListTemplatesRequest{Presets: true}))
	if err != nil || len(presets.Msg.GetTemplates()) < 6 {
		t.Fatalf("%v %v", presets, err)
	}
	webinar := presets.Msg.GetTemplates()[0]
	webinar.Name = "mine"
	if _, err := templates.SetTemplate(ctx, connect.NewRequest(&amphiv1.SetTemplateRequest{Template: webinar})); err != nil {
		t.Fatal(err)
	}
	_, err = templates.SetTemplate(ctx, connect.NewRequest(&amphiv1.SetTemplateRequest{Template: &amphiv1.Template{Name: "empty"}}))
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	_, err = rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Name: "attic"}))
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	_, err = rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Name: "no spaces", Template: "mine"}))
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	for range 2 {
		r, err := rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Name: "Attic", Template: "mine"}))
		if err != nil || r.Msg.GetName() != "Attic" {
			t.Fatalf("%v %v", r, err)
		}
	}
	made, err := rooms.CreateRoom(ctx, connect.NewRequest(&amphiv1.CreateRoomRequest{Template: "mine"}))
	if err != nil || !proto.ValidRoomName(made.Msg.GetName()) {
		t.Errorf("%v %v", made, err)
	}
	page, err := rooms.ListRooms(ctx, connect.NewRequest(&amphiv1.ListRoomsRequest{Limit: 2}))
	if err != nil || len(page.Msg.GetRooms()) != 2 || page.Msg.GetNext() != "closed" {
		t.Errorf("%v %v", page, err)
	}
	page, err = rooms.ListRooms(ctx, connect.NewRequest(&amphiv1.ListRoomsRequest{After: page.Msg.GetNext()}))
	if err != nil || len(page.Msg.GetRooms()) != 2 || page.Msg.GetNext() != "" {
		t.Errorf("%v %v", page, err)
	}
	codes, err := rooms.CreateCodes(ctx, connect.NewRequest(&amphiv1.CreateCodesRequest{Room: "attic"}))
	if err != nil || len(codes.Msg.GetCodes()) != len(webinar.GetRoles()) {
		t.Fatalf("%v %v", codes, err)
	}
	again, err := rooms.CreateCodes(ctx, connect.NewRequest(&amphiv1.CreateCodesRequest{Room: "attic"}))
	if err != nil || len(again.Msg.GetCodes()) != len(codes.Msg.GetCodes()) {
		t.Errorf("%v %v", again, err)
	}
	code := codes.Msg.GetCodes()[0].GetCode()
	if res, body := w.token(t, fmt.Sprintf(`{"code":%q,"user_id":"u1"}`, code)); res.StatusCode != http.StatusOK || !strings.Contains(body, `"room":"Attic"`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if _, err := rooms.UpdateCode(ctx, connect.NewRequest(&amphiv1.UpdateCodeRequest{Code: code, Disabled: true})); err != nil {
		t.Error(err)
	}
	if res, body := w.token(t, fmt.Sprintf(`{"code":%q}`, code)); res.StatusCode != http.StatusForbidden {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	_, err = templates.DeleteTemplate(ctx, connect.NewRequest(&amphiv1.DeleteTemplateRequest{}))
	refusedWith(t, err, connect.CodeInvalidArgument, proto.InvalidArgument)
	if _, err := rooms.DeleteRoom(ctx, connect.NewRequest(&amphiv1.DeleteRoomRequest{Room: "attic"})); err != nil {
		t.Error(err)
	}
	_, err = rooms.GetRoom(ctx, connect.NewRequest(&amphiv1.GetRoomRequest{Room: "attic"}))
	refusedWith(t, err, connect.CodeNotFound, proto.NotFound)
}

func TestManagementNeedsItsToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, opts := range map[string][]connect.ClientOption{"none": nil, "app token": {bearer(token(t, "steward"))}, "junk": {bearer("x")}} {
		rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, w.url, opts...)
		_, err := rooms.ListRooms(t.Context(), connect.NewRequest(&amphiv1.ListRoomsRequest{}))
		t.Log(name)
		refusedWith(t, err, connect.CodeUnauthenticated, proto.Unauthenticated)
	}
	res, err := http.Post(w.url+"/amphi.v1.RoomService/GetRoom", "application/json", bytes.NewReader([]byte(`{"room":`)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusUnauthorized {
		t.Error(res.Status)
	}
}

func TestSessionsAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sessions := amphiv1connect.NewSessionServiceClient(http.DefaultClient, w.url, manager(t))
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	for _, b := range []*browser{bob, ann} {
		if ans := b.do(&amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}}); ans.GetError() != nil {
			t.Fatal(ans.GetError())
		}
	}
	var list *connect.Response[amphiv1.ListSessionsResponse]
	eventually(t, "the session's record", func() bool {
		var err error
		list, err = sessions.ListSessions(t.Context(), connect.NewRequest(&amphiv1.ListSessionsRequest{Room: "hall"}))
		return err == nil && len(list.Msg.GetSessions()) == 1 && list.Msg.GetSessions()[0].GetEndedMs() != 0
	})
	s, err := sessions.GetSession(t.Context(), connect.NewRequest(&amphiv1.GetSessionRequest{Id: list.Msg.GetSessions()[0].GetId()}))
	if err != nil || len(s.Msg.GetAttendance()) != 2 || s.Msg.GetPeakPeers() != 2 {
		t.Errorf("%v %v", s, err)
	}
}

// eventually asks again until it holds; each try has cost a request, which is pause enough.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !holds() {
		if ctx.Err() != nil {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func (w *world) token(t *testing.T, body string) (*http.Response, string) {
	t.Helper()
	res, err := http.Post(w.url+"/v1/token", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestRoomCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	res, body := w.token(t, `{"code":"ABC defg-hij","user_id":"u1"}`)
	var got struct {
		Token, Room, Role string
		ExpiresMs         int64 `json:"expires_ms"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || res.StatusCode != 200 || got.Room != "Hall" || got.Role != "singer" || got.ExpiresMs == 0 {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	b := w.dial(t, true)
	b.send(hello(got.Token))
	if hi := b.until("welcome", func(m *amphiv1.ServerMessage) bool { return m.GetWelcome() != nil }).GetWelcome(); hi.GetUserId() != "u1" {
		t.Errorf("welcomed with %v", hi)
	}
	for body, want := range map[string]proto.Code{
		`{"code":"zzz-zzzz-zzz"}`:                     proto.CodeUnknown,
		`{"code":"../../etc"}`:                        proto.CodeUnknown,
		`{"code":"bbc-defg-hij"}`:                     proto.CodeDisabled,
		`{"code":"cbc-defg-hij"}`:                     proto.RoomDisabled,
		`{"code":`:                                    proto.InvalidMessage,
		`{"x":"` + strings.Repeat("x", 10<<20) + `"}`: proto.MessageTooLarge,
		`{"code":"abc-defg-hij","user_id":"` + strings.Repeat("x", 129) + `"}`: proto.InvalidArgument,
	} {
		res, answer := w.token(t, body)
		if res.StatusCode != want.HTTPStatus() || !strings.Contains(answer, `"`+string(want)+`"`) {
			t.Errorf("%.60s: %d %s, not %s", body, res.StatusCode, answer, want)
		}
	}
	limited := false
	for range 100 {
		res, _ := w.token(t, `{"code":"zzz-zzzz-zzz"}`)
		limited = limited || res.StatusCode == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("codes can be tried without limit")
	}
}

func TestAddressesAreBounded(t *testing.T) {
	t.Parallel()
	a := newAddresses(60)
	for i := range maxAddresses + 100 {
		a.allow(fmt.Sprintf("[2001:db8:%x:%x::1]:99", i>>16, i&0xffff))
	}
	if len(a.known) > maxAddresses {
		t.Errorf("%d are remembered", len(a.known))
	}
	tries := 0
	for a.allow("[2001:db8::" + fmt.Sprintf("%x", tries) + "]:1") {
		if tries++; tries > 1000 {
			t.Fatal("one network has no limit")
		}
	}
}

// TestRoomDisabledDuringThePreviewIsNotJoined disables the room between hello and join.
func TestRoomDisabledDuringThePreviewIsNotJoined(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enter(t, "steward", "Ann")
	late := w.dial(t, true)
	late.send(hello(token(t, "singer")))
	late.until("welcome", func(m *amphiv1.ServerMessage) bool { return m.GetWelcome() != nil })
	w.registry.note(func(reg *amphiv1.Registry) {
		reg.Rooms["hall"] = &amphiv1.Room{Name: "Hall", Template: "concert", Disabled: true}
	})
	if ans := late.do(&amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{}}}); ans.GetError().GetCode() != string(proto.RoomDisabled) {
		t.Errorf("answered %v", ans)
	}
}

// slowRegistry takes its time between a change and its effect, so that others come in between.
type slowRegistry struct{ *fakeRegistry }

func (r slowRegistry) Propose(ctx context.Context, cmd *amphiv1.RegistryCommand) error {
	<-time.After(5 * time.Millisecond)
	return r.fakeRegistry.Propose(ctx, cmd)
}

// TestChangesOfARoomsRecordDoNotUndoEachOther changes different fields of one record at once, from all sides.
func TestChangesOfARoomsRecordDoNotUndoEachOther(t *testing.T) {
	t.Parallel()
	registry := newRegistry()
	r := newRecords(slowRegistry{registry}, slog.New(slog.DiscardHandler), time.Now)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := r.change(t.Context(), "hall", nil, func(room *amphiv1.Room) error { room.Description += "x"; return nil }); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			r.write(t.Context(), kept{cmd: &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{
				Name: "hall", Locked: true, Metadata: fmt.Sprint(i)}}}})
		})
	}
	wg.Wait()
	room, err := r.room("hall")
	if err != nil || len(room.GetDescription()) != 20 || !room.GetLocked() || room.GetTemplate() != "concert" || room.GetMetadata() == "" {
		t.Errorf("%v, %v", room, err)
	}
	// A room that was deleted meanwhile does not come back.
	r.write(t.Context(), kept{cmd: &amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{Name: "gone"}}}})
	if _, err := r.room("gone"); err == nil || r.lost.Load() != 0 {
		t.Errorf("%v, %d lost", err, r.lost.Load())
	}
}

func TestPlainPathsThatAreNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		method, path string
		status       int
		code         proto.Code
	}{
		{"GET", "/v1/", 404, proto.NotFound},
		{"POST", "/v1/nothing", 404, proto.NotFound},
		{"GET", "/v1/whip/a/b/c", 404, proto.NotFound},
		{"GET", "/v1/token", 405, proto.InvalidArgument},
		{"POST", "/v1/signal", 405, proto.InvalidArgument},
		{"GET", "/v1/whip/hall", 405, proto.InvalidArgument},
	} {
		rec := httptest.NewRecorder()
		w.Handler().ServeHTTP(rec, httptest.NewRequest(tt.method, tt.path, nil))
		var body struct{ Error struct{ Code proto.Code } }
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || rec.Code != tt.status || body.Error.Code != tt.code {
			t.Errorf("%s %s: %d %s %v", tt.method, tt.path, rec.Code, rec.Body, err)
		}
		if (rec.Header().Get("Allow") != "") != (tt.status == 405) {
			t.Errorf("%s %s: %v", tt.method, tt.path, rec.Header())
		}
	}
}
