package cluster_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// network joins nodes of one process: calls and connections between them, with a delay, that can be cut in one direction or
// both. What is on its way when a direction is cut arrives when it is healed.
type network struct {
	wg sync.WaitGroup // calls that are being answered

	mu      sync.Mutex // guards the fields below
	delay   time.Duration
	nodes   map[string]*port
	cuts    map[way]time.Time // since when
	changed chan struct{}     // closed, and made anew, on every change
}

// way is a direction between two nodes.
type way struct{ from, to string }

// port is one node's end: a cluster.Peers.
type port struct {
	net *network
	id  string

	// guarded by net.mu
	up     bool
	since  time.Time // of up or down
	accept func(node string, conn net.Conn)
	onCall func(ctx context.Context, from string, msg []byte) ([]byte, error)
	conns  map[*memConn]bool
}

func newNetwork() *network {
	return &network{nodes: map[string]*port{}, cuts: map[way]time.Time{}, changed: make(chan struct{})}
}

func (n *network) port(id string) *port {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.nodes[id]
	if p == nil {
		p = &port{net: n, id: id, conns: map[*memConn]bool{}}
		n.nodes[id] = p
	}
	return p
}

func (n *network) changeLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *network) set(cut bool, ways ...way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range ways {
		if _, is := n.cuts[w]; cut && !is {
			n.cuts[w] = time.Now()
		} else if !cut {
			delete(n.cuts, w)
		}
	}
	n.changeLocked()
}

// isolate cuts a node off from all others, both ways.
func (n *network) isolate(id string, others []string) {
	for _, o := range others {
		if o != id {
			n.set(true, way{id, o}, way{o, id})
		}
	}
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	n.changeLocked()
}

// state tells whether the way is open and its end up, the delay, and what to wait for when it is not.
func (n *network) state(w way) (open, up bool, delay time.Duration, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, cut := n.cuts[w]
	to := n.nodes[w.to]
	return !cut, to != nil && to.up && n.nodes[w.from].up, n.delay, n.changed
}

var errDown = errors.New("the node is down")

// travel returns when something has gone along the way.
func (n *network) travel(ctx context.Context, w way) error {
	_, _, delay, _ := n.state(w)
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		open, up, _, changed := n.state(w)
		switch {
		case !up:
			return errDown
		case open:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setUp begins or ends a node's part; its connections break when it ends.
func (p *port) setUp(up bool, accept func(node string, conn net.Conn)) {
	p.net.mu.Lock()
	p.up, p.since, p.accept = up, time.Now(), accept
	var conns []*memConn
	if !up {
		for c := range p.conns {
			conns = append(conns, c)
		}
	}
	p.net.changeLocked()
	p.net.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (p *port) Send(node string, _ byte, _ []byte) error {
	return p.net.travel(context.Background(), way{p.id, node})
}

func (p *port) OnCall(_ byte, f func(ctx context.Context, from string, msg []byte) ([]byte, error)) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.onCall = f
}

func (p *port) Call(ctx context.Context, node string, _ byte, msg []byte) ([]byte, error) {
	type answer struct {
		msg []byte
		err error
	}
	answers := make(chan answer, 1)
	p.net.wg.Go(func() {
		// What has been sent arrives, whether the caller still waits or not.
		there, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := p.net.travel(there, way{p.id, node}); err != nil {
			answers <- answer{err: err}
			return
		}
		p.net.mu.Lock()
		f := p.net.nodes[node].onCall
		p.net.mu.Unlock()
		if f == nil {
			answers <- answer{err: errDown}
			return
		}
		back, err := f(there, p.id, msg)
		if e := p.net.travel(there, way{node, p.id}); e != nil {
			err = e
		}
		answers <- answer{back, err}
	})
	select {
	case a := <-answers:
		return a.msg, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *port) Heard(node string) time.Time {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	other := p.net.nodes[node]
	if other == nil {
		return time.Time{}
	}
	if since, cut := p.net.cuts[way{node, p.id}]; cut {
		return since
	}
	if !other.up {
		return other.since
	}
	return time.Now()
}

func (p *port) RTT(string) time.Duration {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	return 2*p.net.delay + 1
}

func (p *port) Dial(ctx context.Context, node string) (net.Conn, error) {
	for range 3 { // as TCP, TLS and the byte that tells that the connection was taken
		if err := p.net.travel(ctx, way{p.id, node}); err != nil {
			return nil, err
		}
		if err := p.net.travel(ctx, way{node, p.id}); err != nil {
			return nil, err
		}
	}
	there, back := newPipe(p.net, way{p.id, node}), newPipe(p.net, way{node, p.id})
	mine, theirs := &memConn{in: back, out: there}, &memConn{in: there, out: back}
	p.net.mu.Lock()
	other := p.net.nodes[node]
	accept := other.accept
	if accept == nil || !p.up {
		p.net.mu.Unlock()
		return nil, errDown
	}
	for _, end := range []*port{p, other} {
		for c := range end.conns {
			if c.in.isClosed() {
				delete(end.conns, c)
			}
		}
		end.conns[mine] = true
	}
	p.net.mu.Unlock()
	accept(p.id, theirs)
	return mine, nil
}

// pipe is one direction of a connection.
type pipe struct {
	net    *network
	way    way
	closed chan struct{}
	once   sync.Once
	notify chan struct{} // holds a token when something was written

	mu     sync.Mutex // guards the field below
	chunks []chunk
}

type chunk struct {
	data []byte
	at   time.Time
}

func newPipe(n *network, w way) *pipe {
	return &pipe{net: n, way: w, closed: make(chan struct{}), notify: make(chan struct{}, 1)}
}

func (p *pipe) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

func (p *pipe) write(b []byte) (int, error) {
	if p.isClosed() {
		return 0, io.ErrClosedPipe
	}
	_, _, delay, _ := p.net.state(p.way)
	p.mu.Lock()
	p.chunks = append(p.chunks, chunk{append([]byte(nil), b...), time.Now().Add(delay)})
	p.mu.Unlock()
	select {
	case p.notify <- struct{}{}:
	default:
	}
	return len(b), nil
}

// take copies what has arrived; 0 with how long until the next does (0: nothing is on its way).
func (p *pipe) take(b []byte) (int, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.chunks) == 0 {
		return 0, 0
	}
	c := &p.chunks[0]
	if wait := time.Until(c.at); wait > 0 {
		return 0, wait
	}
	n := copy(b, c.data)
	if c.data = c.data[n:]; len(c.data) == 0 {
		p.chunks = p.chunks[1:]
	}
	return n, 0
}

func (p *pipe) read(b []byte, deadline time.Time) (int, error) {
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	for {
		open, _, _, changed := p.net.state(p.way)
		var due <-chan time.Time
		if open {
			n, wait := p.take(b)
			if n > 0 {
				return n, nil
			}
			if wait > 0 {
				due = time.After(wait)
			}
		}
		select {
		case <-p.notify:
		case <-due:
		case <-changed:
		case <-late:
			return 0, os.ErrDeadlineExceeded
		case <-p.closed:
			return 0, io.EOF
		}
	}
}

// memConn is one end of a connection.
type memConn struct {
	in, out *pipe

	mu       sync.Mutex // guards the field below
	deadline time.Time
}

func (c *memConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	return c.in.read(b, deadline)
}

func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *memConn) Close() error {
	for _, p := range []*pipe{c.in, c.out} {
		p.once.Do(func() { close(p.closed) })
	}
	return nil
}

func (c *memConn) LocalAddr() net.Addr  { return &net.UnixAddr{Name: c.out.way.from} }
func (c *memConn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: c.out.way.to} }

func (c *memConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
