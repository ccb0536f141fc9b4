package signal

import (
	"testing"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// TestMovedMediaGoesOnUntilItsClientEndsIt: make before break, seen from the node that is left.
func TestMovedMediaGoesOnUntilItsClientEndsIt(t *testing.T) {
	t.Parallel()
	m := newFakeMedia() // both nodes' in one: the newer router is the second node's
	a, b, _ := twoWorlds(t, withMedia(m), guidedBy(signpost{1: "http://b"}))
	sign := func(w *world, role, name string) *browser {
		c := w.dial(t, true)
		c.send(&amphiv1.ClientMessage{Id: c.id(), Body: &amphiv1.ClientMessage_Hello{Hello: &amphiv1.Hello{Token: token(t, role), Redirected: true}}})
		c.until("welcome", func(m *amphiv1.ServerMessage) bool { return m.GetWelcome() != nil })
		c.send(&amphiv1.ClientMessage{Id: c.id(), Body: &amphiv1.ClientMessage_Command{Command: &amphiv1.Command{
			Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: name}}}}})
		c.joined(c.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil }))
		return c
	}
	ann := sign(a, "singer", "Ann")
	if ans := ann.offer(1, "v=0\r\n"); ans.GetNegotiated() == nil {
		t.Fatal(ans)
	}
	m.mu.Lock()
	old := m.rooms["hall"].endpoints[ann.self]
	m.mu.Unlock()
	if n := a.MoveClients(t.Context(), 1000); n != 1 {
		t.Fatalf("%d clients were asked to move", n)
	}
	move := ann.until("move", func(m *amphiv1.ServerMessage) bool { return m.GetMove() != nil }).GetMove()
	if move.GetUrl() != "http://b" {
		t.Errorf("sent to %q", move.GetUrl())
	}
	again := b.dial(t, true)
	again.send(&amphiv1.ClientMessage{Id: again.id(), Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: ann.resume, LastSeq: ann.seq, Redirected: true}}})
	again.joined(again.until("joined", func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil }))
	if _, code := ann.ends(); code != proto.Replaced {
		t.Errorf("the old connection ended with %s", code)
	}
	again.nextID = 100
	if ans := again.offer(2, "v=0\r\n"); ans.GetNegotiated() == nil {
		t.Fatal(ans)
	}
	m.mu.Lock()
	closed := old.closed
	m.mu.Unlock()
	if closed {
		t.Error("the old media ended before the client had the new")
	}
	old.to.Gone()
	m.when(t, "the end of the old media", func() bool { return old.closed })
}
