package bwe

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/netem"
)

func TestClimbsToTheTopOnAWideLink(t *testing.T) {
	t.Parallel()
	f := &flow{choose: simulcast()}
	w := newWorld(t, netem.Params{Rate: 20e6, Delay: 20 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 20 * ms}, f)
	took := w.until(10*time.Second, func() bool { return f.video == 1_500_000 })
	if took > 1500*ms {
		t.Errorf("top layer after %v, want within 1.5 s; %+v", took, f.est.Stats())
	}
	left := 0
	w.every = func() {
		if f.video < 1_500_000 {
			left++
		}
	}
	w.run(60 * time.Second)
	if left > 0 {
		t.Errorf("left the top layer for %d ms of 60 s; %+v", left, f.est.Stats())
	}
}

func TestNarrowLink(t *testing.T) {
	t.Parallel()
	f := &flow{choose: simulcast()}
	w := newWorld(t, netem.Params{Rate: 500e3, Delay: 20 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 20 * ms}, f)
	w.run(5 * time.Second)
	f.delays = nil
	before := w.down.Stats().QueueFull
	high := 0
	w.every = func() {
		if f.video > 150_000 {
			high++
		}
	}
	w.run(60 * time.Second)
	if high > 0 {
		t.Errorf("%d ms of 60 s on a layer that does not fit; %+v", high, f.est.Stats())
	}
	if d := percentile(f.delays, 95); d > 120*ms {
		t.Errorf("p95 one-way delay %v, want at most 120 ms", d)
	}
	if n := w.down.Stats().QueueFull - before; n > 0 {
		t.Errorf("%d packets lost in the queue after settling", n)
	}
	// And it climbs when the link widens.
	if err := w.down.Set(w.now, netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 300 * ms}); err != nil {
		t.Fatal(err)
	}
	w.every = nil
	if took := w.until(30*time.Second, func() bool { return f.video == 1_500_000 }); took > 14*time.Second {
		t.Errorf("top layer %v after the link widened; %+v", took, f.est.Stats())
	} else {
		t.Logf("top layer %v after the link widened", took)
	}
}

// TestDrop is target Q1 and Q2: 5 to 1 Mbit/s and back.
func TestDrop(t *testing.T) {
	t.Parallel()
	f := &flow{choose: simulcast()}
	p := netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 500 * ms}
	w := newWorld(t, p, netem.Params{Delay: 20 * ms}, f)
	w.run(15 * time.Second)
	if f.video != 1_500_000 {
		t.Fatalf("not on the top layer to begin with: %+v", f.est.Stats())
	}
	p.Rate = 1e6
	_ = w.down.Set(w.now, p)
	took := w.until(5*time.Second, func() bool { return f.video < 1_500_000 })
	t.Logf("left the top layer after %v, estimate %d", took, f.est.Estimate())
	if took > 1500*ms {
		t.Errorf("left the top layer after %v, want 1.5 s; %+v", took, f.est.Stats())
	}
	w.run(2*time.Second - took)
	f.delays = nil
	w.run(8 * time.Second)
	if d := percentile(f.delays, 95); d > 120*ms {
		t.Errorf("p95 one-way delay %v after the drop, want at most 120 ms; %+v", d, f.est.Stats())
	}
	if f.video == 1_500_000 {
		t.Errorf("back on a layer that does not fit")
	}
	p.Rate = 5e6
	_ = w.down.Set(w.now, p)
	full := w.down.Stats().QueueFull
	took = w.until(20*time.Second, func() bool { return f.video == 1_500_000 })
	t.Logf("top layer %v after the link came back", took)
	if took > 8*time.Second {
		t.Errorf("top layer %v after the link came back, want 8 s; %+v", took, f.est.Stats())
	}
	w.run(5 * time.Second)
	if w.down.Stats().QueueFull != full || f.video != 1_500_000 {
		t.Errorf("overshoot: %d packets lost, layer %v", w.down.Stats().QueueFull-full, f.video)
	}
}

