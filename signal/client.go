package signal

import (
	"context"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/replica"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/ws"
)

const (
	// ownerWait is how long a client waits for the room's owner.
	ownerWait = 10 * time.Second
	// negotiationsPerSecond bounds what costs the server most.
	negotiationsPerSecond = 5
	// listsPerSecond bounds what costs most in a large room.
	listsPerSecond = 5
)

// client is one WebSocket: first it says who it is, then it may be in the preview, then it speaks for a peer.
// It belongs to the connection's goroutine.
type client struct {
	server *Server
	conn   *ws.Conn
	host   string        // by which it reached this node
	pace   *rate.Limiter // of negotiations
	lists  *rate.Limiter // of ListPeers

	grant auth.Grant
	room  *replica.Room // nil before hello or resume
	// peer is set on the room's goroutine while this one waits for it.
	peer *peer
	// left: the peer has asked to leave.
	left bool
}

func (s *Server) open(conn *ws.Conn, host string) ws.Handler {
	c := &client{server: s, conn: conn, host: host, pace: rate.NewLimiter(negotiationsPerSecond, 2*negotiationsPerSecond),
		lists: rate.NewLimiter(listsPerSecond, 2*listsPerSecond)}
	s.clients.add(c)
	return c
}

// Closed implements ws.Handler.
func (c *client) Closed() {
	c.server.clients.remove(c)
	if c.room == nil {
		return
	}
	if p := c.peer; p != nil {
		c.server.insist(c.room, func(*room.Replica) { p.edge.lost(p, c.conn) })
	}
	c.room.Release()
}

// Message implements ws.Handler.
func (c *client) Message(m *amphiv1.ClientMessage) error {
	switch b := m.GetBody().(type) {
	case *amphiv1.ClientMessage_Hello:
		return c.hello(m.GetId(), b.Hello)
	case *amphiv1.ClientMessage_Resume:
		return c.resume(m.GetId(), b.Resume)
	case nil:
		return proto.Errorf(proto.InvalidMessage, "the message is empty or of a kind that this server does not know")
	}
	if c.room == nil {
		return proto.Errorf(proto.InvalidMessage, "the first message is hello or resume")
	}
	switch b := m.GetBody().(type) {
	case *amphiv1.ClientMessage_Command:
		c.command(m.GetId(), b.Command)
	case *amphiv1.ClientMessage_Negotiate:
		return c.negotiate(m.GetId(), b.Negotiate)
	case *amphiv1.ClientMessage_SetSubscriptions:
		c.subscribe(m.GetId(), b.SetSubscriptions)
	}
	return nil
}

// hello lets a new client in, into the preview.
func (c *client) hello(id uint32, h *amphiv1.Hello) error {
	if c.room != nil {
		return proto.Errorf(proto.InvalidMessage, "hello was said already")
	}
	grant, err := c.server.verify(h.GetToken(), auth.App)
	if err != nil {
		return err
	}
	ctx, cancel := c.waiting()
	defer cancel()
	record, err := c.server.records.joinable(ctx, grant.Room)
	if err != nil {
		return err
	}
	if err := c.server.guided(record, grant.Role, c.host, h.GetRegion(), h.GetRedirected()); err != nil {
		return err
	}
	if err := c.enter(record); err != nil {
		return err
	}
	c.grant = grant
	welcome := &amphiv1.Welcome{RequestId: id, Room: record.GetName(), Role: grant.Role, UserId: grant.UserID, Server: c.server.info()}
	var known bool
	err = c.room.View(ctx, func(rep *room.Replica) {
		role := rep.Role(grant.Role)
		known = role != nil
		welcome.Template = rep.Public()
		if role.GetPermissions().GetPreviewRoomState() {
			welcome.State = rep.StatePreview()
		}
	})
	if err != nil {
		return err
	}
	if !known {
		return proto.Errorf(proto.NotFound, "this room has no role %q", grant.Role)
	}
	c.conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Welcome{Welcome: welcome}})
	return nil
}

