package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

func TestJoinCommandEventAndLeave(t *testing.T) {
	t.Parallel()
	for _, json := range []bool{false, true} {
		url := newFake(t, func(s *fakeConn, msg *amphiv1.ClientMessage) {
			switch {
			case s.polite(msg):
			case msg.GetCommand().GetSend() != nil:
				s.event(8)
				s.result(msg.GetId(), &amphiv1.Result{Body: &amphiv1.Result_Send{Send: &amphiv1.SendResult{Id: 8}}})
			case msg.GetCommand().GetLeave() != nil:
				s.result(msg.GetId(), &amphiv1.Result{})
				_ = s.conn.Close(websocket.StatusNormalClosure, "")
			}
		})
		var inbox Inbox
		ctx := testContext(t)
		c, err := Dial(ctx, Config{URL: url, Token: "good", JSON: json, Join: &amphiv1.Join{Name: "A"}, OnMessage: inbox.Add})
		if err != nil {
			t.Fatal(err)
		}
		if c.Welcome().GetRole() != "x" || c.PeerID() != "pe_1" || c.LastSeq() != 7 {
			t.Errorf("welcome %v, peer %q, seq %d", c.Welcome(), c.PeerID(), c.LastSeq())
		}
		id, err := c.Chat(ctx, "hello")
		if err != nil || id != 8 {
			t.Errorf("chat: %d, %v", id, err)
		}
		e, err := inbox.TakeEvent(ctx, func(e *amphiv1.Event) bool { return e.GetMessage() != nil })
		if err != nil || e.GetSeq() != 8 || c.LastSeq() != 8 {
			t.Errorf("event %v, %v, last %d", e, err, c.LastSeq())
		}
		if _, err := inbox.Take(ctx, func(m *amphiv1.ServerMessage) bool { return m.GetPong() != nil }); err != nil {
			t.Errorf("no heartbeat: %v", err)
		}
		if err := c.Leave(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusalsKeepTheirCode(t *testing.T) {
	t.Parallel()
	url := newFake(t, func(s *fakeConn, msg *amphiv1.ClientMessage) {
		if !s.polite(msg) {
			s.refuse(msg.GetId(), proto.Errorf(proto.PermissionDenied, "the role may not"))
		}
	})
	ctx := testContext(t)
	if _, err := Dial(ctx, Config{URL: url, Token: "bad"}); proto.CodeOf(err) != proto.Unauthenticated {
		t.Errorf("a bad token: %v", err)
	}
	c, err := Dial(ctx, Config{URL: url, Token: "good"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.PeerID() != "" {
		t.Error("a preview has a peer id")
	}
	if _, err := c.Join(ctx, &amphiv1.Join{Name: "A"}); err != nil || c.PeerID() != "pe_1" {
		t.Errorf("join: %v", err)
	}
	if _, err := c.Publish(ctx, &amphiv1.PublishTrack{Source: "mic"}); proto.CodeOf(err) != proto.PermissionDenied {
		t.Errorf("publish: %v", err)
	}
	if _, err := c.Negotiate(ctx, &amphiv1.Negotiate{Sdp: "junk"}); proto.CodeOf(err) != proto.PermissionDenied {
		t.Errorf("negotiate: %v", err)
	}
}

func TestGoodbyeEndsEveryWaiter(t *testing.T) {
	t.Parallel()
	url := newFake(t, func(s *fakeConn, msg *amphiv1.ClientMessage) {
		if s.polite(msg) {
			return
		}
		s.send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Goodbye{Goodbye: &amphiv1.Goodbye{
			Reason: proto.Wire(proto.Errorf(proto.Removed, "by the host")),
		}}})
		_ = s.conn.Close(proto.CloseRemoved, "")
	})
	ctx := testContext(t)
	c, err := Dial(ctx, Config{URL: url, Token: "good", Join: &amphiv1.Join{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Chat(ctx, "x"); proto.CodeOf(err) != proto.Removed {
		t.Errorf("a waiting request ends with %v", err)
	}
	<-c.Done()
	if proto.CodeOf(c.Err()) != proto.Removed || c.Goodbye().GetResume() {
		t.Errorf("ended with %v, %v", c.Err(), c.Goodbye())
	}
	if _, err := c.Chat(ctx, "y"); proto.CodeOf(err) != proto.Removed {
		t.Errorf("a request after the end: %v", err)
	}
}

func TestResumeReplaysAfterDrop(t *testing.T) {
	t.Parallel()
	url := newFake(t, func(s *fakeConn, msg *amphiv1.ClientMessage) { s.polite(msg) })
	ctx := testContext(t)
	c, err := Dial(ctx, Config{URL: url, Token: "good", Join: &amphiv1.Join{}})
	if err != nil {
		t.Fatal(err)
	}
	c.Drop()
	<-c.Done()
	var inbox Inbox
	again, err := Dial(ctx, Config{
		URL: url, ResumeToken: c.Joined().GetResumeToken(), LastSeq: c.LastSeq(), OnMessage: inbox.Add,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Joined().GetResumed() || again.PeerID() != c.PeerID() {
		t.Errorf("resumed as %v", again.Joined())
	}
	for want := uint64(8); want <= 12; want++ {
		e, err := inbox.TakeEvent(ctx, func(*amphiv1.Event) bool { return true })
		if err != nil || e.GetSeq() != want {
			t.Fatalf("event %d, %v; want %d", e.GetSeq(), err, want)
		}
	}
}

func TestDialFailures(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	for _, url := range []string{"", "ftp://x", "http://127.0.0.1:1", "://"} {
		if c, err := Dial(ctx, Config{URL: url, Token: "good"}); err == nil {
			c.Close()
			t.Errorf("Dial(%q) worked", url)
		}
	}
	silent := newFake(t, func(*fakeConn, *amphiv1.ClientMessage) {})
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(short, Config{URL: silent, Token: "good"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: %v", err)
	}
	if _, err := Dial(ctx, Config{URL: silent}); err == nil {
		t.Error("no token, but dialled")
	}
}

func TestInboxLeavesOthers(t *testing.T) {
	t.Parallel()
	var in Inbox
	pong := func(ms int64) *amphiv1.ServerMessage {
		return &amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Pong{Pong: &amphiv1.Pong{TimeMs: ms}}}
	}
	is := func(ms int64) func(*amphiv1.ServerMessage) bool {
		return func(m *amphiv1.ServerMessage) bool { return m.GetPong().GetTimeMs() == ms }
	}
	ctx := testContext(t)
	done := make(chan error)
	go func() {
		_, err := in.Take(ctx, is(3))
		done <- err
	}()
	for ms := range int64(5) {
		in.Add(pong(ms))
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := len(in.Messages()); n != 4 {
		t.Errorf("%d messages left, want 4", n)
	}
	for range maxInbox {
		in.Add(pong(9))
	}
	if n := len(in.Messages()); n != maxInbox {
		t.Errorf("the inbox holds %d, want %d", n, maxInbox)
	}
}
