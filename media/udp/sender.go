package udp

import (
	"bytes"
	"net/netip"
)

const (
	// arenaSize is the memory for queued packets of one Sender: about 1,700
	// packets of 1,200 bytes. Only what is used is ever touched.
	arenaSize = 2 << 20
	// maxQueued is how many packets one Sender queues before it flushes by itself.
	maxQueued = 8192
	// maxRunBytes keeps a GSO run below the largest UDP payload.
	maxRunBytes = 65000
	none        = int32(-1)
)

// Sender queues packets per destination and sends them on Flush, runs of equal
// sizes to one destination (the last may be shorter) as one GSO message. It
// belongs to one goroutine; any number of Senders share a Conn without locks.
// In steady state it allocates nothing.
type Sender struct {
	conn   *Conn
	arena  []byte
	used   int
	pkts   []queued
	active []*Dest // destinations with something queued, in order of first use
	order  []int32 // scratch: packets in the order in which they leave
	tx     transmitter
	tally  tally
}

// queued is one packet in the arena; next chains the packets of a destination.
type queued struct {
	off, n, next int32
}

// tally collects what one Flush did, to touch shared counters once.
type tally struct {
	calls, messages, datagrams, bytes int
}

// run is one message to the kernel: pkts leave in this order, as one GSO
// message when there are several.
type run struct {
	dest  *Dest
	pkts  []int32
	bytes int
}

// Dest is the queue towards one remote address. It belongs to its Sender's
// goroutine.
type Dest struct {
	sender     *Sender
	addr       netip.AddrPort
	sa         sockaddr
	head, tail int32
	noGSO      bool // the kernel refused GSO on this route
}

// NewSender makes a Sender on the shared socket.
func (c *Conn) NewSender() *Sender {
	s := &Sender{
		conn:   c,
		arena:  make([]byte, arenaSize),
		pkts:   make([]queued, 0, maxQueued),
		active: make([]*Dest, 0, 256),
		order:  make([]int32, 0, maxQueued),
	}
	s.tx.init(c)
	return s
}

// NewDest makes an empty queue towards addr.
func (s *Sender) NewDest(addr netip.AddrPort) *Dest {
	d := &Dest{sender: s, head: none, tail: none}
	d.SetAddr(addr)
	return d
}

// Addr is where the queue's packets go.
func (d *Dest) Addr() netip.AddrPort { return d.addr }

// SetAddr changes the remote address, also for what is queued already.
func (d *Dest) SetAddr(addr netip.AddrPort) {
	addr = unmap(addr)
	if addr == d.addr {
		return
	}
	d.addr = addr
	d.sa.set(d.sender.conn.family, addr)
	d.noGSO = false
}

// Reserve returns an empty slice with room for n bytes (1..65507) in the send
// memory: append to it in place, then call Commit with its final length. A
// reservation that is not committed is given up by the next Reserve. When the
// memory is full, everything queued is flushed first.
func (d *Dest) Reserve(n int) []byte {
	s := d.sender
	if len(s.arena)-s.used < n || len(s.pkts) == cap(s.pkts) {
		s.Flush()
	}
	return s.arena[s.used:s.used:min(s.used+n, len(s.arena))]
}

// Commit queues the first n bytes of the last reservation.
func (d *Dest) Commit(n int) {
	s := d.sender
	i := int32(len(s.pkts))
	s.pkts = append(s.pkts, queued{off: int32(s.used), n: int32(n), next: none})
	s.used += n
	if d.head == none {
		d.head = i
		s.active = append(s.active, d)
	} else {
		s.pkts[d.tail].next = i
	}
	d.tail = i
}

// Write queues a copy of b.
func (d *Dest) Write(b []byte) {
	buf := d.Reserve(len(b))
	d.Commit(copy(buf[:len(b)], b))
}

// Queued is the number of packets waiting for Flush.
func (s *Sender) Queued() int { return len(s.pkts) }

// Flush sends everything queued: the first run of every destination, then the
// second of every one, and so on, so that a keyframe to one does not delay the
// others. What cannot be sent is dropped and counted by reason.
func (s *Sender) Flush() {
	if len(s.pkts) == 0 {
		return
	}
	s.tally = tally{}
	s.order = s.order[:0]
	for pending := len(s.active); pending > 0; {
		pending = 0
		for _, d := range s.active {
			if d.head == none {
				continue
			}
			s.tx.add(s, s.nextRun(d))
			if d.head != none {
				pending++
			}
		}
	}
	s.tx.flush(s)
	clear(s.active)
	s.active = s.active[:0]
	s.pkts = s.pkts[:0]
	s.used = 0
	s.conn.counters.sent(s.tally.calls, s.tally.messages, s.tally.datagrams, s.tally.bytes)
}

// nextRun takes packets from the head of d that can leave as one message.
func (s *Sender) nextRun(d *Dest) run {
	start := len(s.order)
	limit := s.conn.cfg.MaxSegments
	if d.noGSO || s.conn.noGSO.Load() {
		limit = 1
	}
	// Only the last segment may be shorter. So a packet before a longer one of another stream
	// goes last: sound behind the frame that came with it, the shorter of two sounds.
	lead, last := s.take(d), none
	if limit > 1 && d.head != none && s.pkts[d.head].n > s.pkts[lead].n && s.otherStream(lead, d.head) &&
		s.pkts[lead].n+s.pkts[d.head].n <= maxRunBytes {
		lead, last = s.take(d), lead
	}
	seg, size := s.pkts[lead].n, s.pkts[lead].n
	s.order = append(s.order, lead)
	if last != none {
		size += s.pkts[last].n
		limit--
	}
	for d.head != none && len(s.order)-start < limit {
		n := s.pkts[d.head].n
		// What waits to be last must not be overtaken by more of its stream.
		if n > seg || size+n > maxRunBytes || last != none && (n < seg || !s.otherStream(last, d.head)) {
			break
		}
		s.order = append(s.order, s.take(d))
		size += n
		if n < seg {
			break
		}
	}
	if last != none {
		s.order = append(s.order, last)
	}
	return run{dest: d, pkts: s.order[start:], bytes: int(size)}
}

func (s *Sender) take(d *Dest) int32 {
	i := d.head
	d.head = s.pkts[i].next
	if d.head == none {
		d.tail = none
	}
	return i
}

// otherStream says that two RTP packets differ in SSRC (RFC 3550 section 5.1),
// so that their order on the wire does not matter to a receiver.
func (s *Sender) otherStream(a, b int32) bool {
	p, q := s.bytes(a), s.bytes(b)
	return len(p) >= 12 && len(q) >= 12 && !bytes.Equal(p[8:12], q[8:12])
}

func (s *Sender) bytes(i int32) []byte {
	p := s.pkts[i]
	return s.arena[p.off : p.off+p.n]
}

// sendPlain sends the packets of one run one by one.
func (s *Sender) sendPlain(r run) {
	for _, i := range r.pkts {
		b := s.bytes(i)
		s.tally.calls++
		if _, err := s.conn.sock.WriteToUDPAddrPort(b, r.dest.addr); err != nil {
			s.conn.counters.drop(reasonOf(err))
			continue
		}
		s.tally.messages++
		s.tally.datagrams++
		s.tally.bytes += len(b)
	}
}
