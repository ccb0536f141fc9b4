package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How long a dialler waits between attempts, at first and at most; a connection that lived for steady begins anew.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
	steady    = 5 * time.Second
)

// writeChunk is how much is written between two looks at the clock: the other side must take it within StallAfter.
const writeChunk = 64 << 10

// conn is one connection of the message protocol.
type conn struct {
	link *Link
	peer *peer
	tls  *tls.Conn
	out  *queue // to be sent
	in   *queue // to be handled
	done chan struct{}

	// Nanoseconds since Link.start, and of the round trip.
	lastHeard, rtt atomic.Int64
	trips          trips // the reader's
	// The other side's clock as last heard in a beat, and when.
	echo, echoAt atomic.Int64

	sent, received, dropped, messages, delivered atomic.Uint64

	calls calls
}

// clock is nanoseconds since the Link began; it never steps.
func (l *Link) clock() int64 { return int64(time.Since(l.start)) }

func (c *conn) heard() time.Time { return c.link.start.Add(time.Duration(c.lastHeard.Load())) }

// keep connects to p again and again until ctx is done. It belongs to the node with the smaller id, so that two nodes
// never have two connections.
func (l *Link) keep(ctx context.Context, p *peer) {
	wait, failing := firstWait, false
	for ctx.Err() == nil {
		conn, err := l.Dial(ctx, p.id, MessageProtocol)
		if err == nil {
			failing = false
			began := time.Now()
			l.run(p.id, conn)
			if time.Since(began) >= steady {
				wait = firstWait
			}
		} else if !failing && ctx.Err() == nil {
			failing = true
			l.log.Info("a node cannot be reached; trying on", "peer", p.id, "err", err)
		}
		// Half of it at random: the nodes that lost one node do not come back in step.
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
			wait = min(2*wait, lastWait)
		case <-p.changed:
			wait = firstWait
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// accepted takes a connection that another node opened, which must be the one whose task it is.
func (l *Link) accepted(node string, t *tls.Conn) {
	if node > l.self {
		l.refused.Add(refusedDirection, node, nil)
		_ = t.Close()
		return
	}
	l.run(node, t)
}

// run lives as long as the connection. A connection that is still there is replaced: its node has given it up. Nothing
// of the new one is handled before the old one is through.
func (l *Link) run(node string, t *tls.Conn) {
	c := &conn{
		link: l, tls: t, out: newQueue(l.cfg.QueueBytes), in: newQueue(l.cfg.QueueBytes), done: make(chan struct{}),
	}
	defer close(c.done)
	c.lastHeard.Store(l.clock())
	l.mu.Lock()
	c.peer = l.peerLocked(node)
	before := c.peer.conn
	c.peer.conn = c
	l.mu.Unlock()
	if before != nil {
		if l.clock()-before.lastHeard.Load() < int64(5*l.cfg.Heartbeat) {
			// It lived: a very quick restart, or one certificate on two machines.
			l.refused.Add(refusedSecond, node, nil)
		}
		_ = before.tls.Close()
		<-before.done
	}
	for _, f := range l.onChange {
		f(node, true)
	}
	err := c.serve()
	l.mu.Lock()
	if c.peer.conn == c {
		c.peer.conn = nil
	}
	c.peer.heard = c.heard()
	l.mu.Unlock()
	c.calls.fail(ErrLost)
	if errors.Is(err, errFrame) {
		l.refused.Add(refusedFrame, node, err)
	}
	l.log.Debug("the connection to a node ended", "peer", node, "err", err)
	for _, f := range l.onChange {
		f(node, false)
	}
}

// serve runs the three goroutines of a connection: reader (here), writer, and the one that hands out what came.
func (c *conn) serve() error {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var writeErr error
	wg.Go(func() {
		writeErr = c.write(ctx)
		_ = c.tls.Close()
	})
	wg.Go(func() { c.dispatch(ctx) })
	err := c.read(ctx)
	cancel()
	_ = c.tls.Close()
	c.out.close()
	c.in.close()
	wg.Wait()
	if err == nil || errors.Is(err, net.ErrClosed) && writeErr != nil {
		return writeErr
	}
	return err
}

func (c *conn) send(f frame) error {
	if !c.out.push(f) {
		c.dropped.Add(1)
		return ErrQueueFull
	}
	c.messages.Add(1)
	return nil
}

// patient reads with a deadline that moves with every byte, and knows when the last one came.
type patient struct{ c *conn }

func (p patient) Read(b []byte) (int, error) {
	_ = p.c.tls.SetReadDeadline(time.Now().Add(p.c.link.cfg.DeadAfter))
	n, err := p.c.tls.Read(b)
	if n > 0 {
		p.c.lastHeard.Store(p.c.link.clock())
	}
	return n, err
}

func (c *conn) read(ctx context.Context) error {
	r := bufio.NewReaderSize(patient{c}, writeChunk)
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		c.received.Add(uint64(f.size()))
		switch f.typ {
		case beat:
			c.heardBeat(f)
		case answer, failure:
			c.calls.end(f)
		default:
			if !c.accept(ctx, f) {
				return nil
			}
		}
	}
}

// accept queues f to be handled; while there is no room nothing more is read, and so the sender's queue fills.
func (c *conn) accept(ctx context.Context, f frame) bool {
	for !c.in.push(f) {
		select {
		case <-c.in.room:
		case <-ctx.Done():
			return false
		}
		if ctx.Err() != nil {
			return false
		}
	}
	return true
}

func (c *conn) dispatch(ctx context.Context) {
	for {
		select {
		case <-c.in.ready:
		case <-ctx.Done():
			return
		}
		for _, f := range c.in.take() {
			if ctx.Err() != nil {
				return
			}
			if f.typ == call {
				c.startCall(ctx, f)
			} else if handler := c.link.onMessage[f.kind]; handler != nil {
				handler(c.peer.id, f.body)
				c.delivered.Add(1)
			} else {
				c.link.refused.Add(refusedKind, c.peer.id, nil)
			}
			c.in.release(f)
		}
	}
}

func (c *conn) write(ctx context.Context) error {
	w := bufio.NewWriterSize(deadlined{c}, writeChunk)
	ticker := time.NewTicker(c.link.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-c.out.ready:
		case <-ticker.C:
			if err := c.put(w, c.beat()); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
		for _, f := range c.out.take() {
			err := c.put(w, f)
			c.out.release(f)
			if err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}

func (c *conn) put(w *bufio.Writer, f frame) error {
	h := f.header()
	if _, err := w.Write(h[:]); err != nil {
		return err
	}
	if _, err := w.Write(f.body); err != nil {
		return err
	}
	c.sent.Add(uint64(f.size()))
	return nil
}

// deadlined writes in chunks, each of which the other side must take in time.
type deadlined struct{ c *conn }

func (d deadlined) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		chunk := b[:min(len(b), writeChunk)]
		_ = d.c.tls.SetWriteDeadline(time.Now().Add(d.c.link.cfg.StallAfter))
		n, err := d.c.tls.Write(chunk)
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// beat says that this side lives, and gives the other side its clock back: one frame each way measures both round trips.
func (c *conn) beat() frame {
	now := c.link.clock()
	body := make([]byte, beatLen)
	if echo := c.echo.Load(); echo != 0 {
		binary.BigEndian.PutUint64(body, uint64(echo))
		binary.BigEndian.PutUint64(body[8:], uint64(now-c.echoAt.Load()))
	}
	return frame{typ: beat, id: uint64(now), body: body}
}

func (c *conn) heardBeat(f frame) {
	now := c.link.clock()
	c.echoAt.Store(now)
	c.echo.Store(int64(f.id))
	mine, held := int64(binary.BigEndian.Uint64(f.body)), int64(binary.BigEndian.Uint64(f.body[8:]))
	rtt := now - mine - held
	// A side that lies, or whose clock began anew, must not make this side's figure worse than unknown.
	if mine <= 0 || held < 0 || rtt <= 0 || rtt > int64(time.Minute) {
		return
	}
	c.trips.add(rtt)
	c.rtt.Store(c.trips.least())
}

const (
	// lastTrips is of how many beats the least round trip is the way's; fewTrips are too few to say.
	lastTrips, fewTrips = 16, 3
)

// trips are the round trips of the last beats, in nanoseconds. The least of them is the way's: what is longer waited for a
// processor, or for a packet that was sent again.
type trips struct {
	last [lastTrips]int64
	n    int
}

func (t *trips) add(rtt int64) {
	t.last[t.n%lastTrips] = rtt
	t.n++
}

// least is 0 while too few are known.
func (t *trips) least() int64 {
	if t.n < fewTrips {
		return 0
	}
	return slices.Min(t.last[:min(t.n, lastTrips)])
}
