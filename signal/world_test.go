package signal

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests.
const patience = time.Minute

const testSecret = "a secret of the tests, long enough"

// fakeRegistry is a registry in memory.
type fakeRegistry struct {
	// refuse, if not nil, is asked before each change, and may wait.
	refuse func(*amphiv1.RegistryCommand) error
	// ahead, if not nil, is what other nodes have done that this one learns of by Sync.
	ahead func(*amphiv1.Registry)

	mu  sync.Mutex // guards the field below
	reg *amphiv1.Registry
}

func newRegistry() *fakeRegistry {
	all := []string{"singer", "steward", "gallery", "field"}
	webrtc := func(roles ...string) *amphiv1.SubscribeParams {
		return &amphiv1.SubscribeParams{Delivery: amphiv1.Delivery_DELIVERY_WEBRTC, Roles: roles}
	}
	talk := &amphiv1.Permissions{SendBroadcast: true, SendToRoles: true, SendDirect: true, React: true, SendEvents: true, RaiseHand: true}
	steward := protobuf.Clone(talk).(*amphiv1.Permissions)
	steward.EndRoom, steward.RemoveOthers, steward.MuteOthers, steward.ChangeRole, steward.ControlStream = true, true, true, true, true
	steward.ManageRoom, steward.PreviewRoomState, steward.WriteStore, steward.AnnotateStream = true, true, []string{""}, true
	return &fakeRegistry{reg: &amphiv1.Registry{
		Templates: map[string]*amphiv1.Template{"concert": {
			Name: "concert",
			Roles: []*amphiv1.Role{
				{Name: "steward", Publish: &amphiv1.PublishParams{Audio: true, Video: true, Screen: true}, Subscribe: webrtc("steward", "singer"), Priority: 1, Permissions: steward},
				{Name: "singer", Publish: &amphiv1.PublishParams{Audio: true, Video: true}, Subscribe: webrtc("steward", "singer"), Priority: 2, Permissions: talk},
				{Name: "gallery", Subscribe: webrtc("steward", "singer"), Priority: 4, Permissions: talk},
				{Name: "field", Subscribe: &amphiv1.SubscribeParams{Delivery: amphiv1.Delivery_DELIVERY_HLS, Stream: "main"}, Priority: 5, Permissions: talk},
			},
			Streams: []*amphiv1.StreamSettings{{Name: "main", Roles: all[:2], Layout: amphiv1.LayoutKind_LAYOUT_KIND_AUTO,
				MetadataTypes: []string{"chat", "poll"}, CaptionLanguages: []string{"en"}}},
			Limits: &amphiv1.RoomLimits{MessageHistory: 50},
		}},
		Rooms: map[string]*amphiv1.Room{
			"hall":   {Name: "Hall", Template: "concert"},
			"closed": {Name: "closed", Template: "concert", Disabled: true},
		},
		Codes: map[string]*amphiv1.RoomCode{
			"abc-defg-hij": {Code: "abc-defg-hij", Room: "Hall", Role: "singer"},
			"bbc-defg-hij": {Code: "bbc-defg-hij", Room: "Hall", Role: "singer", Disabled: true},
			"cbc-defg-hij": {Code: "cbc-defg-hij", Room: "closed", Role: "singer"},
		},
		Keys:       map[string]*amphiv1.ApiKey{"k": {Id: "k", Secret: testSecret}},
		NodeSecret: []byte("0123456789abcdef0123456789abcdef"),
	}}
}

func (r *fakeRegistry) Read(f func(*amphiv1.Registry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.reg)
}

func (r *fakeRegistry) Sync(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ahead != nil {
		r.ahead(r.reg)
	}
	return nil
}

