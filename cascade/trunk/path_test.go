package trunk

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/netem"
)

// TestLongerPathIsNoNarrowOne: a path that becomes longer, for a moment or for good, or that was idle, costs no video.
func TestLongerPathIsNoNarrowOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		longer  time.Duration // one way
		lasts   time.Duration
		idle    time.Duration // before
		backlog int           // packets that are sent at once at first
	}{
		{"100 ms longer for 4 s", 100 * time.Millisecond, 4 * time.Second, 0, 0},
		{"50 ms longer for 100 ms", 50 * time.Millisecond, 100 * time.Millisecond, 0, 0},
		{"50 ms longer for 200 ms", 50 * time.Millisecond, 200 * time.Millisecond, 0, 0},
		{"200 ms longer for 300 ms", 200 * time.Millisecond, 300 * time.Millisecond, 0, 0},
		{"idle, then a replay", 0, 0, 20 * time.Second, 45},
		{"idle and longer, then a replay", 100 * time.Millisecond, time.Second, 5 * time.Second, 45},
	} {
		for seed := range uint64(8) {
			link := netem.Params{Delay: 40 * time.Millisecond}
			w := newWorld(t, link, link, seed, nil)
			mic := &source{label: 1, class: Audio, size: 120, n: 1, period: 20 * ms}
			camera := &source{label: 2, class: Base, size: 940, n: 3, period: 33 * ms}
			set := func(d time.Duration) {
				p := link
				p.Delay += d
				for _, e := range []*end{w.a, w.b} {
					if err := e.out.Set(time.Duration(w.now), p); err != nil {
						t.Fatal(err)
					}
				}
			}
			send := func() {
				mic.send(w.a)
				camera.send(w.a)
				clear(mic.sentAt)
				clear(camera.sentAt)
			}
			if c.idle == 0 {
				w.every = send
			}
			w.run(5*time.Second + c.idle + time.Duration(seed)*7*time.Millisecond)
			for n := 0; n < 3 && c.longer > 0; n++ {
				set(c.longer)
				w.run(c.lasts)
				set(0)
				w.run(2 * time.Second)
			}
			w.every = send
			camera.send(w.a)
			for range c.backlog {
				camera.ext++
				w.a.put(2, camera.ext, Base, 940)
			}
			w.run(5 * time.Second)
			if n := w.a.counts.shed + w.a.counts.overflowed; n > 0 {
				t.Errorf("%s, seed %d: %d packets shed, the budget is %d", c.name, seed, n, w.a.est.Estimate())
			}
		}
	}
}
