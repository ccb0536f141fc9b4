package netem

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

type got struct {
	at time.Duration
	v  int
}

func newLink(tb testing.TB, p Params, seed uint64) *Link[int] {
	tb.Helper()
	l, err := New[int](p, seed)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// drain receives everything due up to until, each packet at its own time.
func drain(l *Link[int], until time.Duration) []got {
	var out []got
	for {
		at, ok := l.Next()
		if !ok || at > until {
			return out
		}
		for {
			v, ok := l.Receive(at)
			if !ok {
				break
			}
			out = append(out, got{at, v})
		}
	}
}

// feed sends n packets of size bytes, one every gap, and returns the deliveries.
func feed(l *Link[int], n, size int, gap time.Duration) []got {
	var out []got
	for i := range n {
		now := time.Duration(i) * gap
		out = append(out, drain(l, now)...)
		l.Send(now, size, i)
	}
	return append(out, drain(l, math.MaxInt64/2)...)
}

func near(t *testing.T, what string, have, want, tolerance float64) {
	t.Helper()
	if math.Abs(have-want) > tolerance {
		t.Errorf("%s is %v, want %v ± %v", what, have, want, tolerance)
	}
}

func TestPerfectLink(t *testing.T) {
	t.Parallel()
	for i, g := range feed(newLink(t, Params{}, 1), 100, 1000, ms) {
		if g.v != i || g.at != time.Duration(i)*ms {
			t.Fatalf("packet %d delivered as %+v", i, g)
		}
	}
}

func TestDelayIsExact(t *testing.T) {
	t.Parallel()
	for i, g := range feed(newLink(t, Params{Delay: 40 * ms}, 1), 100, 1000, ms) {
		if g.v != i || g.at != time.Duration(i)*ms+40*ms {
			t.Fatalf("packet %d delivered as %+v", i, g)
		}
	}
}

func TestJitterVariesWithoutReordering(t *testing.T) {
	t.Parallel()
	out := feed(newLink(t, Params{Delay: 50 * ms, Jitter: 20 * ms}, 3), 20000, 100, 100*ms)
	var sum, lo, hi float64 = 0, 1e9, 0
	for i, g := range out {
		if g.v != i {
			t.Fatalf("packet %d is in place %d", g.v, i)
		}
		d := (g.at - time.Duration(i)*100*ms).Seconds() * 1000
		sum, lo, hi = sum+d, min(lo, d), max(hi, d)
	}
	near(t, "mean delay (ms)", sum/float64(len(out)), 50, 0.3)
	near(t, "least delay (ms)", lo, 30, 0.1)
	near(t, "greatest delay (ms)", hi, 70, 0.1)
	// Dense packets keep their order too.
	for i, g := range feed(newLink(t, Params{Delay: 50 * ms, Jitter: 20 * ms}, 3), 5000, 100, ms) {
		if g.v != i {
			t.Fatalf("packet %d is in place %d", g.v, i)
		}
	}
}

func TestRandomLoss(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0.001, 0.02, 0.1, 0.5, 1} {
		const n = 200000
		l := newLink(t, Params{Loss: share}, 5)
		out := feed(l, n, 100, ms)
		near(t, "loss", 1-float64(len(out))/n, share, 4*math.Sqrt(share*(1-share)/n)+1e-9)
		if l.Stats().Lost+l.Stats().Delivered != n {
			t.Errorf("counters %+v do not add up to %d", l.Stats(), n)
		}
	}
}

func TestBurstLoss(t *testing.T) {
	t.Parallel()
	const n = 400000
	for _, burst := range []float64{2, 5, 20} {
		out := feed(newLink(t, Params{Loss: 0.05, LossBurst: burst}, 7), n, 100, ms)
		near(t, "loss", 1-float64(len(out))/n, 0.05, 0.006)
		runs, lost, next := 0, 0, 0
		for _, g := range out {
			if g.v > next {
				runs++
				lost += g.v - next
			}
			next = g.v + 1
		}
		near(t, "mean burst", float64(lost)/float64(runs), burst, burst*0.08)
	}
}

