package trunk

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/bwe"
	"github.com/amphi-sfu/amphi/media/limit"
)

// never is a time that does not come.
const never = int64(math.MaxInt64)

const (
	// turn is how many packets one poll sends at most, so that nobody waits long for the lock.
	turn = 64
	// queueLong is a wait that is too long when it has not been shorter for standing.
	queueLong = int64(30 * time.Millisecond)
	standing  = int64(60 * time.Millisecond)
	// queueMost is what the queue may hold at most, in time at the present budget, and
	// queueLeast what it may hold in any case, in bytes.
	queueMost  = int64(250 * time.Millisecond)
	queueLeast = 128 << 10
	// pacedFor is how much of the budget may leave at once, in time and within these bytes:
	// a frame goes out as one run wherever the path is wide.
	pacedFor   = int64(5 * time.Millisecond)
	pacedLeast = 1500
	pacedMost  = 64 << 10
	// A node that does not get to run in time has more to send at once: what it was kept from
	// sending since, as long as it was kept from it heldLeast, of heldMost at most.
	heldLeast   = int64(2 * time.Millisecond)
	heldMost    = int64(100 * time.Millisecond)
	paddingSize = 1100
	// muchLoss is the share of records lost above which the path is taken for full, whatever
	// the delay: less is repaired.
	muchLoss = 0.15
	// probeWait is the longest pause between tries whether the path carries more again.
	probeWait = 2500 * time.Millisecond
	// maxEchoes is how many probes wait for their echo, probeSize how long their payload is.
	maxEchoes = 64
	probeSize = 8
	// maxGone is how many announcements of what will not come wait.
	maxGone = 4 * maxEntries
	// secondly is the period of what is done once a second.
	secondly = int64(time.Second)
)

// dest takes records: a udp.Dest, or a test's link.
type dest interface {
	Reserve(n int) []byte
	Commit(n int)
}

// line is the path of one trunk's media, from its first record to its last: a state machine
// with the time as an argument, no socket and no goroutine.
type line struct {
	// The fields above mu belong to the socket's reader.
	opener  *record.Opener
	phase   uint8
	rekeyed int64 // when the other end changed its key, until the one before is forgotten

	mu       sync.Mutex // guards the fields below
	sealer   *record.Sealer
	live     liveness
	est      *bwe.Estimator
	delivery delivery
	path     path
	queue    queue
	shed     shedder
	arrivals arrivals
	repairs  repairs
	resends  limit.Bucket // bytes

	acked     uint64 // the newest packet number known to have come, +1
	tokens    int64  // of the pacer, in bytes times 1e9
	paced     int64
	due       int64 // when what waits might have been sent; never when nothing waits
	short     int64 // when the queue was last short
	padding   int   // bytes of padding to send
	polled    int64
	second    int64
	echoes    [][probeSize]byte
	announced []gone
	requests  []request               // scratch
	scratch   [record.MaxPayload]byte // of payloads
	counts    counts
	rates     rates
	ended     bool // no more records
}

// counts of one line since it began.
type counts struct {
	sent, sentBytes         uint64
	received, receivedBytes uint64
	media, mediaReceived    uint64
	resent, requested       uint64 // packets sent again, and asked for by the other end
	unavailable             uint64 // asked for, but no longer there
	shed, overflowed        uint64 // packets not sent because their label was shed, or the queue full
	probes, bursts          uint64
}

// rates are measured once a second.
type rates struct {
	last         counts
	lastHighest  uint64
	sent, got    int64 // bits per second
	inLoss       float64
	queueSamples [64]int64 // longest waits, in nanoseconds
	samples      int
}

// lineConfig is what a line needs to know.
type lineConfig struct {
	out, in           []byte // secrets
	outConn, inConn   uint32
	initial, min, max int64 // bits per second
	seed              uint64
}

func newLine(cfg lineConfig, now int64) (*line, error) {
	sealer, err := record.NewSealer(cfg.out, cfg.outConn)
	if err != nil {
		return nil, err
	}
	opener, err := record.NewOpener(cfg.in, cfg.inConn)
	if err != nil {
		return nil, err
	}
	est, err := bwe.New(bwe.Config{Initial: cfg.initial, Min: cfg.min, Max: cfg.max, Loss: muchLoss, ProbeWait: probeWait, Seed: cfg.seed})
	if err != nil {
		return nil, err
	}
	l := &line{sealer: sealer, opener: opener, est: est, paced: now, due: never, short: now, second: now}
	l.live.begin(now)
	l.resends = l.allowance()
	return l, nil
}

