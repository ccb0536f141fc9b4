package signal

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

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
