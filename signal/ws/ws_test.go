package ws

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// handler notes what it gets, and answers with what the test wants.
type handler struct {
	conn     *Conn
	messages chan *amphiv1.ClientMessage
	closed   chan struct{}
	refuse   error
}

func (h *handler) Message(m *amphiv1.ClientMessage) error {
	h.messages <- m
	return h.refuse
}

func (h *handler) Closed() { close(h.closed) }

// connect dials a server whose handler the test has in hand.
func connect(t *testing.T, cfg Config, sub string) (*websocket.Conn, *handler, *Server) {
	t.Helper()
	s := New(cfg)
	h := &handler{messages: make(chan *amphiv1.ClientMessage, 1000), closed: make(chan struct{})}
	opened := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Serve(w, r, func(c *Conn) Handler {
			h.conn = c
			close(opened)
			return h
		})
	}))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sock, _, err := websocket.Dial(ctx, web.URL, &websocket.DialOptions{Subprotocols: []string{sub}})
	if err != nil {
		t.Fatal(err)
	}
	<-opened
	t.Cleanup(func() {
		_ = sock.CloseNow()
		<-h.closed
		web.Close()
	})
	return sock, h, s
}

func read(t *testing.T, sock *websocket.Conn) (*amphiv1.ServerMessage, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := sock.Read(ctx)
	if err != nil {
		return nil, err
	}
	m := &amphiv1.ServerMessage{}
	if err := protojson.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	return m, nil
}

func counts(n uint32) *amphiv1.ServerMessage {
	return &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Counts{Counts: &amphiv1.Counts{Total: n}}}
}

func event(seq uint64) *amphiv1.ServerMessage {
	return &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Event{Event: &amphiv1.Event{Seq: seq}}}
}

func TestSubprotocols(t *testing.T) {
	t.Parallel()
	for offered, want := range map[string]outbox.Encoding{"amphi.v1.pb": outbox.Binary, "amphi.v1.json": outbox.JSON, "other": outbox.JSON} {
		_, h, _ := connect(t, Config{}, offered)
		if got := h.conn.out.Encoding(); got != want {
			t.Errorf("%s gives %v", offered, got)
		}
	}
}

func TestMessagesBothWays(t *testing.T) {
	t.Parallel()
	sock, h, s := connect(t, Config{}, "amphi.v1.json")
	if err := sock.Write(context.Background(), websocket.MessageText, []byte(`{"id":7,"command":{"leave":{}}}`)); err != nil {
		t.Fatal(err)
	}
	if m := <-h.messages; m.GetId() != 7 {
		t.Errorf("got %v", m)
	}
	for i := range uint64(500) {
		h.conn.Send(event(i))
	}
	h.conn.Send(counts(3))
	for i := range uint64(500) {
		if m, err := read(t, sock); err != nil || m.GetEvent().GetSeq() != i {
			t.Fatalf("%v %v at %d", m, err, i)
		}
	}
	h.conn.Close(proto.Errorf(proto.Removed, "go"))
	if m, err := read(t, sock); err != nil || m.GetCounts() == nil {
		t.Fatal(m, err)
	}
	if m, err := read(t, sock); err != nil || m.GetGoodbye().GetReason().GetCode() != string(proto.Removed) || m.GetGoodbye().GetResume() {
		t.Fatal(m, err)
	}
	if _, err := read(t, sock); websocket.CloseStatus(err) != 4004 {
		t.Error(err)
	}
	<-h.closed
	if st := s.Stats(); st.In != 1 || st.Out != 501 || st.Accepted != 1 {
		t.Errorf("%+v", st)
	}
}

func TestHandlersErrorIsTheClientsReason(t *testing.T) {
	t.Parallel()
	sock, h, _ := connect(t, Config{}, "amphi.v1.json")
	h.refuse = proto.Errorf(proto.Banned, "no")
	if err := sock.Write(context.Background(), websocket.MessageText, []byte(`{"id":7}`)); err != nil {
		t.Fatal(err)
	}
	if m, err := read(t, sock); err != nil || m.GetGoodbye().GetReason().GetCode() != string(proto.Banned) {
		t.Error(m, err)
	}
}

