package owner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
)

// nodes collects what the owner sends to each node.
type nodes struct {
	mu   sync.Mutex // guards the fields below
	sent map[string][]*amphiv1.RoomMessage
	// session and epoch are those of each node's last state.
	session map[string]string
	epoch   map[string]uint64
	gone    string // the node to which there is no connection
}

func (n *nodes) Send(node, _ string, msg []byte) error {
	m, err := exchange.Decode(msg)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if node == n.gone {
		return errors.New("there is no connection to this node")
	}
	n.sent[node] = append(n.sent[node], m)
	if st := m.GetState(); st != nil {
		n.session[node], n.epoch[node] = st.GetSessionId(), st.GetSeqEpoch()
	}
	return nil
}

// take answers what was sent to a node since the last call.
func (n *nodes) take(node string) []*amphiv1.RoomMessage {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.sent[node]
	n.sent[node] = nil
	return out
}

type directory struct {
	node    string
	epoch   uint64
	standby string
}

func (d *directory) Owner(string) (*amphiv1.Placement, error) {
	return &amphiv1.Placement{Node: d.node, Epoch: d.epoch, Standby: d.standby}, nil
}
func (d *directory) Leased() bool            { return true }
func (d *directory) Watch(func(room string)) {}

type shelf struct {
	running bool // a session, by the records

	mu   sync.Mutex // guards the field below
	kept []*amphiv1.RegistryCommand
}

func (s *shelf) Open(room string) (Start, error) {
	if room != "hall" {
		return Start{}, proto.Errorf(proto.NotFound, "no such room")
	}
	return Start{Room: &amphiv1.Room{Name: "Hall"}, Template: &amphiv1.Template{
		Roles:   []*amphiv1.Role{{Name: "one", Permissions: &amphiv1.Permissions{SendBroadcast: true, ControlStream: true, EndRoom: true, WriteStore: []string{""}, ManageRoom: true}}},
		Streams: []*amphiv1.StreamSettings{{Name: "main"}},
	}}, nil
}

func (s *shelf) Running(string) bool { return s.running }

func (s *shelf) Commit(cmd *amphiv1.RegistryCommand, done func(error)) {
	s.Keep(cmd)
	done(nil)
}

func (s *shelf) Keep(cmd *amphiv1.RegistryCommand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, cmd)
}

type wishes struct {
	mu   sync.Mutex // guards the field below
	list []string
}

func (w *wishes) Changed(room string, _ *amphiv1.Template, s *amphiv1.Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, fmt.Sprint(room, " ", s.GetName(), " ", s.GetState()))
}

func (w *wishes) Output(room, _ string, o *amphiv1.Output, sealedURL []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, fmt.Sprintf("%s %s %s %s %q", room, o.GetStream(), o.GetKind(), o.GetState(), sealedURL))
}

func (w *wishes) Cue(room string, c *amphiv1.StreamCue) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, fmt.Sprint(room, " ", c.GetStream(), " ", c.GetMetadata().GetText()))
}

// desk is an owner under test, in a synctest bubble.
type desk struct {
	t      *testing.T
	owner  *Owner
	nodes  *nodes
	dir    *directory
	shelf  *shelf
	wishes *wishes
	nextID uint64
}

func run(t *testing.T, f func(d *desk)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &desk{t: t, nodes: &nodes{sent: map[string][]*amphiv1.RoomMessage{}, session: map[string]string{}, epoch: map[string]uint64{}}, dir: &directory{node: "me", epoch: 7}, shelf: &shelf{}, wishes: &wishes{}, nextID: 100}
		var err error
		d.owner, err = New(Config{Node: "me"}, Deps{Carrier: d.nodes, Directory: d.dir, Records: d.shelf, Streams: d.wishes})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		over := make(chan struct{})
		go func() { defer close(over); _ = d.owner.Run(ctx) }()
		f(d)
		stop()
		<-over
	})
}

func (d *desk) deliver(from string, m *amphiv1.RoomMessage) error {
	m.Room = "hall"
	if m.Epoch == 0 {
		m.Epoch = d.dir.epoch
	}
	err := d.owner.Deliver(from, m)
	synctest.Wait()
	return err
}

func (d *desk) attach(node string, have uint64) {
	d.t.Helper()
	d.nodes.mu.Lock()
	a := &amphiv1.Attach{HaveSeq: have, SessionId: d.nodes.session[node], HaveEpoch: d.nodes.epoch[node]}
	d.nodes.mu.Unlock()
	if err := d.deliver(node, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Attach{Attach: a}}); err != nil {
		d.t.Fatal(err)
	}
}

// request sends a command and answers its response, events before it included in seen.
func (d *desk) request(node, peer string, id uint64, cmd *amphiv1.Command) *amphiv1.RoomResponse {
	d.t.Helper()
	err := d.deliver(node, &amphiv1.RoomMessage{Body: &amphiv1.RoomMessage_Request{Request: &amphiv1.RoomRequest{Id: id, PeerId: peer, Command: cmd}}})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, m := range d.nodes.take(node) {
		if r := m.GetResponse(); r != nil && r.GetId() == id {
			return r
		}
	}
	d.t.Fatal("no response")
	return nil
}

func (d *desk) id() uint64 { d.nextID++; return d.nextID }

func (d *desk) join(node string) string {
	d.t.Helper()
	r := d.request(node, "", d.id(), &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "one"}}})
	if r.GetResult().GetJoin() == nil {
		d.t.Fatal(r)
	}
	return r.GetResult().GetJoin().GetPeer().GetId()
}

func connection(peer string, connected bool) *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{PeerConnection: &amphiv1.PeerConnection{PeerId: peer, Connected: connected}}}
}

func say(text string) *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_Send{Send: &amphiv1.SendMessage{Text: text}}}
}

// left lists who was seen to leave and why.
func left(msgs []*amphiv1.RoomMessage) []string {
	var out []string
	for _, m := range msgs {
		for _, ev := range m.GetEvents().GetEvents() {
			if l := ev.GetPeerLeft(); l != nil {
				out = append(out, l.GetPeerId()+" "+l.GetReason().String())
			}
		}
	}
	return out
}

// pass lets time go by, with the nodes given keeping up their attachment.
func (d *desk) pass(t time.Duration, alive ...string) {
	for ; t > 0; t -= time.Second {
		<-time.After(min(t, time.Second))
		for _, node := range alive {
			d.attach(node, 1<<60)
		}
	}
	synctest.Wait()
}
