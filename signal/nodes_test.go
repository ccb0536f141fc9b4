package signal

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/proto/amphi/v1/amphiv1connect"
	"github.com/amphi-sfu/amphi/signal/ws"
)

// pipe carries encoded messages between two servers; it can be cut and healed.
type pipe struct {
	from  string
	cut   atomic.Bool
	queue chan []byte
}

var errCut = errors.New("the pipe is full")

// Send implements exchange.Carrier. A cut pipe swallows what it gets, as a network does.
func (p *pipe) Send(_, _ string, msg []byte) error {
	if p.cut.Load() {
		return nil
	}
	select {
	case p.queue <- msg:
		return nil
	default:
		return errCut
	}
}

// twoWorlds are two servers over one registry, of which the first owns every room.
func twoWorlds(t *testing.T, opts ...worldOption) (a, b *world, cut func(bool)) {
	t.Helper()
	registry := newRegistry()
	toB := &pipe{from: "no_a", queue: make(chan []byte, 65536)}
	toA := &pipe{from: "no_b", queue: make(chan []byte, 65536)}
	deps := Deps{Registry: registry, Directory: everyRoom("no_a")}
	for _, o := range opts {
		o(&Config{}, &deps)
	}
	deps.Carrier = toB
	sa, err := New(Config{Node: "no_a", WebSocket: ws.Config{Silence: 2 * patience}}, deps)
	if err != nil {
		t.Fatal(err)
	}
	deps.Carrier = toA
	sb, err := New(Config{Node: "no_b", WebSocket: ws.Config{Silence: 2 * patience}}, deps)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for to, p := range map[*Server]*pipe{sa: toA, sb: toB} {
		wg.Go(func() {
			for {
				select {
				case msg := <-p.queue:
					// Refusals, such as of rooms that have closed meanwhile, are the receiver's to count.
					_ = to.Deliver(p.from, msg)
				case <-stop:
					return
				}
			}
		})
	}
	// Cleanups run last in, first out: the servers stop before the pipes.
	t.Cleanup(func() { close(stop); wg.Wait() })
	return start(t, sa, registry), start(t, sb, registry), func(on bool) { toA.cut.Store(on); toB.cut.Store(on) }
}

// chats lists the texts of the chat that a browser has seen, in order.
func (b *browser) chats() []string {
	var texts []string
	for _, m := range b.seen {
		if msg := m.GetEvent().GetMessage(); msg != nil {
			texts = append(texts, msg.GetText())
		}
	}
	return texts
}

func TestTwoNodesHaveOneOrder(t *testing.T) {
	t.Parallel()
	a, b, _ := twoWorlds(t)
	clients := []*browser{a.enter(t, "steward", "Ann"), b.enter(t, "singer", "Bob"), a.enter(t, "field", "Cleo"), b.enter(t, "gallery", "Dan")}
	clients[0].event("everybody", func(e *amphiv1.Event) bool { return e.GetPeerJoined().GetPeer().GetId() == clients[3].self })
	const each = 40
	for i := range each {
		for n, c := range clients {
			c.send(command(0, say(fmt.Sprintf("%d from %d", i, n))))
		}
	}
	var orders [4][]string
	var wg sync.WaitGroup
	for n, c := range clients {
		wg.Go(func() {
			for len(c.chats()) < each*len(clients) {
				if _, err := c.read(); err != nil {
					t.Errorf("client %d: %v", n, err)
					return
				}
			}
			orders[n] = c.chats()
		})
	}
	wg.Wait()
	for n := 1; n < len(orders); n++ {
		if d := cmp.Diff(orders[0], orders[n]); d != "" {
			t.Errorf("client %d heard another order: %s", n, d)
		}
	}
}

func TestRoleChangeAcrossNodes(t *testing.T) {
	t.Parallel()
	a, b, _ := twoWorlds(t)
	host, viewer := a.enter(t, "steward", "Ann"), b.enter(t, "field", "Vera")
	change := &amphiv1.ChangeRole{Peers: []string{viewer.self}, Role: "singer"}
	ans := host.do(&amphiv1.Command{Body: &amphiv1.Command_ChangeRole{ChangeRole: change}})
	request := ans.GetResult().GetChangeRole().GetRequestId()
	asked := viewer.event("the request", func(e *amphiv1.Event) bool { return e.GetRoleChangeRequested() != nil })
	if asked.GetRoleChangeRequested().GetRequestId() != request || request == "" {
		t.Fatalf("asked %v, answered %v", asked, ans)
	}
	ans = viewer.do(&amphiv1.Command{Body: &amphiv1.Command_AnswerRoleChange{AnswerRoleChange: &amphiv1.AnswerRoleChange{RequestId: request, Accept: true}}})
	if ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	host.event("the new role", func(e *amphiv1.Event) bool {
		return e.GetPeerUpdated().GetPeer().GetId() == viewer.self && e.GetPeerUpdated().GetPeer().GetRole() == "singer"
	})
	publish := &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic"}}}
	if ans := viewer.do(publish); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	host.event("the microphone", func(e *amphiv1.Event) bool { return e.GetTrackPublished().GetPeerId() == viewer.self })
	change = &amphiv1.ChangeRole{Peers: []string{viewer.self}, Role: "field", Force: true}
	if ans := host.do(&amphiv1.Command{Body: &amphiv1.Command_ChangeRole{ChangeRole: change}}); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	viewer.event("the end of the microphone", func(e *amphiv1.Event) bool { return e.GetTrackUnpublished() != nil })
	viewer.event("the way back", func(e *amphiv1.Event) bool {
		return e.GetPeerUpdated().GetForced() && e.GetPeerUpdated().GetPeer().GetRole() == "field"
	})
}

