package trunk

import (
	"bytes"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/netem"
)

const ms = int64(time.Millisecond)

// few makes n smaller by what the race detector makes a simulation slower: it finds nothing
// new in more of it.
func few[T ~int | ~int64](n T) T {
	info, ok := debug.ReadBuildInfo()
	if ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" }) {
		return max(n/12, 1)
	}
	return n
}

// end is one end of a simulated trunk.
type end struct {
	*line
	w     *world
	out   *netem.Link[[]byte] // towards the other end
	peer  *end
	next  int64
	dirty bool
	buf   []byte

	store map[uint32]map[uint64][]byte // what was sent, for requests
	take  func(h record.Header, rtp []byte) bool
	drops map[string]int
	news_ []change
}

// Reserve and Commit make an end the destination of its own line.
func (e *end) Reserve(n int) []byte {
	e.buf = make([]byte, 0, n)
	return e.buf
}

func (e *end) Commit(n int) { e.out.Send(time.Duration(e.w.now), n+28, e.buf[:n]) }

// world is two ends and the link between them, in virtual time.
type world struct {
	tb    testing.TB
	now   int64
	a, b  *end
	every func()
	held  func(e *end) bool // this end's process is not running
}

func newWorld(tb testing.TB, there, back netem.Params, seed uint64, change func(cfg *lineConfig)) *world {
	tb.Helper()
	w := &world{tb: tb, now: int64(time.Hour)}
	secretA, secretB := bytes.Repeat([]byte{1}, record.SecretSize), bytes.Repeat([]byte{2}, record.SecretSize)
	make1 := func(p netem.Params, seed uint64, out, in []byte, outConn, inConn uint32) *end {
		cfg := lineConfig{
			out: out, in: in, outConn: outConn, inConn: inConn, seed: seed,
			initial: DefaultInitial, min: DefaultMin, max: DefaultMax,
		}
		if change != nil {
			change(&cfg)
		}
		l, err := newLine(cfg, w.now)
		if err != nil {
			tb.Fatal(err)
		}
		link, err := netem.New[[]byte](p, seed)
		if err != nil {
			tb.Fatal(err)
		}
		return &end{line: l, w: w, out: link, store: map[uint32]map[uint64][]byte{}, drops: map[string]int{}}
	}
	w.a = make1(there, seed, secretA, secretB, 1, 2)
	w.b = make1(back, seed+1000, secretB, secretA, 2, 1)
	w.a.peer, w.b.peer = w.b, w.a
	return w
}

// step is how far the world moves at a time.
const step = ms / 2

func (w *world) run(d time.Duration) {
	for stop := w.now + int64(d); w.now < stop; w.now += step {
		for _, e := range []*end{w.a, w.b} {
			for w.held == nil || !w.held(e.peer) {
				b, ok := e.out.Receive(time.Duration(w.now))
				if !ok {
					break
				}
				e.peer.receive(b)
			}
		}
		if w.every != nil {
			w.every()
		}
		for _, e := range []*end{w.a, w.b} {
			for (e.dirty || e.next <= w.now) && (w.held == nil || !w.held(e)) {
				e.dirty = false
				if e.next = e.poll(e, w.now); e.next <= w.now {
					e.next = w.now + 1 // the writer's next turn
				}
				if !e.dirty && e.next > w.now {
					break
				}
			}
			_, _, changes := e.news()
			e.news_ = append(e.news_, changes...)
		}
	}
}

func (e *end) receive(b []byte) {
	h, payload, err := e.open(b, e.w.now)
	if err != nil {
		e.drops[err.Error()]++
		return
	}
	switch h.Type {
	case record.Request:
		e.dirty = true
		err = e.answer(h, payload, e.w.now, func(label uint32, ext uint64) []byte { return e.store[label][ext] })
	case record.Media, record.Repair:
		if e.take != nil && !e.take(h, payload) {
			h.Type = record.Padding
		}
		fallthrough
	default:
		var poke bool
		poke, err = e.took(h, payload, e.w.now)
		e.dirty = e.dirty || poke
	}
	if err != nil {
		e.drops[err.Error()]++
	}
}

// put sends one packet and keeps it for requests.
func (e *end) put(label uint32, ext uint64, class Class, size int) {
	rtp := rtpPacket(ext, size)
	if e.store[label] == nil {
		e.store[label] = map[uint64][]byte{}
	}
	e.store[label][ext] = rtp
	delete(e.store[label], ext-2000)
	e.send(label, ext, class, rtp, e.w.now)
	e.dirty = true
}

