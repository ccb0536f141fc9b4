package bwe

import (
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/netem"
)

// thin leaves every third of a list under the race detector, which makes simulations take ten
// times as long and finds nothing new in more of them.
func thin[T any](all []T) (some []T) {
	info, ok := debug.ReadBuildInfo()
	if !ok || !slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" }) {
		return all
	}
	for i := 0; i < len(all); i += 3 {
		some = append(some, all[i])
	}
	return some
}

// seeds are 0 to n-1, thinned.
func seeds(n int) (list []uint64) {
	for i := range uint64(n) {
		list = append(list, i)
	}
	return thin(list)
}

// join makes flow f begin at a moment of its own, up to 10 s from now.
func (w *world) join(f *flow, rng *rand.Rand) {
	f.begins = w.now + time.Duration(rng.IntN(10000))*ms
	f.frame = f.begins + time.Duration(rng.IntN(33))*ms
	f.audio = f.begins + time.Duration(rng.IntN(20))*ms
}

// TestTwoViewersShare is target Q3, with layers: whenever the second joins, both get the
// highest one where the link carries it twice.
func TestTwoViewersShare(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(10) {
		a, b := &flow{choose: viewer(t)}, &flow{choose: viewer(t)}
		w := newWorld(t, netem.Params{Rate: 3.5e6, Delay: 25 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 25 * ms}, a, b)
		w.join(b, rand.New(rand.NewPCG(seed, 0)))
		w.run(b.begins - w.now + 15*time.Second)
		ra, rb := a.bytes, b.bytes
		w.run(20 * time.Second)
		x, y := float64(a.bytes-ra), float64(b.bytes-rb)
		share, used := min(x, y)/max(x, y), (x+y)*8/20/3.5e6
		if share < 0.75 || used < 0.85 {
			t.Errorf("seed %d: shares %.2f, %.2f of the link used; %+v, %+v", seed, share, used, a.est.Stats(), b.est.Stats())
		}
	}
}

// TestGreedyFlowsShare is target Q3 without layers: on average, and nobody starves.
func TestGreedyFlowsShare(t *testing.T) {
	t.Parallel()
	for _, rate := range []int64{1.5e6, 3e6, 8e6} {
		runs := seeds(8)
		n := float64(len(runs))
		sum, worst, used := 0.0, 1.0, 0.0
		for _, seed := range runs {
			a, b := &flow{choose: greedy(10e6)}, &flow{choose: greedy(10e6)}
			w := newWorld(t, netem.Params{Rate: rate, Delay: 25 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 25 * ms}, a, b)
			w.join(b, rand.New(rand.NewPCG(seed, 0)))
			w.run(b.begins - w.now + 15*time.Second)
			ra, rb := a.bytes, b.bytes
			w.run(20 * time.Second)
			x, y := float64(a.bytes-ra), float64(b.bytes-rb)
			sum += min(x, y) / max(x, y) / n
			worst = min(worst, min(x, y)/max(x, y))
			used += (x + y) * 8 / 20 / float64(rate) / n
		}
		t.Logf("%.1f Mbit/s: shares %.2f on average, %.2f at worst, %.0f %% used", float64(rate)/1e6, sum, worst, used*100)
		if sum < 0.75 || worst < 0.25 || used < 0.95 {
			t.Errorf("%.1f Mbit/s: shares %.2f on average, %.2f at worst, %.2f used", float64(rate)/1e6, sum, worst, used)
		}
	}
}

