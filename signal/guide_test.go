package signal

import (
	"slices"
	"testing"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// signpost sends clients of some levels to another node.
type signpost map[uint32]string

func (s signpost) Elsewhere(_ string, level uint32, _, _ string) string { return s[level] }

func (s signpost) Backups(_ string, level uint32) []string {
	if level == 1 {
		return []string{"http://b", "http://c"}
	}
	return nil
}

func guidedBy(s signpost) worldOption { return func(_ *Config, d *Deps) { d.Guide = s } }

func TestClientsAreSentToTheirNodeBeforeTheyJoin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, guidedBy(signpost{2: "http://elsewhere"}))
	greet := func(role string, redirected bool) *browser {
		b := w.dial(t, true)
		b.send(&amphiv1.ClientMessage{Id: b.id(), Body: &amphiv1.ClientMessage_Hello{Hello: &amphiv1.Hello{Token: token(t, role), Redirected: redirected}}})
		return b
	}
	sent := greet("gallery", false)
	g := sent.until("goodbye", func(m *amphiv1.ServerMessage) bool { return m.GetGoodbye() != nil }).GetGoodbye().GetReason()
	if g.GetCode() != string(proto.Redirected) || g.GetDetails()["url"] != "http://elsewhere" || !g.GetRetryable() {
		t.Errorf("the goodbye says %v", g)
	}
	for _, c := range []struct {
		role       string
		redirected bool
	}{{"gallery", true}, {"singer", false}, {"field", false}} {
		greet(c.role, c.redirected).until("welcome", func(m *amphiv1.ServerMessage) bool { return m.GetWelcome() != nil })
	}
}

func TestJoinedNamesBackups(t *testing.T) {
	t.Parallel()
	w := newWorld(t, guidedBy(signpost{}))
	ann := w.enter(t, "singer", "Ann")
	_ = ann.sock.CloseNow()
	_, j := w.comeBack(t, ann, ann.seq)
	if !slices.Equal(j.GetBackups(), []string{"http://b", "http://c"}) {
		t.Errorf("backups %v", j.GetBackups())
	}
}

func TestNodeThatTakesNobodySendsOnWhoComesBack(t *testing.T) {
	t.Parallel()
	posts := signpost{}
	w := newWorld(t, guidedBy(posts))
	ann := w.enter(t, "singer", "Ann")
	_ = ann.sock.CloseNow()
	posts[0] = "http://elsewhere" // the node drains; nobody else reads the map just now
	b := w.dial(t, true)
	b.send(&amphiv1.ClientMessage{Id: b.id(), Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: ann.resume}}})
	if _, code := b.ends(); code != proto.Redirected {
		t.Errorf("ended with %s", code)
	}
}