// source sends one label: packets of size every period, in bursts of n.
type source struct {
	label   uint32
	class   Class
	size, n int
	period  int64
	at      int64
	ext     uint64
	sentAt  map[uint64]int64
}

func (s *source) send(e *end) {
	if s.sentAt == nil {
		s.sentAt, s.at, s.ext = map[uint64]int64{}, e.w.now, 1<<16
	}
	for ; e.w.now >= s.at; s.at += s.period {
		for range s.n {
			s.ext++
			s.sentAt[s.ext] = e.w.now
			e.put(s.label, s.ext, s.class, s.size)
		}
	}
}

func percentile(d []int64, p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return time.Duration(d[min(int(float64(len(d))*p/100), len(d)-1)])
}

func both(p netem.Params) (netem.Params, netem.Params) { return p, p }

// TestLossIsRepaired is C4: 2 % loss on a trunk of 80 ms round trip.
func TestLossIsRepaired(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		link     netem.Params
		residual float64       // share of packets that never come, beyond those shed
		shed     uint64        // packets shed: much loss is taken for a full path at first
		added    time.Duration // p95
	}{
		{"2 % loss", netem.Params{Delay: 40 * time.Millisecond, Loss: 0.02}, 0.0005, 0, 120 * time.Millisecond},
		{"2 % loss in bursts, jitter", netem.Params{Delay: 40 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.02, LossBurst: 3}, 0.0005, 0, 140 * time.Millisecond},
		{"2 % loss, reordering", netem.Params{Delay: 40 * time.Millisecond, Loss: 0.02, Reorder: 0.02, ReorderBy: 5 * time.Millisecond}, 0.0005, 0, 140 * time.Millisecond},
		{"10 % loss", netem.Params{Delay: 40 * time.Millisecond, Loss: 0.1}, 0.001, 1500, 300 * time.Millisecond},
	} {
		down, up := both(c.link)
		w := newWorld(t, down, up, 1, nil)
		sources := []*source{
			{label: 1, class: Audio, size: 120, n: 1, period: 20 * ms},
			{label: 2, class: Base, size: 900, n: 2, period: 33 * ms},
			{label: 3, class: TopLarge, size: 1100, n: 8, period: 33 * ms},
		}
		byLabel := map[uint32]*source{}
		for _, s := range sources {
			byLabel[s.label] = s
		}
		var repaired []int64
		got := map[uint32]map[uint64]bool{1: {}, 2: {}, 3: {}}
		w.b.take = func(h record.Header, _ []byte) bool {
			if !got[h.Label][h.Ext] && h.Type == record.Repair {
				repaired = append(repaired, w.now-byLabel[h.Label].sentAt[h.Ext]-40*ms)
			}
			got[h.Label][h.Ext] = true
			return true
		}
		w.run(time.Second)
		w.every = func() {
			for _, s := range sources {
				s.send(w.a)
			}
		}
		w.run(few(2 * time.Minute))
		w.every = nil
		w.run(2 * time.Second)
		total, missing := 0, 0
		for _, s := range sources {
			for ext := range s.sentAt {
				total++
				if !got[s.label][ext] {
					missing++
				}
			}
		}
		shed := w.a.counts.shed
		residual := float64(missing-int(shed)) / float64(total)
		p50, p95 := percentile(repaired, 50), percentile(repaired, 95)
		t.Logf("%s: %d packets, residual loss %.4f %%, %d shed, %d repaired, added delay p50 %v p95 %v", c.name, total, residual*100, shed, len(repaired), p50, p95)
		if residual > c.residual || shed > c.shed || p95 > c.added {
			t.Errorf("%s: residual loss %.4f %%, %d shed, added delay %v p95", c.name, residual*100, shed, p95)
		}
		if len(w.b.drops)+len(w.a.drops) > 0 {
			t.Errorf("%s: drops %v %v", c.name, w.a.drops, w.b.drops)
		}
	}
}

// TestNoFalseAlarms is C13 for trunks: an hour at 10 % loss each way, idle and busy.
func TestNoFalseAlarms(t *testing.T) {
	t.Parallel()
	for _, busy := range []bool{false, true} {
		down, up := both(netem.Params{Delay: 40 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.1})
		w := newWorld(t, down, up, 3, nil)
		s := &source{label: 1, class: Audio, size: 120, n: 1, period: 20 * ms}
		w.every = func() {
			if busy {
				s.send(w.a)
				clear(s.sentAt)
			}
			if w.a.live.state == dead || w.b.live.state == dead {
				t.Fatalf("busy %v: taken for dead", busy)
			}
		}
		w.run(few(time.Hour))
		t.Logf("busy %v: doubted %d and %d times in %v, %d and %d probes", busy, w.a.counts.bursts, w.b.counts.bursts, few(time.Hour), w.a.counts.probes, w.b.counts.probes)
	}
}

