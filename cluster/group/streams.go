package group

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// patience is for how long a connection to a node that cannot be reached is tried again. Raft backs off by the
	// number of its failures, up to 10 s: few long attempts keep it quick when the node is back.
	patience = 15 * time.Second
	retry    = 100 * time.Millisecond
	waiting  = 64 // connections that Raft has not taken yet

	// spares are how many connections a voter keeps ready to each other node: when it is elected, the one that carried the
	// votes carries the heartbeats, the other one entries. Opening one costs three round trips (TCP, TLS, the byte that
	// tells that it was taken), and a second more when the first packet is lost.
	spares     = 2
	mostSpared = 32 // nodes to which any are kept
	spareEvery = time.Second
	// silence is for how long a spare is listened to: nothing comes on it but its end.
	silence = time.Millisecond
)

var errClosed = errors.New("the Raft group is closed")

func compare(a, b string) int { return cmp.Compare(a, b) }

// streams are the connections of a group to others: what Raft's transport dials and listens on.
type streams struct {
	id      address
	dial    func(context.Context, string) (net.Conn, error)
	in      chan net.Conn
	ctx     context.Context // of the object's life
	cancel  context.CancelFunc
	serving sync.WaitGroup // one for each connection that Raft serves
	keeping sync.WaitGroup // keep, and what it opens

	mu      sync.Mutex // guards the fields below
	conns   map[*stream]bool
	spare   map[string][]*stream
	opening map[string]bool // nodes to which spares are being opened
	closed  bool
}

type address string

func (a address) Network() string { return "amphi" }
func (a address) String() string  { return string(a) }

// stream is a connection that is closed with the group.
type stream struct {
	net.Conn
	of     *streams
	served bool // it came in
	once   sync.Once
}

func (s *stream) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		s.of.mu.Lock()
		delete(s.of.conns, s)
		s.of.mu.Unlock()
		if s.served {
			s.of.serving.Done()
		}
	})
	return err
}

func newStreams(id string, dial func(context.Context, string) (net.Conn, error)) *streams {
	s := &streams{id: address(id), dial: dial, in: make(chan net.Conn, waiting), conns: map[*stream]bool{}, spare: map[string][]*stream{}, opening: map[string]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// add keeps a connection to close it in the end; false: it is closed already.
func (s *streams) add(conn net.Conn, served bool) (*stream, bool) {
	st := &stream{Conn: conn, of: s, served: served}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil, false
	}
	if served {
		s.serving.Add(1)
	}
	s.conns[st] = true
	return st, true
}

// deliver hands Raft a connection from another node, or closes it when too many wait or the group is closed.
func (s *streams) deliver(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		select {
		case s.in <- conn:
			return
		default:
		}
	}
	_ = conn.Close()
}

func (s *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-s.in:
		if st, ok := s.add(conn, true); ok {
			return st, nil
		}
	case <-s.ctx.Done():
	}
	return nil, errClosed
}

func (s *streams) Addr() net.Addr { return s.id }

func (s *streams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if string(to) == string(s.id) {
		here, there := net.Pipe()
		s.deliver(there)
		if st, ok := s.add(here, false); ok {
			return st, nil
		}
		return nil, errClosed
	}
	for st := s.take(string(to)); st != nil; st = s.take(string(to)) {
		if st.idle() {
			return st, nil
		}
		_ = st.Close()
	}
	ctx, cancel := context.WithTimeout(s.ctx, max(timeout, patience))
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, timeout)
		conn, err := s.dial(attempt, string(to))
		stop()
		if err == nil {
			if st, ok := s.add(conn, false); ok {
				return st, nil
			}
			return nil, errClosed
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(retry):
		}
	}
}

func (s *streams) Close() error {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	var open []net.Conn
	for st := range s.conns {
		open = append(open, st.Conn)
	}
	s.mu.Unlock()
	for {
		select {
		case conn := <-s.in:
			open = append(open, conn)
			continue
		default:
		}
		break
	}
	for _, c := range open {
		_ = c.Close()
	}
	return nil
}

// wait returns when Raft serves no connection any more, and none is opened.
func (s *streams) wait() {
	s.serving.Wait()
	s.keeping.Wait()
}