// TestRandomLoss is target Q4's link: loss that is not congestion.
func TestRandomLoss(t *testing.T) {
	t.Parallel()
	for _, loss := range []float64{0.02, 0.1, 0.2} {
		f := &flow{choose: simulcast()}
		w := newWorld(t, netem.Params{Rate: 5e6, Delay: 40 * ms, Loss: loss, QueueDelay: 300 * ms}, netem.Params{Delay: 40 * ms}, f)
		w.run(15 * time.Second)
		on := 0
		w.every = func() {
			if f.video == 1_500_000 {
				on++
			}
		}
		w.run(60 * time.Second)
		t.Logf("loss %v: top layer %d %% of the time", loss, on*100/60000)
		if on < 60000*90/100 {
			t.Errorf("loss %v: top layer for only %d of 60,000 ms; %+v", loss, on, f.est.Stats())
		}
	}
}

func TestJitterIsNotCongestion(t *testing.T) {
	t.Parallel()
	for _, jitter := range []time.Duration{5 * ms, 15 * ms, 30 * ms} {
		f := &flow{choose: simulcast()}
		w := newWorld(t, netem.Params{Rate: 10e6, Delay: 40 * ms, Jitter: jitter}, netem.Params{Delay: 40 * ms}, f)
		w.run(15 * time.Second)
		on := 0
		w.every = func() {
			if f.video == 1_500_000 {
				on++
			}
		}
		w.run(60 * time.Second)
		t.Logf("jitter %v: top layer %d %% of the time", jitter, on*100/60000)
		if on < 60000*90/100 {
			t.Errorf("jitter %v: top layer for only %d of 60,000 ms; %+v", jitter, on, f.est.Stats())
		}
	}
}

func TestGreedyFlowUsesTheLinkAndKeepsTheQueueShort(t *testing.T) {
	t.Parallel()
	for _, rate := range []int64{300e3, 1e6, 2e6, 8e6} {
		f := &flow{choose: greedy(20e6)}
		w := newWorld(t, netem.Params{Rate: rate, Delay: 25 * ms, QueueDelay: 400 * ms}, netem.Params{Delay: 25 * ms}, f)
		w.run(15 * time.Second)
		before, full := w.down.Stats().DeliveredBytes, w.down.Stats().QueueFull
		sent := w.down.Stats().Sent
		f.delays = nil
		w.run(30 * time.Second)
		used := float64(w.down.Stats().DeliveredBytes-before) * 8 / 30 / float64(rate)
		lost := float64(w.down.Stats().QueueFull-full) / float64(w.down.Stats().Sent-sent)
		t.Logf("%d kbit/s: used %.0f %%, p50 delay %v, p95 %v, lost %.2f %%", rate/1000, used*100,
			percentile(f.delays, 50), percentile(f.delays, 95), lost*100)
		if used < 0.8 {
			t.Errorf("%d kbit/s: used %.0f %% of the link; %+v", rate/1000, used*100, f.est.Stats())
		}
		if d := percentile(f.delays, 95); d > 250*ms {
			t.Errorf("%d kbit/s: p95 one-way delay %v", rate/1000, d)
		}
		if lost > 0.01 {
			t.Errorf("%d kbit/s: lost %.1f %%", rate/1000, lost*100)
		}
	}
}

// TestTwoFlowsShare is target Q3.
func TestTwoFlowsShare(t *testing.T) {
	t.Parallel()
	a, b := &flow{choose: greedy(5e6)}, &flow{choose: greedy(5e6)}
	w := newWorld(t, netem.Params{Rate: 3e6, Delay: 25 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 25 * ms}, a, b)
	w.run(15 * time.Second)
	ra, rb := a.received, b.received
	before := w.down.Stats().DeliveredBytes
	w.run(30 * time.Second)
	used := float64(w.down.Stats().DeliveredBytes-before) * 8 / 30 / 3e6
	x, y := float64(a.received-ra), float64(b.received-rb)
	t.Logf("shares %.2f, link used %.0f %%", min(x, y)/max(x, y), used*100)
	if min(x, y)/max(x, y) < 0.6 {
		t.Errorf("shares %.0f and %.0f packets", x, y)
	}
	if used < 0.8 {
		t.Errorf("only %.0f %% of the link used", used*100)
	}
}

