package signal

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/whip"
)

// TestEncoderOutlivesACutLine: the node of an encoder that publishes by WHIP cannot reach the room's owner for so long that
// others see the peer leave. Its media never stopped, so it is there again afterwards, with the same tracks.
func TestEncoderOutlivesACutLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry, media := newRegistry(), newFakeMedia()
		media.offers = []Section{{Mid: "0", Kind: video, Sends: true}}
		toA, toB := &pipe{from: "no_b", queue: make(chan []byte, 65536)}, &pipe{from: "no_a", queue: make(chan []byte, 65536)}
		a, err := New(Config{Node: "no_a"}, Deps{Registry: registry, Directory: everyRoom("no_a"), Carrier: toB})
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(Config{Node: "no_b"}, Deps{Registry: registry, Directory: everyRoom("no_a"), Carrier: toA, Media: media})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		over, pipes := make(chan struct{}), sync.WaitGroup{}
		for to, p := range map[*Server]*pipe{a: toA, b: toB} {
			pipes.Go(func() {
				for {
					select {
					case msg := <-p.queue:
						_ = to.Deliver(p.from, msg)
					case <-over:
						return
					}
				}
			})
		}
		var servers sync.WaitGroup
		servers.Go(func() { _ = a.Run(ctx) })
		servers.Go(func() { _ = b.Run(ctx) })
		defer func() { stop(); servers.Wait(); close(over); pipes.Wait() }()

		session, err := b.headless.Publish(ctx, whip.Request{Token: token(t, "singer"), Room: "hall", Offer: "v=0\r\n"})
		if err != nil {
			t.Fatal(err)
		}
		encoder := func() (peer *amphiv1.Peer) {
			if err := (management{a}).View(ctx, "hall", func(rep *room.Replica) {
				for _, p := range rep.Snapshot().GetPeers() {
					peer = p
				}
			}); err != nil {
				t.Fatal(err)
			}
			return peer
		}
		track := encoder().GetTracks()[0].GetId()
		toA.cut.Store(true)
		toB.cut.Store(true)
		time.Sleep(40 * time.Second)
		if p := encoder(); !p.GetLost() {
			t.Errorf("behind a line that is cut: %v", p)
		}
		toA.cut.Store(false)
		toB.cut.Store(false)
		time.Sleep(10 * time.Second)
		if p := encoder(); p.GetLost() || len(p.GetTracks()) != 1 || p.GetTracks()[0].GetId() != track {
			t.Errorf("after the line has healed: %v", p)
		}
		synctest.Wait()
		media.when(t, "its media", func() bool {
			for _, ep := range media.rooms["hall"].endpoints {
				if ep.closed {
					t.Error("its media was ended, and the peer is a ghost")
				}
			}
			return true
		})
		if err := b.headless.End(ctx, session.ID); err != nil {
			t.Error(err)
		}
		<-session.Gone
	})
}
