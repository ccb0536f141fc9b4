package trunk

import "github.com/amphi-sfu/amphi/cascade/record"

// Class says what is given up first when a trunk cannot carry all that is sent: the highest
// class first, audio last.
type Class uint8

// The classes, in the order in which they are sent; they are shed in the opposite one.
const (
	Audio       Class = iota
	Screen            // a shared screen
	Base              // the lowest layer of a camera
	MiddleLarge       // higher layers, of tiles shown large
	MiddleSmall       // and of those shown small
	TopLarge          // the highest layers
	TopSmall
	Spare // whatever nobody would miss
	classes
)

// queued is one packet that waits to be sealed.
type queued struct {
	label uint32
	ext   uint64
	at    int64 // when it was queued, in nanoseconds
	typ   record.Type
	data  []byte
}

// maxQueued is how many packets wait at most, of all classes.
const maxQueued = 8192

// queue holds packets by class; each class is first in, first out. The zero value is ready.
type queue struct {
	fifos   [classes]fifo
	bytes   int
	packets int
	free    [][]byte
}

// fifo is a ring that grows as needed; its size is a power of two.
type fifo struct {
	ring    []queued
	head, n int
}

func (f *fifo) push(p queued) {
	if f.n == len(f.ring) {
		bigger := make([]queued, max(2*len(f.ring), 16))
		for i := range f.n {
			bigger[i] = *f.at(i)
		}
		f.ring, f.head = bigger, 0
	}
	f.n++
	*f.at(f.n - 1) = p
}

func (f *fifo) at(i int) *queued { return &f.ring[(f.head+i)&(len(f.ring)-1)] }

func (f *fifo) pop() queued {
	p := *f.at(0)
	*f.at(0) = queued{}
	f.head, f.n = (f.head+1)&(len(f.ring)-1), f.n-1
	return p
}

// bufferSize is what one buffer of the queue holds: any payload.
const bufferSize = record.MaxPayload

// push queues a copy of data; false when there is no room.
func (q *queue) push(c Class, p queued, data []byte) bool {
	if q.packets >= maxQueued {
		return false
	}
	if n := len(q.free); n > 0 {
		p.data, q.free = q.free[n-1], q.free[:n-1]
	} else {
		p.data = make([]byte, 0, bufferSize)
	}
	p.data = append(p.data[:0], data...)
	q.fifos[c].push(p)
	q.packets++
	q.bytes += len(data) + record.Overhead
	return true
}

// pop takes the next packet to send; its data must be given back.
func (q *queue) pop() (queued, Class, bool) {
	for c := range q.fifos {
		if q.fifos[c].n > 0 {
			p := q.fifos[c].pop()
			q.packets--
			q.bytes -= len(p.data) + record.Overhead
			return p, Class(c), true
		}
	}
	return queued{}, 0, false
}

// giveBack returns a packet's buffer.
func (q *queue) giveBack(p queued) { q.free = append(q.free, p.data) }

// drop removes the packets of one label, first transmissions only, and returns how many there
// were and the lowest sequence of them.
func (q *queue) drop(c Class, label uint32) (n int, lowest uint64) {
	f := &q.fifos[c]
	for i, total := 0, f.n; i < total; i++ {
		p := f.pop()
		if p.label != label || p.typ != record.Media {
			f.push(p)
			continue
		}
		if n == 0 || p.ext < lowest {
			lowest = p.ext
		}
		n++
		q.packets--
		q.bytes -= len(p.data) + record.Overhead
		q.giveBack(p)
	}
	return n, lowest
}

// trim lets go of buffers that nothing has used lately.
func (q *queue) trim() {
	if keep := max(q.packets, 64); len(q.free) > keep {
		clear(q.free[keep:])
		q.free = q.free[:keep]
	}
}
