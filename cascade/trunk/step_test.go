package trunk

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/netem"
)

// stepped is what a run over a path that becomes longer brings about.
type stepped struct {
	gap     time.Duration // longest time between two packets of one label
	shed    uint64
	missing int
}

func runStepped(t *testing.T, link netem.Params, by time.Duration, seed uint64) stepped {
	t.Helper()
	w := newWorld(t, link, link, seed, nil)
	cameras := []*camera{newCamera(10, w.now), newCamera(20, w.now+11*ms), newCamera(30, w.now+23*ms)}
	mics := []*source{}
	for i := range uint32(3) {
		mics = append(mics, &source{label: 1 + i, class: Audio, size: 120, n: 1, period: 20 * ms})
	}
	got, last := map[uint32]map[uint64]bool{}, map[uint32]int64{}
	var r stepped
	start := int64(0)
	w.b.take = func(h record.Header, _ []byte) bool {
		if got[h.Label] == nil {
			got[h.Label] = map[uint64]bool{}
		}
		got[h.Label][h.Ext] = true
		if before := last[h.Label]; start != 0 && before != 0 && time.Duration(w.now-before) > r.gap {
			r.gap = time.Duration(w.now - before)
		}
		last[h.Label] = w.now
		return true
	}
	w.every = func() {
		for _, m := range mics {
			m.send(w.a)
		}
		for _, c := range cameras {
			c.send(w.a)
		}
	}
	w.run(15 * time.Second)
	start = w.now
	for _, e := range []*end{w.a, w.b} {
		p := e.out.Params()
		p.Delay += by
		if err := e.out.Set(time.Duration(w.now), p); err != nil {
			t.Fatal(err)
		}
	}
	w.run(30 * time.Second)
	w.every = nil
	w.run(2 * time.Second)
	sources := mics
	for _, c := range cameras {
		sources = append(sources, c.sources[:]...)
	}
	for _, s := range sources {
		for ext := range s.sentAt {
			if !got[s.label][ext] {
				r.missing++
			}
		}
	}
	r.shed = w.a.counts.shed + w.a.counts.overflowed
	return r
}

// TestStep: a path that becomes longer, and stays so, costs what it is longer by, and no trunk.
func TestStep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		link netem.Params
		by   time.Duration
	}{
		{"80 ms RTT and 200 more", netem.Params{Delay: 40 * time.Millisecond}, 100 * time.Millisecond},
		{"the same, 100 Mbit/s", netem.Params{Delay: 40 * time.Millisecond, Rate: 100_000_000, QueueDelay: 200 * time.Millisecond}, 100 * time.Millisecond},
		{"80 ms RTT and 60 more", netem.Params{Delay: 40 * time.Millisecond}, 30 * time.Millisecond},
		{"80 ms RTT and 400 more", netem.Params{Delay: 40 * time.Millisecond}, 200 * time.Millisecond},
		{"1 ms RTT and 200 more", netem.Params{Delay: 500 * time.Microsecond}, 100 * time.Millisecond},
		{"80 ms RTT and 200 more, jitter, loss", netem.Params{Delay: 40 * time.Millisecond, Jitter: 3 * time.Millisecond, Loss: 0.01}, 100 * time.Millisecond},
		{"200 ms RTT and 100 less", netem.Params{Delay: 100 * time.Millisecond}, -50 * time.Millisecond},
	} {
		for seed := range uint64(few(3)) {
			r := runStepped(t, c.link, c.by, seed+1)
			t.Logf("%s: %v without a packet, %d shed, %d missing", c.name, r.gap, r.shed, r.missing)
			if r.gap > max(c.by, 0)+400*time.Millisecond || r.shed > 0 || r.missing > 5 {
				t.Errorf("%s, seed %d: %+v", c.name, seed+1, r)
			}
		}
	}
}
