package signal

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// comeBack resumes a peer on a new connection.
func (w *world) comeBack(t *testing.T, old *browser, lastSeq uint64) (*browser, *amphiv1.Joined) {
	t.Helper()
	b := w.dial(t, !old.binary)
	b.seq = lastSeq
	b.send(&amphiv1.ClientMessage{Id: b.id(), Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: old.resume, LastSeq: lastSeq}}})
	j := b.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil })
	return b, b.joined(j)
}

func TestResumeReplaysWhatWasMissedOnceAndInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann, bob := w.enter(t, "steward", "Ann"), w.enter(t, "field", "Bob")
	bob.hears0(ann)
	_ = bob.sock.CloseNow()
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("missed ", i))
		if ans := ann.do(say(want[i])); ans.GetError() != nil {
			t.Fatal(ans.GetError())
		}
	}
	again, j := w.comeBack(t, bob, bob.seq)
	if j.GetPeerId() != bob.self || !j.GetResumed() || j.GetState() != nil {
		t.Errorf("joined with %v", j)
	}
	again.hears("missed 19")
	if d := cmp.Diff(want, again.chats()); d != "" {
		t.Error(d)
	}
	// All of it anew on request, without replay.
	third, j := w.comeBack(t, again, 0)
	if j.GetState().GetPeers()[0].GetId() != bob.self || len(j.GetState().GetMessages()) != 21 {
		t.Errorf("state %v", j.GetState())
	}
	if status, code := again.ends(); status != 4006 || code != proto.Replaced {
		t.Errorf("the replaced connection closed with %d %s", status, code)
	}
	if ans := third.do(say("hello again")); ans.GetError() != nil {
		t.Error(ans.GetError())
	}
	ann.hears("hello again")
	for _, m := range ann.seen {
		if m.GetEvent().GetPeerLeft() != nil {
			t.Error("bob was seen to leave")
		}
	}
}

func TestResumeIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enter(t, "steward", "Ann")
	bob := w.enter(t, "field", "Bob")
	if ans := bob.do(&amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}}); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	for tok, want := range map[string]proto.Code{bob.resume: proto.ResumeExpired, "junk": proto.Unauthenticated} {
		b := w.dial(t, true)
		b.send(&amphiv1.ClientMessage{Id: 1, Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: tok}}})
		if status, code := b.ends(); int(status) != want.CloseCode() || code != want {
			t.Errorf("closed with %d %s, not %s", status, code, want)
		}
	}
}

func TestPingIsAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bob := w.enter(t, "field", "Bob")
	bob.send(&amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Ping{Ping: &amphiv1.Ping{TimeMs: 42}}})
	pong := bob.until("pong", func(m *amphiv1.ServerMessage) bool { return m.GetPong() != nil }).GetPong()
	if pong.GetTimeMs() != 42 || pong.GetServerMs() == 0 {
		t.Errorf("pong %v", pong)
	}
}

func TestRemovalBanAndEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann, bob, cleo := w.enter(t, "steward", "Ann"), w.enter(t, "singer", "Bob"), w.enter(t, "field", "Cleo")
	remove := &amphiv1.Command{Body: &amphiv1.Command_RemovePeers{RemovePeers: &amphiv1.RemovePeers{Peers: []string{bob.self}, Ban: true}}}
	if ans := ann.do(remove); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	if status, code := bob.ends(); status != 4004 || code != proto.Banned {
		t.Errorf("bob closed with %d %s", status, code)
	}
	back := w.dial(t, true)
	back.send(hello(token(t, "singer")))
	if ans := back.do(&amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{}}}); ans.GetError().GetCode() != string(proto.Banned) {
		t.Errorf("the banned one was answered %v", ans)
	}
	// Who ends the room is answered before being closed.
	if ans := ann.do(&amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{Reason: "done"}}}); ans.GetError() != nil {
		t.Fatal(ans.GetError())
	}
	for name, b := range map[string]*browser{"ann": ann, "cleo": cleo} {
		if status, code := b.ends(); status != 4005 || code != proto.RoomEnded {
			t.Errorf("%s closed with %d %s", name, status, code)
		}
	}
	// The next session is a new one.
	next := w.enter(t, "singer", "Bob")
	if next.self == bob.self {
		t.Error("the same peer in another session")
	}
}

func TestShutdownSaysGoodbye(t *testing.T) {
	t.Parallel()
	registry := newRegistry()
	s, err := New(Config{Node: "no_a"}, Deps{Registry: registry, Directory: everyRoom("no_a")})
	if err != nil {
		t.Fatal(err)
	}
	w, stop := startStoppable(t, s, registry)
	ann := w.enter(t, "steward", "Ann")
	go stop()
	if status, code := ann.ends(); status != 1001 || code != proto.Shutdown {
		t.Errorf("closed with %d %s", status, code)
	}
	stop()
	var sessions []*amphiv1.Session
	registry.Read(func(r *amphiv1.Registry) { sessions = r.GetSessions() })
	if len(sessions) != 1 || len(sessions[0].GetAttendance()) != 1 {
		t.Errorf("kept %v", sessions)
	}
}

// TestBanNeedsAUserID refuses a ban that would keep nobody out.
func TestBanNeedsAUserID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann := w.enter(t, "steward", "Ann")
	guest := w.dial(t, true)
	guest.send(hello(tokenOf(t, auth.Signer{KeyID: "k", Secret: testSecret}, auth.Grant{Type: auth.App, Room: "hall", Role: "singer"})))
	guest.send(command(2, &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: "Guest"}}}))
	guest.joined(guest.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil }))
	remove := &amphiv1.RemovePeers{Peers: []string{guest.self}, Ban: true}
	ans := ann.do(&amphiv1.Command{Body: &amphiv1.Command_RemovePeers{RemovePeers: remove}})
	if ans.GetError().GetCode() != string(proto.InvalidArgument) || !strings.Contains(ans.GetError().GetMessage(), "user id") {
		t.Errorf("answered %v", ans)
	}
	if ans := guest.do(say("still here")); ans.GetError() != nil {
		t.Errorf("the guest was answered %v", ans)
	}
	remove.Ban = false
	if ans := ann.do(&amphiv1.Command{Body: &amphiv1.Command_RemovePeers{RemovePeers: remove}}); ans.GetError() != nil {
		t.Error(ans)
	}
	if _, code := guest.ends(); code != proto.Removed {
		t.Errorf("closed with %s", code)
	}
}
