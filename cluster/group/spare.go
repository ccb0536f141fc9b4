package group

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

// keep has connections to the nodes that to names ready for Dial, until the streams are closed.
func (s *streams) keep(to func() []string, timeout time.Duration) {
	ticks := time.NewTicker(spareEvery)
	defer ticks.Stop()
	for {
		s.refill(to(), timeout)
		select {
		case <-s.ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// refill gives up the spares to other nodes than these, and those that have ended, and has the missing ones opened.
func (s *streams) refill(nodes []string, timeout time.Duration) {
	nodes = nodes[:min(len(nodes), mostSpared)]
	for _, node := range s.spared() {
		wanted := slices.Contains(nodes, node)
		for range spares {
			st := s.take(node)
			switch {
			case st == nil:
			case wanted && st.idle():
				s.put(node, st)
			default:
				_ = st.Close()
			}
		}
	}
	for _, node := range nodes {
		if n := s.claim(node); n > 0 {
			s.keeping.Go(func() { s.open(node, n, timeout) })
		}
	}
}

// spared are the nodes to which there are spares.
func (s *streams) spared() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []string
	for node := range s.spare {
		nodes = append(nodes, node)
	}
	return nodes
}

// take is the spare to a node that has been there for longest; nil: there is none.
func (s *streams) take(node string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.spare[node]
	if len(all) == 0 {
		return nil
	}
	if s.spare[node] = all[1:]; len(all) == 1 {
		delete(s.spare, node)
	}
	return all[0]
}

func (s *streams) put(node string, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare[node] = append(s.spare[node], st)
}

// claim is how many spares to a node its caller is to open; 0 while another does.
func (s *streams) claim(node string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := spares - len(s.spare[node])
	if n <= 0 || s.opening[node] || s.closed {
		return 0
	}
	s.opening[node] = true
	return n
}

// open opens n spares to a node, or as many as it can before one fails.
func (s *streams) open(node string, n int, timeout time.Duration) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.opening, node)
	}()
	for range n {
		ctx, cancel := context.WithTimeout(s.ctx, timeout)
		conn, err := s.dial(ctx, node)
		cancel()
		if err != nil {
			return
		}
		st, ok := s.add(conn, false)
		if !ok {
			return
		}
		s.put(node, st)
	}
}

// idle tells whether a spare is still open.
func (st *stream) idle() bool {
	if st.SetReadDeadline(time.Now().Add(silence)) != nil {
		return false
	}
	_, err := st.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded) && st.SetReadDeadline(time.Time{}) == nil
}
