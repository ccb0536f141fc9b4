package signal

import (
	"context"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

// keepMoved is how long the media of a peer goes on here that another node has taken over: until its client has the
// other node's, and closes this one's.
const keepMoved = 10 * time.Second

// MoveClients asks clients for whom the guide knows a better node to go on there, make before break, at most perSecond
// of them in a second. It returns how many were asked, when all were or ctx has ended.
func (s *Server) MoveClients(ctx context.Context, perSecond int) int {
	if s.deps.Guide == nil {
		return 0
	}
	pace := time.NewTicker(time.Second / time.Duration(max(perSecond, 1)))
	defer pace.Stop()
	asked := 0
	for _, name := range s.replicas.Names() {
		r, err := s.replicas.Open(name)
		if err != nil {
			return asked
		}
		for _, id := range s.peersIn(ctx, r.View) {
			select {
			case <-ctx.Done():
				r.Release()
				return asked
			case <-pace.C:
			}
			sent := false
			if r.View(ctx, func(*room.Replica) { sent = r.Follower().(*edge).sendOn(id) }) == nil && sent {
				asked++
			}
		}
		r.Release()
	}
	return asked
}

// peersIn lists the peers of a room that have a client here.
func (s *Server) peersIn(ctx context.Context, view func(context.Context, func(*room.Replica)) error) []string {
	var ids []string
	_ = view(ctx, func(rep *room.Replica) {
		for _, p := range rep.Peers() {
			ids = append(ids, p.GetId())
		}
	})
	return ids
}

// sendOn asks a peer's client to go on at another node; false: it has none here, or is right here.
func (e *edge) sendOn(id string) bool {
	p := e.peers[id]
	if p == nil || p.conn == nil {
		return false
	}
	url := e.server.deps.Guide.Elsewhere(e.room.Name(), proto.Level(e.rep.RoleOf(id)), "", "")
	if url == "" {
		return false
	}
	p.conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Move{Move: &amphiv1.Move{Url: url}}})
	return true
}

// Moved implements replica.Follower: another node has the peer's client. Its connection here ends, its media goes on for a
// while.
func (e *edge) Moved(peerID string) {
	p := e.peers[peerID]
	if p == nil {
		return
	}
	p.bid(proto.Errorf(proto.Replaced, "another connection resumed this peer"))
	delete(e.peers, p.id)
	if p.gone != nil {
		close(p.gone)
	}
	e.server.background(func() {
		defer e.room.Release()
		timer := time.NewTimer(keepMoved)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.link.over():
		case <-e.room.Over():
		case <-e.server.stopping:
		}
		p.link.end()
	})
}
