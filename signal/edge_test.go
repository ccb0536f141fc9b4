package signal

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	codes "github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/replica"
	"github.com/amphi-sfu/amphi/signal/room"
)

// hall holds the room of the tests and its edge.
func (b *stageTest) hall() (*replica.Room, *edge) {
	b.t.Helper()
	r, err := b.replicas.Open("hall")
	if err != nil {
		b.t.Fatal(err)
	}
	return r, r.Follower().(*edge)
}

// TestClientCutOffThatNeverResumesExpires has a node jump to a new state: who does not come back does not stay for ever.
func TestClientCutOffThatNeverResumesExpires(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		host, hj := b.join("steward")
		tab, j := b.join("singer")
		r, e := b.hall()
		defer r.Release()
		if err := r.Do(func(rep *room.Replica) { e.Reset(rep) }); err != nil {
			t.Fatal(err)
		}
		if host.ended() != 1013 || tab.ended() != 1013 {
			t.Errorf("closed with %d and %d", host.ended(), tab.ended())
		}
		back := b.resume(hj, hj.GetState().GetSeq())
		pass(30*time.Second, back)
		if got := story(back.take(), j.GetPeerId()); len(got) == 0 || got[len(got)-1] != "LEAVE_REASON_LOST" {
			t.Errorf("the silent one: %v", got)
		}
		pass(60*time.Second, back)
		synctest.Wait()
		if err := r.View(context.Background(), func(rep *room.Replica) {
			if rep.Peer(j.GetPeerId()) != nil || rep.Peer(hj.GetPeerId()).GetLost() || rep.Counts().GetTotal() != 1 {
				t.Errorf("in the room: %v", rep.Counts())
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

// TestClosedConnectionIsNoticedByABusyRoom closes a connection while the room takes no more work.
func TestClosedConnectionIsNoticedByABusyRoom(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		tab, j := b.join("singer")
		r, e := b.hall()
		defer r.Release()
		free := make(chan struct{})
		if err := r.Do(func(*room.Replica) { <-free }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for r.Do(func(*room.Replica) {}) == nil {
		}
		_ = tab.Close()
		synctest.Wait()
		close(free)
		pass(time.Second)
		if err := r.View(context.Background(), func(*room.Replica) {
			if p := e.peers[j.GetPeerId()]; p == nil || p.conn != nil {
				t.Errorf("the peer still has its connection: %v", p)
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

// TestResumeAfterMuchGetsTheState comes back after more events than a client's queue holds.
func TestResumeAfterMuchGetsTheState(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		host, hj := b.join("steward")
		r, _ := b.hall()
		defer r.Release()
		for _, tt := range []struct {
			events int
			state  bool
		}{{maxMissed - 10, false}, {maxMissed + 10, true}} {
			tab, j := b.join("singer")
			var seq uint64
			view := func(rep *room.Replica) { seq = rep.Seq() }
			if err := r.View(context.Background(), view); err != nil {
				t.Fatal(err)
			}
			_ = tab.Close()
			synctest.Wait()
			for range tt.events {
				if err := r.Request(hj.GetPeerId(), say("again"), func(*amphiv1.Result) {}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			back := b.resume(j, seq)
			seen := back.take()
			if got := seen[0].GetJoined().GetState() != nil; got != tt.state || !tt.state && len(seen) < tt.events {
				t.Errorf("after %d events: state %v, %d messages", tt.events, got, len(seen))
			}
			host.take()
		}
	})
}

// TestRoleThatChangesDuringAnOfferLeavesNoEndpoint moves a peer to HLS while its endpoint is made.
func TestRoleThatChangesDuringAnOfferLeavesNoEndpoint(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	w := newWorld(t, func(_ *Config, d *Deps) { d.Media = m })
	sue := w.enter(t, "singer", "Sue")
	making := func() {
		change := &amphiv1.ChangeRole{Peers: []string{sue.self}, Role: "field", Force: true}
		if _, err := (management{w.Server}).Call(context.Background(), "hall", &amphiv1.Command{Body: &amphiv1.Command_ChangeRole{ChangeRole: change}}); err != nil {
			t.Error(err)
		}
		// The edge has acted on it when the next look at the room is over.
		_ = management{w.Server}.View(context.Background(), "hall", func(*room.Replica) {})
		_ = management{w.Server}.View(context.Background(), "hall", func(*room.Replica) {})
	}
	m.note(func() { m.making = making })
	sue.send(&amphiv1.ClientMessage{Id: sue.id(), Body: &amphiv1.ClientMessage_Negotiate{Negotiate: &amphiv1.Negotiate{Sdp: "v=0", Generation: 1}}})
	m.when(t, "closing the endpoint", func() bool {
		r := m.rooms["hall"]
		return r != nil && r.endpoints[sue.self] != nil && r.endpoints[sue.self].closed
	})
}

// TestLateEndOfAnOldEndpointSparesTheNewOne has the endpoint of a page that was reloaded end after the new one was made.
func TestLateEndOfAnOldEndpointSparesTheNewOne(t *testing.T) {
	t.Parallel()
	m := newFakeMedia()
	w := newWorld(t, func(_ *Config, d *Deps) { d.Media = m })
	sue := w.enter(t, "singer", "Sue")
	offer := func(fingerprint string) *fakeEndpoint {
		id := sue.id()
		sue.send(&amphiv1.ClientMessage{Id: id, Body: &amphiv1.ClientMessage_Negotiate{Negotiate: &amphiv1.Negotiate{
			Sdp: "v=0\na=fingerprint:" + fingerprint + "\n", Generation: 1}}})
		if ans := sue.answer(id); ans.GetNegotiated() == nil {
			t.Fatal(ans)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.rooms["hall"].endpoints[sue.self]
	}
	old, now := offer("one"), offer("two")
	old.to.Gone()
	if again := offer("two"); again != now || old == now {
		t.Error("the new endpoint did not outlive the old one's end")
	}
	now.to.Gone()
	m.when(t, "the end of the new one", func() bool { return now.closed })
}

// TestNothingNewIsBegunOnAConnectionThatEnds shows that a client that keeps on asking does not keep its connection open.
func TestNothingNewIsBegunOnAConnectionThatEnds(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		tab, j := b.join("singer")
		r, e := b.hall()
		defer r.Release()
		var p *peer
		if err := r.View(context.Background(), func(*room.Replica) {
			p = e.peers[j.GetPeerId()]
			// As if two requests were under way when the peer is removed.
			for range 2 {
				if !p.requests.begin() {
					t.Error("refused before the end")
				}
			}
			p.requests.close(p.conn, codes.Errorf(codes.Removed, "removed"))
		}); err != nil {
			t.Fatal(err)
		}
		p.requests.done()
		tab.say(command(7, say("one more")))
		synctest.Wait()
		seen := tab.take()
		if n := len(seen); n == 0 || seen[n-1].GetAnswer().GetError().GetCode() != string(codes.NotJoined) {
			t.Errorf("saw %v", seen)
		}
		if p.requests.begin() {
			t.Error("begun after the end")
		}
		if tab.ended() != 0 {
			t.Errorf("closed with %d before the last answer", tab.ended())
		}
		p.requests.done()
		if tab.ended() != 4004 {
			t.Errorf("closed with %d", tab.ended())
		}
	})
}

// TestPeerWhoseJoinWasNeverAnsweredIsLost has the owner take in a peer that no client here knows of.
func TestPeerWhoseJoinWasNeverAnsweredIsLost(t *testing.T) {
	inBubble(t, func(b *stageTest) {
		host, hj := b.join("steward")
		r, _ := b.hall()
		defer r.Release()
		join := &amphiv1.Command{Body: &amphiv1.Command_Join{Join: &amphiv1.Join{Role: "singer"}}}
		res, err := r.Call(context.Background(), "", join)
		if err != nil {
			t.Fatal(err)
		}
		ghost := res.GetJoin().GetPeer().GetId()
		pass(25*time.Second, host)
		if got := story(host.take(), ghost); len(got) != 1 || got[0] != "joined with 0" {
			t.Errorf("after 25 s: %v", got)
		}
		pass(20*time.Second, host)
		seen := host.take()
		if got := story(seen, ghost); len(got) != 1 || got[0] != "LEAVE_REASON_LOST" {
			t.Errorf("after 45 s: %v", got)
		}
		pass(60*time.Second, host)
		if got := story(append(seen, host.take()...), hj.GetPeerId()); len(got) != 0 || host.ended() != 0 {
			t.Errorf("the host: %v", got)
		}
	})
}
