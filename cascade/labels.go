package cascade

import (
	"sync"
	"sync/atomic"
)

// labelTable finds what a label that this node assigned stands for.
type labelTable[T any] struct {
	mu     sync.RWMutex // guards the field below; held for reading while a packet of a label is taken
	labels map[uint32]T
}

func (t *labelTable[T]) add(number uint32, v T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.labels == nil {
		t.labels = map[uint32]T{}
	}
	t.labels[number] = v
}

// remove takes labels away. When it returns no packet of them is under way.
func (t *labelTable[T]) remove(numbers ...uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range numbers {
		delete(t.labels, n)
	}
}

// outTable finds the relay of a label that another node assigned.
type outTable struct {
	mu     sync.RWMutex // guards the field below
	relays map[outKey]*relay
}

type outKey struct {
	node  string
	label uint32
}

func (t *outTable) find(node string, label uint32) *relay {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.relays[outKey{node, label}]
}

// add is false when the label is in use.
func (t *outTable) add(r *relay) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := outKey{r.node, r.label}
	if t.relays == nil {
		t.relays = map[outKey]*relay{}
	}
	if t.relays[key] != nil {
		return false
	}
	t.relays[key] = r
	return true
}

func (t *outTable) remove(r *relay) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key := (outKey{r.node, r.label}); t.relays[key] == r {
		delete(t.relays, key)
	}
}

// label is what one of this node's labels stands for: an encoding of a track from one parent.
type label struct {
	number   uint32
	source   *source
	intake   *intake
	encoding int
	// awaited: it is of another generation than what is being received. The first packet of it begins that.
	awaited atomic.Bool
	last    atomic.Int64 // arrival of the newest packet, on media's clock; 0: none
	packets atomic.Uint64
	bytes   atomic.Uint64
}

// take writes a packet.
func (l *label) take(ext uint64, rtp []byte, arrivalNS int64) {
	l.last.Store(arrivalNS)
	l.packets.Add(1)
	l.bytes.Add(uint64(len(rtp)))
	s := &l.intake.streams[l.encoding]
	s.last.Store(arrivalNS)
	for {
		h := s.highest.Load()
		if ext <= h || s.highest.CompareAndSwap(h, ext) {
			break
		}
	}
	l.intake.remote.Write(l.encoding, ext, rtp, arrivalNS)
}