func (r *fakeRegistry) Propose(_ context.Context, cmd *amphiv1.RegistryCommand) error {
	if r.refuse != nil {
		if err := r.refuse(cmd); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch b := cmd.GetBody().(type) {
	case *amphiv1.RegistryCommand_PutRoom:
		r.reg.Rooms[key(b.PutRoom.GetName())] = b.PutRoom
	case *amphiv1.RegistryCommand_DeleteRoom:
		delete(r.reg.Rooms, key(b.DeleteRoom))
	case *amphiv1.RegistryCommand_PutTemplate:
		r.reg.Templates[b.PutTemplate.GetName()] = b.PutTemplate
	case *amphiv1.RegistryCommand_DeleteTemplate:
		delete(r.reg.Templates, b.DeleteTemplate)
	case *amphiv1.RegistryCommand_PutCode:
		r.reg.Codes[b.PutCode.GetCode()] = b.PutCode
	case *amphiv1.RegistryCommand_PutAsset:
		r.reg.Assets[b.PutAsset.GetId()] = b.PutAsset
	case *amphiv1.RegistryCommand_DeleteAsset:
		delete(r.reg.Assets, b.DeleteAsset)
	case *amphiv1.RegistryCommand_PutPicture:
		if r.reg.Pictures == nil {
			r.reg.Pictures = map[string]*amphiv1.Picture{}
		}
		r.reg.Pictures[b.PutPicture.GetName()] = b.PutPicture
	case *amphiv1.RegistryCommand_DeletePicture:
		if r.reg.Pictures[b.DeletePicture] == nil {
			return proto.Errorf(proto.NotFound, "no such picture")
		}
		delete(r.reg.Pictures, b.DeletePicture)
	case *amphiv1.RegistryCommand_PutStore:
		if r.reg.Store == nil {
			r.reg.Store = map[string]*amphiv1.StoreEntries{}
		}
		p := b.PutStore
		var list []*amphiv1.StoreEntry
		for _, e := range r.reg.Store[p.GetRoom()].GetEntries() {
			if e.GetKey() != p.GetEntry().GetKey() {
				list = append(list, e)
			}
		}
		if !p.GetDeleted() {
			list = append(list, p.GetEntry())
		}
		r.reg.Store[p.GetRoom()] = &amphiv1.StoreEntries{Entries: list}
	case *amphiv1.RegistryCommand_PutSession:
		for i, s := range r.reg.Sessions {
			if s.GetId() == b.PutSession.GetId() {
				r.reg.Sessions[i] = b.PutSession
				return nil
			}
		}
		r.reg.Sessions = append(r.reg.Sessions, b.PutSession)
	}
	return nil
}

// everyRoom is a directory in which one node owns everything.
type everyRoom string

func (n everyRoom) Owner(string) (*amphiv1.Placement, error) {
	return &amphiv1.Placement{Node: string(n), Epoch: 1}, nil
}
func (everyRoom) Leased() bool            { return true }
func (everyRoom) Watch(func(room string)) {}

// world is one server with an HTTP side.
type world struct {
	*Server
	registry *fakeRegistry
	url      string
}

type worldOption func(*Config, *Deps)

func newWorld(t testing.TB, opts ...worldOption) *world {
	t.Helper()
	cfg := Config{Node: "no_a"}
	// Clients of the tests send no pings.
	cfg.WebSocket.Silence = 2 * patience
	registry := newRegistry()
	deps := Deps{Registry: registry, Directory: everyRoom("no_a")}
	for _, o := range opts {
		o(&cfg, &deps)
	}
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, s, deps.Registry.(*fakeRegistry))
}

// start runs a server until the test ends.
func start(t testing.TB, s *Server, registry *fakeRegistry) *world {
	w, _ := startStoppable(t, s, registry)
	return w
}

// startStoppable runs a server until stop is called, or the test ends.
func startStoppable(t testing.TB, s *Server, registry *fakeRegistry) (w *world, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); _ = s.Run(ctx) }()
	web := httptest.NewUnstartedServer(s.Handler())
	// Small buffers in the kernel, so that a client that does not read is found out soon.
	web.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(16 << 10)
		return ctx
	}
	web.Start()
	t.Cleanup(func() {
		cancel()
		<-over
		web.Close()
	})
	return &world{Server: s, registry: registry, url: web.URL}, func() { cancel(); <-over }
}

var _ exchange.Directory = everyRoom("")

func token(t testing.TB, role string) string {
	t.Helper()
	return tokenOf(t, auth.Signer{KeyID: "k", Secret: testSecret}, auth.Grant{Type: auth.App, Room: "hall", Role: role, UserID: "u-" + role})
}

func tokenOf(t testing.TB, s auth.Signer, g auth.Grant) string {
	t.Helper()
	if g.IssuedAt.IsZero() {
		g.IssuedAt, g.ExpiresAt = time.Now(), time.Now().Add(time.Hour)
	}
	tok, err := s.Mint(g)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// browser is a client of the tests.
type browser struct {
	t      testing.TB
	sock   *websocket.Conn
	binary bool
	nextID uint32
	seen   []*amphiv1.ServerMessage
	seq    uint64
	self   string
	resume string
}

func (w *world) dial(t testing.TB, binary bool) *browser {
	t.Helper()
	sub := "amphi.v1.json"
	if binary {
		sub = "amphi.v1.pb"
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sock, _, err := websocket.Dial(ctx, strings.Replace(w.url, "http", "ws", 1)+"/v1/signal", &websocket.DialOptions{Subprotocols: []string{sub}})
	if err != nil {
		t.Fatal(err)
	}
	sock.SetReadLimit(8 << 20)
	t.Cleanup(func() { _ = sock.CloseNow() })
	return &browser{t: t, sock: sock, binary: binary}
}

// enter dials, says hello and joins.
func (w *world) enter(t testing.TB, role, name string) *browser {
	t.Helper()
	b := w.dial(t, len(name)%2 == 0)
	b.send(&amphiv1.ClientMessage{Id: b.id(), Body: &amphiv1.ClientMessage_Hello{Hello: &amphiv1.Hello{Token: token(t, role)}}})
	b.send(command(b.id(), &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: name}}}))
	b.joined(b.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil }))
	return b
}

