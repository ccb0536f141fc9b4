package signal

import (
	"sync/atomic"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/ws"
)

// peer is a peer whose client is on this node. It outlives lost connections and belongs to the room's goroutine,
// but for what says otherwise.
type peer struct {
	id   string
	edge *edge
	// conn is nil while the client is lost, and for WHIP and WHEP.
	conn *ws.Conn
	link *link
	// wanted is the client's last set_subscriptions.
	wanted *amphiv1.SetSubscriptions
	// pick, where set, chooses what is received instead of wanted.
	pick func(e *edge, id string) *amphiv1.SetSubscriptions
	// gone and failed, where set, are closed when the peer has left, and when its media has ended.
	gone, failed chan struct{}
	// shown and heard are what pick chose last.
	shown, heard string
	// unreported: the owner has yet to be told that the client is lost, since when in milliseconds.
	unreported bool
	since      int64
	// unclaimed: the owner has yet to be told that the client is here.
	unclaimed bool
	requests  requests
}

// requests is what a connection waits for before it may be closed: the answer to what ended it. Any goroutine.
type requests struct {
	pending atomic.Int32
	last    atomic.Pointer[farewell]
}

type farewell struct {
	conn   *ws.Conn
	reason *proto.Error
}

// begin counts a request, unless the connection only waits for its last answers.
func (r *requests) begin() bool {
	r.pending.Add(1)
	if r.last.Load() == nil {
		return true
	}
	r.done()
	return false
}

func (r *requests) done() {
	if last := r.last.Load(); r.pending.Add(-1) == 0 && last != nil {
		last.conn.Close(last.reason)
	}
}

// close ends conn when all its requests have been answered.
func (r *requests) close(conn *ws.Conn, reason *proto.Error) {
	r.last.Store(&farewell{conn, reason})
	if r.pending.Load() == 0 {
		conn.Close(reason)
	}
}

// close ends the peer's connection, not the peer.
func (p *peer) close(reason *proto.Error) {
	if p.conn == nil {
		return
	}
	p.conn.Close(reason)
	p.conn = nil
	p.link.connect(nil)
}

// bid ends the connection for good, after the answers that are due.
func (p *peer) bid(reason *proto.Error) {
	if p.conn == nil {
		return
	}
	p.requests.close(p.conn, reason)
	p.conn = nil
	p.link.connect(nil)
}