// TestDownloadShares puts a TCP-like download beside a greedy flow: neither starves, and
// the queue is short again when the download has ended.
func TestDownloadShares(t *testing.T) {
	t.Parallel()
	names := map[netem.Growth]string{netem.Reno: "Reno", netem.Cubic: "CUBIC"}
	for _, g := range []netem.Growth{netem.Reno, netem.Cubic} {
		for _, queue := range thin([]time.Duration{50 * ms, 100 * ms, 200 * ms, 300 * ms, 500 * ms}) {
			for _, last := range []string{"download", "media"} {
				f, d := &flow{choose: greedy(10e6)}, &download{Cross: netem.NewCross(g)}
				w := newWorld(t, netem.Params{Rate: 4e6, Delay: 25 * ms, QueueDelay: queue}, netem.Params{Delay: 25 * ms}, f)
				if last == "download" {
					w.run(10 * time.Second)
					w.cross = []*download{d}
				} else {
					w.cross = []*download{d}
					f.begins = w.now + 10*time.Second
					f.frame, f.audio = f.begins, f.begins
					w.run(10 * time.Second)
				}
				w.run(30 * time.Second)
				mine, theirs := f.bytes, d.received
				w.run(30 * time.Second)
				media := float64(f.bytes-mine) * 8 / 30 / 4e6
				other := float64(d.received-theirs) * 8 / 30 / 4e6
				d.stopped = true
				back := w.until(30*time.Second, func() bool { return f.est.Estimate() > 3e6 && f.est.Stats().QueueDelay < congestedQueue })
				w.run(10 * time.Second)
				f.delays = nil
				w.run(20 * time.Second)
				late := percentile(f.delays, 50)
				t.Logf("%s, queue %v, %s last: media %.2f, download %.2f of 4 Mbit/s; alone again after %v, then p50 delay %v",
					names[g], queue, last, media, other, back, late)
				if min(media, other) < 0.13 || media+other < 0.9 {
					t.Errorf("%s, queue %v, %s last: media %.2f, download %.2f", names[g], queue, last, media, other)
				}
				if back > 15*time.Second || late > 100*ms || f.est.Stats().Competing && late > 80*ms {
					t.Errorf("%s, queue %v, %s last: alone again after %v, p50 delay %v; %+v", names[g], queue, last, back, late, f.est.Stats())
				}
			}
		}
	}
}

// TestAloneHasNoRivals: what only this flow, or the link itself, does is not taken for
// somebody else's traffic for long.
func TestAloneHasNoRivals(t *testing.T) {
	t.Parallel()
	f := &flow{choose: greedy(10e6)}
	p := netem.Params{Rate: 5e6, Delay: 25 * ms, QueueDelay: 400 * ms}
	w := newWorld(t, p, netem.Params{Delay: 25 * ms}, f)
	rng := rand.New(rand.NewPCG(3, 0))
	competing := 0
	w.every = func() {
		if f.est.Stats().Competing {
			competing++
		}
	}
	for range 20 {
		p.Rate = int64(500e3 + rng.IntN(5e6))
		if err := w.down.Set(w.now, p); err != nil {
			t.Fatal(err)
		}
		w.run(10 * time.Second)
	}
	t.Logf("taken for shared %d ms of 200 s of a link that changes", competing)
	if competing > 20_000 {
		t.Errorf("competed with nobody for %d ms", competing)
	}
}

// TestBetweenTwoLayers is a link that carries one layer but not the next: it does not come
// and go.
func TestBetweenTwoLayers(t *testing.T) {
	t.Parallel()
	for _, rate := range thin([]int64{700e3, 1e6, 1.2e6, 1.5e6, 1.6e6, 1.7e6}) {
		f := &flow{choose: viewer(t)}
		w := newWorld(t, netem.Params{Rate: rate, Delay: 25 * ms, QueueDelay: 300 * ms}, netem.Params{Delay: 25 * ms}, f)
		w.run(20 * time.Second)
		switches, last := 0, f.video
		w.every = func() {
			if f.video != last {
				switches++
				last = f.video
			}
		}
		lost := w.down.Stats().QueueFull
		w.run(3 * time.Minute)
		t.Logf("%d kbit/s: %.1f switches a minute, layer of %.0f kbit/s, %d packets lost", rate/1000, float64(switches)/3, last/1000, w.down.Stats().QueueFull-lost)
		if switches > 6 {
			t.Errorf("%d kbit/s: %d switches in 3 minutes; %+v", rate/1000, switches, f.est.Stats())
		}
	}
}