func (b *browser) joined(m *amphiv1.ServerMessage) *amphiv1.Joined {
	j := m.GetJoined()
	b.self, b.resume = j.GetPeerId(), j.GetResumeToken()
	if j.GetState() != nil {
		b.seq = j.GetState().GetSeq()
	}
	return j
}

func (b *browser) id() uint32 { b.nextID++; return b.nextID }

func command(id uint32, c *amphiv1.Command) *amphiv1.ClientMessage {
	return &amphiv1.ClientMessage{Id: id, Body: &amphiv1.ClientMessage_Command{Command: c}}
}

func (b *browser) raw(m *amphiv1.ClientMessage) (websocket.MessageType, []byte) {
	if b.binary {
		p, _ := protobuf.Marshal(m)
		return websocket.MessageBinary, p
	}
	p, _ := protojson.Marshal(m)
	return websocket.MessageText, p
}

func (b *browser) send(m *amphiv1.ClientMessage) {
	b.t.Helper()
	typ, p := b.raw(m)
	if err := b.sock.Write(context.Background(), typ, p); err != nil {
		b.t.Fatalf("sending: %v", err)
	}
}

// read reads one message; an error is how the connection ended.
func (b *browser) read() (*amphiv1.ServerMessage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, p, err := b.sock.Read(ctx)
	if err != nil {
		return nil, err
	}
	m := &amphiv1.ServerMessage{}
	if b.binary {
		err = protobuf.Unmarshal(p, m)
	} else {
		err = protojson.Unmarshal(p, m)
	}
	if err != nil {
		return nil, fmt.Errorf("%w in %s", err, bytes.ToValidUTF8(p, nil))
	}
	if ev := m.GetEvent(); ev != nil {
		if ev.GetSeq() <= b.seq {
			b.t.Errorf("event %d after %d", ev.GetSeq(), b.seq)
		}
		b.seq = ev.GetSeq()
	}
	b.seen = append(b.seen, m)
	return m, nil
}

// until reads on to the message that passes.
func (b *browser) until(what string, pass func(*amphiv1.ServerMessage) bool) *amphiv1.ServerMessage {
	b.t.Helper()
	for {
		m, err := b.read()
		if err != nil {
			b.t.Fatalf("waiting for %s: %v; saw %v", what, err, b.seen)
		}
		if pass(m) {
			return m
		}
	}
}

// do sends a command and reads on to its answer.
func (b *browser) do(c *amphiv1.Command) *amphiv1.Answer {
	b.t.Helper()
	id := b.id()
	b.send(command(id, c))
	return b.answer(id)
}

func (b *browser) answer(id uint32) *amphiv1.Answer {
	b.t.Helper()
	return b.until("an answer", func(m *amphiv1.ServerMessage) bool { return m.GetAnswer().GetRequestId() == id }).GetAnswer()
}

func say(text string) *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_Send{Send: &amphiv1.SendMessage{Text: text}}}
}

func (b *browser) hears(text string) *amphiv1.Event {
	b.t.Helper()
	return b.until("the words "+text, func(m *amphiv1.ServerMessage) bool {
		return m.GetEvent().GetMessage().GetText() == text
	}).GetEvent()
}

// event reads on to an event that passes.
func (b *browser) event(what string, pass func(*amphiv1.Event) bool) *amphiv1.Event {
	b.t.Helper()
	return b.until(what, func(m *amphiv1.ServerMessage) bool { return m.GetEvent() != nil && pass(m.GetEvent()) }).GetEvent()
}

// ends reads on until the connection is closed, and tells how.
func (b *browser) ends() (websocket.StatusCode, proto.Code) {
	b.t.Helper()
	var why proto.Code
	for {
		m, err := b.read()
		if err != nil {
			return websocket.CloseStatus(err), why
		}
		if g := m.GetGoodbye(); g != nil {
			why = proto.Code(g.GetReason().GetCode())
		}
	}
}