func TestBlackHole(t *testing.T) {
	t.Parallel()
	f := &flow{choose: simulcast()}
	p := netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 300 * ms}
	w := newWorld(t, p, netem.Params{Delay: 20 * ms}, f)
	w.run(10 * time.Second)
	_ = w.down.Set(w.now, netem.Params{BlackHole: true})
	w.run(6 * time.Second)
	if f.video == 1_500_000 || f.est.Stats().Timeouts == 0 {
		t.Errorf("still on the top layer after 6 s of nothing: %+v", f.est.Stats())
	}
	_ = w.down.Set(w.now, p)
	if took := w.until(30*time.Second, func() bool { return f.video == 1_500_000 }); took > 12*time.Second {
		t.Errorf("top layer %v after the hole; %+v", took, f.est.Stats())
	} else {
		t.Logf("top layer %v after the hole", took)
	}
}

// TestSilenceEndsWithoutMedia: everything was paused during a black hole, so only
// probes can find out that it is over.
func TestSilenceEndsWithoutMedia(t *testing.T) {
	t.Parallel()
	paused := false
	inner := simulcast()
	f := &flow{choose: func(f *flow, estimate float64) float64 {
		v := inner(f, estimate)
		if paused {
			f.audio = 1 << 62
			f.est.SetDemand(Demand{Next: 200_000, Top: 1_700_000})
			return 0
		}
		return v
	}}
	p := netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 300 * ms}
	w := newWorld(t, p, netem.Params{Delay: 20 * ms}, f)
	w.run(10 * time.Second)
	_ = w.down.Set(w.now, netem.Params{BlackHole: true})
	w.run(2 * time.Second)
	paused = true
	w.run(20 * time.Second)
	if e := f.est.Estimate(); e > 500_000 {
		t.Errorf("estimate %d after 22 s of nothing", e)
	}
	_ = w.down.Set(w.now, p)
	if took := w.until(30*time.Second, func() bool { return f.est.Estimate() > 1_500_000 }); took > 8*time.Second {
		t.Errorf("estimate %d, %v after the hole; %+v", f.est.Estimate(), took, f.est.Stats())
	}
}

// TestOneLayerStartsAboveTheEstimate: a stream without layers is sent whole from
// the start; the estimate must follow what evidently arrives.
func TestOneLayerStartsAboveTheEstimate(t *testing.T) {
	t.Parallel()
	f := &flow{choose: func(f *flow, _ float64) float64 {
		f.est.SetDemand(Demand{})
		return 2_000_000
	}}
	w := newWorld(t, netem.Params{Rate: 10e6, Delay: 20 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 20 * ms}, f)
	if took := w.until(10*time.Second, func() bool { return f.est.Estimate() > 1_900_000 }); took > 2*time.Second {
		t.Errorf("estimate %d after %v; %+v", f.est.Estimate(), took, f.est.Stats())
	}
}

// TestPausedInCongestion: everything was paused with the queue full, so no feedback tells
// that it has drained.
func TestPausedInCongestion(t *testing.T) {
	t.Parallel()
	paused := false
	inner := simulcast()
	f := &flow{choose: func(f *flow, estimate float64) float64 {
		v := inner(f, estimate)
		if paused {
			f.audio = 1 << 62
			f.est.SetDemand(Demand{Next: 200_000, Top: 1_700_000})
			return 0
		}
		return v
	}}
	p := netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 500 * ms}
	w := newWorld(t, p, netem.Params{Delay: 20 * ms}, f)
	w.run(10 * time.Second)
	narrow := p
	narrow.Rate = 80e3
	_ = w.down.Set(w.now, narrow)
	w.until(5*time.Second, func() bool { return f.est.Stats().QueueDelay > 300*ms })
	paused = true
	w.run(3 * time.Second)
	_ = w.down.Set(w.now, p)
	if took := w.until(30*time.Second, func() bool { return f.est.Estimate() > 1_500_000 }); took > 10*time.Second {
		t.Errorf("estimate %d, %v after the link widened; %+v", f.est.Estimate(), took, f.est.Stats())
	}
}

