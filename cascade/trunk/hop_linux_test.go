package trunk

import (
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
)

// memory is a dest that keeps the records of one poll.
type memory struct {
	arena   []byte
	used    int
	records [][]byte
}

func (m *memory) Reserve(n int) []byte {
	if m.used+n > len(m.arena) {
		m.used = 0
	}
	return m.arena[m.used:m.used:len(m.arena)]
}

func (m *memory) Commit(n int) {
	m.records = append(m.records, m.arena[m.used:m.used+n])
	m.used += n
}

// linePair is two lines without a link: what one writes the other takes.
type linePair struct {
	a, b *line
	m    memory
	ext  uint64
	now  int64
}

func newLinePair(tb testing.TB) *linePair {
	tb.Helper()
	x, y := make([]byte, record.SecretSize), make([]byte, record.SecretSize)
	y[0] = 1
	p := &linePair{now: int64(time.Hour), m: memory{arena: make([]byte, 1<<20)}}
	var err error
	cfg := lineConfig{out: x, in: y, outConn: 1, inConn: 2, initial: 5_000_000_000, min: DefaultMin, max: DefaultMax}
	if p.a, err = newLine(cfg, p.now); err != nil {
		tb.Fatal(err)
	}
	cfg.out, cfg.in, cfg.outConn, cfg.inConn = y, x, 2, 1
	if p.b, err = newLine(cfg, p.now); err != nil {
		tb.Fatal(err)
	}
	return p
}

// frame carries n packets of a frame across, and what the ends have to say to each other.
func (p *linePair) frame(tb testing.TB, rtp []byte, n int) {
	p.now += int64(n) * int64(20*time.Microsecond) // 50,000 packets/s
	for range n {
		p.ext++
		p.a.send(7, p.ext, Base, rtp, p.now)
	}
	p.carry(tb, p.a, p.b)
	p.carry(tb, p.b, p.a)
}

func (p *linePair) carry(tb testing.TB, from, to *line) {
	p.m.records = p.m.records[:0]
	from.poll(&p.m, p.now)
	for _, b := range p.m.records {
		h, payload, err := to.open(b, p.now)
		if err == nil {
			_, err = to.took(h, payload, p.now)
		}
		if err != nil {
			tb.Fatalf("a record of type %s: %v", h.Type, err)
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	p := newLinePair(t)
	rtp := rtpPacket(1, 1100)
	for range 20_000 {
		p.frame(t, rtp, 7)
	}
	if n := testing.AllocsPerRun(5000, func() { p.frame(t, rtp, 7) }); n != 0 {
		t.Errorf("%v allocations per frame of 7 packets", n)
	}
	if got := p.b.counts.mediaReceived; got != p.ext {
		t.Errorf("%d of %d packets came", got, p.ext)
	}
}

// BenchmarkLine is what a packet costs without the kernel: queued, sealed, opened, noted, with
// its share of reports.
func BenchmarkLine(b *testing.B) {
	p := newLinePair(b)
	rtp := rtpPacket(1, 1100)
	b.ReportAllocs()
	for i := 0; i < b.N; i += 7 {
		p.frame(b, rtp, 7)
	}
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// relay passes packets on to the next node, as a gateway does, and notes when they came.
type relay struct {
	*handler
	set  *Set
	next string

	mu   sync.Mutex
	at   []time.Time
	seen int
}

func (r *relay) TrunkMedia(_ string, label uint32, ext uint64, rtp []byte, _ int64) bool {
	if r.next != "" {
		r.set.Send(r.next, label, ext, Base, rtp)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ext < uint64(len(r.at)) && r.at[ext].IsZero() {
		r.at[ext] = time.Now()
		r.seen++
	}
	return true
}

func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// BenchmarkHop is C1: what one more node on the way costs, over loopback sockets, at 5,000
// packets/s of 1,100 bytes, in frames of 7 and one by one. The process's CPU time with two
// hops less that with one is the relay's.
func BenchmarkHop(b *testing.B) {
	for _, burst := range []int{7, 1} {
		b.Run(fmt.Sprintf("burst=%d", burst), func(b *testing.B) {
			one, _ := runHops(b, 1, burst)
			two, delays := runHops(b, 2, burst)
			b.ReportMetric(float64(two-one)/float64(b.N), "cpu-ns/relayed")
			b.ReportMetric(float64(one)/float64(b.N), "cpu-ns/hop")
			b.ReportMetric(float64(percentile(delays, 50))/1e6, "p50-ms")
			b.ReportMetric(float64(percentile(delays, 99))/1e6, "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// runHops sends b.N packets over so many hops; it returns the CPU time and the last hop's delays.
func runHops(b *testing.B, hops, burst int) (time.Duration, []int64) {
	n := newNet(b)
	var relays []*relay
	var nodes []*testNode
	var stops []func()
	for i := range hops + 1 {
		node, stop := n.node(string(rune('a' + i)))
		r := &relay{handler: node.handler, set: node.Set, at: make([]time.Time, b.N+1)}
		if i < hops {
			r.next = string(rune('a' + i + 1))
		}
		node.handler.mu.Lock()
		node.first = r
		node.handler.mu.Unlock()
		relays, nodes, stops = append(relays, r), append(nodes, node), append(stops, stop)
	}
	for i := range hops {
		nodes[i].SetPeers(map[string]netip.AddrPort{nodes[i+1].id: nodes[i+1].LocalAddr()})
		eventually(b, "the trunk is up", func() bool { return len(nodes[i].all("up")) >= 1 && len(nodes[i+1].all("up")) >= 1 })
	}
	rtp := rtpPacket(1, 1100)
	tick := time.NewTicker(time.Duration(burst) * time.Second / 5000)
	defer tick.Stop()
	began, start := cpuTime(b), time.Now()
	for ext := 1; ext <= b.N; {
		<-tick.C // a machine that is busy loses ticks: then several bursts are due
		for due := int(time.Since(start).Seconds() * 5000); ext <= min(due, b.N); {
			for range burst {
				if ext <= b.N {
					relays[0].at[ext] = time.Now()
					nodes[0].Send("b", 7, uint64(ext), Base, rtp)
					ext++
				}
			}
		}
	}
	eventually(b, "all packets come", func() bool { return relays[hops].count() >= b.N*99/100 }, func() any {
		return fmt.Sprintf("%d of %d: %+v, %+v", relays[hops].count(), b.N, nodes[0].Stats(), nodes[hops].Stats())
	})
	spent := cpuTime(b) - began
	var delays []int64
	for ext := 1; ext <= b.N; ext++ {
		if from, to := relays[hops-1].at[ext], relays[hops].at[ext]; !from.IsZero() && !to.IsZero() {
			delays = append(delays, int64(to.Sub(from)))
		}
	}
	for _, stop := range stops {
		stop()
	}
	return spent, delays
}
