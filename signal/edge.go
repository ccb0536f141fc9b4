package signal

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	codes "github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/outbox"
	"github.com/amphi-sfu/amphi/signal/replica"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/ws"
)

// edge is one room as this node's clients have it: it passes on what happens in the room, and keeps their media
// in line with it. It belongs to the room's goroutine.
type edge struct {
	server *Server
	log    *slog.Logger
	room   *replica.Room
	rep    *room.Replica // nil until the owner has answered
	peers  map[string]*peer
	stage  map[string]bool // the peers that publish, of the whole room
	router MediaRouter     // nil until somebody needs it

	// changed: tracks, roles or peers are other than at the last settle; settling: a settle is queued.
	changed, settling bool
	counts            *amphiv1.Counts
	countsAt          time.Time
	speakers          []Speaking
	// mode is what clients were told last.
	mode amphiv1.RoomMode
	// hushed are tracks that are muted here before the room says so, by id.
	hushed map[string]*hushed
	// plan is the one that Relays were told last; relayed: they were told of the room.
	plan    *amphiv1.RelayPlan
	relayed bool
}

// countsEvery is the shortest time between two messages that count the room.
const countsEvery = time.Second

func newEdge(s *Server, r *replica.Room) *edge {
	return &edge{server: s, room: r, log: s.log.With("room", r.Name()), peers: map[string]*peer{}, stage: map[string]bool{},
		mode: amphiv1.RoomMode_ROOM_MODE_NORMAL, hushed: map[string]*hushed{}}
}

// Reset implements replica.Follower. Clients that were in the room before have missed events: they come back with
// resume and get the state anew.
func (e *edge) Reset(rep *room.Replica) {
	other := e.rep != nil && e.rep.SessionID() != rep.SessionID()
	e.rep = rep
	e.limitMicrophones()
	clear(e.stage)
	for _, p := range rep.Peers() {
		if len(p.GetTracks()) > 0 {
			e.stage[p.GetId()] = true
		}
	}
	for _, p := range e.peers {
		switch {
		case rep.Peer(p.id) == nil && other:
			e.remove(p, codes.Errorf(codes.RoomEnded, "the session has ended"))
		case rep.Peer(p.id) == nil:
			e.remove(p, codes.Errorf(codes.ResumeExpired, "the peer is no longer in the room"))
		default:
			e.cut(p, codes.Errorf(codes.Unavailable, "the node was cut off from the room's owner"))
		}
	}
	e.touch()
}

// cut ends a peer's connection so that its client resumes; should it not, the owner learns that it is gone.
func (e *edge) cut(p *peer, reason *codes.Error) {
	if p.conn == nil {
		return
	}
	p.since, p.unreported = p.conn.Gone(), true
	p.close(reason)
}

// Applied implements replica.Follower.
func (e *edge) Applied(rep *room.Replica, ev *amphiv1.Event) {
	e.pass(rep, ev)
	switch b := ev.GetBody().(type) {
	case *amphiv1.Event_PeerJoined:
		e.restage(b.PeerJoined.GetPeer().GetId())
	case *amphiv1.Event_PeerUpdated:
		id := b.PeerUpdated.GetPeer().GetId()
		e.restage(id)
		if e.peers[id] != nil {
			e.touch()
		}
	case *amphiv1.Event_PeerLeft:
		e.restage(b.PeerLeft.GetPeerId())
		e.left(b.PeerLeft)
	case *amphiv1.Event_TrackPublished:
		e.restage(b.TrackPublished.GetPeerId())
	case *amphiv1.Event_TrackUpdated:
		e.restage(b.TrackUpdated.GetPeerId())
	case *amphiv1.Event_TrackUnpublished:
		e.restage(b.TrackUnpublished.GetPeerId())
	case *amphiv1.Event_StreamChanged:
		e.touch()
	case *amphiv1.Event_RoomEnded:
		for _, p := range e.peers {
			e.remove(p, codes.Errorf(codes.RoomEnded, "the session has ended"))
		}
		clear(e.stage)
		e.touch()
	}
}

// restage notes whether a peer publishes; joins and leaves of the many who do not cost nothing more.
func (e *edge) restage(id string) {
	was := e.stage[id]
	is := e.rep.Peer(id)
	switch {
	case len(is.GetTracks()) > 0 && !is.GetLost():
		e.stage[id] = true
	case was:
		delete(e.stage, id)
	default:
		return
	}
	e.touch()
}

