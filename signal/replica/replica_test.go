package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
	"github.com/amphi-sfu/amphi/signal/owner"
	"github.com/amphi-sfu/amphi/signal/room"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follower notes what it is told.
type follower struct {
	mu      sync.Mutex // guards the fields below
	seqs    []uint64
	texts   []string
	resets  int
	moved   []string
	stopped bool
}

func (f *follower) Reset(*room.Replica) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resets++
}

func (f *follower) Applied(_ *room.Replica, ev *amphiv1.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seqs = append(f.seqs, ev.GetSeq())
	if m := ev.GetMessage(); m != nil {
		f.texts = append(f.texts, m.GetText())
	}
}

func (f *follower) Moved(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved = append(f.moved, id)
}

func (f *follower) Tick(*room.Replica, time.Time) {}

func (f *follower) Stopped() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
}

func (f *follower) has(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.texts {
		if t == text {
			return true
		}
	}
	return false
}

type here struct{}

func (here) Owner(string) (*amphiv1.Placement, error) {
	return &amphiv1.Placement{Node: "o", Epoch: 1}, nil
}
func (here) Leased() bool            { return true }
func (here) Watch(func(room string)) {}

type shelf struct{}

func (shelf) Open(room string) (owner.Start, error) {
	if room == "attic" {
		return owner.Start{}, proto.Errorf(proto.NotFound, "no such room")
	}
	return owner.Start{Room: &amphiv1.Room{Name: room}, Template: &amphiv1.Template{
		Roles: []*amphiv1.Role{{Name: "one", Permissions: &amphiv1.Permissions{SendBroadcast: true}}}}}, nil
}

func (shelf) Running(string) bool { return false }

func (shelf) Keep(*amphiv1.RegistryCommand) {}

func (shelf) Commit(_ *amphiv1.RegistryCommand, done func(error)) { done(nil) }

// line carries messages with a delay and loses some of them.
type line struct {
	mu    sync.Mutex // guards the fields below
	rand  *rand.Rand
	loss  float64
	queue chan []byte
}

func newLine(seed uint64) *line {
	return &line{rand: rand.New(rand.NewPCG(seed, 1)), queue: make(chan []byte, 1<<16)}
}

func (l *line) Send(_, _ string, msg []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rand.Float64() >= l.loss {
		l.queue <- msg
	}
	return nil
}

func (l *line) setLoss(p float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loss = p
}

func (l *line) run(ctx context.Context, to func(*amphiv1.RoomMessage) error) {
	for {
		select {
		case b := <-l.queue:
			<-time.After(5 * time.Millisecond)
			if m, err := exchange.Decode(b); err == nil {
				// Refusals are the receiver's to count.
				_ = to(m)
			}
		case <-ctx.Done():
			return
		}
	}
}

// pair is an owner and a set of replicas on another node, in a synctest bubble.
type pair struct {
	owner    *owner.Owner
	set      *Set
	up, down *line
	follower *follower
	ctx      context.Context
}

func run(t *testing.T, seed uint64, f func(p *pair)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pair{up: newLine(seed), down: newLine(seed + 1), follower: &follower{}}
		var err error
		p.owner, err = owner.New(owner.Config{Node: "o"}, owner.Deps{Carrier: p.down, Directory: here{}, Records: shelf{}})
		if err != nil {
			t.Fatal(err)
		}
		p.set, err = New(Config{Node: "r", Follow: func(*Room) Follower { return p.follower }}, p.up, here{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		p.ctx = ctx
		var wg sync.WaitGroup
		wg.Go(func() { _ = p.owner.Run(ctx) })
		wg.Go(func() { _ = p.set.Run(ctx) })
		wg.Go(func() { p.up.run(ctx, func(m *amphiv1.RoomMessage) error { return p.owner.Deliver("r", m) }) })
		wg.Go(func() { p.down.run(ctx, func(m *amphiv1.RoomMessage) error { return p.set.Deliver("o", m) }) })
		f(p)
		stop()
		wg.Wait()
	})
}

func join() *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "one"}}}
}

func say(text string) *amphiv1.Command {
	return &amphiv1.Command{Body: &amphiv1.Command_Send{Send: &amphiv1.SendMessage{Text: text}}}
}

// TestNothingIsLostOverALossyLine loses a third of all messages both ways: every request is answered, executed
// once, and answered only after its event was applied here; events come in order without gaps.
func TestNothingIsLostOverALossyLine(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			run(t, seed, func(p *pair) {
				r, err := p.set.Open("hall")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Release()
				res, err := r.Call(p.ctx, "", join())
				if err != nil {
					t.Fatal(err)
				}
				peer := res.GetJoin().GetPeer().GetId()
				p.up.setLoss(0.33)
				p.down.setLoss(0.33)
				const n = 60
				said := map[string]bool{}
				for i := range n {
					text := fmt.Sprint(i)
					_, err := r.Call(p.ctx, peer, say(text))
					switch {
					case err == nil && !p.follower.has(text):
						t.Errorf("%s was answered before it was heard", text)
					case err == nil:
						said[text] = true
					case proto.CodeOf(err) != proto.Timeout:
						t.Errorf("%s: %v", text, err)
					}
				}
				p.up.setLoss(0)
				p.down.setLoss(0)
				if _, err := r.Call(p.ctx, peer, say("last")); err != nil {
					t.Error(err)
				}
				p.follower.mu.Lock()
				defer p.follower.mu.Unlock()
				heard := map[string]int{}
				for _, text := range p.follower.texts {
					heard[text]++
				}
				for text := range said {
					if heard[text] != 1 {
						t.Errorf("%s was heard %d times", text, heard[text])
					}
				}
				for i := 1; i < len(p.follower.seqs); i++ {
					if p.follower.seqs[i] != p.follower.seqs[i-1]+1 {
						t.Errorf("event %d after %d", p.follower.seqs[i], p.follower.seqs[i-1])
					}
				}
				if s := p.set.Stats(); s.Gaps+s.Repeated < 10 {
					t.Errorf("the line was no trial: %+v", s)
				}
			})
		})
	}
}