// TestReorderingIsNotCongestion: packets that others overtake, by up to 50 ms, are neither
// loss nor delay.
func TestReorderingIsNotCongestion(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{10 * ms, 30 * ms, 50 * ms} {
		f := &flow{choose: viewer(t)}
		w := newWorld(t, netem.Params{Rate: 5e6, Delay: 25 * ms, QueueDelay: 300 * ms, Reorder: 0.1, ReorderBy: by}, netem.Params{Delay: 25 * ms}, f)
		w.run(10 * time.Second)
		on := 0
		w.every = func() {
			if f.video == 1_500_000 {
				on++
			}
		}
		w.run(60 * time.Second)
		t.Logf("10 %% late by %v: top layer %d %% of the time; %+v", by, on*100/60000, f.est.Stats())
		if on < 60000*99/100 {
			t.Errorf("10 %% late by %v: top layer for only %d of 60,000 ms", by, on)
		}
	}
}

// TestOtherPath: the packets take another way, with the same rate and another delay, as when a client
// goes over to a relay; who has chosen it says so. What was known of the way before is no measure.
func TestOtherPath(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{5 * ms, 80 * ms, 150 * ms, 220 * ms, 400 * ms} {
		f := &flow{choose: viewer(t)}
		w := newWorld(t, netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 20 * ms}, f)
		w.run(15 * time.Second)
		if f.video < 1_500_000 {
			t.Fatalf("not on the top layer before; %+v", f.est.Stats())
		}
		if err := w.down.Set(w.now, netem.Params{Rate: 5e6, Delay: delay, QueueDelay: 300 * ms}); err != nil {
			t.Fatal(err)
		}
		f.est.Rerouted(w.now)
		lower := 0
		w.every = func() {
			if f.video < 1_500_000 {
				lower++
			}
		}
		w.run(30 * time.Second)
		if lower > 0 {
			t.Errorf("%v instead of 20 ms: off the top layer for %d ms of 30 s; %+v", delay, lower, f.est.Stats())
		}
	}
}

// TestAfterAPause: what the delay was before nothing was sent for a while is no measure of it: clocks
// drift, 50 µs a second are 180 ms in an hour.
func TestAfterAPause(t *testing.T) {
	t.Parallel()
	for _, drift := range []time.Duration{0, 80 * ms, 180 * ms, 500 * ms} {
		paused, inner := false, viewer(t)
		f := &flow{choose: func(f *flow, estimate float64) float64 {
			v := inner(f, estimate)
			if paused {
				f.audio = f.now + 20*ms
				f.est.SetDemand(Demand{})
				return 0
			}
			return v
		}}
		w := newWorld(t, netem.Params{Rate: 5e6, Delay: 20 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 20 * ms}, f)
		w.run(15 * time.Second)
		paused = true
		w.run(time.Minute)
		if err := w.down.Set(w.now, netem.Params{Rate: 5e6, Delay: 20*ms + drift, QueueDelay: 300 * ms}); err != nil {
			t.Fatal(err)
		}
		paused = false
		lower := 0
		w.every = func() {
			if f.video < 1_500_000 {
				lower++
			}
		}
		w.run(30 * time.Second)
		if lower > 200 {
			t.Errorf("off the top layer for %d ms of 30 s, the clocks %v apart; %+v", lower, drift, f.est.Stats())
		}
	}
}
