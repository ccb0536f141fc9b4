//go:build !race

package media

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/netem"
)

// untilLayer waits until a layer is forwarded to the viewer and says how long it took.
func untilLayer(t testing.TB, c *client, what string, ok func(spatial int8) bool) time.Duration {
	t.Helper()
	start := time.Now()
	eventually(t, what, func() bool {
		s, _ := videoState(c)
		return ok(s.Current.Spatial)
	})
	return time.Since(start)
}

func top(spatial int8) bool { return spatial == 2 }

// TestNarrowLink is what issue 2 asks of the estimator: on a link of 500 kbit/s with a
// queue of 300 ms a viewer of three layers settles on the lowest within 5 s, does not
// freeze longer than 1 s after that, and climbs again when the link widens.
func TestNarrowLink(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 25 s")
	}
	onHealthyMachine(t, func(t testing.TB) {
		r := startEngine(t, Config{}).Router("room")
		sent := publishLive(t, r)
		eventually(t, "three layers arrive", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
		narrow := netem.Params{Rate: 500_000, Delay: 20 * time.Millisecond, QueueDelay: 300 * time.Millisecond}
		start := time.Now()
		c, p, relay := viewLink(t, r, narrow)
		watch(t, c, 5*time.Second-time.Since(start))
		if s, estimate := videoState(c); s.Current.Spatial != 0 || s.Reason != ReasonBandwidth {
			t.Errorf("after 5 s: layer %d of %d, reason %s, estimate %d; want the lowest, for want of bandwidth",
				s.Current.Spatial, s.Max.Spatial, s.Reason, estimate)
		}
		settled := time.Now()
		shown, sentBefore := p.shown.count(), sent.count()
		before := relay.Stats().Down
		layers := watch(t, c, 8*time.Second)
		high := 0
		for _, l := range layers {
			if l != 0 {
				high++
			}
		}
		// A machine that stalls makes a probe look better than the link.
		if high*10 > len(layers) {
			t.Errorf("after settling it was on a layer that does not fit %d times of %d", high, len(layers))
		}
		checkFreeze(t, p, sent, settled, time.Second)
		if n, of := p.shown.count()-shown, sent.count()-sentBefore; n < of*9/10 {
			t.Errorf("%d frames shown of %d", n, of)
		}
		after := relay.Stats().Down
		t.Logf("lost %d of %d packets in the queue after settling", after.QueueFull-before.QueueFull, after.Sent-before.Sent)

		wide := narrow
		wide.Rate = 5_000_000
		if err := relay.SetDown(wide); err != nil {
			t.Fatal(err)
		}
		widened := time.Now()
		eventually(t, "the highest layer is shown", func() bool {
			s, _ := videoState(c)
			return s.Current.Spatial == 2
		})
		t.Logf("on the highest layer %v after the link widened", time.Since(widened))
		checkFreeze(t, p, sent, widened, time.Second)
	})
}

// TestLinkDropsAndComesBack is about the targets Q1 and Q2: 5 to 1 Mbit/s and back.
// The bounds leave room for a busy machine; the log has what was measured.
func TestLinkDropsAndComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	onHealthyMachine(t, func(t testing.TB) {
		r := startEngine(t, Config{}).Router("room")
		sent := publishLive(t, r)
		eventually(t, "three layers arrive", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
		link := netem.Params{Rate: 5_000_000, Delay: 20 * time.Millisecond, QueueDelay: 500 * time.Millisecond}
		c, p, relay := viewLink(t, r, link)
		t.Logf("joined: highest layer after %v", untilLayer(t, c, "the highest layer", top))
		watch(t, c, 2*time.Second)

		link.Rate = 1_000_000
		if err := relay.SetDown(link); err != nil {
			t.Fatal(err)
		}
		dropped := time.Now()
		took := untilLayer(t, c, "a lower layer", func(s int8) bool { return s < 2 })
		t.Logf("1 Mbit/s: lower layer after %v", took)
		if took > 3*time.Second {
			t.Errorf("it took %v to leave the layer that does not fit any more", took)
		}
		for relay.Stats().DownQueue > 100*time.Millisecond {
			watch(t, c, 100*time.Millisecond)
		}
		t.Logf("queue under 100 ms after %v, longest %v", time.Since(dropped), relay.Stats().Down.MaxQueueDelay)
		watch(t, c, 5*time.Second)
		checkFreeze(t, p, sent, dropped, time.Second)

		link.Rate = 5_000_000
		lost := relay.Stats().Down.QueueFull
		if err := relay.SetDown(link); err != nil {
			t.Fatal(err)
		}
		took = untilLayer(t, c, "the highest layer again", top)
		t.Logf("5 Mbit/s: highest layer after %v", took)
		if took > 15*time.Second {
			t.Errorf("it took %v to be back on the highest layer", took)
		}
		if n := relay.Stats().Down.QueueFull - lost; n > 0 {
			t.Errorf("overshoot: %d packets lost", n)
		}
	})
}

