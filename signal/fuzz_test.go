package signal

import (
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// FuzzClient joins a room, says whatever the fuzzer likes, and then pings: the server answers, or closes this
// connection with a code of its list.
func FuzzClient(f *testing.F) {
	value, muted := "1", true
	for _, m := range []*amphiv1.ClientMessage{
		command(3, say("hello")),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: video, Source: "camera", Layers: []*amphiv1.SimulcastLayer{{Rid: "f"}}}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_UpdateTrack{UpdateTrack: &amphiv1.UpdateTrack{TrackId: "x", Muted: &muted}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_MutePeers{MutePeers: &amphiv1.MutePeers{Roles: []string{"steward"}, Muted: true}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_SetStore{SetStore: &amphiv1.SetStore{Key: "k", Value: &value}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_ChangeRole{ChangeRole: &amphiv1.ChangeRole{FromRoles: []string{"steward"}, Role: "field", Force: true}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_Moderate{Moderate: &amphiv1.ModerateChat{Action: &amphiv1.ModerateChat_Pin{Pin: 3}}}}),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_EndRoom{EndRoom: &amphiv1.EndRoom{Lock: false}}}),
		command(3, control(amphiv1.ControlStream_ACTION_START, 1)),
		command(3, &amphiv1.Command{Body: &amphiv1.Command_ListPeers{ListPeers: &amphiv1.ListPeers{After: "|", Limit: 1}}}),
		{Id: 3, Body: &amphiv1.ClientMessage_Negotiate{Negotiate: &amphiv1.Negotiate{Sdp: "v=0\r\n", Publish: []*amphiv1.PublishedSection{{Mid: "0"}}}}},
		{Id: 3, Body: &amphiv1.ClientMessage_SetSubscriptions{SetSubscriptions: &amphiv1.SetSubscriptions{Auto: true, Tracks: []*amphiv1.Subscription{{TrackId: "x"}, nil}}}},
		{Id: 3, Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: "x"}}},
		{Id: 3},
	} {
		b, err := protobuf.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	w := newWorld(f, withMedia(newFakeMedia()))
	tok := token(f, "steward")
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 60000 {
			return
		}
		// Without its lock: a locked hall would refuse everybody after.
		w.registry.note(func(r *amphiv1.Registry) { r.Rooms["hall"] = &amphiv1.Room{Name: "Hall", Template: "concert"} })
		c := &speaker{tab: tab{memConn: &memConn{tally: &tally{reached: make(chan struct{}, 1)}, more: make(chan struct{}, 1), closed: make(chan struct{})}, t: t}, news: make(chan struct{}, 1)}
		var serving sync.WaitGroup
		serving.Go(func() { w.Handler().ServeHTTP(hijacked{httptest.NewRecorder(), c}, upgrade()) })
		defer serving.Wait()
		defer func() { _ = c.Close() }()
		c.say(hello(tok))
		c.say(command(2, &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: "fuzz"}}}))
		c.await(func(m *amphiv1.ServerMessage) bool { return m.GetJoined() != nil || m.GetAnswer().GetRequestId() == 2 })
		head := []byte{0x82, 0x80 | 126, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(head[2:], uint16(len(b)))
		c.feed(append(head, b...))
		c.say(&amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Ping{Ping: &amphiv1.Ping{TimeMs: 99}}})
		c.await(func(m *amphiv1.ServerMessage) bool { return m.GetPong().GetTimeMs() == 99 })
	})
}

// note changes the records.
func (r *fakeRegistry) note(f func(*amphiv1.Registry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.reg)
}

// speaker is a tab outside of any bubble: it tells when it has got something.
type speaker struct {
	tab
	news chan struct{}
}

func (c *speaker) Write(p []byte) (int, error) {
	n, err := c.tab.Write(p)
	select {
	case c.news <- struct{}{}:
	default:
	}
	return n, err
}

// await waits for a message that passes, or for a close with a code of the list.
func (c *speaker) await(pass func(*amphiv1.ServerMessage) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		c.tab.mu.Lock()
		seen, code := c.seen, c.tab.closed
		c.seen = nil
		c.tab.mu.Unlock()
		for _, m := range seen {
			if pass(m) {
				return
			}
		}
		if code != 0 {
			if code != 1000 && code != 1009 && (code < 4001 || code > 4009) {
				c.t.Errorf("closed with %d", code)
			}
			return
		}
		select {
		case <-c.news:
		case <-ctx.Done():
			c.t.Fatal("the server neither answers nor closes")
		}
	}
}

// FuzzToken shows that no body makes the server answer a room code's request with anything but a token or a code.
func FuzzToken(f *testing.F) {
	f.Add(`{"code":"abc-defg-hij","user_id":"u"}`)
	f.Add(`{"code":7}`)
	f.Add(`[`)
	w := newWorld(f, func(c *Config, _ *Deps) { c.TokensPerMinute = 1 << 20 })
	f.Fuzz(func(t *testing.T, body string) {
		rec := httptest.NewRecorder()
		w.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/v1/token", strings.NewReader(body)))
		if rec.Code != 200 && (rec.Code < 400 || rec.Code >= 500 || !strings.HasPrefix(rec.Body.String(), `{"error":{`)) {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	})
}
