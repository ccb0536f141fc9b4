// Package netem emulates a network link in user space: delay, jitter, loss, a
// bottleneck with a queue, reordering, duplication and black holes, all from one
// seed. Link is the deterministic core (packets and the time in, deliveries
// out), Line runs one in real time, Relay puts two of them between UDP sockets,
// and netem/tun between network namespaces.
package netem

import (
	"container/heap"
	"errors"
	"math/rand/v2"
	"time"
)

// Params describe one direction of a link. The zero value is a perfect link.
type Params struct {
	// Delay is the propagation delay; Jitter varies it uniformly by up to plus
	// or minus that much, without changing the order of packets.
	Delay, Jitter time.Duration
	// Loss is the share of packets lost at random, 0..1. LossBurst is the mean
	// length of a run of lost packets (Gilbert's model); up to 1, losses are
	// independent.
	Loss, LossBurst float64
	// Rate is the bottleneck in bits per second; 0 is unlimited.
	Rate int64
	// Overhead is added to each packet's size for Rate and QueueBytes, in bytes:
	// 28 counts the headers of IPv4 and UDP when payloads are shaped.
	Overhead int
	// QueueBytes and QueueDelay limit what waits before the bottleneck, in bytes
	// and in time at the present rate; a packet that would exceed either is
	// dropped. 0 is no limit.
	QueueBytes int
	QueueDelay time.Duration
	// Reorder is the share of packets held back by ReorderBy beyond their time,
	// so that later ones overtake them.
	Reorder   float64
	ReorderBy time.Duration
	// Duplicate is the share of packets delivered twice.
	Duplicate float64
	// BlackHole swallows every packet, also those under way.
	BlackHole bool
}

func (p Params) check() error {
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case p.Delay < 0 || p.Jitter < 0 || p.QueueDelay < 0 || p.ReorderBy < 0:
		return errors.New("netem: negative time")
	case p.Rate < 0 || p.QueueBytes < 0 || p.Overhead < 0:
		return errors.New("netem: negative size or rate")
	case !share(p.Loss) || !share(p.Reorder) || !share(p.Duplicate):
		return errors.New("netem: a share must be in 0..1")
	case p.LossBurst < 0:
		return errors.New("netem: negative burst length")
	}
	return nil
}

// Stats counts packets since New. Sent = Delivered − Duplicated + Lost +
// QueueFull + BlackHoled + what is under way.
type Stats struct {
	Sent, Delivered, Duplicated uint64
	Lost, QueueFull, BlackHoled uint64
	DeliveredBytes              uint64
	// MaxQueueDelay is the longest time a packet took to pass the bottleneck.
	MaxQueueDelay time.Duration
}

// Link is one direction. Times are durations since any fixed moment and must
// not go backwards. It is not safe for concurrent use.
type Link[T any] struct {
	p      Params
	rng    *rand.Rand
	now    time.Duration
	bad    bool // Gilbert's state
	queue  []waiting[T]
	head   int           // index of the packet in transmission
	queued int           // bytes in queue, overhead included
	sent   float64       // bits of the head already transmitted
	last   time.Duration // due time of the last packet in order
	order  uint64
	flying flight[T]
	stats  Stats
}

type waiting[T any] struct {
	v         T
	size      int // overhead included
	arrived   time.Duration
	duplicate bool
}

// New makes a Link; the same seed and input give the same output.
func New[T any](p Params, seed uint64) (*Link[T], error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	return &Link[T]{p: p, rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))}, nil
}

// Set changes the parameters at now. What waits before the bottleneck leaves at
// the new rate; what has passed it keeps its time.
func (l *Link[T]) Set(now time.Duration, p Params) error {
	if err := p.check(); err != nil {
		return err
	}
	l.advance(now)
	l.p = p
	if p.BlackHole {
		l.stats.BlackHoled += uint64(len(l.queue) - l.head + len(l.flying))
		clear(l.queue)
		clear(l.flying)
		l.queue, l.head, l.queued, l.sent = l.queue[:0], 0, 0, 0
		l.flying = l.flying[:0]
	}
	return nil
}

// Params returns the present parameters.
func (l *Link[T]) Params() Params { return l.p }

// Send puts a packet of size bytes into the link.
func (l *Link[T]) Send(now time.Duration, size int, v T) {
	l.advance(now)
	l.stats.Sent++
	switch {
	case l.p.BlackHole:
		l.stats.BlackHoled++
		return
	case l.lose():
		l.stats.Lost++
		return
	}
	l.enqueue(size, v, false)
	if l.chance(l.p.Duplicate) {
		l.stats.Duplicated++
		l.enqueue(size, v, true)
	}
	l.advance(now)
}

// chance draws only when there is something to decide, so that turning on one
// fault does not change the draws of another.
func (l *Link[T]) chance(share float64) bool {
	return share > 0 && l.rng.Float64() < share
}

