package owner

import (
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// note takes what an event means for the owner itself.
func (r *owned) note(ev *amphiv1.Event) {
	switch b := ev.GetBody().(type) {
	case *amphiv1.Event_PeerJoined, *amphiv1.Event_PeerUpdated:
		r.outdated = true
	case *amphiv1.Event_TrackPublished, *amphiv1.Event_TrackUnpublished:
		r.plan.due = true
	case *amphiv1.Event_PeerLeft:
		r.outdated = true
		if b.PeerLeft.GetReason() != amphiv1.LeaveReason_LEAVE_REASON_LOST {
			r.place(b.PeerLeft.GetPeerId(), seat{})
		}
	case *amphiv1.Event_Message:
		r.cue(b.Message)
	}
}

// cue puts a message into the streams that want its type. It does not wait for the standby: the picture of its moment does
// not, either.
func (r *owned) cue(m *amphiv1.Message) {
	if r.owner.deps.Streams == nil || r.state == nil {
		return
	}
	cue, streams := r.state.CueOf(m)
	for _, name := range streams {
		r.owner.deps.Streams.Cue(r.name, &amphiv1.StreamCue{Stream: name, Body: &amphiv1.StreamCue_Metadata{Metadata: cue}})
	}
}

// consequential tells whether an event asks something of the node beside the room itself.
func consequential(ev *amphiv1.Event) bool {
	switch b := ev.GetBody().(type) {
	case *amphiv1.Event_SessionStarted, *amphiv1.Event_RoomUpdated, *amphiv1.Event_StreamChanged, *amphiv1.Event_OutputChanged:
		return true
	case *amphiv1.Event_StoreChanged:
		return b.StoreChanged.GetEntry().GetDurable()
	}
	return false
}

// outward tells whether an event is for those outside too.
func outward(ev *amphiv1.Event) bool {
	switch b := ev.GetBody().(type) {
	case *amphiv1.Event_SessionStarted, *amphiv1.Event_RoomEnded, *amphiv1.Event_PeerJoined, *amphiv1.Event_PeerLeft,
		*amphiv1.Event_StreamChanged, *amphiv1.Event_OutputChanged:
		return true
	case *amphiv1.Event_PeerUpdated:
		return b.PeerUpdated.GetWhat() == amphiv1.PeerUpdated_WHAT_ROLE
	case *amphiv1.Event_Message:
		return len(b.Message.GetTo().GetRoles())+len(b.Message.GetTo().GetPeers()) == 0
	}
	return false
}

// tell lets those outside know.
func (r *owned) tell(session string, ev *amphiv1.Event) {
	if r.owner.deps.Events == nil || !outward(ev) {
		return
	}
	var who *amphiv1.Attendance
	if left := ev.GetPeerLeft(); left != nil && r.state != nil && session == r.session {
		who = r.state.Attendance(left.GetPeerId())
	}
	r.owner.deps.Events.Happened(r.name, session, ev, who)
}

// follow does what an event asks of the node beside the room itself.
func (r *owned) follow(h *held) {
	r.tell(h.session, h.ev)
	switch b := h.ev.GetBody().(type) {
	case *amphiv1.Event_SessionStarted:
		if r.state != nil {
			r.record()
		}
	case *amphiv1.Event_StoreChanged:
		r.commit(&amphiv1.PutStore{Entry: b.StoreChanged.GetEntry(), Deleted: b.StoreChanged.GetDeleted()}, h.from, h.id)
	case *amphiv1.Event_RoomUpdated:
		r.keep(&amphiv1.RegistryCommand{TimeMs: h.ev.GetTimeMs(), Body: &amphiv1.RegistryCommand_PutRoom{PutRoom: &amphiv1.Room{
			Name: r.name, Locked: b.RoomUpdated.GetLocked(), Metadata: b.RoomUpdated.GetMetadata()}}})
	case *amphiv1.Event_StreamChanged:
		if r.owner.deps.Streams != nil && r.runs(h.session) {
			r.owner.deps.Streams.Changed(r.name, r.template, b.StreamChanged.GetStream())
		}
	case *amphiv1.Event_OutputChanged:
		if r.owner.deps.Streams != nil && r.runs(h.session) {
			o := b.OutputChanged.GetOutput()
			r.owner.deps.Streams.Output(r.name, r.session, o, r.state.SealedURL(o.GetId()))
		}
	}
}

// runs tells whether a session has not ended: what it wanted made is ended with it, and what it had to say of that may have been
// held back for longer.
func (r *owned) runs(session string) bool { return r.state != nil && r.session == session }

// record keeps the session's record as it is now.
func (r *owned) record() {
	r.recorded, r.outdated = time.Now(), false
	r.keep(&amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PutSession{PutSession: r.state.Session()}})
}

const (
	// recordEvery is how old the record of a running session may be while people come and go.
	recordEvery = 30 * time.Second
	// recordPerPeer is added for each peer: the record of a large room is large.
	recordPerPeer = 50 * time.Millisecond
)

// recordDue is when the record of a running session has to be kept again; not ok: it is up to date.
func (r *owned) recordDue() (due time.Time, ok bool) {
	if r.state == nil || r.state.Idle() || !r.outdated {
		return time.Time{}, false
	}
	return r.recorded.Add(recordEvery + time.Duration(len(r.seats))*recordPerPeer), true
}

func (r *owned) keep(cmd *amphiv1.RegistryCommand) { r.owner.deps.Records.Keep(cmd) }

// endIfOver lets go of a session that has ended; the next message makes a new one.
func (r *owned) endIfOver() {
	if r.state == nil || !r.state.Ended() {
		return
	}
	r.record()
	r.streamsEnded()
	r.state, r.tail, r.unclaimed = nil, nil, time.Time{}
	clear(r.seats)
}

func (r *owned) streamsEnded() {
	if r.state != nil && !r.state.Idle() && r.owner.deps.Streams != nil {
		r.owner.deps.Streams.Changed(r.name, r.template, nil)
	}
}
