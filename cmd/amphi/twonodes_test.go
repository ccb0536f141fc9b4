package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// pipe carries encoded room messages between nodes of one process, in order, each on its own
// goroutine, as a network would: nothing but bytes crosses.
type pipe struct {
	mu    sync.Mutex // guards the fields below
	nodes map[string]*Node
	lines map[string]chan func()
	wg    sync.WaitGroup
}

func newPipe(t *testing.T) *pipe {
	p := &pipe{nodes: map[string]*Node{}, lines: map[string]chan func(){}}
	t.Cleanup(func() {
		p.mu.Lock()
		for _, line := range p.lines {
			close(line)
		}
		p.lines = nil
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// end is one node's end of the pipe.
type end struct {
	*pipe
	from string
}

// Send implements exchange.Carrier.
func (e end) Send(node, _ string, msg []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	to := e.nodes[node]
	if to == nil || e.lines == nil {
		return fmt.Errorf("no line to node %s", node)
	}
	line := e.lines[e.from+">"+node]
	if line == nil {
		line = make(chan func(), 4096)
		e.lines[e.from+">"+node] = line
		e.wg.Go(func() {
			for deliver := range line {
				deliver()
			}
		})
	}
	copied := slices.Clone(msg)
	select {
	case line <- func() { _ = to.Deliver(e.from, copied) }:
		return nil
	default:
		return fmt.Errorf("the line to node %s is full", node)
	}
}

// guest is a client in the test with what it heard.
type guest struct {
	*client.Client
	inbox *client.Inbox
}

func join(ctx context.Context, t *testing.T, node *Node, role, name string) guest {
	t.Helper()
	g := guest{inbox: &client.Inbox{}}
	var err error
	g.Client, err = client.Dial(ctx, client.Config{
		URL: node.URL(), Token: appToken(t, role), Join: &amphiv1.Join{Name: name}, OnMessage: g.inbox.Add})
	if err != nil {
		t.Fatalf("%s joins: %v", name, err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// heard is the chat in the order in which the guest got it, once it has n messages.
func (g guest) heard(ctx context.Context, t *testing.T, n int) []string {
	t.Helper()
	var texts []string
	for len(texts) < n {
		ev, err := g.inbox.TakeEvent(ctx, func(e *amphiv1.Event) bool { return e.GetMessage() != nil })
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(texts), n, err)
		}
		texts = append(texts, ev.GetMessage().GetText())
	}
	return texts
}

// twoNodes are an owner and an edge joined by a pipe.
func twoNodes(t *testing.T) (owner, edge *Node) {
	t.Helper()
	p := newPipe(t)
	owner = startNodeWith(t, Config{ID: "no_a", Directory: alone("no_a"), Carrier: end{p, "no_a"}})
	edge = startNodeWith(t, Config{ID: "no_b", Directory: alone("no_a"), Carrier: end{p, "no_b"}})
	p.mu.Lock()
	p.nodes["no_a"], p.nodes["no_b"] = owner, edge
	p.mu.Unlock()
	return owner, edge
}

func TestTwoNodesOneRoom(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	owner, edge := twoNodes(t)
	host := join(ctx, t, owner, "host", "Host")
	viewer := join(ctx, t, edge, "viewer", "Viewer")
	near := join(ctx, t, owner, "audience", "Near")

	const each = 50
	var wg sync.WaitGroup
	for _, g := range []guest{host, viewer, near} {
		wg.Go(func() {
			for i := range each {
				if _, err := g.Chat(ctx, fmt.Sprintf("%s %d", g.PeerID(), i)); err != nil {
					t.Errorf("chat %d of %s: %v", i, g.PeerID(), err)
				}
			}
		})
	}
	wg.Wait()
	order := host.heard(ctx, t, 3*each)
	for _, g := range []guest{viewer, near} {
		if got := g.heard(ctx, t, 3*each); !slices.Equal(got, order) {
			t.Errorf("%s heard another order", g.PeerID())
		}
	}

	moveAcross(ctx, t, host, viewer)
}

// moveAcross has the host ask the viewer on the other node onto the stage.
func moveAcross(ctx context.Context, t *testing.T, host, viewer guest) {
	t.Helper()
	before := viewer.PeerID()
	if _, err := host.Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_ChangeRole{
		ChangeRole: &amphiv1.ChangeRole{Peers: []string{before}, Role: "speaker"}}}); err != nil {
		t.Fatalf("asking: %v", err)
	}
	asked, err := viewer.inbox.TakeEvent(ctx, func(e *amphiv1.Event) bool { return e.GetRoleChangeRequested() != nil })
	if err != nil {
		t.Fatalf("the viewer was not asked: %v", err)
	}
	if _, err := viewer.Command(ctx, &amphiv1.Command{Body: &amphiv1.Command_AnswerRoleChange{
		AnswerRoleChange: &amphiv1.AnswerRoleChange{RequestId: asked.GetRoleChangeRequested().GetRequestId(), Accept: true}}}); err != nil {
		t.Fatalf("accepting: %v", err)
	}
	for _, g := range []guest{host, viewer} {
		moved, err := g.inbox.TakeEvent(ctx, func(e *amphiv1.Event) bool { return e.GetPeerUpdated().GetPeer().GetRole() == "speaker" })
		if err != nil {
			t.Fatalf("%s did not hear of the move: %v", g.PeerID(), err)
		}
		if moved.GetPeerUpdated().GetPeer().GetId() != before {
			t.Errorf("the peer's id changed from %s", before)
		}
	}
	if _, err := viewer.Publish(ctx, &amphiv1.PublishTrack{Kind: amphiv1.Kind_KIND_AUDIO, Source: "mic"}); err != nil {
		t.Errorf("publishing on stage: %v", err)
	}
}

// alone is the directory of a platform in which one node owns every room, at the first epoch.
type alone string

// Owner implements exchange.Directory.
func (a alone) Owner(string) (*amphiv1.Placement, error) {
	return &amphiv1.Placement{Node: string(a), Epoch: 1}, nil
}

// Leased implements exchange.Directory.
func (alone) Leased() bool { return true }

// Watch implements exchange.Directory: nothing changes.
func (alone) Watch(func(room string)) {}