// send queues one RTP packet.
func (l *line) send(label uint32, ext uint64, class Class, rtp []byte, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if class >= classes {
		class = Spare
	}
	l.live.media = now
	out := l.shed.offer(label, class, len(rtp), now)
	if out.shed {
		out.skip(ext)
		l.counts.shed++
		return
	}
	if out.skipped {
		out.skipped = false
		l.announce(out.gap)
	}
	if !l.enqueue(class, queued{label: label, ext: ext, at: now, typ: record.Media}, rtp) {
		out.skip(ext)
		l.counts.overflowed++
	}
}

// enqueue queues a packet unless the queue is too long for anybody's good.
func (l *line) enqueue(class Class, p queued, rtp []byte) bool {
	most := max(queueLeast, int(l.budget(p.at)/8*queueMost/int64(time.Second)))
	if len(rtp) > record.MaxPayload || l.queue.bytes >= most || !l.queue.push(class, p, rtp) {
		return false
	}
	l.due = min(l.due, p.at)
	return true
}

// announce queues word of packets that will not come.
func (l *line) announce(g gone) {
	if n := len(l.announced); n > 0 {
		last := &l.announced[n-1]
		if last.label == g.label && g.first <= last.last+1 && g.last+1 >= last.first {
			last.first, last.last = min(last.first, g.first), max(last.last, g.last)
			return
		}
	}
	if len(l.announced) < maxGone {
		l.announced = append(l.announced, g)
	}
}

// poll writes what may leave now to d and says when to call it again.
func (l *line) poll(d dest, now int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return never
	}
	l.tick(now)
	l.probe(d, now)
	for n := 0; len(l.announced) > 0 && n < maxGone; n += maxEntries {
		k := min(len(l.announced), maxEntries)
		payload := l.scratch[:0]
		for _, g := range l.announced[:k] {
			payload = g.append(payload)
		}
		l.emit(d, record.Gone, 0, 0, payload, now)
		l.announced = l.announced[:copy(l.announced, l.announced[k:])]
	}
	l.report(d, now)
	l.request(d, now)
	more := l.media(d, now)
	l.watchQueue(now)
	if l.live.state == dead {
		l.ended = true
		return never
	}
	return l.next(now, more)
}

// tick moves on what depends on time alone.
func (l *line) tick(now int64) {
	if now-l.polled >= int64(5*time.Millisecond) {
		l.polled = now
		l.est.Poll(time.Duration(now))
		if n := l.est.Padding(time.Duration(now)); n > 0 && l.queue.packets == 0 {
			l.padding = n
		}
	}
	if l.shed.roll(now) {
		l.decide(now)
		l.repairs.setRTT(time.Duration(l.live.rtt.smooth))
	}
	if now-l.second >= secondly {
		l.measure(now)
		l.second = now
		l.shed.forget(now)
		l.repairs.forget(now)
		l.queue.trim()
	}
}

// decide what is sent, and what a higher budget would be good for.
func (l *line) decide(now int64) {
	l.shed.decide(l.budget(now), now)
	d := bwe.Demand{}
	if l.shed.offered > 0 {
		top := max(l.shed.offered, l.shed.wanted)
		d.Next = int64(float64(l.shed.wanted) / restoreShare)
		d.Top = int64(float64(top) / restoreShare)
		if l.shed.count == 0 { // room for a label more, before it comes
			d.Next += d.Next / 4
			d.Top = d.Next
		}
	}
	l.est.SetDemand(d)
}

// probe sends what liveness wants, and echoes.
func (l *line) probe(d dest, now int64) {
	before := l.live.state
	for l.live.probe(now) {
		l.emit(d, record.Probe, 0, 0, binary.BigEndian.AppendUint64(l.scratch[:0], uint64(now)), now)
		l.counts.probes++
		before = min(before, l.live.state)
	}
	if before < doubted && l.live.state == doubted {
		l.counts.bursts++
	}
	for i := range l.echoes {
		l.emit(d, record.Echo, 0, 0, l.echoes[i][:], now)
	}
	l.echoes = l.echoes[:0]
}

func (l *line) report(d dest, now int64) {
	for more, _ := l.arrivals.ready(now); more; {
		var payload []byte
		payload, more = l.arrivals.report(l.scratch[:0], now)
		l.emit(d, record.Report, 0, 0, payload, now)
	}
}

func (l *line) request(d dest, now int64) {
	if len(l.repairs.lacking) == 0 {
		return
	}
	l.requests = l.repairs.due(now, l.requests[:0])
	for rest := l.requests; len(rest) > 0; {
		k := min(len(rest), maxEntries)
		payload := l.scratch[:0]
		for _, r := range rest[:k] {
			payload = r.append(payload)
		}
		l.emit(d, record.Request, 0, 0, payload, now)
		rest = rest[k:]
	}
}