func TestGoodbyeTellsWhetherToResume(t *testing.T) {
	t.Parallel()
	for code, want := range map[proto.Code]bool{
		proto.Shutdown: true, proto.SlowClient: true, proto.ClientTimeout: true, proto.RateLimited: true, proto.Unavailable: true,
		proto.InvalidMessage: true, proto.Replaced: false, proto.Removed: false, proto.RoomEnded: false, proto.Unauthenticated: false,
	} {
		if got := goodbye(proto.Errorf(code, "x")).GetResume(); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
}

// blocked is a connection whose writes wait until it is closed.
type blocked struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
	wrote  chan []byte
}

func (b *blocked) Write(p []byte) (int, error) {
	select {
	case b.wrote <- append([]byte(nil), p...):
		return len(p), nil
	case <-b.closed:
		return 0, net.ErrClosed
	}
}

func (b *blocked) Close() error { b.once.Do(func() { close(b.closed) }); return nil }

func TestCorkJoinsSmallWritesInOrder(t *testing.T) {
	t.Parallel()
	conn := &blocked{closed: make(chan struct{}), wrote: make(chan []byte, 100)}
	c := &corkable{Conn: conn}
	write := func(s string) {
		if _, err := io.WriteString(c, s); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	c.hold()
	write("b")
	write("c")
	if err := c.release(); err != nil {
		t.Fatal(err)
	}
	write("d")
	c.hold()
	write(strings.Repeat("e", corkBytes))
	write("f")
	if err := c.release(); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var all strings.Builder
	for len(conn.wrote) > 0 {
		p := <-conn.wrote
		sizes = append(sizes, len(p))
		all.Write(p)
	}
	if len(sizes) != 5 || sizes[1] != 2 || all.String() != "abcd"+strings.Repeat("e", corkBytes)+"f" {
		t.Errorf("writes of %v", sizes)
	}
	_ = conn.Close()
	conn.wrote = nil
	if _, err := io.WriteString(c, "x"); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestPingIsAnswered while the writer has nothing to do, and while it is busy, without the reader waiting for it.
func TestPingIsAnswered(t *testing.T) {
	t.Parallel()
	sock, h, _ := connect(t, Config{}, "amphi.v1.json")
	say := func(text string) {
		t.Helper()
		if err := sock.Write(context.Background(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	answered := func(ms int64) {
		t.Helper()
		if m, err := read(t, sock); err != nil || m.GetPong().GetTimeMs() != ms || m.GetPong().GetServerMs() == 0 {
			t.Fatal(m, err)
		}
	}
	say(`{"ping":{"timeMs":1}}`)
	answered(1)
	h.conn.writing.Lock()
	say(`{"ping":{"timeMs":2}}`)
	say(`{"id":7,"command":{"leave":{}}}`)
	if m := <-h.messages; m.GetId() != 7 {
		t.Errorf("got %v", m)
	}
	h.conn.writing.Unlock()
	answered(2)
}

// TestStuckWriterIsCutLoose has a client that stops reading while the server still writes: the connection is gone
// after the time to linger.
func TestStuckWriterIsCutLoose(t *testing.T) {
	t.Parallel()
	_, h, s := connect(t, Config{Linger: 100 * time.Millisecond}, "amphi.v1.json")
	big := &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Event{Event: &amphiv1.Event{Body: &amphiv1.Event_Message{
		Message: &amphiv1.Message{Text: strings.Repeat("x", 1<<20)}}}}}
	deadline := time.After(patience)
	for h.conn.Send(big) {
		select {
		case <-deadline:
			t.Fatal("the queue never overflowed")
		default:
		}
	}
	select {
	case <-h.closed:
	case <-deadline:
		t.Fatal("the connection is still there")
	}
	if st := s.Stats(); st.Closed[proto.SlowClient] != 1 {
		t.Errorf("%+v", st)
	}
}