// onStage lists the peers that publish, by time of joining.
func (e *edge) onStage() []*amphiv1.Peer {
	list := make([]*amphiv1.Peer, 0, len(e.stage))
	for id := range e.stage {
		if p := e.rep.Peer(id); p != nil {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *amphiv1.Peer) int {
		return cmp.Or(cmp.Compare(a.GetJoinedMs(), b.GetJoinedMs()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return list
}

// pass sends an event to the clients that may see it, encoded once.
func (e *edge) pass(rep *room.Replica, ev *amphiv1.Event) {
	if len(e.peers) == 0 {
		return
	}
	frame := eventFrame(ev)
	audience := rep.Audience(ev)
	if few, ok := audience.Named(); ok {
		for _, id := range few {
			if p := e.peers[id]; p != nil && p.conn != nil && audience.Includes(id) {
				p.conn.Push(frame)
			}
		}
		return
	}
	for id, p := range e.peers {
		if p.conn != nil && audience.Includes(id) {
			p.conn.Push(frame)
		}
	}
}

func eventFrame(ev *amphiv1.Event) *outbox.Frame {
	return outbox.NewFrame(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Event{Event: room.Shown(ev)}})
}

// left lets go of a peer that left for good. A lost one keeps its place, but not its media: unless that is all there is
// of its client, which then is here, and only the owner could not see it.
func (e *edge) left(ev *amphiv1.PeerLeft) {
	p := e.peers[ev.GetPeerId()]
	if p == nil {
		return
	}
	switch ev.GetReason() {
	case amphiv1.LeaveReason_LEAVE_REASON_LOST:
		if p.conn == nil && p.gone == nil {
			p.link.drop()
		}
	case amphiv1.LeaveReason_LEAVE_REASON_REMOVED:
		reason := codes.Errorf(codes.Removed, "you were removed from the room")
		if ev.GetBanned() {
			reason = codes.Errorf(codes.Banned, "you were removed from the room and may not come back")
		}
		if ev.GetMessage() != "" {
			reason.Details = map[string]string{"reason": ev.GetMessage()}
		}
		e.remove(p, reason)
	case amphiv1.LeaveReason_LEAVE_REASON_LEFT:
		e.remove(p, nil)
	default:
		e.remove(p, codes.Errorf(codes.ResumeExpired, "the peer's place is no longer held"))
	}
}

// remove ends a peer on this node, with its connection and media.
func (e *edge) remove(p *peer, reason *codes.Error) {
	if e.peers[p.id] != p {
		return
	}
	p.bid(reason)
	delete(e.peers, p.id)
	p.link.end()
	if p.gone != nil {
		close(p.gone)
	}
	e.room.Release()
}

// Tick implements replica.Follower.
func (e *edge) Tick(rep *room.Replica, now time.Time) {
	if rep == nil {
		return
	}
	e.tellMode()
	e.repeat()
	e.relay(false)
	e.count(now)
}

// count tells the numbers of peers, when they changed.
func (e *edge) count(now time.Time) {
	if len(e.peers) == 0 || now.Sub(e.countsAt) < countsEvery {
		return
	}
	counts := e.rep.Counts()
	if proto.Equal(counts, e.counts) {
		return
	}
	e.counts, e.countsAt = counts, now
	frame := outbox.NewFrame(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Counts{Counts: counts}})
	for _, p := range e.peers {
		if p.conn != nil {
			p.conn.Push(frame)
		}
	}
}

// Stopped implements replica.Follower.
func (e *edge) Stopped() {
	for _, p := range e.peers {
		e.remove(p, codes.Errorf(codes.Shutdown, "the node is shutting down"))
	}
	if e.router != nil {
		router := e.router
		e.server.background(func() { _ = router.Close() })
	}
	if e.relayed {
		e.server.deps.Relays.Close(e.room.Name())
	}
	e.server.stages.drop(e.room.Name())
}

// touch has media and stage brought in line with the room, once, after what is already queued.
func (e *edge) touch() {
	e.changed = true
	if e.settling {
		return
	}
	e.settling = e.room.Do(func(*room.Replica) {
		e.settling = false
		e.settle()
	}) == nil
}

// settle brings media and stage in line with the room.
func (e *edge) settle() {
	if !e.changed || e.rep == nil {
		return
	}
	e.changed = false
	e.mute()
	for _, p := range e.peers {
		e.sync(p)
	}
	e.relay(true)
	e.server.stages.update(e)
}

// admit makes a peer of a client that has joined; the answer is the last before its events.
func (e *edge) admit(c *client, requestID uint32, joined *amphiv1.Peer) {
	p := &peer{id: joined.GetId(), edge: e, conn: c.conn}
	p.link = newLink(e, p.id)
	p.link.connect(c.conn)
	e.peers[p.id] = p
	e.room.Hold()
	c.peer = p
	state := e.rep.StateFor(p.id)
	c.conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Joined{Joined: &amphiv1.Joined{
		RequestId: requestID, PeerId: p.id, ResumeToken: e.server.resumeToken(e, p.id), State: state, Server: e.server.infoFor(p.id, c.host),
		Backups: e.backups(p.id), Playback: e.server.playbacks(e.room.Name(), e.rep.Template(), p.id),
	}}})
	e.greet(p)
	e.sync(p)
}

