package room

import (
	"errors"
	"slices"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// ErrGap says that an event is not the next one: the replica must ask the owner for its state.
var ErrGap = errors.New("room: event is not the next")

// Replica is a node's copy of a room's state, kept up by the owner's events. It answers what clients may know
// and do. Peers, tracks and events that it hands out never change and may be kept.
type Replica struct {
	view
	tail tail
	// entered and promoted are the events since which each peer has been in the room, and has had its role; absent
	// where that was before the tail.
	entered, promoted map[string]uint64
}

// NewReplica makes a replica from the owner's state; Apply continues it.
func NewReplica(state *pb.RoomState) *Replica {
	return &Replica{
		view: newView(state), tail: newTail(state.GetSeq()),
		entered: map[string]uint64{}, promoted: map[string]uint64{},
	}
}

// Apply takes the owner's next event. ErrGap: events are missing. An event that is already known is ignored.
func (r *Replica) Apply(ev *pb.Event) error {
	if ev.GetSeq() <= r.seq {
		return nil
	}
	if ev.GetSeq() != r.seq+1 {
		return ErrGap
	}
	before := r.before(ev)
	r.date(ev)
	r.apply(ev)
	r.tail.add(ev, r.audienceOf(ev, before))
	return nil
}

// date notes since when a peer has been here, and has had its role; r has not applied the event yet.
func (r *Replica) date(ev *pb.Event) {
	switch b := ev.GetBody().(type) {
	case *pb.Event_PeerJoined:
		if id := b.PeerJoined.GetPeer().GetId(); r.peers[id] == nil {
			r.entered[id] = ev.GetSeq()
		}
	case *pb.Event_PeerUpdated:
		if b.PeerUpdated.GetWhat() == pb.PeerUpdated_WHAT_ROLE {
			r.promoted[b.PeerUpdated.GetPeer().GetId()] = ev.GetSeq()
		}
	case *pb.Event_PeerLeft:
		if b.PeerLeft.GetReason() != pb.LeaveReason_LEAVE_REASON_LOST {
			delete(r.entered, b.PeerLeft.GetPeerId())
			delete(r.promoted, b.PeerLeft.GetPeerId())
		}
	case *pb.Event_RoomEnded:
		clear(r.entered)
		clear(r.promoted)
	}
}

// Seq is the number of the last event applied.
func (r *Replica) Seq() uint64 { return r.seq }

// Snapshot is the whole state, as the owner's at the same event number.
func (r *Replica) Snapshot() *pb.RoomState { return r.snapshot() }

// Since lists the events after seq, oldest first, without regard to who may see them. False: the tail no longer
// reaches back that far, or seq is still to come.
func (r *Replica) Since(seq uint64) ([]*pb.Event, bool) { return r.tail.since(seq) }

// Audience tells who may see an event that has been applied. Ask once per event, then Includes per client.
func (r *Replica) Audience(ev *pb.Event) Audience {
	a, ok := r.tail.audience(ev.GetSeq())
	if !ok {
		a = r.audienceOf(ev, r.before(ev))
	}
	a.rep, a.seq, a.old = r, ev.GetSeq(), ev.GetSeq() < r.seq
	return a
}

// Visible tells whether a peer may see an event that has been applied.
func (r *Replica) Visible(peerID string, ev *pb.Event) bool {
	return r.Audience(ev).Includes(peerID)
}

// StateFor is what the client of a peer gets when it joins, or when it resumes too far behind: the peers that it
// hears of with itself first, the messages meant for it, the store, streams and counts.
func (r *Replica) StateFor(peerID string) *pb.RoomState { return r.stateFor(peerID) }

// StatePreview is what somebody who may see the room before joining gets: peers, streams and counts, but
// neither messages nor store.
func (r *Replica) StatePreview() *pb.RoomState {
	st := r.stateFor("")
	st.Messages, st.Store = nil, nil
	return st
}

// Peer finds a peer, also a lost one whose place is held; nil if there is none.
func (r *Replica) Peer(id string) *pb.Peer { return r.peers[id] }

// Peers lists all peers but lost ones, by time of joining.
func (r *Replica) Peers() []*pb.Peer { return r.present() }

// Role finds a role of the room's template; nil if there is none.
func (r *Replica) Role(name string) *pb.Role { return r.roles[name] }

// RoleOf is the role of a peer; nil if there is no such peer.
func (r *Replica) RoleOf(peerID string) *pb.Role { return r.roles[r.peers[peerID].GetRole()] }

// Public is the session's template as clients may see it.
func (r *Replica) Public() *pb.Template { return r.public }

// Template is the template that the session began with.
func (r *Replica) Template() *pb.Template { return r.template }

// Track finds a track and its publisher; nil if there is none.
func (r *Replica) Track(id string) (*pb.Peer, *pb.Track) {
	p := r.peers[r.publisher[id]]
	return p, trackOf(p, id)
}

// Streams lists the room's streams that have been asked for, in the template's order.
func (r *Replica) Streams() []*pb.Stream { return streamList(&r.view) }

// Outputs lists the session's outputs in the order in which they were started; of those that have ended the oldest are forgotten.
func (r *Replica) Outputs() []*pb.Output { return slices.Clone(r.outputs.list) }

// Overview is the whole state without what only nodes need.
func (r *Replica) Overview() *pb.RoomState {
	st := r.snapshot()
	st.Template, st.SealedUrls = r.public, nil
	return st
}

// Idle tells whether nobody has joined yet: there is no session.
func (r *Replica) Idle() bool { return r.started == 0 }

// Ended tells whether the session is over.
func (r *Replica) Ended() bool { return r.ended }

// Locked tells whether the room refuses joins.
func (r *Replica) Locked() bool { return r.locked }

// SessionID names the session.
func (r *Replica) SessionID() string { return r.sessionID }

// MaySubscribe tells whether a peer may receive a track over WebRTC. A peer never receives its own.
func (r *Replica) MaySubscribe(peerID, trackID string) bool {
	return maySubscribe(&r.view, peerID, trackID)
}

// MayPublish tells whether a peer's role allows it to publish a source.
func (r *Replica) MayPublish(peerID string, kind pb.Kind, source string) bool {
	p := r.peers[peerID]
	return p != nil && !p.GetLost() && mayPublish(r.role(p.GetRole()), kind, source)
}

// Counts is how many peers are here, in all and by role; lost peers do not count.
func (r *Replica) Counts() *pb.Counts { return r.counts() }

// List answers ListPeers: by name and id, without lost peers.
func (r *Replica) List(q *pb.ListPeers) *pb.ListPeersResult { return list(&r.view, q) }