// media sends what waits, as fast as the pacer lets it, then padding; it says whether more waits.
func (l *line) media(d dest, now int64) bool {
	l.refill(now)
	for n := 0; l.queue.packets > 0 && l.tokens > 0; n++ {
		if n == turn {
			return true
		}
		p, _, _ := l.queue.pop()
		l.noteWait(now - p.at)
		l.emit(d, p.typ, p.label, p.ext, p.data, now)
		l.counts.media++
		l.queue.giveBack(p)
	}
	if l.queue.packets > 0 {
		l.due = now + l.tokenless(now)
		return true
	}
	l.due = never
	for l.padding > 0 && l.tokens > 0 {
		clear(l.scratch[:paddingSize])
		l.emit(d, record.Padding, 0, 0, l.scratch[:paddingSize], now)
		l.padding -= paddingSize
	}
	l.padding = 0
	return false
}

// budget is what the path carries, in bits per second: the estimate, or what has just been seen
// to arrive where that is less.
func (l *line) budget(now int64) int64 {
	return min(max(l.est.Estimate(), l.path.before), l.delivery.limit(now))
}

// pace is at which rate records leave: the budget, or that of a probe of more.
func (l *line) pace(now int64) int64 {
	rate := l.budget(now)
	if probing, ok := l.est.Probing(); ok {
		rate = max(rate, probing)
	}
	return rate
}

// tokenScale is how many units a byte of the pacer has.
const tokenScale = int64(time.Second)

func (l *line) refill(now int64) {
	bytes := l.pace(now) / 8
	deep := min(max(bytes*pacedFor/int64(time.Second), pacedLeast), pacedMost) * tokenScale
	if late := min(now-l.due, heldMost); late > heldLeast {
		deep += min(bytes, l.shed.sending()/8) * late
	}
	l.tokens = min(l.tokens+bytes*min(now-l.paced, int64(time.Second)), deep)
	l.paced = now
}

// tokenless is how long it takes until something may leave again.
func (l *line) tokenless(now int64) int64 { return max(-l.tokens*8/max(l.pace(now), 1)+1, 1) }

// emit seals one record straight into d's memory.
func (l *line) emit(d dest, t record.Type, label uint32, ext uint64, payload []byte, now int64) {
	b, err := l.sealer.Seal(d.Reserve(len(payload)+record.Overhead), t, label, ext, payload, now)
	if err != nil {
		l.ended = l.ended || errors.Is(err, record.ErrExhausted)
		return
	}
	d.Commit(len(b))
	number := l.est.Sent(len(b), time.Duration(now))
	l.delivery.sent(number, len(b)+28)
	l.path.sent(number, now)
	l.tokens -= int64(len(b)+28) * tokenScale
	l.counts.sent++
	l.counts.sentBytes += uint64(len(b) + 28)
}

// watchQueue sheds the next label when the queue has been long for too long and does not get
// shorter by itself: a label has become more than it was. A burst, or what a node that was held
// up catches up with, does.
func (l *line) watchQueue(now int64) {
	if l.wait(now) <= queueLong || l.shed.sending() < l.budget(now) {
		l.short = now
		return
	}
	if now-l.short < standing {
		return
	}
	l.short = now - standing*2/3 // the next one goes if this does not help soon
	if out := l.shed.shedNext(now); out != nil {
		if n, lowest := l.queue.drop(out.class, out.label); n > 0 {
			l.counts.shed += uint64(n)
			out.skip(lowest)
		}
	}
}

// wait is how long the queue takes to be sent at the present rate.
func (l *line) wait(now int64) int64 {
	return int64(l.queue.bytes+28*l.queue.packets) * 8 * int64(time.Millisecond) / max(l.pace(now)/1000, 1)
}

func (l *line) noteWait(d int64) {
	s := &l.rates.queueSamples[l.rates.samples%len(l.rates.queueSamples)]
	*s = d
	l.rates.samples++
}

// next is when poll has something to do although nobody calls.
func (l *line) next(now int64, more bool) int64 {
	at := min(l.live.next(now), l.repairs.next(), l.second+secondly)
	if _, due := l.arrivals.ready(now); due < at {
		at = due
	}
	if more {
		if l.tokens > 0 {
			return now
		}
		at = min(at, now+l.tokenless(now))
	}
	if l.shed.offered > 0 || l.shed.count > 0 || now-l.live.media < busyFor {
		at = min(at, l.shed.rolled+rateSlot, l.polled+int64(25*time.Millisecond))
	}
	if _, probing := l.est.Probing(); probing {
		l.delivery.probed = now
		at = min(at, now+int64(5*time.Millisecond))
	}
	return max(at, now)
}
