package trunk

import (
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/netem"
)

// TestStarvedSender: a node that gets to run only now and then sends all that it is given, as
// long as the path carries it.
func TestStarvedSender(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		runs, every time.Duration
		b           bool
	}{
		{"2 ms of 20", 2 * time.Millisecond, 20 * time.Millisecond, false},
		{"3 ms of 40", 3 * time.Millisecond, 40 * time.Millisecond, false},
		{"6 ms of 100, both", 6 * time.Millisecond, 100 * time.Millisecond, true},
	} {
		link := netem.Params{Delay: time.Millisecond, Rate: 1_000_000_000}
		w := newWorld(t, link, link, 1, nil)
		s := &source{label: 7, class: Base, size: 1100, n: 7, period: 7 * ms / 5} // 5,000 packets/s
		w.every = func() {
			s.send(w.a)
			clear(s.sentAt)
		}
		start := w.now
		w.held = func(e *end) bool { return (e == w.a || c.b) && (w.now-start)%int64(c.every) >= int64(c.runs) }
		w.run(few(20 * time.Second))
		w.held, w.every = nil, nil
		w.run(time.Second)
		n := w.a.counts
		t.Logf("%s: %d packets came, %d shed, %d did not fit the queue, budget %d", c.name, w.b.counts.mediaReceived, n.shed, n.overflowed, w.a.est.Estimate())
		if n.shed+n.overflowed > 0 {
			t.Errorf("%s: %d packets shed, %d did not fit the queue", c.name, n.shed, n.overflowed)
		}
	}
}
