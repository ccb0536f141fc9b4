package nack

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/media/netem"
)

const ms = time.Millisecond

func generator(tb testing.TB, cfg Config) *Generator {
	tb.Helper()
	g, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func TestScripts(t *testing.T) {
	t.Parallel()
	type step struct {
		at   time.Duration
		recv []uint64
		want []uint16
	}
	for _, tc := range []struct {
		name  string
		cfg   Config
		steps []step
	}{
		{"nothing lost", Config{}, []step{{0, []uint64{1, 2, 3, 4, 5}, nil}, {500 * ms, nil, nil}}},
		{"start is no gap", Config{}, []step{{0, []uint64{1000}, nil}, {500 * ms, nil, nil}}},
		{"reordering asks for nothing", Config{}, []step{
			{0, []uint64{1, 3}, nil}, {2 * ms, []uint64{4}, nil}, {5 * ms, []uint64{2}, nil}, {500 * ms, nil, nil}}},
		{"three later packets", Config{}, []step{{0, []uint64{1, 3, 4, 5}, []uint16{2}}}},
		{"or the wait", Config{}, []step{{0, []uint64{1, 3}, nil}, {9 * ms, nil, nil}, {10 * ms, nil, []uint16{2}}}},
		{"again after 1.25 RTT", Config{RTT: 100 * ms}, []step{
			{0, []uint64{1, 5, 6, 7}, []uint16{2, 3, 4}}, {124 * ms, nil, nil},
			{125 * ms, nil, []uint16{2, 3, 4}}, {130 * ms, []uint64{3}, nil}, {250 * ms, nil, []uint16{2, 4}}}},
		{"tries are limited", Config{RTT: 40 * ms, MaxTries: 2}, []step{
			{0, []uint64{1, 3, 4, 5}, []uint16{2}}, {50 * ms, nil, []uint16{2}}, {100 * ms, nil, nil}, {200 * ms, nil, nil}}},
		{"age is limited", Config{MaxAge: 60 * ms, RTT: 40 * ms}, []step{
			{0, []uint64{1, 3, 4, 5}, []uint16{2}}, {50 * ms, nil, []uint16{2}}, {100 * ms, nil, nil}}},
		{"wire sequences wrap", Config{}, []step{
			{0, []uint64{65534, 65539}, []uint16{65535, 0}}, {10 * ms, nil, []uint16{1, 2}}}},
		{"answers are limited", Config{MaxPerCall: 2}, []step{
			{0, []uint64{1, 6, 7, 8}, []uint16{2, 3}}, {1 * ms, nil, []uint16{4, 5}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := generator(t, tc.cfg)
			for _, s := range tc.steps {
				for _, seq := range s.recv {
					g.Receive(seq, s.at)
				}
				if got := g.Due(s.at, nil); !slices.Equal(got, s.want) {
					t.Fatalf("at %v: requests %v, want %v", s.at, got, s.want)
				}
			}
		})
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	g := generator(t, Config{MaxMissing: 100})
	g.Receive(1, 0)
	if g.Receive(1000, 0) {
		t.Fatal("a gap of 998 packets was taken for loss")
	}
	if got := g.Due(time.Second/2, nil); len(got) != 0 {
		t.Fatalf("asked for %v after an outage", got)
	}
	if !g.Receive(1061, 0) {
		t.Fatal("60 missing packets are within the limit")
	}
	if g.Receive(1122, 0) {
		t.Fatal("120 missing packets are above the limit")
	}
	if g.Missing() != 100 {
		t.Fatalf("%d missing, want 100", g.Missing())
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{MaxTries: -1}, {MaxAge: -1}, {MinInterval: 2, MaxInterval: 1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// TestProperties drives a Generator over a lossy, reordering link with an honest
// answerer and checks what must hold whatever happens.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			ReorderPackets: rapid.IntRange(1, 8).Draw(t, "reorder"),
			MaxTries:       rapid.IntRange(1, 5).Draw(t, "tries"),
			MaxMissing:     rapid.IntRange(4, 64).Draw(t, "limit"),
			Separate:       rapid.Bool().Draw(t, "separate"),
			RTT:            time.Duration(rapid.IntRange(1, 300).Draw(t, "rtt")) * ms,
		}
		g, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		interval := min(max(cfg.RTT+cfg.RTT/4, DefaultMinInterval), DefaultMaxInterval)
		received := map[uint16]bool{}
		lastAsked := map[uint16]time.Duration{}
		asked := map[uint16]int{}
		now, seq := time.Duration(0), uint64(rapid.IntRange(0, 70000).Draw(t, "start"))
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 30).Draw(t, "gap")) * ms
			seq += uint64(rapid.SampledFrom([]int{1, 1, 1, 1, 2, 3, 10}).Draw(t, "jump"))
			in := seq
			if rapid.IntRange(0, 9).Draw(t, "late") == 0 {
				in -= min(in, uint64(rapid.IntRange(0, 20).Draw(t, "by")))
			}
			if rapid.IntRange(0, 9).Draw(t, "repaired") == 0 {
				g.Repaired(in, now)
			} else {
				g.Receive(in, now)
			}
			received[uint16(in)] = true
			for _, s := range g.Due(now, nil) {
				if received[s] {
					t.Fatalf("asked for %d, which has come", s)
				}
				if asked[s] > 0 && now-lastAsked[s] < interval {
					t.Fatalf("asked for %d again after %v, interval is %v", s, now-lastAsked[s], interval)
				}
				if asked[s]++; asked[s] > cfg.MaxTries {
					t.Fatalf("asked for %d %d times", s, asked[s])
				}
				lastAsked[s] = now
			}
			if g.Missing() > cfg.MaxMissing {
				t.Fatalf("%d missing, limit %d", g.Missing(), cfg.MaxMissing)
			}
			if next, ok := g.Next(); ok && next < now-DefaultMaxAge {
				t.Fatalf("Next is %v at %v: a packet was forgotten", next, now)
			}
			st := g.Stats()
			if st.Missing != st.Recovered+st.Reordered+st.Needless+st.GivenUp+uint64(g.Missing()) {
				t.Fatalf("the counters do not add up: %+v, %d missing", st, g.Missing())
			}
		}
	})
}

