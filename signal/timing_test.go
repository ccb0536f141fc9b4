package signal

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// tab is a client in memory inside a synctest bubble, so that the minutes of the protocol pass at once. It does
// nothing by itself, not even ping.
type tab struct {
	*memConn
	t *testing.T

	mu     sync.Mutex // guards the fields below
	raw    []byte
	seen   []*amphiv1.ServerMessage
	closed int // close code, once there is one
}

func (c *tab) Write(p []byte) (int, error) {
	if n, err := c.memConn.Write(p); err != nil {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, p...)
	for {
		op, body, rest, ok := cutFrame(c.raw)
		if !ok {
			return len(p), nil
		}
		c.raw = rest
		switch op {
		case 2:
			m := &amphiv1.ServerMessage{}
			if err := protobuf.Unmarshal(body, m); err != nil {
				c.t.Error(err)
			}
			c.seen = append(c.seen, m)
		case 8:
			// A dead client's half of the closing handshake never comes.
			c.closed = int(binary.BigEndian.Uint16(body))
		}
	}
}

// cutFrame takes one unmasked frame (RFC 6455 section 5.2) off the front.
func cutFrame(b []byte) (op byte, body, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, b, false
	}
	n, head := int(b[1]), 2
	switch {
	case n == 126 && len(b) >= 4:
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		n, head = int(binary.BigEndian.Uint64(b[2:])), 10
	case n > 125:
		return 0, nil, b, false
	}
	if len(b) < head+n {
		return 0, nil, b, false
	}
	return b[0] & 15, b[head : head+n], b[head+n:], true
}

// ended is the close code; 0 while the tab is open.
func (c *tab) ended() int {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// take answers what the tab has got since the last call.
func (c *tab) take() []*amphiv1.ServerMessage {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = nil
	return seen
}

// stageTest is a server in a bubble.
type stageTest struct {
	*world
	t       *testing.T
	serving *sync.WaitGroup
}

func inBubble(t *testing.T, f func(b *stageTest)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := newRegistry()
		s, err := New(Config{Node: "no_a"}, Deps{Registry: registry, Directory: everyRoom("no_a")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		over := make(chan struct{})
		go func() { defer close(over); _ = s.Run(ctx) }()
		var serving sync.WaitGroup
		f(&stageTest{world: &world{Server: s, registry: registry}, t: t, serving: &serving})
		stop()
		<-over
		serving.Wait()
	})
}

func (b *stageTest) open() *tab {
	c := &tab{t: b.t, memConn: &memConn{tally: &tally{reached: make(chan struct{}, 1)}, more: make(chan struct{}, 1), closed: make(chan struct{})}}
	req := upgrade()
	b.serving.Go(func() { b.Handler().ServeHTTP(hijacked{httptest.NewRecorder(), c}, req) })
	return c
}

// join brings a peer in, and answers its Joined.
func (b *stageTest) join(role string) (*tab, *amphiv1.Joined) {
	b.t.Helper()
	c := b.open()
	c.say(hello(token(b.t, role)))
	c.say(command(2, &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Name: role}}}))
	return c, c.joined()
}

func (c *tab) joined() *amphiv1.Joined {
	c.t.Helper()
	seen := c.take()
	for _, m := range seen {
		if m.GetJoined() != nil {
			return m.GetJoined()
		}
	}
	c.t.Fatalf("not joined: %v", seen)
	return nil
}

func (b *stageTest) resume(j *amphiv1.Joined, lastSeq uint64) *tab {
	c := b.open()
	c.say(&amphiv1.ClientMessage{Id: 1, Body: &amphiv1.ClientMessage_Resume{Resume: &amphiv1.Resume{ResumeToken: j.GetResumeToken(), LastSeq: lastSeq}}})
	return c
}

// pass lets time go by while some tabs send their pings.
func pass(d time.Duration, alive ...*tab) {
	for ; d > 0; d -= 5 * time.Second {
		for _, c := range alive {
			c.say(&amphiv1.ClientMessage{Body: &amphiv1.ClientMessage_Ping{Ping: &amphiv1.Ping{}}})
		}
		<-time.After(min(d, 5*time.Second))
	}
	synctest.Wait()
}