// TestLinkBetweenNodesHeals loses everything between the nodes for a while: what was said on either side comes
// through afterwards, once and in one order.
func TestLinkBetweenNodesHeals(t *testing.T) {
	t.Parallel()
	a, b, cut := twoWorlds(t)
	ann, bob := a.enter(t, "steward", "Ann"), b.enter(t, "singer", "Bob")
	ann.event("bob", func(e *amphiv1.Event) bool { return e.GetPeerJoined().GetPeer().GetId() == bob.self })
	cut(true)
	for i := range 5 {
		if ans := ann.do(say(fmt.Sprint("during ", i))); ans.GetError() != nil {
			t.Fatal(ans.GetError())
		}
	}
	id := bob.id()
	bob.send(command(id, say("from the other side")))
	cut(false)
	if ans := bob.answer(id); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	if ans := ann.do(say("after")); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	bob.hears("after")
	if d := cmp.Diff(ann.chats(), bob.chats()); d != "" {
		t.Errorf("the two sides differ: %s", d)
	}
	if n := len(bob.chats()); n != 7 {
		t.Errorf("%d messages: %v", n, bob.chats())
	}
}

// TestPeerMovesBetweenNodes resumes on the other node: the same peer, what it missed, and the first node lets go.
func TestPeerMovesBetweenNodes(t *testing.T) {
	t.Parallel()
	a, b, _ := twoWorlds(t)
	ann, bob := a.enter(t, "steward", "Ann"), a.enter(t, "singer", "Bob")
	bob.hears0(ann)
	seen := bob.seq
	if ans := ann.do(say("missed")); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	again := b.dial(t, true)
	again.seq = seen
	again.send(&amphiv1.ClientMessage{Id: 1, Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: bob.resume, LastSeq: seen}}})
	j := again.joined(again.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil }))
	if j.GetPeerId() != bob.self || !j.GetResumed() || j.GetMediaKept() {
		t.Errorf("joined with %v", j)
	}
	if j.GetState() == nil {
		again.hears("missed")
	}
	if status, code := bob.ends(); status != 4006 || code != proto.Replaced {
		t.Errorf("the first connection closed with %d %s", status, code)
	}
	if ans := again.do(say("from over here")); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	ann.hears("from over here")
	for _, m := range ann.seen {
		if m.GetEvent().GetPeerLeft() != nil {
			t.Error("somebody was seen to leave")
		}
	}
}

// hears0 makes both clients say something, so that both have seen some events.
func (b *browser) hears0(other *browser) {
	b.t.Helper()
	if ans := other.do(say("first")); ans.GetError() != nil {
		b.t.Fatal(ans.GetError())
	}
	b.hears("first")
}

// TestManagementReachesTheSessionsOfOtherNodes: a load balancer in front of the API does not know who owns a room.
func TestManagementReachesTheSessionsOfOtherNodes(t *testing.T) {
	t.Parallel()
	a, b, _ := twoWorlds(t)
	ctx := t.Context()
	rooms := amphiv1connect.NewRoomServiceClient(http.DefaultClient, b.url, manager(t))
	ann := a.enter(t, "steward", "Ann")
	room := func() *amphiv1.Room {
		res, err := rooms.GetRoom(ctx, connect.NewRequest(&amphiv1.GetRoomRequest{Room: "hall"}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	eventually(t, "the other node shows the session", func() bool { return room().GetActive() && room().GetPeerCount() == 1 })
	list, err := rooms.ListRooms(ctx, connect.NewRequest(&amphiv1.ListRoomsRequest{ActiveOnly: true}))
	if err != nil || len(list.Msg.GetRooms()) != 1 {
		t.Errorf("%v %v", list, err)
	}
	locked := true
	if _, err := rooms.UpdateRoom(ctx, connect.NewRequest(&amphiv1.UpdateRoomRequest{Room: "hall", Locked: &locked})); err != nil {
		t.Fatal(err)
	}
	ann.event("the lock", func(e *amphiv1.Event) bool { return e.GetRoomUpdated().GetLocked() })
	late := a.dial(t, true)
	late.send(hello(token(t, "singer")))
	late.until("welcome", func(m *amphiv1.ServerMessage) bool { return m.GetWelcome() != nil })
	join := &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: "Late"}}}
	if ans := late.do(join); ans.GetError().GetCode() != string(proto.RoomLocked) {
		t.Errorf("a room that is locked was joined: %v", ans)
	}
	if _, err := rooms.DeleteRoom(ctx, connect.NewRequest(&amphiv1.DeleteRoomRequest{Room: "hall"})); err != nil {
		t.Fatal(err)
	}
	if status, code := ann.ends(); status != 4005 || code != proto.RoomEnded {
		t.Errorf("closed with %d %s", status, code)
	}
}
