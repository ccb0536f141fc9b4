package media

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/media/ice"
	"github.com/amphi-sfu/amphi/media/icetcp"
	"github.com/amphi-sfu/amphi/media/packet"
)

// connector is what the transports of all endpoints share: it finds the transport that a
// datagram is for, serves ICE-TCP, and wakes the transports when their time has come.
type connector struct {
	e          *Engine
	tcp        *icetcp.Listener // nil without ICE-TCP
	candidates []string
	outputs    sync.Pool // of *ice.Output
	timers     timers

	mu       sync.RWMutex // guards the fields below; taken after a transport's
	nextID   uint32
	byID     map[uint32]*transport
	byUfrag  map[string]*transport
	byAddr   map[netip.AddrPort]owner
	byStream map[uint64]owner // by number of the TCP connection
}

// owner of a remote address. Until the client has proven that it receives there the
// address may be somebody else's.
type owner struct {
	t      *transport
	proven bool
	stream *icetcp.Conn
}

func newConnector(e *Engine, ips []netip.Addr) (*connector, error) {
	c := &connector{
		e: e, byID: map[uint32]*transport{}, byUfrag: map[string]*transport{},
		byAddr: map[netip.AddrPort]owner{}, byStream: map[uint64]owner{},
	}
	c.outputs.New = func() any { return &ice.Output{} }
	tcpPort := uint16(0)
	if e.cfg.TCPAddr != "" {
		l, err := icetcp.Listen(icetcp.Config{
			Addr: e.cfg.TCPAddr, MaxFrame: packet.MaxSize, Receive: c.fromStream, Closed: c.streamClosed,
		})
		if err != nil {
			return nil, fmt.Errorf("serving ICE-TCP: %w", err)
		}
		c.tcp, tcpPort = l, l.Addr().Port()
	}
	for i, ip := range ips {
		c.addCandidate(i, ip.Unmap(), e.conn.LocalAddr().Port(), tcpPort)
	}
	return c, nil
}

// addCandidate adds one address to the answers, with the priorities of RFC 8445 section
// 5.1.2: host type 126, addresses in their order; ICE-TCP (RFC 6544 section 4.2) below.
func (c *connector) addCandidate(i int, ip netip.Addr, port, tcpPort uint16) {
	udpPriority := 126<<24 | (65535-i)<<8 | 255
	c.candidates = append(c.candidates, fmt.Sprintf("%d 1 udp %d %s %d typ host", i+1, udpPriority, ip, port))
	if tcpPort != 0 {
		tcpPriority := 99<<24 | (4<<13|8191-i)<<8 | 255
		c.candidates = append(c.candidates, fmt.Sprintf("%d 1 tcp %d %s %d typ host tcptype passive", 100+i, tcpPriority, ip, tcpPort))
	}
}

func (c *connector) close() error {
	if c.tcp == nil {
		return nil
	}
	return c.tcp.Close()
}

// add makes t known and gives it its number.
func (c *connector) add(t *transport) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.nextID++; c.byID[c.nextID] != nil || c.nextID == 0; c.nextID++ {
	}
	c.byID[c.nextID] = t
	return c.nextID
}

func (c *connector) addUfrag(ufrag string, t *transport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byUfrag[ufrag] = t
}

func (c *connector) removeUfrag(ufrag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byUfrag, ufrag)
}

// remove forgets all of a transport.
func (c *connector) remove(t *transport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byID, t.id)
	for _, ufrag := range t.ufrags {
		delete(c.byUfrag, ufrag)
	}
}

// claim gives an address to t, unless it has been proven to be another's and this one's
// claim has not: nobody gets at what others receive by forging their address.
func (c *connector) claim(p ice.Path, t *transport, proven bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Conn != 0 {
		if o, ok := c.byStream[p.Conn]; ok && (o.t == nil || o.t == t) {
			o.t = t
			c.byStream[p.Conn] = o
		}
		return
	}
	if o, ok := c.byAddr[p.Addr]; ok && o.t != t && o.proven && !proven {
		return
	}
	c.byAddr[p.Addr] = owner{t: t, proven: proven}
}

// release forgets that an address is t's.
func (c *connector) release(p ice.Path, t *transport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Conn != 0 {
		if o := c.byStream[p.Conn]; o.t == t {
			delete(c.byStream, p.Conn)
			o.stream.Close()
		}
		return
	}
	if c.byAddr[p.Addr].t == t {
		delete(c.byAddr, p.Addr)
	}
}

// stream returns a TCP connection by its number, nil when it is gone.
func (c *connector) stream(id uint64) *icetcp.Conn {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byStream[id].stream
}

// at returns the transport that an address belongs to, nil when there is none.
func (c *connector) at(a netip.AddrPort) *transport {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byAddr[a].t
}

