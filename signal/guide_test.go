package signal

import (
	"net/http"
	"slices"
	"strings"
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

// TestWHEPClientsAreSentOnWithATicket: those that leave their token out on the way to another host, as most do, get in
// there, and are not sent on again.
func TestWHEPClientsAreSentOnWithATicket(t *testing.T) {
	t.Parallel()
	posts := signpost{}
	a, b, _ := twoWorlds(t, withMedia(newFakeMedia()), guidedBy(posts))
	posts[2] = b.url // nobody reads the map before the next request
	var ways []string
	client := &http.Client{CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		ways = append(ways, r.URL.String())
		r.Header.Del("Authorization")
		return nil
	}}
	req, err := http.NewRequest(http.MethodPost, a.url+"/v1/whep/hall?region=r", strings.NewReader("v=0\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/sdp")
	req.Header.Set("Authorization", "Bearer "+token(t, "gallery"))
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusCreated || len(ways) != 1 || !strings.HasPrefix(ways[0], b.url+"/v1/whep/hall?region=r&ticket=") {
		t.Fatalf("%s by %v", res.Status, ways)
	}
	if session, err := res.Location(); err != nil || !strings.HasPrefix(session.String(), b.url+"/v1/whep/hall/wh_") {
		t.Errorf("the session is %v, %v", session, err)
	}
	if direct, text := a.post(t, "/v1/whip/hall", token(t, "singer"), "v=0\r\n"); strings.Contains(text, "redirected") {
		t.Errorf("a publisher, whom this node serves, was answered %s", direct.Status)
	}
}