func TestReplicaEqualsOwner(t *testing.T) {
	run(t, 1, func(p *pair) {
		r, err := p.set.Open("hall")
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, err := r.Call(p.ctx, "", join()); err != nil {
				t.Fatal(err)
			}
		}
		var before *amphiv1.RoomState
		if err := r.View(p.ctx, func(rep *room.Replica) { before = rep.Snapshot() }); err != nil {
			t.Fatal(err)
		}
		// Another life of the replica starts from the owner's state.
		r.Release()
		<-time.After(30 * time.Second)
		synctest.Wait()
		if n := len(p.set.Names()); n != 0 || !p.follower.stopped {
			t.Fatalf("%d rooms are still open", n)
		}
		p.follower.stopped = false
		r, err = p.set.Open("hall")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		var after *amphiv1.RoomState
		if err := r.View(p.ctx, func(rep *room.Replica) { after = rep.Snapshot() }); err != nil {
			t.Fatal(err)
		}
		// All clients were lost meanwhile, as the node had detached; their places are held.
		if after.GetSessionId() != before.GetSessionId() || len(after.GetPeers()) != 20 || len(after.GetLostMs()) != 20 {
			t.Error(cmp.Diff(before, after, protocmp.Transform()))
		}
	})
}

func TestOwnerThatDoesNotAnswer(t *testing.T) {
	run(t, 1, func(p *pair) {
		p.up.setLoss(1)
		r, err := p.set.Open("hall")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		ctx, cancel := context.WithTimeout(p.ctx, 3*time.Second)
		defer cancel()
		if err := r.Await(ctx); proto.CodeOf(err) != proto.Timeout {
			t.Errorf("waiting: %v", err)
		}
		start := time.Now()
		if _, err := r.Call(p.ctx, "", join()); proto.CodeOf(err) != proto.Timeout || time.Since(start) > 2*giveUp {
			t.Errorf("calling: %v after %v", err, time.Since(start))
		}
	})
}

func TestRefusedRoomTellsWhoWaits(t *testing.T) {
	run(t, 1, func(p *pair) {
		r, err := p.set.Open("attic")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		if err := r.Await(p.ctx); proto.CodeOf(err) != proto.NotFound {
			t.Errorf("waiting: %v", err)
		}
	})
}

func TestStoppedSetAnswers(t *testing.T) {
	run(t, 1, func(p *pair) {
		set, err := New(Config{Node: "x", Follow: func(*Room) Follower { return &follower{} }}, newLine(1), here{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := set.Open("hall")
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan *amphiv1.Result, 1)
		if err := r.Request("", join(), func(res *amphiv1.Result) { answered <- res }); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(p.ctx)
		stop()
		_ = set.Run(ctx)
		if res := <-answered; res.GetError().GetCode() != string(proto.Unavailable) {
			t.Errorf("answered %v", res)
		}
		if err := r.Do(func(*room.Replica) {}); err == nil {
			t.Error("a stopped room took work")
		}
		if _, err := set.Open("hall"); proto.CodeOf(err) != proto.Shutdown {
			t.Errorf("opening: %v", err)
		}
	})
}

// nowhere is a carrier to nobody.
type nowhere struct{}

func (nowhere) Send(string, string, []byte) error { return nil }

// FuzzReceive shows that no message of an owner, however odd, breaks a replica.
func FuzzReceive(f *testing.F) {
	for _, m := range []*amphiv1.RoomMessage{
		{Room: "hall", Epoch: 1, Body: &amphiv1.RoomMessage_State{State: &amphiv1.RoomState{Seq: 3, Peers: []*amphiv1.Peer{{Id: "pe_a", Tracks: []*amphiv1.Track{{Id: "tr_a"}}}}}}},
		{Room: "hall", Epoch: 1, Body: &amphiv1.RoomMessage_Events{Events: &amphiv1.RoomEvents{Events: []*amphiv1.Event{{Seq: 1, Body: &amphiv1.Event_PeerLeft{PeerLeft: &amphiv1.PeerLeft{PeerId: "x"}}}}}}},
		{Room: "hall", Epoch: 2, Body: &amphiv1.RoomMessage_Response{Response: &amphiv1.RoomResponse{Id: 9, Seq: 99}}},
		{Room: "hall", Epoch: 2, Body: &amphiv1.RoomMessage_PeerMoved{PeerMoved: &amphiv1.PeerMoved{}}},
	} {
		b, err := exchange.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	set, err := New(Config{Node: "x", Follow: func(*Room) Follower { return &follower{} }}, nowhere{}, here{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := exchange.Decode(b)
		if err != nil {
			return
		}
		r := newRoom(set, "hall")
		r.rep = room.NewReplica(&amphiv1.RoomState{})
		r.receive("o", m)
	})
}