// TestBlackHoles: both ends find out, whichever way does not pass.
func TestBlackHoles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		there, back bool
		delay       time.Duration
		busy        bool
	}{
		{"both ways", true, true, 40 * time.Millisecond, true},
		{"there", true, false, 40 * time.Millisecond, true},
		{"back", false, true, 40 * time.Millisecond, true},
		{"both ways, idle", true, true, 40 * time.Millisecond, false},
		{"there, idle", true, false, 40 * time.Millisecond, false},
		{"both ways, 200 ms", true, true, 100 * time.Millisecond, true},
		{"there, near", true, false, 100 * time.Microsecond, true},
	} {
		var worst [2]int64
		for seed := range uint64(few(20)) {
			down, up := both(netem.Params{Delay: c.delay, Loss: 0.01})
			w := newWorld(t, down, up, seed, nil)
			s := &source{label: 1, class: Base, size: 1000, n: 4, period: 33 * ms}
			w.every = func() {
				if c.busy {
					s.send(w.a)
				}
			}
			w.run(3*time.Second + time.Duration(seed)*7*time.Millisecond)
			cut := w.now
			for i, e := range []*end{w.a, w.b} {
				if p := e.out.Params(); i == 0 && c.there || i == 1 && c.back {
					p.BlackHole = true
					if err := e.out.Set(time.Duration(w.now), p); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i, e := range []*end{w.a, w.b} {
				for e.live.state != dead && w.now-cut < 3000*ms {
					w.run(time.Millisecond)
				}
				worst[i] = max(worst[i], w.now-cut)
			}
		}
		t.Logf("%s: noticed after %v by the one end, then %v by the other, at worst", c.name, time.Duration(worst[0]), time.Duration(worst[1]))
		limit := silence + 2*int64(c.delay) + max(patience, 3*int64(c.delay)) + aliveIdle + 40*ms
		if worst[0] > limit || worst[1] > limit {
			t.Errorf("%s: later than %v", c.name, time.Duration(limit))
		}
	}
}

// TestHeldUpNodes: a node that does not get to run for a moment, again and again, is neither
// dead nor behind a narrow path.
func TestHeldUpNodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		pause, every time.Duration
		a, b         bool
	}{
		{"receiver", 150 * time.Millisecond, 700 * time.Millisecond, false, true},
		{"sender", 150 * time.Millisecond, 700 * time.Millisecond, true, false},
		{"both", 200 * time.Millisecond, time.Second, true, true},
		{"both, little by little", 20 * time.Millisecond, 40 * time.Millisecond, true, true},
		{"receiver, long", 350 * time.Millisecond, 3 * time.Second, false, true},
	} {
		link := netem.Params{Delay: 20 * time.Millisecond, Rate: 200_000_000}
		w := newWorld(t, link, link, 1, nil)
		sources := []*source{
			{label: 1, class: Audio, size: 120, n: 1, period: 20 * ms},
			{label: 2, class: Base, size: 900, n: 2, period: 33 * ms},
			{label: 3, class: TopLarge, size: 1100, n: 20, period: 33 * ms},
		}
		w.every = func() {
			if w.held(w.a) {
				return // what clients sent meanwhile is there at once when it goes on
			}
			for _, s := range sources {
				s.send(w.a)
				clear(s.sentAt)
			}
		}
		start := w.now
		w.held = func(e *end) bool {
			return (e == w.a && c.a || e == w.b && c.b) && (w.now-start)%int64(c.every) > int64(c.every-c.pause)
		}
		w.run(few(2 * time.Minute))
		t.Logf("%s: %d packets shed, doubted %d and %d times, budget %d", c.name, w.a.counts.shed, w.a.counts.bursts, w.b.counts.bursts, w.a.est.Estimate())
		if w.a.live.state == dead || w.b.live.state == dead {
			t.Errorf("%s: dead", c.name)
		}
		if w.a.counts.shed+w.a.counts.overflowed > 0 {
			t.Errorf("%s: %d packets shed", c.name, w.a.counts.shed)
		}
	}
}