func TestRateIsExact(t *testing.T) {
	t.Parallel()
	// 1,222 + 28 bytes are 10,000 bits: 10 ms each at 1 Mbit/s.
	l := newLink(t, Params{Rate: 1e6, Overhead: 28, Delay: 5 * ms}, 1)
	for i, g := range feed(l, 50, 1222, 0) {
		if want := time.Duration(i+1)*10*ms + 5*ms; (g.at-want).Abs() > time.Microsecond || g.v != i {
			t.Fatalf("packet %d delivered as %+v, want at %v", i, g, want)
		}
	}
	if l.Stats().DeliveredBytes != 50*1222 {
		t.Errorf("DeliveredBytes %d", l.Stats().DeliveredBytes)
	}
	// Twice the rate offered: half gets through, at the link's rate.
	l = newLink(t, Params{Rate: 1e6, QueueDelay: 100 * ms}, 1)
	out := feed(l, 4000, 1250, 5*ms)
	last := out[len(out)-1].at.Seconds()
	near(t, "rate (bit/s)", float64(len(out))*1250*8/last, 1e6, 1000)
	near(t, "longest queue (ms)", float64(l.Stats().MaxQueueDelay/ms), 110, 2)
	if l.Stats().QueueFull == 0 {
		t.Error("an overloaded link dropped nothing")
	}
}

func TestQueueLimits(t *testing.T) {
	t.Parallel()
	l := newLink(t, Params{Rate: 1e6, QueueBytes: 10000}, 1)
	for i := range 20 {
		l.Send(0, 1250, i)
	}
	if s := l.Stats(); s.QueueFull != 12 {
		t.Errorf("10,000 bytes held %d packets of 1,250, want 8", 20-s.QueueFull)
	}
	l = newLink(t, Params{Rate: 1e6, QueueDelay: 50 * ms}, 1)
	for i := range 20 {
		l.Send(0, 1250, i)
	}
	if s := l.Stats(); s.QueueFull != 14 {
		t.Errorf("a queue of 50 ms held %d packets of 10 ms, want 6", 20-s.QueueFull)
	}
	if q := l.QueueDelay(); q != 60*ms {
		t.Errorf("QueueDelay %v, want 60 ms", q)
	}
}

func TestRateChangeAppliesToTheQueue(t *testing.T) {
	t.Parallel()
	l := newLink(t, Params{Rate: 1e6}, 1)
	for i := range 4 {
		l.Send(0, 1250, i) // 10 ms each
	}
	if err := l.Set(15*ms, Params{Rate: 10e6}); err != nil { // 1 ms each
		t.Fatal(err)
	}
	want := []time.Duration{10 * ms, 15*ms + 500*time.Microsecond, 16*ms + 500*time.Microsecond, 17*ms + 500*time.Microsecond}
	// The first had already passed the bottleneck at 10 ms, unread.
	for i, g := range drain(l, time.Second) {
		if (g.at - want[i]).Abs() > time.Microsecond {
			t.Errorf("packet %d at %v, want %v", i, g.at, want[i])
		}
	}
	// From unlimited to limited and back, nothing is lost.
	l = newLink(t, Params{Delay: 10 * ms}, 1)
	l.Send(0, 1250, 0)
	_ = l.Set(ms, Params{Rate: 1e5, Delay: 10 * ms})
	l.Send(ms, 1250, 1)
	_ = l.Set(2*ms, Params{Delay: 10 * ms})
	if n := len(drain(l, time.Second)); n != 2 {
		t.Errorf("%d packets after changes of rate, want 2", n)
	}
}

func TestReorderAndDuplicate(t *testing.T) {
	t.Parallel()
	const n = 50000
	late, highest := 0, -1
	for _, g := range feed(newLink(t, Params{Delay: 5 * ms, Reorder: 0.1, ReorderBy: 3 * ms}, 9), n, 100, ms) {
		if g.v < highest {
			late++
			if d := g.at - time.Duration(g.v)*ms; d != 8*ms {
				t.Fatalf("a packet held back took %v, want 8 ms", d)
			}
		}
		highest = max(highest, g.v)
	}
	near(t, "reordered", float64(late)/n, 0.1, 0.006)
	l := newLink(t, Params{Duplicate: 0.2}, 9)
	near(t, "delivered", float64(len(feed(l, n, 100, ms)))/n, 1.2, 0.008)
	if s := l.Stats(); s.Delivered != s.Sent+s.Duplicated {
		t.Errorf("counters %+v do not add up", s)
	}
}