// TestLossyLink is about target Q4: 10 % random loss, 80 ms round trip.
func TestLossyLink(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	onHealthyMachine(t, func(t testing.TB) {
		r := startEngine(t, Config{}).Router("room")
		sent := publishLive(t, r)
		eventually(t, "three layers arrive", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
		c, p, relay := viewLink(t, r, netem.Params{Rate: 5_000_000, Delay: 60 * time.Millisecond, Loss: 0.1, QueueDelay: 300 * time.Millisecond})
		watch(t, c, 5*time.Second)
		start, shown, sentBefore := time.Now(), p.shown.count(), sent.count()
		on := 0
		layers := watch(t, c, 10*time.Second)
		for _, l := range layers {
			if l == 2 {
				on++
			}
		}
		n, of := p.shown.count()-shown, sent.count()-sentBefore
		state, _ := videoState(c)
		t.Logf("on the highest layer %d %% of the time, %d of %d frames shown, %d keyframes waited for, %d resent, lost %d of %d",
			on*100/len(layers), n, of, p.skipped, state.Retransmitted, relay.Stats().Down.Lost, relay.Stats().Down.Sent)
		if n < of*8/10 {
			t.Errorf("%d frames shown of %d", n, of)
		}
		checkFreeze(t, p, sent, start, 1500*time.Millisecond)
	})
}

// TestTwoViewersShareALink is about target Q3. The link carries the highest layer twice,
// with little to spare.
func TestTwoViewersShareALink(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 s")
	}
	onHealthyMachine(t, func(t testing.TB) {
		r := startEngine(t, Config{}).Router("room")
		sent := publishLive(t, r)
		eventually(t, "three layers arrive", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
		const rate = 3_700_000
		relay := emulate(t, r.e, netem.Params{Rate: rate, Delay: 20 * time.Millisecond, QueueDelay: 300 * time.Millisecond})
		a, pa := viewThrough(t, r, relay, "a")
		b, pb := viewThrough(t, r, relay, "b")
		watch(t, a, 15*time.Second)
		start, before := time.Now(), relay.Stats().Down
		bytesOf := func(c *client) uint64 { s, _ := videoState(c); return s.Bytes }
		bytesA, bytesB := bytesOf(a), bytesOf(b)
		watch(t, b, 10*time.Second)
		x, y := float64(bytesOf(a)-bytesA), float64(bytesOf(b)-bytesB)
		after := relay.Stats().Down
		delivered := float64(after.DeliveredBytes-before.DeliveredBytes) + 28*float64(after.Delivered-before.Delivered)
		used := delivered * 8 / time.Since(start).Seconds() / rate
		t.Logf("shares %.2f, %.0f %% of the link used, %d of %d packets lost", min(x, y)/max(x, y), used*100,
			after.QueueFull-before.QueueFull, after.Sent-before.Sent)
		// The targets (0.75, 85 %) are those of the simulations in bwe, which are the same each
		// time; ten seconds of real time are a sample, in which a probe may be under way.
		if min(x, y) < max(x, y)*2/5 || used < 0.6 {
			t.Errorf("one viewer got %.0f bytes, the other %.0f, of %.0f %% of the link", x, y, used*100)
		}
		checkFreeze(t, pa, sent, start, time.Second)
		checkFreeze(t, pb, sent, start, time.Second)
	})
}

// TestPausedVideoComesBack: on a link too narrow for any layer video is paused; when nothing
// but padding tells what the link carries, it still comes back.
func TestPausedVideoComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	for _, tracks := range [][]string{{"cam", "mic"}, {"cam"}} {
		t.Run(tracks[len(tracks)-1], func(t *testing.T) {
			onHealthyMachine(t, func(t testing.TB) {
				r := startEngine(t, Config{}).Router("room")
				publishLive(t, r)
				eventually(t, "three layers arrive", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
				link := netem.Params{Rate: 5_000_000, Delay: 20 * time.Millisecond, QueueDelay: 400 * time.Millisecond}
				c, p, relay := viewLink(t, r, link)
				subscribeAll(c.ep, tracks...)
				untilLayer(t, c, "the highest layer", top)
				link.Rate = 80_000
				if err := relay.SetDown(link); err != nil {
					t.Fatal(err)
				}
				narrowed := time.Now()
				eventually(t, "video is paused", func() bool {
					s, _ := videoState(c)
					return s.Target.Spatial < 0 && s.Reason == ReasonBandwidth
				})
				t.Logf("paused after %v", time.Since(narrowed))
				watch(t, c, 2*time.Second)
				link.Rate = 5_000_000
				if err := relay.SetDown(link); err != nil {
					t.Fatal(err)
				}
				widened, shown := time.Now(), p.shown.count()
				eventually(t, "video comes back", func() bool { return p.shown.count() > shown+30 })
				t.Logf("back after %v", time.Since(widened))
				untilLayer(t, c, "the highest layer again", top)
				t.Logf("highest layer after %v", time.Since(widened))
			})
		})
	}
}

// TestViewersLayerSwitchIsNotSeen is target Q6: up and down at the viewer's wish, without a gap and
// with one keyframe request each.
func TestViewersLayerSwitchIsNotSeen(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	onHealthyMachine(t, func(t testing.TB) {
		r := startEngine(t, Config{}).Router("room")
		sent := publishLive(t, r)
		eventually(t, "three layers arrive", func() bool { return len(r.UpTrack("cam").Encodings()) == 3 })
		c, p, _ := viewLink(t, r, netem.Params{Delay: 20 * time.Millisecond})
		untilLayer(t, c, "the highest layer", top)
		for i, spatial := range []int8{0, 2, 1, 2, 0, 1} {
			before, start := sent.requests.Load(), time.Now()
			c.ep.Subscribe([]Subscription{{TrackID: "cam", MaxWidth: 1920, MaxHeight: 1080, Priority: 3, MaxSpatial: int(spatial)}})
			took := untilLayer(t, c, "the wanted layer", func(s int8) bool { return s == spatial })
			watch(t, c, 500*time.Millisecond)
			n, gap, own := sent.requests.Load()-before, p.shown.gap(start, time.Now()), sent.gap(start, time.Now())
			t.Logf("switch %d, to layer %d: after %v, %d keyframe requests, longest time between frames %v (sent: %v)", i, spatial, took, n, gap, own)
			if n > 1 {
				t.Errorf("switch %d: %d keyframe requests", i, n)
			}
			if gap > 150*time.Millisecond && own < gap/2 {
				t.Errorf("switch %d: nothing new for %v", i, gap)
			}
		}
	})
}

// TestOpenLinkClimbsByProbing: where nothing but the first estimate is in the way of the
// highest layer, probes find that out.
func TestOpenLinkClimbsByProbing(t *testing.T) {
	onHealthyMachine(t, func(t testing.TB) {
		e := startEngine(t, Config{})
		r := e.Router("room")
		_, sources := publishSimulcast(t, r, "cam")
		for _, s := range sources {
			s.size = 1000
		}
		sendAll(t, sources, 10*time.Millisecond) // 0.8, 2.4 and 4.8 Mbit/s: above the first estimate
		c := newClient(t, r, "subscriber", clientOptions{})
		c.recvOnly(0, 1)
		c.negotiate(nil)
		subscribeAll(c.ep, "cam")
		eventually(t, "the top layer is forwarded", currentSpatial(c, 2))
		rec := c.section("0")
		before := rec.count()
		eventually(t, "video goes on", func() bool { return rec.count() > before+100 })
		if s := c.ep.Stats(); s.Estimate < 2_000_000 {
			t.Fatalf("estimate %d", s.Estimate)
		}
		continuous(t, rec.all())
		checkVP8(t, rec.all())
	})
}