// readmit gives a peer the connection with which it has come back, and what it missed.
func (e *edge) readmit(c *client, requestID uint32, id string, lastSeq uint64) {
	p := e.peers[id]
	if p == nil {
		p = &peer{id: id, edge: e}
		p.link = newLink(e, id)
		e.peers[id] = p
		e.room.Hold()
	}
	p.close(codes.Errorf(codes.Replaced, "another connection resumed this peer"))
	p.conn, p.unreported, p.unclaimed = c.conn, false, false
	c.peer = p
	joined := &amphiv1.Joined{RequestId: requestID, PeerId: id, ResumeToken: e.server.resumeToken(e, id), Resumed: true,
		Server: e.server.infoFor(id, c.host), MediaKept: p.link.alive(), Backups: e.backups(id),
		Playback: e.server.playbacks(e.room.Name(), e.rep.Template(), id)}
	missed, ok := e.missed(id, lastSeq)
	if !ok {
		joined.State = e.rep.StateFor(id)
	}
	c.conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Joined{Joined: joined}})
	for _, ev := range missed {
		c.conn.Push(eventFrame(ev))
	}
	p.link.connect(c.conn)
	e.greet(p)
	e.sync(p)
}

// maxMissed is how many events are sent one by one to a client that comes back. It leaves room in its queue, which
// on a slow link holds all of them at first.
const maxMissed = 900

// missed lists what a peer may see of the events after lastSeq; not ok: they are not to be had, or too many.
func (e *edge) missed(id string, lastSeq uint64) (list []*amphiv1.Event, ok bool) {
	all, ok := e.rep.Since(lastSeq)
	if !ok || lastSeq == 0 {
		return nil, false
	}
	for _, ev := range all {
		if !e.rep.Audience(ev).Includes(id) {
			continue
		}
		if len(list) == maxMissed {
			return nil, false
		}
		list = append(list, ev)
	}
	return list, true
}

// greet tells a newcomer what is otherwise told only on change.
func (e *edge) greet(p *peer) {
	if e.mode != amphiv1.RoomMode_ROOM_MODE_NORMAL {
		p.conn.Push(modeFrame(e.mode))
	}
	if f := e.speakersFor(p.id); f != nil {
		p.conn.Push(f)
	}
}

// lost notes that a connection has ended, unless the peer has another one by now.
func (e *edge) lost(p *peer, conn *ws.Conn) {
	if e.peers[p.id] != p || p.conn != conn {
		return
	}
	p.conn, p.since, p.unreported = nil, conn.Gone(), true
	p.link.connect(nil)
	e.report(p)
}

// report tells the owner that a client was lost, until it knows.
func (e *edge) report(p *peer) {
	p.unreported = false
	cmd := &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{PeerConnection: &amphiv1.PeerConnection{PeerId: p.id, SinceMs: p.since}}}
	err := e.room.Request("", cmd, func(res *amphiv1.Result) {
		switch {
		case e.peers[p.id] != p:
		case res.GetError() == nil && p.conn != nil:
			// It came back meanwhile, and the owner may have heard of that first.
			e.reclaim(p)
		case res.GetError().GetRetryable() && p.conn == nil:
			p.unreported = true
		}
	})
	if err != nil {
		p.unreported = true
	}
}

// reclaim tells the owner that a client is here.
func (e *edge) reclaim(p *peer) {
	cmd := &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{PeerConnection: &amphiv1.PeerConnection{PeerId: p.id, Connected: true}}}
	err := e.room.Request("", cmd, func(res *amphiv1.Result) {
		if res.GetError() != nil && p.conn != nil && e.peers[p.id] == p {
			e.cut(p, codes.Errorf(codes.Unavailable, "the room's owner does not answer"))
		}
	})
	if err != nil {
		e.cut(p, codes.Errorf(codes.Unavailable, "the room is too busy"))
	}
}

// present lists the peers that are this node's.
func (e *edge) present() []string {
	list := make([]string, 0, len(e.peers))
	for id := range e.peers {
		list = append(list, id)
	}
	return list
}