func TestBlackHole(t *testing.T) {
	t.Parallel()
	l := newLink(t, Params{Delay: 10 * ms, Rate: 1e6}, 1)
	for i := range 5 {
		l.Send(0, 1250, i)
	}
	_ = l.Set(25*ms, Params{BlackHole: true})
	l.Send(30*ms, 1250, 5)
	_ = l.Set(40*ms, Params{})
	l.Send(50*ms, 1250, 6)
	out := drain(l, time.Second)
	if len(out) != 1 || out[0].v != 6 {
		t.Fatalf("delivered %v, want only packet 6", out)
	}
	if s := l.Stats(); s.BlackHoled != 6 {
		t.Errorf("BlackHoled %d, want 6", s.BlackHoled)
	}
}

func TestSameSeedSameResult(t *testing.T) {
	t.Parallel()
	p := Params{Delay: 20 * ms, Jitter: 10 * ms, Loss: 0.05, LossBurst: 3, Rate: 2e6, QueueDelay: 50 * ms,
		Reorder: 0.02, ReorderBy: 5 * ms, Duplicate: 0.01}
	a, b := feed(newLink(t, p, 42), 5000, 700, 2*ms), feed(newLink(t, p, 42), 5000, 700, 2*ms)
	if !slices.Equal(a, b) {
		t.Error("the same seed gave two results")
	}
	if slices.Equal(a, feed(newLink(t, p, 43), 5000, 700, 2*ms)) {
		t.Error("another seed gave the same result")
	}
}

// TestConservation: whatever the parameters, no packet is invented, forgotten or
// early, and nothing passes faster than the rate.
func TestConservation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func() Params {
			d := func(max int, name string) time.Duration {
				return time.Duration(rapid.IntRange(0, max).Draw(t, name)) * ms
			}
			f := func(name string) float64 {
				return float64(rapid.SampledFrom([]int{0, 0, 1, 10, 50}).Draw(t, name)) / 100
			}
			return Params{
				Delay: d(100, "delay"), Jitter: d(50, "jitter"), QueueDelay: d(300, "queue"), ReorderBy: d(20, "by"),
				Loss: f("loss"), Reorder: f("reorder"), Duplicate: f("duplicate"), LossBurst: float64(rapid.IntRange(0, 5).Draw(t, "burst")),
				Rate: int64(rapid.SampledFrom([]int{0, 64e3, 1e6, 50e6}).Draw(t, "rate")), QueueBytes: rapid.SampledFrom([]int{0, 3000, 50000}).Draw(t, "bytes"),
				BlackHole: rapid.IntRange(0, 20).Draw(t, "hole") == 0,
			}
		}
		l, err := New[int](draw(), rapid.Uint64().Draw(t, "seed"))
		if err != nil {
			t.Fatal(err)
		}
		sent := map[int]time.Duration{}
		now, n := time.Duration(0), 0
		check := func(out []got) {
			for _, g := range out {
				if at, ok := sent[g.v]; !ok || g.at < at {
					t.Fatalf("packet %d sent at %v (%v) came at %v", g.v, at, ok, g.at)
				}
			}
		}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 20).Draw(t, "gap")) * ms
			check(drain(l, now))
			if rapid.IntRange(0, 30).Draw(t, "change") == 0 {
				if err := l.Set(now, draw()); err != nil {
					t.Fatal(err)
				}
			}
			sent[n] = now
			l.Send(now, rapid.IntRange(1, 1500).Draw(t, "size"), n)
			n++
		}
		check(drain(l, math.MaxInt64/2))
		s := l.Stats()
		if s.Sent+s.Duplicated != s.Delivered+s.Lost+s.QueueFull+s.BlackHoled {
			t.Fatalf("counters do not add up: %+v", s)
		}
		if l.queued != 0 {
			t.Fatalf("%d bytes left in an empty queue", l.queued)
		}
	})
}

func TestParamsAreChecked(t *testing.T) {
	t.Parallel()
	l := newLink(t, Params{}, 1)
	for _, p := range []Params{{Delay: -1}, {Loss: 1.1}, {Loss: math.NaN()}, {Rate: -1}, {Duplicate: -0.1}, {LossBurst: -1}, {QueueBytes: -1}} {
		if _, err := New[int](p, 1); err == nil {
			t.Errorf("New accepted %+v", p)
		}
		if err := l.Set(0, p); err == nil {
			t.Errorf("Set accepted %+v", p)
		}
	}
}

func BenchmarkLink(b *testing.B) {
	l := newLink(b, Params{Delay: 20 * ms, Jitter: 5 * ms, Loss: 0.01, Rate: 10e6, QueueDelay: 100 * ms}, 1)
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		now += ms
		l.Send(now, 1200, 1)
		for {
			if _, ok := l.Receive(now); !ok {
				break
			}
		}
	}
}