// fromStream takes a datagram of a TCP connection.
func (c *connector) fromStream(s *icetcp.Conn, b []byte) {
	c.mu.Lock()
	o, ok := c.byStream[s.ID()]
	if !ok {
		o = owner{stream: s}
		c.byStream[s.ID()] = o
	}
	c.mu.Unlock()
	c.datagram(b, ice.Path{Addr: s.Remote(), Conn: s.ID()}, o.t)
	c.e.kickWorkers()
}

func (c *connector) streamClosed(s *icetcp.Conn) {
	c.mu.Lock()
	o := c.byStream[s.ID()]
	delete(c.byStream, s.ID())
	c.mu.Unlock()
	if o.t != nil {
		o.t.lost(ice.Path{Addr: s.Remote(), Conn: s.ID()})
	}
}

// datagram takes what came by a path, which is t's if that is not nil (RFC 7983).
func (c *connector) datagram(b []byte, from ice.Path, t *transport) {
	if len(b) == 0 {
		return
	}
	switch {
	case b[0] < 4:
		c.check(b, from, t)
	case t == nil:
		c.e.drops.add(dropUnknownSource)
	case b[0] >= 128 && b[0] < 192:
		t.ep.in.datagram(b, c.e.now())
	case b[0] >= 20 && b[0] < 64:
		t.record(b)
	default:
		c.e.drops.add(dropUnknownSource)
	}
}

// check takes a STUN message: requests are for the session they name, responses for the
// agent that asked.
func (c *connector) check(b []byte, from ice.Path, owner *transport) {
	var m ice.Message
	drop := m.Parse(b)
	if drop == ice.DropNone {
		t := c.addressee(&m)
		if t == nil || from.Conn != 0 && owner != nil && owner != t {
			drop = ice.DropUnknownUfrag
		} else {
			drop = t.check(&m, from)
		}
	}
	switch drop {
	case ice.DropNone:
	case ice.DropMalformed, ice.DropMethod:
		c.e.drops.add(dropSTUN)
	case ice.DropUnauthentic:
		c.e.drops.add(dropSTUNAuth)
	default:
		c.e.drops.add(dropSTUNSession)
	}
}

func (c *connector) addressee(m *ice.Message) *transport {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if id, ok := m.Answers(); ok {
		return c.byID[id]
	}
	return c.byUfrag[string(m.Ufrag())]
}

// tick does what is due at transports.
func (c *connector) tick(now int64) {
	for t := range c.timers.due(now) {
		t.tick(now)
	}
}

func (c *connector) output() *ice.Output {
	o := c.outputs.Get().(*ice.Output)
	o.Reset()
	return o
}

// timers are the times at which transports want to be called. They cost one clock for
// all, instead of a ticker each.
type timers struct {
	mu   sync.Mutex // guards heap
	heap []*transport
}

// set makes t due at a time, or earlier if it was due before then already.
func (h *timers) set(t *transport, at int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.timer >= 0 {
		if at < t.dueAt {
			t.dueAt = at
			h.up(t.timer)
		}
		return
	}
	t.dueAt, t.timer = at, len(h.heap)
	h.heap = append(h.heap, t)
	h.up(t.timer)
}

// remove forgets t.
func (h *timers) remove(t *transport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.timer >= 0 {
		h.take(t.timer)
	}
}

// due takes out one after the other those whose time has come.
func (h *timers) due(now int64) func(yield func(*transport) bool) {
	return func(yield func(*transport) bool) {
		for {
			h.mu.Lock()
			if len(h.heap) == 0 || h.heap[0].dueAt > now {
				h.mu.Unlock()
				return
			}
			t := h.take(0)
			h.mu.Unlock()
			if !yield(t) {
				return
			}
		}
	}
}

func (h *timers) take(i int) *transport {
	t, last := h.heap[i], len(h.heap)-1
	h.swap(i, last)
	h.heap[last] = nil
	h.heap = h.heap[:last]
	if i < last {
		h.down(i)
		h.up(i)
	}
	t.timer = -1
	return t
}

func (h *timers) up(i int) {
	for parent := (i - 1) / 2; i > 0 && h.heap[i].dueAt < h.heap[parent].dueAt; parent = (i - 1) / 2 {
		h.swap(i, parent)
		i = parent
	}
}

func (h *timers) down(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(h.heap) && h.heap[child].dueAt < h.heap[least].dueAt {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *timers) swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.heap[i].timer, h.heap[j].timer = i, j
}

var errNoPath = errors.New("no path to the client")

// randomID makes transaction ids, from the runtime's ChaCha8 generator.
func randomID() uint64 { return rand.Uint64() }

const forever = int64(time.Duration(1<<63 - 1))