// story tells what happened to a peer, in words.
func story(seen []*amphiv1.ServerMessage, id string) []string {
	var out []string
	for _, m := range seen {
		ev := m.GetEvent()
		switch {
		case ev.GetPeerLeft().GetPeerId() == id:
			out = append(out, ev.GetPeerLeft().GetReason().String())
		case ev.GetPeerJoined().GetPeer().GetId() == id:
			out = append(out, fmt.Sprint("joined with ", len(ev.GetPeerJoined().GetPeer().GetTracks())))
		case ev.GetTrackUnpublished().GetPeerId() == id:
			out = append(out, "unpublished")
		}
	}
	return out
}

func TestKilledTabIsLostAfter15SecondsAndExpiredAfter60(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		host, _ := b.join("steward")
		tab, j := b.join("singer")
		tab.say(command(3, &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: audio, Source: "mic"}}}))
		synctest.Wait()
		host.take()
		_ = tab.Close()
		pass(14*time.Second, host)
		if got := story(host.take(), j.GetPeerId()); len(got) != 0 {
			t.Errorf("after 14 s: %v", got)
		}
		pass(2*time.Second, host)
		if got := story(host.take(), j.GetPeerId()); len(got) != 2 || got[0] != "unpublished" || got[1] != "LEAVE_REASON_LOST" {
			t.Errorf("after 16 s: %v", got)
		}
		pass(14*time.Second, host)
		again := b.resume(j, j.GetState().GetSeq())
		if back := again.joined(); back.GetPeerId() != j.GetPeerId() || back.GetMediaKept() {
			t.Errorf("back with %v", back)
		}
		if got := story(host.take(), j.GetPeerId()); len(got) != 1 || got[0] != "joined with 1" {
			t.Errorf("after coming back: %v", got)
		}
		_ = again.Close()
		pass(70*time.Second, host)
		host.take()
		late := b.resume(j, 0)
		pass(time.Second, host)
		seen := late.take()
		if len(seen) != 1 || seen[0].GetGoodbye().GetReason().GetCode() != string(proto.ResumeExpired) || late.ended() != 4009 {
			t.Errorf("after 70 s: %v, closed with %d", seen, late.ended())
		}
	})
}

func TestSilentTabIsClosedAndLost(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		host, _ := b.join("steward")
		tab, j := b.join("singer")
		host.take()
		// It was heard last when it joined: its connection is closed after 15 s, and 15 s after its first ping was due
		// it counts as lost.
		pass(16*time.Second, host)
		if tab.ended() != 4008 {
			t.Errorf("closed with %d", tab.ended())
		}
		pass(5*time.Second, host)
		if got := story(host.take(), j.GetPeerId()); len(got) != 1 || got[0] != "LEAVE_REASON_LOST" {
			t.Errorf("after 21 s: %v", got)
		}
		again := b.resume(j, j.GetState().GetSeq())
		if again.joined().GetPeerId() != j.GetPeerId() {
			t.Error("another peer came back")
		}
	})
}

func TestCountsAreToldAtMostOncePerSecond(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		host, _ := b.join("steward")
		pass(3*time.Second, host)
		host.take()
		for range 50 {
			b.join("field")
		}
		pass(3*time.Second, host)
		var counts []*amphiv1.Counts
		for _, m := range host.take() {
			if m.GetCounts() != nil {
				counts = append(counts, m.GetCounts())
			}
		}
		if n := len(counts); n == 0 || n > 4 || counts[n-1].GetTotal() != 51 || counts[n-1].GetByRole()["field"] != 50 {
			t.Errorf("counts %v", counts)
		}
	})
}

func TestWebSocketWithoutHelloIsClosed(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		c := b.open()
		pass(9 * time.Second)
		if c.ended() != 0 {
			t.Errorf("closed with %d after 9 s", c.ended())
		}
		pass(2 * time.Second)
		if c.ended() != 4008 {
			t.Errorf("closed with %d after 11 s", c.ended())
		}
	})
}
