package signal

import (
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/outbox"
	"github.com/amphi-sfu/amphi/signal/room"
)

// What goes on at this node while the room's owner is silent: media as it is, clients that come back, and people who mute
// themselves. The owner learns of it when there is one again.

// resumeAlone is after what time a client that comes back is let in without the owner's word.
const resumeAlone = time.Second

// modeOf is the room's mode as clients and operators hear of it.
func (e *edge) modeOf() amphiv1.RoomMode {
	if m := e.room.Mode(); m != amphiv1.RoomMode_ROOM_MODE_UNSPECIFIED {
		return m
	}
	return amphiv1.RoomMode_ROOM_MODE_NORMAL
}

// modeNames are the modes in the management API.
var modeNames = map[amphiv1.RoomMode]string{
	amphiv1.RoomMode_ROOM_MODE_NORMAL: "normal", amphiv1.RoomMode_ROOM_MODE_SOLO: "solo",
	amphiv1.RoomMode_ROOM_MODE_FROZEN: "frozen", amphiv1.RoomMode_ROOM_MODE_NO_OWNER: "no_owner",
}

// modeFrame tells clients the mode. Whether there is a standby is nothing to them.
func modeFrame(m amphiv1.RoomMode) *outbox.Frame {
	return outbox.NewFrame(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_ModeChanged{ModeChanged: &amphiv1.ModeChanged{Mode: m}}})
}

// tellMode tells the clients when the mode has changed.
func (e *edge) tellMode() {
	m := e.modeOf()
	if m == amphiv1.RoomMode_ROOM_MODE_SOLO {
		m = amphiv1.RoomMode_ROOM_MODE_NORMAL
	}
	if m == e.mode {
		return
	}
	e.mode = m
	frame := modeFrame(m)
	for _, p := range e.peers {
		if p.conn != nil {
			p.conn.Push(frame)
		}
	}
}

// returning is a client that waits for the owner to give it back its peer.
type returning struct {
	client  *client
	request uint32
	ticket  auth.Resume
	lastSeq uint64
	// outcome is nil once it is decided; it belongs to the room's goroutine.
	outcome chan<- error
}

// answered takes the owner's word. It may come after the client was let in without it.
func (w *returning) answered(res *amphiv1.Result) {
	e := w.client.edge()
	refused := proto.FromWire(res.GetError())
	if w.outcome == nil {
		e.claimed(e.peers[w.ticket.PeerID], res)
		return
	}
	if refused == nil {
		e.readmit(w.client, w.request, w.ticket.PeerID, w.lastSeq)
	}
	w.outcome <- refused
	w.outcome = nil
}

// alone lets the client in if this node knows the peer.
func (w *returning) alone(rep *room.Replica) {
	known := rep.Peer(w.ticket.PeerID)
	if w.outcome == nil || known == nil || known.GetLost() || rep.Ended() || rep.SessionID() != w.ticket.SessionID {
		return
	}
	w.client.edge().readmit(w.client, w.request, w.ticket.PeerID, w.lastSeq)
	w.outcome <- nil
	w.outcome = nil
}

// claim tells the owner, until it knows, that a client is here that came back without its word.
func (e *edge) claim(p *peer) {
	p.unclaimed = false
	cmd := &amphiv1.Command{Body: &amphiv1.Command_PeerConnection{PeerConnection: &amphiv1.PeerConnection{PeerId: p.id, Connected: true}}}
	if e.room.Request("", cmd, func(res *amphiv1.Result) { e.claimed(p, res) }) != nil {
		p.unclaimed = true
	}
}

func (e *edge) claimed(p *peer, res *amphiv1.Result) {
	switch err := res.GetError(); {
	case p == nil || e.peers[p.id] != p || err == nil:
	case err.GetRetryable():
		p.unclaimed = p.conn != nil
	default:
		e.remove(p, proto.Errorf(proto.Code(err.GetCode()), "%s", err.GetMessage()))
	}
}

// hushed is a track that its publisher has muted, as far as this node can tell: the room may not know yet.
type hushed struct {
	peer *peer
	cmd  *amphiv1.Command
	// unsaid: the owner has to be told again.
	unsaid bool
}

// muteOwn has the media drop a peer's own track at once, whatever becomes of the owner. While there is none the client is
// answered, and the owner told when there is one again.
func (e *edge) muteOwn(p *peer, cmd *amphiv1.Command, answer func(*amphiv1.Result)) {
	u := cmd.GetUpdateTrack()
	if by, _ := e.rep.Track(u.GetTrackId()); by.GetId() != p.id {
		e.updateTrack(&hushed{peer: p, cmd: cmd}, answer)
		return
	}
	h := &hushed{peer: p, cmd: cmd}
	delete(e.hushed, u.GetTrackId())
	if u.GetMuted() {
		e.hushed[u.GetTrackId()] = h
		if e.modeOf() == amphiv1.RoomMode_ROOM_MODE_NO_OWNER {
			answer(&amphiv1.Result{})
			answer = nil
		}
	}
	e.mute()
	e.updateTrack(h, answer)
}

func (e *edge) updateTrack(h *hushed, answer func(*amphiv1.Result)) {
	track := h.cmd.GetUpdateTrack().GetTrackId()
	h.unsaid = false
	err := e.room.Request(h.peer.id, h.cmd, func(res *amphiv1.Result) {
		if answer != nil {
			answer(res)
		}
		if e.hushed[track] != h {
			return
		}
		if h.unsaid = res.GetError().GetRetryable(); !h.unsaid {
			delete(e.hushed, track)
			e.mute()
		}
	})
	if err == nil {
		return
	}
	h.unsaid = true
	if answer != nil {
		answer(&amphiv1.Result{Body: &amphiv1.Result_Error{Error: proto.Wire(err)}})
	}
}

// repeat tells the owner what it has not taken yet.
func (e *edge) repeat() {
	for _, p := range e.peers {
		if p.unreported {
			e.report(p)
		}
		if p.unclaimed {
			e.claim(p)
		}
	}
	for track, h := range e.hushed {
		if by, _ := e.rep.Track(track); by == nil {
			delete(e.hushed, track)
		} else if h.unsaid {
			e.updateTrack(h, nil)
		}
	}
}