// link runs a stream of 500 packets a second over an emulated link, answers requests over the
// same link after a round trip when answer says so, and returns what the generator counted
// and how many packets there were.
func link(t *testing.T, p netem.Params, length time.Duration, answer bool) (Stats, int) {
	t.Helper()
	type wire struct {
		seq      uint64
		repaired bool
	}
	l, err := netem.New[wire](p, 1)
	if err != nil {
		t.Fatal(err)
	}
	g := generator(t, Config{Separate: true})
	var due []uint16
	sent := uint64(0)
	var back []struct {
		at  time.Duration
		seq uint64
	}
	for now := time.Duration(0); now < length; now += ms {
		if now%(2*ms) == 0 {
			sent++
			l.Send(now, 1200, wire{seq: sent})
		}
		for {
			w, ok := l.Receive(now)
			if !ok {
				break
			}
			if w.repaired {
				g.Repaired(w.seq, now)
			} else {
				g.Receive(w.seq, now)
			}
		}
		if now%(5*ms) == 0 { // as often as the engine looks
			for _, s := range g.Due(now, due[:0]) {
				back = append(back, struct {
					at  time.Duration
					seq uint64
				}{now + 40*ms, sent - uint64(uint16(sent)-s)})
			}
		}
		for len(back) > 0 && back[0].at <= now {
			if answer {
				l.Send(now, 1200, wire{back[0].seq, true})
			}
			back = back[1:]
		}
	}
	return g.Stats(), int(sent)
}

