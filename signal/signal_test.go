package signal

import (
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestTwoClientsChat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "field", "Bobs")
	ann.event("bob joining", func(e *amphiv1.Event) bool { return e.GetPeerJoined().GetPeer().GetId() == bob.self })
	if a := bob.do(say("hello")); a.GetResult().GetSend().GetId() == 0 {
		t.Errorf("answered %v", a)
	}
	ev := ann.hears("hello")
	if ev.GetMessage().GetSender() != bob.self || ev.GetMessage().GetSenderName() != "Bobs" {
		t.Errorf("heard %v", ev)
	}
	if a := ann.do(say("hello yourself")); a.GetError() != nil {
		t.Error(a)
	}
	bob.hears("hello yourself")
	if a := bob.do(&amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}}); a.GetError() != nil {
		t.Error(a)
	}
	if code, why := bob.ends(); code != 1000 || why != "" {
		t.Errorf("left with %d %q", code, why)
	}
	ann.event("bob leaving", func(e *amphiv1.Event) bool { return e.GetPeerLeft().GetPeerId() == bob.self })
}

func TestWelcomeShowsThePreviewOnlyToThoseWhoMay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enter(t, "singer", "Sue")
	for role, may := range map[string]bool{"steward": true, "gallery": false} {
		b := w.dial(t, false)
		b.send(&amphiv1.ClientMessage{Id: 9, Body: &amphiv1.ClientMessage_Hello{Hello: &amphiv1.Hello{Token: token(t, role)}}})
		hi := b.until("welcome", func(m *amphiv1.ServerMessage) bool { return m.GetWelcome() != nil }).GetWelcome()
		if hi.GetRequestId() != 9 || hi.GetRoom() != "Hall" || hi.GetRole() != role || len(hi.GetTemplate().GetRoles()) != 4 {
			t.Errorf("%s is welcomed with %v", role, hi)
		}
		if got := len(hi.GetState().GetPeers()) == 1; got != may {
			t.Errorf("%s sees the room: %v", role, got)
		}
		if a := b.do(say("hello")); a.GetError().GetCode() != string(proto.NotJoined) {
			t.Errorf("%s spoke in the preview: %v", role, a)
		}
	}
}

func TestListOfPeersIsAnsweredHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann := w.enter(t, "steward", "Ann")
	for _, name := range []string{"Bob", "Bobby", "Cleo"} {
		w.enter(t, "field", name)
	}
	ans := ann.do(&amphiv1.Command{Body: &amphiv1.Command_ListPeers{ListPeers: &amphiv1.ListPeers{Search: "bob", Limit: 1}}})
	if l := ans.GetResult().GetListPeers(); l.GetTotal() != 2 || len(l.GetPeers()) != 1 || l.GetNext() == "" {
		t.Errorf("answered %v", ans)
	}
	var last *amphiv1.Answer
	for range 30 {
		last = ann.do(&amphiv1.Command{Body: &amphiv1.Command_ListPeers{ListPeers: &amphiv1.ListPeers{}}})
		if last.GetError() != nil {
			break
		}
	}
	if last.GetError().GetCode() != string(proto.RateLimited) || !last.GetError().GetRetryable() {
		t.Errorf("answered %v", last)
	}
	if ans := ann.do(say("still here")); ans.GetError() != nil {
		t.Errorf("answered %v", ans)
	}
}

// TestBrowserOrigins has every page allowed, or those that are named.
func TestBrowserOrigins(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		allowed []string
		origin  string
		ok      bool
	}{
		{nil, "https://any.example", true},
		{[]string{"app.example"}, "https://app.example", true},
		{[]string{"app.example"}, "https://evil.example", false},
	} {
		w := newWorld(t, func(c *Config, _ *Deps) { c.WebSocket.Origins = tt.allowed })
		sock, _, err := websocket.Dial(t.Context(), w.url+"/v1/signal", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {tt.origin}}})
		if (err == nil) != tt.ok {
			t.Errorf("%v: %v", tt, err)
		}
		if err == nil {
			_ = sock.CloseNow()
		}
	}
}
