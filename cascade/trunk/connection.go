package trunk

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
	"github.com/amphi-sfu/amphi/media/udp"
)

const (
	// helloTime is how long both ends have to say hello, openTime how long records have to
	// come through then.
	helloTime = 5 * time.Second
	openTime  = 3 * time.Second
	// writeTime is how long a write to the control connection may take, byeTime the last one.
	writeTime = 10 * time.Second
	byeTime   = 300 * time.Millisecond
)

// Reasons why a trunk goes down.
const (
	reasonSilent   = "nothing is answered"
	reasonClosed   = "control connection closed"
	reasonReplaced = "replaced by a newer connection"
	reasonNoMedia  = "records do not come through"
	reasonStopping = "this node stops"
	reasonUnwanted = "no longer wanted"
)

var errRefused = errors.New("trunk: there is a connection already")

// connection is one control connection with its line: one life of a trunk.
type connection struct {
	set     *Set
	node    string
	tls     *tls.Conn
	dialled bool
	id      uint32 // in the records that we receive
	peer    hello
	line    *line
	out     *outbox
	up      chan struct{} // closed by the writer when records pass
	dead    chan struct{} // closed by the writer when none do any more
	retire  chan string   // asks run to end
	frames  chan []byte   // messages that came
	lost    chan string   // the control connection is gone, with a reason
	ended   chan struct{} // closed when the handler has been told all
	prior   chan struct{} // ended of the connection whose place it took; nil: there was none

	began int64
	upAt  atomic.Int64                   // when records passed first; 0 before
	addr  atomic.Pointer[netip.AddrPort] // where the other end's records come from
	dirty atomic.Bool

	// The fields below belong to the writer.
	dest   *udp.Dest
	at     int64 // when to poll next
	state  state
	budget int64
}

// serve runs one control connection to its end. The error says why it never was a trunk.
func (s *Set) serve(ctx context.Context, node string, conn *tls.Conn, dialled bool, addr netip.AddrPort) error {
	defer conn.Close()
	c := &connection{
		set: s, node: node, tls: conn, dialled: dialled, out: newOutbox(), up: make(chan struct{}), dead: make(chan struct{}),
		retire: make(chan string, 1), frames: make(chan []byte), lost: make(chan string, 2), ended: make(chan struct{}),
	}
	if err := c.greet(ctx, addr); err != nil {
		return err
	}
	if err := s.adopt(c); err != nil {
		return err
	}
	defer c.toldAll()
	defer s.drop(c)
	var loops sync.WaitGroup
	ending, end := context.WithCancel(ctx)
	loops.Go(func() { c.readFrames(ending) })
	loops.Go(func() { c.writeFrames(ending) })
	s.poke(c)
	reason := c.live(ctx)
	c.out.close()
	end()
	_ = conn.SetReadDeadline(time.Now()) // ends readFrames
	c.bye(&loops, reason)
	if c.upAt.Load() == 0 {
		return errors.New(reason)
	}
	s.log.Info("trunk down", "node", node, "reason", reason)
	s.deps.Handler.TrunkDown(node, reason)
	return nil
}

// toldAll lets the connection that took this one's place go up.
func (c *connection) toldAll() {
	if c.prior != nil {
		<-c.prior
	}
	close(c.ended)
}

// bye waits for the loops and says goodbye as far as the connection takes it within byeTime.
func (c *connection) bye(loops *sync.WaitGroup, reason string) {
	raw := c.tls.NetConn()
	cut := time.AfterFunc(byeTime, func() { raw.Close() })
	defer cut.Stop()
	loops.Wait()
	if _, err := c.tls.Write(appendFrame(nil, frameBye, []byte(reason))); err != nil {
		raw.Close() // a polite close would wait
	}
}