// enter holds the room's replica.
func (c *client) enter(record *amphiv1.Room) error {
	r, err := c.server.replicas.Open(key(record.GetName()))
	if err != nil {
		return err
	}
	c.room = r
	return nil
}

// key is a room's name for comparing: rooms are named without regard to case.
func key(name string) string { return strings.ToLower(name) }

// waiting bounds how long the client waits for the room's owner.
func (c *client) waiting() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), ownerWait)
}

// resume gives a client that comes back its peer.
func (c *client) resume(id uint32, r *amphiv1.Resume) error {
	if c.room != nil {
		return proto.Errorf(proto.InvalidMessage, "resume is only allowed as the first message")
	}
	ticket, err := c.server.ticket(r.GetResumeToken())
	if err != nil {
		return err
	}
	record, err := c.server.records.room(ticket.Room)
	if err != nil {
		return err
	}
	if err := c.server.guided(record, "", c.host, "", r.GetRedirected()); err != nil {
		return err
	}
	ctx, cancel := c.waiting()
	defer cancel()
	if err := c.enter(record); err != nil {
		return err
	}
	if err := c.room.Await(ctx); err != nil {
		return err
	}
	cmd := &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{
		PeerConnection: &amphiv1.PeerConnection{PeerId: ticket.PeerID, Connected: true}}}
	refusal := make(chan error, 1)
	back := &returning{client: c, request: id, ticket: ticket, lastSeq: r.GetLastSeq(), outcome: refusal}
	if err := c.room.Request("", cmd, back.answered); err != nil {
		return err
	}
	late := time.NewTimer(resumeAlone)
	defer late.Stop()
	select {
	case err := <-refusal:
		return err
	case <-late.C:
		c.server.insist(c.room, back.alone)
		return c.wait(refusal)
	case <-c.room.Over():
		return c.wait(refusal)
	}
}

func (c *client) edge() *edge { return c.room.Follower().(*edge) }

// wait waits for the room's goroutine, which answers every request in bounded time.
func (c *client) wait(done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-c.room.Over():
		return proto.Errorf(proto.Unavailable, "the room has just closed here")
	}
}

// command hands a command to the room's owner; the answer comes after its events.
func (c *client) command(id uint32, cmd *amphiv1.Command) {
	switch b := cmd.GetBody().(type) {
	case *amphiv1.Command_Join:
		c.join(id, b.Join)
		return
	case *amphiv1.Command_PeerConnection, *amphiv1.Command_StreamReport, *amphiv1.Command_OutputReport:
		c.refuse(id, proto.Errorf(proto.PermissionDenied, "only nodes report this"))
		return
	}
	if c.peer == nil || c.left {
		c.refuse(id, proto.Errorf(proto.NotJoined, "join first"))
		return
	}
	if list := cmd.GetListPeers(); list != nil {
		c.list(id, list)
		return
	}
	p := c.peer
	if !p.requests.begin() {
		c.refuse(id, proto.Errorf(proto.NotJoined, "the peer has left"))
		return
	}
	cmd, err := c.server.seal(cmd)
	if err != nil {
		c.refuse(id, err)
		p.requests.done()
		return
	}
	c.left = cmd.GetLeave() != nil
	answer := func(res *amphiv1.Result) {
		c.answer(id, res)
		p.requests.done()
	}
	if u := cmd.GetUpdateTrack(); u != nil && u.Muted != nil {
		err = c.room.Do(func(*room.Replica) { p.edge.muteOwn(p, cmd, answer) })
	} else {
		err = c.room.Request(p.id, cmd, answer)
	}
	if err != nil {
		c.refuse(id, err)
		p.requests.done()
	}
}

// list answers from the replica: a page of a large room is dear, but costs only this node, and only so often.
func (c *client) list(id uint32, q *amphiv1.ListPeers) {
	err := error(proto.Errorf(proto.RateLimited, "more than %d lists per second", listsPerSecond))
	if c.lists.Allow() {
		err = c.room.Do(func(rep *room.Replica) {
			c.answer(id, &amphiv1.Result{Body: &amphiv1.Result_ListPeers{ListPeers: rep.List(q)}})
		})
	}
	if err != nil {
		c.refuse(id, err)
	}
}

