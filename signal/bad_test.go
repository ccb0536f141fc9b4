package signal

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// undisturbed checks that two clients of the room still talk, and that neither of them has noticed anything but
// what may show: that others join and leave.
func undisturbed(t *testing.T, a, b *browser, text string) {
	t.Helper()
	if ans := a.do(say(text)); ans.GetError() != nil {
		t.Errorf("the room does not talk any more: %v", ans.GetError())
	}
	b.hears(text)
	for _, m := range append(a.seen, b.seen...) {
		if m.GetGoodbye() != nil {
			t.Errorf("a bystander was sent away: %v", m)
		}
	}
}

func hello(tok string) *amphiv1.ClientMessage {
	return &amphiv1.ClientMessage{Id: 1, Body: &amphiv1.ClientMessage_Hello{Hello: &amphiv1.Hello{Token: tok}}}
}

func TestBadTokensAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	good := auth.Signer{KeyID: "k", Secret: testSecret}
	now := time.Now()
	tests := map[string]struct {
		token string
		close int
		code  proto.Code
	}{
		"nonsense": {"nonsense", 4001, proto.Unauthenticated},
		"foreign":  {tokenOf(t, auth.Signer{KeyID: "k", Secret: "another secret altogether, and long"}, auth.Grant{Type: auth.App, Room: "hall", Role: "singer"}), 4001, proto.Unauthenticated},
		"expired": {tokenOf(t, good, auth.Grant{Type: auth.App, Room: "hall", Role: "singer", IssuedAt: now.Add(-2 * time.Hour), ExpiresAt: now.Add(-time.Hour)}),
			4001, proto.TokenExpired},
		"management": {tokenOf(t, good, auth.Grant{Type: auth.Management}), 4001, proto.Unauthenticated},
		"no room":    {tokenOf(t, good, auth.Grant{Type: auth.App, Room: "nowhere", Role: "singer"}), 4009, proto.NotFound},
		"no role":    {tokenOf(t, good, auth.Grant{Type: auth.App, Room: "hall", Role: "king"}), 4009, proto.NotFound},
		"disabled":   {tokenOf(t, good, auth.Grant{Type: auth.App, Room: "closed", Role: "singer"}), 4009, proto.RoomDisabled},
	}
	for name, tt := range tests {
		c := w.dial(t, true)
		c.send(hello(tt.token))
		if status, code := c.ends(); int(status) != tt.close || code != tt.code {
			t.Errorf("%s: closed with %d %s", name, status, code)
		}
	}
	undisturbed(t, a, b, "still here")
}

func TestBadFramesCloseTheirSenderAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	tests := map[string]struct {
		binary bool
		typ    websocket.MessageType
		frame  []byte
		close  int
		code   proto.Code
	}{
		"malformed JSON":     {false, websocket.MessageText, []byte(`{"id":`), 4002, proto.InvalidMessage},
		"malformed protobuf": {true, websocket.MessageBinary, []byte("\xff\xff\xff"), 4002, proto.InvalidMessage},
		"empty message":      {false, websocket.MessageText, []byte(`{}`), 4002, proto.InvalidMessage},
		"wrong kind":         {true, websocket.MessageText, []byte(`{}`), 4002, proto.InvalidMessage},
		"10 MB":              {false, websocket.MessageText, make([]byte, 10<<20), 1009, proto.MessageTooLarge},
		"hello again":        {false, websocket.MessageText, []byte(`{"hello":{}}`), 4002, proto.InvalidMessage},
	}
	for name, tt := range tests {
		// The name's length decides the encoding.
		c := w.enter(t, "singer", map[bool]string{true: "Bi", false: "Tex"}[tt.binary])
		go func() { _ = c.sock.Write(context.Background(), tt.typ, tt.frame) }()
		if status, code := c.ends(); int(status) != tt.close || code != tt.code {
			t.Errorf("%s: closed with %d %s", name, status, code)
		}
	}
	undisturbed(t, a, b, "still here")
}

func TestFirstMessageHasToBeHello(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.dial(t, true)
	c.send(command(1, say("hello")))
	if status, code := c.ends(); status != 4002 || code != proto.InvalidMessage {
		t.Errorf("closed with %d %s", status, code)
	}
}

func TestFloodClosesItsSenderAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	flood := w.enter(t, "singer", "Flo")
	typ, frame := flood.raw(command(0, say("spam")))
	began := time.Now()
	go func() {
		for range 10_000 {
			if flood.sock.Write(context.Background(), typ, frame) != nil {
				return
			}
		}
	}()
	// On a slow machine the close frame may be lost behind what the flood left unread.
	if status, code := flood.ends(); status != -1 && (status != 4003 || code != proto.RateLimited) {
		t.Errorf("closed with %d %s", status, code)
	}
	eventually(t, "the flood's end", func() bool { return w.Stats().Clients.Closed[proto.RateLimited] == 1 })
	undisturbed(t, a, b, "still here")
	spam := 0
	for _, m := range b.seen {
		if m.GetEvent().GetMessage().GetText() == "spam" {
			spam++
		}
	}
	if most := 210 + int(50*time.Since(began).Seconds()); spam > most {
		t.Errorf("%d messages of the flood came through, more than %d", spam, most)
	}
}

// TestSubscriberThatNeverReads fills the room with events; the one who does not read is closed with 1013, the others
// get every event.
func TestSubscriberThatNeverReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config, _ *Deps) {
		c.WebSocket.Linger = 2 * time.Second
		c.WebSocket.Rate, c.WebSocket.Burst = 1e6, 1e6
	})
	a, b := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	deaf := w.enterDeaf(t)
	text := strings.Repeat("x", 4000)
	deadline := time.Now().Add(patience)
	sent := 0
	for w.Stats().Clients.Closed[proto.SlowClient] == 0 && time.Now().Before(deadline) {
		for range 100 {
			a.send(command(0, say(text)))
		}
		sent += 100
		mark := fmt.Sprint("mark ", sent)
		a.send(command(0, say(mark)))
		a.hears(mark)
		b.hears(mark)
		a.seen, b.seen = nil, nil
	}
	if w.Stats().Clients.Closed[proto.SlowClient] != 1 {
		t.Fatalf("after %d messages: %+v", sent, w.Stats().Clients)
	}
	undisturbed(t, a, b, "still here")
	_ = deaf.Close()
}

// enterDeaf joins over a bare connection with a small window and never reads after that.
func (w *world) enterDeaf(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(conn, "GET /v1/signal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	frame := func(s string) {
		// A masked text frame (RFC 6455 section 5.2) with the mask 0.
		head := []byte{0x81, 0x80 | 126, byte(len(s) >> 8), byte(len(s)), 0, 0, 0, 0}
		if _, err := conn.Write(append(head, s...)); err != nil {
			t.Fatal(err)
		}
	}
	frame(fmt.Sprintf(`{"id":1,"hello":{"token":%q}}`, token(t, "gallery")) + strings.Repeat(" ", 126))
	frame(`{"id":2,"command":{"join":{"name":"deaf"}}}` + strings.Repeat(" ", 126))
	return conn
}

func TestPublisherWithoutPermission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.enter(t, "steward", "Ann"), w.enter(t, "gallery", "Bob")
	cmd := &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_VIDEO, Source: "camera"}}}
	if ans := b.do(cmd); ans.GetError().GetCode() != string(proto.PermissionDenied) {
		t.Errorf("answered %v", ans)
	}
	for _, nodesOnly := range []*amphiv1.Command{
		{Body: &amphiv1.Command_PeerConnection{PeerConnection: &amphiv1.PeerConnection{PeerId: a.self}}},
		{Body: &amphiv1.Command_StreamReport{StreamReport: &amphiv1.StreamReport{Stream: &amphiv1.Stream{Name: "main"}}}},
	} {
		if ans := b.do(nodesOnly); ans.GetError().GetCode() != string(proto.PermissionDenied) {
			t.Errorf("answered %v", ans)
		}
	}
	undisturbed(t, a, b, "still here")
}

func TestNothingButWebSocketsAtSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	res, err := http.Get(w.url + "/v1/signal")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("answered %d", res.StatusCode)
	}
}
