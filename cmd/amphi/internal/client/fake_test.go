package client

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a server that follows a script: for each message of the client, handle sends what it wants.
type fake struct {
	t      *testing.T
	handle func(s *fakeConn, msg *amphiv1.ClientMessage)
}

type fakeConn struct {
	t    *testing.T
	conn *websocket.Conn
	json bool
}

func newFake(t *testing.T, handle func(*fakeConn, *amphiv1.ClientMessage)) string {
	t.Helper()
	srv := httptest.NewServer(&fake{t, handle})
	t.Cleanup(srv.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return srv.URL
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/signal" {
		http.NotFound(w, r)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocolPB, subprotocolJSON}})
	if err != nil {
		f.t.Error(err)
		return
	}
	defer conn.CloseNow()
	s := &fakeConn{f.t, conn, conn.Subprotocol() == subprotocolJSON}
	for {
		_, data, err := conn.Read(context.Background())
		if err != nil {
			return
		}
		msg := &amphiv1.ClientMessage{}
		if s.json {
			err = protojson.Unmarshal(data, msg)
		} else {
			err = protobuf.Unmarshal(data, msg)
		}
		if err != nil {
			_ = conn.Close(proto.CloseInvalidMessage, "")
			return
		}
		f.handle(s, msg)
	}
}

func (s *fakeConn) send(msg *amphiv1.ServerMessage) {
	var data []byte
	kind := websocket.MessageBinary
	if s.json {
		data, _ = protojson.Marshal(msg)
		kind = websocket.MessageText
	} else {
		data, _ = protobuf.Marshal(msg)
	}
	_ = s.conn.Write(context.Background(), kind, data)
}

func (s *fakeConn) result(id uint32, r *amphiv1.Result) {
	s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Answer{
		Answer: &amphiv1.Answer{RequestId: id, Body: &amphiv1.Answer_Result{Result: r}},
	}})
}

func (s *fakeConn) refuse(id uint32, err error) {
	s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Answer{
		Answer: &amphiv1.Answer{RequestId: id, Body: &amphiv1.Answer_Error{Error: proto.Wire(err)}},
	}})
}

// polite does what every script needs: hello, join, resume, ping. It reports whether msg was one of these.
func (s *fakeConn) polite(msg *amphiv1.ClientMessage) bool {
	info := &amphiv1.ServerInfo{Node: "no_a", PingIntervalMs: 20, PingTimeoutMs: 60_000}
	switch {
	case msg.GetHello() != nil:
		if msg.GetHello().GetToken() != "good" {
			s.refuse(msg.GetId(), proto.Errorf(proto.Unauthenticated, "the token is not valid here"))
			return true
		}
		s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Welcome{
			Welcome: &amphiv1.Welcome{RequestId: msg.GetId(), Room: "r", Role: "x", Server: info},
		}})
	case msg.GetCommand().GetJoin() != nil:
		s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Joined{Joined: &amphiv1.Joined{
			RequestId: msg.GetId(), PeerId: "pe_1", ResumeToken: "again", State: &amphiv1.RoomState{Seq: 7}, Server: info,
		}}})
	case msg.GetResume() != nil:
		s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Joined{Joined: &amphiv1.Joined{
			RequestId: msg.GetId(), PeerId: "pe_1", Resumed: true, Server: info,
		}}})
		for seq := msg.GetResume().GetLastSeq() + 1; seq <= 12; seq++ {
			s.event(seq)
		}
	case msg.GetPing() != nil:
		s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Pong{Pong: &amphiv1.Pong{TimeMs: msg.GetPing().GetTimeMs()}}})
	default:
		return false
	}
	return true
}

func (s *fakeConn) event(seq uint64) {
	s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Event{Event: &amphiv1.Event{
		Seq: seq, Body: &amphiv1.Event_Message{Message: &amphiv1.Message{Id: seq, Type: "chat"}},
	}}})
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
