package room

import (
	"slices"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Audience is who may see an event. Includes is cheap; ask it once per client.
type Audience struct {
	// All: everybody in the room but Except.
	All bool
	// Except is a peer that does not see the event although everybody else does.
	Except string
	peers  []string
	roles  []string
	// seq is the event's number. old: others were applied since, so it is shown to somebody who comes back.
	seq uint64
	old bool
	rep *Replica
}

// Includes tells whether a peer is in the audience. The empty id is somebody in the preview, who sees what all see.
// What was before a peer joined, or was said to its role before it had it, it does not see afterwards either.
func (a Audience) Includes(peerID string) bool {
	if a.old && a.seq < a.rep.entered[peerID] {
		return false
	}
	if a.All {
		return peerID == "" || peerID != a.Except
	}
	if peerID == "" {
		return false
	}
	if slices.Contains(a.peers, peerID) {
		return true
	}
	return len(a.roles) > 0 && slices.Contains(a.roles, a.rep.peers[peerID].GetRole()) && a.seq >= a.rep.promoted[peerID]
}

// Named lists the only peers that see the event, some of whom may not be here; false when its audience is everybody
// or roles, so that every client has to be asked about.
func (a Audience) Named() ([]string, bool) { return a.peers, !a.All && len(a.roles) == 0 }

// known is what must be remembered from before an event to tell who may see it.
type known struct {
	// heard: clients have heard of the peer that the event is about.
	heard bool
	// lost: the peer was already lost, for others it had left.
	lost bool
}

func (v *view) before(ev *pb.Event) known {
	var id string
	switch b := ev.GetBody().(type) {
	case *pb.Event_PeerLeft:
		id = b.PeerLeft.GetPeerId()
	case *pb.Event_PeerUpdated:
		id = b.PeerUpdated.GetPeer().GetId()
	default:
		return known{}
	}
	return known{heard: v.heardOf(id), lost: v.peers[id].GetLost()}
}

// audienceOf tells who may see an event; the view has applied it, k is from before.
func (v *view) audienceOf(ev *pb.Event, k known) Audience {
	switch b := ev.GetBody().(type) {
	case *pb.Event_PeerJoined:
		return v.aboutPeer(b.PeerJoined.GetPeer(), false)
	case *pb.Event_PeerUpdated:
		return v.aboutPeer(b.PeerUpdated.GetPeer(), k.heard)
	case *pb.Event_PeerLeft:
		return aboutLeaving(b.PeerLeft, k)
	case *pb.Event_Message:
		return recipients(b.Message)
	case *pb.Event_RoleChangeRequested:
		return only(b.RoleChangeRequested.GetPeerId())
	case *pb.Event_RoleChangeAnswered:
		if a := b.RoleChangeAnswered; a.GetExpired() {
			return only(a.GetBy(), a.GetPeerId())
		}
		return only(b.RoleChangeAnswered.GetBy())
	case *pb.Event_UnmuteRequested:
		return only(b.UnmuteRequested.GetPeerId())
	}
	return Audience{All: true}
}

func only(peers ...string) Audience { return Audience{peers: peers} }

func (v *view) aboutPeer(p *pb.Peer, heard bool) Audience {
	if heard || !v.large() || v.ofInterest(p) {
		return Audience{All: true}
	}
	return only(p.GetId())
}

// aboutLeaving hides from a lost peer that it was lost: should it come back, it was never away. That a place
// held for a lost peer is given up is no news to anybody else.
func aboutLeaving(e *pb.PeerLeft, k known) Audience {
	lost := e.GetReason() == pb.LeaveReason_LEAVE_REASON_LOST
	switch {
	case lost && k.heard:
		return Audience{All: true, Except: e.GetPeerId()}
	case lost:
		return Audience{}
	case k.lost || !k.heard:
		return only(e.GetPeerId())
	}
	return Audience{All: true}
}

func recipients(m *pb.Message) Audience {
	if broadcast(m.GetTo()) {
		return Audience{All: true}
	}
	return Audience{roles: m.GetTo().GetRoles(), peers: append(slices.Clone(m.GetTo().GetPeers()), m.GetSender())}
}

func broadcast(to *pb.Recipients) bool { return len(to.GetRoles()) == 0 && len(to.GetPeers()) == 0 }

// stateFor is the state as the client of a peer gets it; "" is somebody who has not joined.
func (v *view) stateFor(peerID string) *pb.RoomState {
	st := v.shared()
	self := v.peers[peerID]
	if self != nil {
		st.Peers = append(st.Peers, self)
	}
	heard := v.peers
	if v.large() {
		heard = v.interest
	}
	var others []*pb.Peer
	for id, p := range heard {
		if id != peerID && !p.GetLost() {
			others = append(others, p)
		}
	}
	sortPeers(others)
	st.Peers = append(st.Peers, others...)
	st.Messages = v.chat.history()
	for _, r := range v.pending {
		if self != nil && r.GetPeerId() == peerID {
			st.Pending = append(st.Pending, r)
		}
	}
	return st
}

// maySubscribe: the role receives over WebRTC, and the publisher's role is among those that it receives.
func maySubscribe(v *view, peerID, trackID string) bool {
	p, from := v.peers[peerID], v.peers[v.publisher[trackID]]
	if p == nil || from == nil || p == from || p.GetLost() {
		return false
	}
	sub := v.role(p.GetRole()).GetSubscribe()
	return sub.GetDelivery() == pb.Delivery_DELIVERY_WEBRTC && slices.Contains(sub.GetRoles(), from.GetRole())
}

// mayPublish tells whether a role allows a source. Sources of the application's own follow their kind.
func mayPublish(r *pb.Role, kind pb.Kind, source string) bool {
	p := r.GetPublish()
	switch source {
	case proto.SourceMic:
		return kind == pb.Kind_KIND_AUDIO && p.GetAudio()
	case proto.SourceCamera:
		return kind == pb.Kind_KIND_VIDEO && p.GetVideo()
	case proto.SourceScreen:
		return kind == pb.Kind_KIND_VIDEO && p.GetScreen()
	case proto.SourceScreenAudio:
		return kind == pb.Kind_KIND_AUDIO && p.GetScreen()
	}
	if !ownSource(source) {
		return false
	}
	return kind == pb.Kind_KIND_AUDIO && p.GetAudio() || kind == pb.Kind_KIND_VIDEO && p.GetVideo()
}