// greet exchanges hellos and makes the line.
func (c *connection) greet(ctx context.Context, addr netip.AddrPort) error {
	stop := context.AfterFunc(ctx, func() { _ = c.tls.SetDeadline(time.Now()) })
	defer stop()
	_ = c.tls.SetDeadline(time.Now().Add(helloTime))
	if err := c.tls.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("trunk: TLS with %s: %w", c.node, err)
	}
	c.id = c.set.newID()
	mine := hello{conn: c.id, boot: c.set.boot, port: c.set.sock.LocalAddr().Port()}
	if _, err := c.tls.Write(appendFrame(nil, frameHello, mine.append(nil))); err != nil {
		return fmt.Errorf("greeting %s: %w", c.node, err)
	}
	kind, body, err := readFrame(c.tls, helloSize*4)
	if err != nil {
		return err
	}
	if kind != frameHello {
		return errBadHello
	}
	if c.peer, err = parseHello(body); err != nil {
		return err
	}
	_ = c.tls.SetDeadline(time.Time{})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !addr.IsValid() { // nobody said where: beside the control connection
		host, err := netip.ParseAddrPort(c.tls.RemoteAddr().String())
		if err != nil {
			return fmt.Errorf("trunk: no address for records to %s: %w", c.node, err)
		}
		addr = netip.AddrPortFrom(host.Addr().Unmap(), c.peer.port)
	}
	c.addr.Store(&addr)
	state := c.tls.ConnectionState()
	out, in, err := record.Secrets(state.ExportKeyingMaterial, c.dialled)
	if err != nil {
		return err
	}
	c.began = c.set.cfg.Now()
	c.line, err = newLine(lineConfig{
		out: out, in: in, outConn: c.peer.conn, inConn: c.id,
		initial: c.set.cfg.Initial, min: c.set.cfg.Min, max: c.set.cfg.Max, seed: uint64(c.id),
	}, c.began)
	return err
}

// live passes on what happens, in order, until the trunk ends.
func (c *connection) live(ctx context.Context) (reason string) {
	opened := time.NewTimer(openTime)
	defer opened.Stop()
	select { // messages wait until the path for media is open
	case <-c.up:
	case <-opened.C:
		return reasonNoMedia
	case reason = <-c.lost:
		return reason
	case reason = <-c.retire:
		return reason
	case <-ctx.Done():
		return reasonStopping
	}
	if c.prior != nil { // the handler first hears that the connection before is down
		select {
		case <-c.prior:
		case reason = <-c.lost:
			return reason
		case reason = <-c.retire:
			return reason
		case <-c.dead:
			return reasonSilent
		case <-ctx.Done():
			return reasonStopping
		}
	}
	c.upAt.Store(max(c.set.cfg.Now(), 1))
	c.set.log.Info("trunk up", "node", c.node)
	c.set.deps.Handler.TrunkUp(c.node)
	for {
		select {
		case msg := <-c.frames:
			c.set.deps.Handler.TrunkMessage(c.node, msg)
		case <-c.dead:
			return reasonSilent
		case reason = <-c.lost:
			return reason
		case reason = <-c.retire:
			return reason
		case <-ctx.Done():
			return reasonStopping
		}
	}
}

// readFrames reads messages until the connection ends.
func (c *connection) readFrames(ctx context.Context) {
	for {
		kind, body, err := readFrame(c.tls, MaxMessage)
		reason := ""
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			reason = reasonClosed
		case err != nil:
			reason = err.Error()
		case kind == frameBye:
			reason = "the other end: " + printable(body)
		case kind == frameMessage:
			select {
			case c.frames <- body:
				continue
			case <-ctx.Done():
				return
			}
		default:
			reason = "a second hello"
		}
		c.lost <- reason
		return
	}
}

// printable keeps what a log may show of what the other end says.
func printable(b []byte) string {
	for i, ch := range b {
		if ch < ' ' || ch > '~' {
			return string(b[:i])
		}
	}
	return string(b)
}