func (c *client) join(id uint32, j *amphiv1.Join) {
	if c.peer != nil {
		c.refuse(id, proto.Errorf(proto.AlreadyJoined, "this client has joined already"))
		return
	}
	if c.grant.Role == "" {
		c.refuse(id, proto.Errorf(proto.NotJoined, "a client that resumed and left has to come anew"))
		return
	}
	// The room may have been disabled or deleted while the client was in the preview.
	if _, err := c.server.records.enabled(c.grant.Room); err != nil {
		c.refuse(id, err)
		return
	}
	done := make(chan error, 1)
	err := c.room.Request("", &amphiv1.Command{Body: &amphiv1.Command_Join{Join: c.server.completed(j, c.grant)}}, func(res *amphiv1.Result) {
		if res.GetError() == nil {
			c.edge().admit(c, id, res.GetJoin().GetPeer())
			done <- nil
			return
		}
		done <- proto.FromWire(res.GetError())
	})
	if err == nil {
		err = c.wait(done)
	}
	if err != nil {
		c.refuse(id, err)
	}
}

// completed is a join with what the grant says; a name of the client's own choice wins.
func (s *Server) completed(j *amphiv1.Join, grant auth.Grant) *amphiv1.Join {
	name := j.GetName()
	if name == "" {
		name = grant.Name
	}
	return &amphiv1.Join{Name: name, Metadata: j.GetMetadata(), UserId: grant.UserID, Role: grant.Role}
}

// subscribe notes what the client wants to receive.
func (c *client) subscribe(id uint32, set *amphiv1.SetSubscriptions) {
	switch {
	case c.peer == nil || c.left:
		c.refuse(id, proto.Errorf(proto.NotJoined, "join first"))
		return
	case len(set.GetTracks()) > maxSubscriptions:
		c.refuse(id, proto.Errorf(proto.InvalidArgument, "more than %d subscriptions", maxSubscriptions))
		return
	}
	p := c.peer
	err := c.room.Do(func(*room.Replica) {
		p.wanted = set
		p.edge.sync(p)
		c.answer(id, &amphiv1.Result{})
	})
	if err != nil {
		c.refuse(id, err)
	}
}

// negotiate answers an offer. It runs on the connection's goroutine, so a costly offer delays only its sender.
func (c *client) negotiate(id uint32, n *amphiv1.Negotiate) error {
	if !c.pace.Allow() {
		return proto.Errorf(proto.RateLimited, "more than %d negotiations per second", negotiationsPerSecond)
	}
	if c.peer == nil || c.left {
		c.refuse(id, proto.Errorf(proto.NotJoined, "join first"))
		return nil
	}
	ctx, cancel := c.waiting()
	defer cancel()
	sdp, err := c.peer.link.negotiate(ctx, n)
	if err != nil {
		c.refuse(id, err)
		return nil
	}
	if id != 0 {
		c.conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Answer{Answer: &amphiv1.Answer{
			RequestId: id, Body: &amphiv1.Answer_Negotiated{Negotiated: &amphiv1.Negotiated{Sdp: sdp}}}}})
	}
	c.peer.link.answered()
	return nil
}

func (c *client) answer(id uint32, res *amphiv1.Result) {
	if id == 0 {
		return
	}
	a := &amphiv1.Answer{RequestId: id, Body: &amphiv1.Answer_Result{Result: res}}
	if res.GetError() != nil {
		a.Body = &amphiv1.Answer_Error{Error: res.GetError()}
	}
	c.conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Answer{Answer: a}})
}

func (c *client) refuse(id uint32, err error) {
	c.server.logInternal(err)
	c.answer(id, &amphiv1.Result{Body: &amphiv1.Result_Error{Error: proto.Wire(err)}})
}
