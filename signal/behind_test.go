package signal

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// TestWhatAnotherNodeHasJustMadeIsFound: an application makes a room at one node, and its users come to another that has not
// heard of it yet.
func TestWhatAnotherNodeHasJustMadeIsFound(t *testing.T) {
	t.Parallel()
	late := func(t *testing.T) *world {
		w := newWorld(t, withMedia(newFakeMedia()))
		w.registry.ahead = func(reg *amphiv1.Registry) {
			reg.Rooms["late"] = &amphiv1.Room{Name: "late", Template: "concert"}
			reg.Codes["zbc-defg-hij"] = &amphiv1.RoomCode{Code: "zbc-defg-hij", Room: "late", Role: "singer"}
		}
		return w
	}
	app := func(t *testing.T, room string) string {
		return tokenOf(t, auth.Signer{KeyID: "k", Secret: testSecret}, auth.Grant{Type: auth.App, Room: room, Role: "singer"})
	}
	t.Run("by token", func(t *testing.T) {
		t.Parallel()
		w := late(t)
		b := w.dial(t, true)
		b.send(hello(app(t, "late")))
		b.until("welcome", func(m *amphiv1.ServerMessage) bool { return m.GetWelcome() != nil })
		nobody := w.dial(t, true)
		nobody.send(hello(app(t, "never")))
		if _, code := nobody.ends(); code != proto.NotFound {
			t.Errorf("a room that nobody made: %s", code)
		}
	})
	t.Run("by WHEP", func(t *testing.T) {
		t.Parallel()
		if res, text := late(t).post(t, "/v1/whep/late", app(t, "late"), "v=0\r\n"); res.StatusCode != http.StatusCreated {
			t.Errorf("%s %s", res.Status, text)
		}
	})
	t.Run("by code", func(t *testing.T) {
		t.Parallel()
		res, err := http.Post(late(t).url+"/v1/token", "application/json", strings.NewReader(`{"code":"zbc-defg-hij"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if text, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
			t.Errorf("%s %s", res.Status, text)
		}
	})
	t.Run("by the API", func(t *testing.T) {
		t.Parallel()
		w := late(t)
		rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, w.url, manager(t))
		if _, err := rooms.GetRoom(t.Context(), connect.NewRequest(&amphiv1.GetRoomRequest{Room: "late"})); err != nil {
			t.Error(err)
		}
		_, err := rooms.GetRoom(t.Context(), connect.NewRequest(&amphiv1.GetRoomRequest{Room: "never"}))
		refusedWith(t, err, connect.CodeNotFound, proto.NotFound)
	})
}