// writeFrames writes what waits in the outbox until ctx ends.
func (c *connection) writeFrames(ctx context.Context) {
	for {
		for _, frame := range c.out.take() {
			if ctx.Err() != nil {
				return
			}
			_ = c.tls.SetWriteDeadline(time.Now().Add(writeTime))
			if _, err := c.tls.Write(frame); err != nil {
				c.lost <- reasonClosed
				return
			}
		}
		select {
		case <-c.out.wake:
		case <-ctx.Done():
			return
		}
	}
}

// end asks the connection to end.
func (c *connection) end(reason string) {
	select {
	case c.retire <- reason:
	default:
	}
}

// adopt puts c into the table unless there is a connection that counts more. Of two that the
// ends dialled at the same time both keep the one dialled by the node with the lower id.
func (s *Set) adopt(c *connection) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.table.Load()
	if _, taken := old.byID[c.id]; taken {
		return errRefused // one in four billion; the next try has another id
	}
	before := old.byNode[c.node]
	switch {
	case s.closed:
		return errors.New(reasonStopping)
	case before == nil && len(old.list) >= MaxTrunks:
		return errors.New("trunk: too many trunks")
	case before != nil && before.peer.boot == c.peer.boot && before.dialled != c.dialled && c.dialled != (s.cfg.Node < c.node):
		return errRefused
	}
	next := old.without(before)
	next.byID[c.id], next.byNode[c.node] = c, c
	next.list = append(next.list, c)
	s.table.Store(next)
	if before != nil {
		c.prior = before.ended
		before.end(reasonReplaced)
	}
	return nil
}

// drop takes c out of the table: its records are refused from now on.
func (s *Set) drop(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.table.Load(); old.byID[c.id] == c {
		s.table.Store(old.without(c))
	}
}

// without returns a copy, without c unless that is nil.
func (t *table) without(c *connection) *table {
	next := &table{byID: maps.Clone(t.byID), byNode: maps.Clone(t.byNode), list: slices.Clone(t.list)}
	if next.byID == nil {
		next.byID, next.byNode = map[uint32]*connection{}, map[string]*connection{}
	}
	if c != nil {
		delete(next.byID, c.id)
		if next.byNode[c.node] == c {
			delete(next.byNode, c.node)
		}
		next.list = slices.DeleteFunc(next.list, func(o *connection) bool { return o == c })
	}
	return next
}

// newID draws a connection id.
func (s *Set) newID() uint32 {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand never fails
	}
	return binary.BigEndian.Uint32(b[:])
}

// moved takes note of where a genuine and new record came from: behind a NAT that changes.
func (c *connection) moved(from netip.AddrPort, number uint64) {
	if number < c.line.opener.Highest() {
		return
	}
	if at := c.addr.Load(); *at != from {
		c.set.log.Info("trunk's address changed", "node", c.node, "from", *at, "to", from)
		c.addr.Store(&from)
	}
}

// pollInto lets the line write what is due. It belongs to the writer.
func (c *connection) pollInto(sender *udp.Sender, now int64) {
	if addr := *c.addr.Load(); c.dest == nil {
		c.dest = sender.NewDest(addr)
	} else {
		c.dest.SetAddr(addr)
	}
	c.at = c.line.poll(c.dest, now)
}

// tell passes on what the last poll brought about. It belongs to the writer.
func (c *connection) tell() {
	state, budget, changes := c.line.news()
	if c.state == opening && state != opening {
		close(c.up)
	}
	if c.state != dead && state == dead {
		close(c.dead)
	}
	c.state = state
	if c.upAt.Load() == 0 {
		return // the rest is of interest only after TrunkUp
	}
	if math.Abs(float64(budget-c.budget)) > 0.03*float64(c.budget) {
		c.budget = budget
		c.set.deps.Handler.TrunkBudget(c.node, budget)
	}
	if c.set.deps.Shed != nil {
		for _, ch := range changes {
			c.set.deps.Shed(c.node, ch.label, ch.shed)
		}
	}
}