// TestReorderingAsksForLittle: where packets overtake each other by up to 50 ms (25 packets)
// it learns that after the first ones.
func TestReorderingAsksForLittle(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{5 * ms, 20 * ms, 50 * ms} {
		s, sent := link(t, netem.Params{Delay: 20 * ms, Reorder: 0.05, ReorderBy: by}, 30*time.Second, true)
		t.Logf("5 %% of %d packets late by %v: %+v", sent, by, s)
		if s.Requested > uint64(sent)/1000 {
			t.Errorf("late by %v: %d requests for %d packets, %d of them late", by, s.Requested, sent, s.Missing)
		}
	}
}

// TestLossIsRequestedOnce: what is lost is asked for about once where answers come, and a
// bounded number of times where none do: no storm.
func TestLossIsRequestedOnce(t *testing.T) {
	t.Parallel()
	lossy := netem.Params{Delay: 20 * ms, Loss: 0.1}
	s, sent := link(t, lossy, 30*time.Second, true)
	t.Logf("10 %% lost, answered: %+v of %d", s, sent)
	// Each loss is asked for once, and a tenth of the answers get lost in turn.
	if s.Requested > uint64(sent)*13/100 || s.GivenUp > uint64(sent)/1000 {
		t.Errorf("10 %% lost: %d requests, %d given up, of %d packets", s.Requested, s.GivenUp, sent)
	}
	s, sent = link(t, lossy, 30*time.Second, false)
	t.Logf("10 %% lost, never answered: %+v of %d", s, sent)
	if s.Requested > uint64(sent)*9/10 {
		t.Errorf("never answered: %d requests for %d packets lost", s.Requested, s.Missing)
	}
	lossy.Reorder, lossy.ReorderBy = 0.05, 30*ms
	s, sent = link(t, lossy, 30*time.Second, true)
	t.Logf("10 %% lost, 5 %% late by 30 ms: %+v of %d", s, sent)
	if s.Requested > uint64(sent)*14/100 || s.GivenUp > uint64(sent)/1000 {
		t.Errorf("lost and late: %d requests, %d given up, of %d packets", s.Requested, s.GivenUp, sent)
	}
}

func TestNoAllocation(t *testing.T) {
	g := generator(t, Config{})
	dst := make([]uint16, 0, 128)
	seq, now := uint64(0), time.Duration(0)
	round := func() {
		for range 100 {
			seq++
			now += ms
			if seq%10 != 0 {
				g.Receive(seq, now)
			}
			dst = g.Due(now, dst[:0])
			if seq%50 == 45 {
				g.Receive(seq-5, now)
			}
		}
	}
	round()
	round()
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, bc := range []struct {
		name string
		lose uint64
	}{{"clean", 0}, {"one-in-20-lost", 20}} {
		b.Run(bc.name, func(b *testing.B) {
			g := generator(b, Config{})
			dst := make([]uint16, 0, 128)
			seq, now := uint64(0), time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				seq++
				now += ms
				if bc.lose == 0 || seq%bc.lose != 0 {
					g.Receive(seq, now)
				}
				dst = g.Due(now, dst[:0])
			}
		})
	}
}

func TestSkip(t *testing.T) {
	t.Parallel()
	g, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	g.Skip(1, 5) // before the first packet there is nothing to know
	for _, seq := range []uint64{100, 104, 110} {
		g.Receive(seq, 0)
	}
	g.Skip(102, 105)
	if got := g.Due(time.Second/2, nil); !slices.Equal(got, []uint16{101, 106, 107, 108, 109}) {
		t.Errorf("due %v", got)
	}
	g.Skip(111, 119) // announced before its gap is seen
	g.Receive(120, time.Second/2)
	if g.Missing() != 5 || g.Highest() != 120 || g.Stats().GivenUp != 3 {
		t.Errorf("%d missing up to %d, %+v", g.Missing(), g.Highest(), g.Stats())
	}
	g.Skip(130, 140) // not next: the gap before it is still to be asked for
	g.Receive(122, time.Second/2)
	if g.Missing() != 6 {
		t.Errorf("%d missing", g.Missing())
	}
}