func (l *Link[T]) lose() bool {
	p := l.p
	if p.Loss == 0 {
		l.bad = false
		return false
	}
	if p.LossBurst <= 1 || p.Loss == 1 {
		return l.chance(p.Loss)
	}
	leave := 1 / p.LossBurst
	enter := min(p.Loss*leave/(1-p.Loss), 1)
	if l.bad {
		l.bad = !l.chance(leave)
	} else {
		l.bad = l.chance(enter)
	}
	return l.bad
}

func (l *Link[T]) enqueue(size int, v T, duplicate bool) {
	size += l.p.Overhead
	if l.p.QueueBytes > 0 && l.queued+size > l.p.QueueBytes {
		l.dropFull(duplicate)
		return
	}
	if l.p.QueueDelay > 0 && l.p.Rate > 0 && l.QueueDelay() > l.p.QueueDelay {
		l.dropFull(duplicate)
		return
	}
	l.queue = append(l.queue, waiting[T]{v: v, size: size, arrived: l.now, duplicate: duplicate})
	l.queued += size
}

func (l *Link[T]) dropFull(duplicate bool) {
	if duplicate { // a copy never counted as sent
		l.stats.Duplicated--
		return
	}
	l.stats.QueueFull++
}

// QueueDelay is how long a packet sent now would wait before the bottleneck.
func (l *Link[T]) QueueDelay() time.Duration {
	if l.p.Rate == 0 {
		return 0
	}
	bits := float64(l.queued)*8 - l.sent
	return time.Duration(bits / float64(l.p.Rate) * float64(time.Second))
}

// finish is when the head of the queue has been transmitted, counted from l.now.
func (l *Link[T]) finish() time.Duration {
	if l.p.Rate == 0 {
		return l.now
	}
	bits := float64(l.queue[l.head].size)*8 - l.sent
	return l.now + time.Duration(max(bits, 0)/float64(l.p.Rate)*float64(time.Second))
}

// advance moves everything on to now.
func (l *Link[T]) advance(now time.Duration) {
	now = max(now, l.now)
	for l.head < len(l.queue) {
		at := l.finish()
		if at > now {
			l.sent += float64(now-l.now) / float64(time.Second) * float64(l.p.Rate)
			break
		}
		l.now, l.sent = at, 0
		l.depart()
	}
	l.now = now
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
}

// depart sends the head of the queue on its way at l.now.
func (l *Link[T]) depart() {
	w := l.queue[l.head]
	var zero waiting[T]
	l.queue[l.head] = zero
	l.head++
	if l.head > 1024 && l.head*2 > len(l.queue) {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queued -= w.size
	l.stats.MaxQueueDelay = max(l.stats.MaxQueueDelay, l.now-w.arrived)
	delay := l.p.Delay
	if l.p.Jitter > 0 {
		delay += time.Duration((l.rng.Float64()*2 - 1) * float64(l.p.Jitter))
	}
	due := max(l.now+max(delay, 0), l.last)
	if l.chance(l.p.Reorder) {
		due += l.p.ReorderBy
	} else {
		l.last = due
	}
	l.order++
	heap.Push(&l.flying, arrival[T]{due: due, order: l.order, v: w.v, size: w.size - l.p.Overhead})
}

// Next is the earliest time at which Receive may have something; false when the
// link is empty.
func (l *Link[T]) Next() (time.Duration, bool) {
	var at time.Duration
	ok := false
	if l.head < len(l.queue) {
		at, ok = l.finish(), true
	}
	if len(l.flying) > 0 && (!ok || l.flying[0].due < at) {
		at, ok = l.flying[0].due, true
	}
	return at, ok
}

// Receive returns the next packet due at now, false when there is none (yet).
func (l *Link[T]) Receive(now time.Duration) (v T, ok bool) {
	l.advance(now)
	if len(l.flying) == 0 || l.flying[0].due > now {
		return v, false
	}
	a := heap.Pop(&l.flying).(arrival[T])
	l.stats.Delivered++
	l.stats.DeliveredBytes += uint64(a.size)
	return a.v, true
}

// Stats returns the counters.
func (l *Link[T]) Stats() Stats { return l.stats }

type arrival[T any] struct {
	due   time.Duration
	order uint64
	v     T
	size  int
}

// flight is a heap of arrivals, the earliest first.
type flight[T any] []arrival[T]

func (f flight[T]) Len() int { return len(f) }
func (f flight[T]) Less(i, j int) bool {
	if f[i].due != f[j].due {
		return f[i].due < f[j].due
	}
	return f[i].order < f[j].order
}
func (f flight[T]) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flight[T]) Push(x any)   { *f = append(*f, x.(arrival[T])) }
func (f *flight[T]) Pop() any {
	old := *f
	n := len(old) - 1
	a := old[n]
	var zero arrival[T]
	old[n] = zero
	*f = old[:n]
	return a
}
