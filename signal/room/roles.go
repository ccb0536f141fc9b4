package room

import (
	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// maxHands is how many hands may be up at once.
const maxHands = 200

// changeRole moves peers to a role: a single one is asked, or forced; several are always forced.
func (c *call) changeRole(r *pb.ChangeRole) (*pb.Result, error) {
	if !c.may.GetChangeRole() {
		return nil, denied("change roles")
	}
	role := c.roles[r.GetRole()]
	if role == nil {
		return nil, proto.Errorf(proto.NotFound, "this room has no role %q", clip(r.GetRole()))
	}
	single := len(r.GetPeers()) == 1 && len(r.GetFromRoles()) == 0
	if !single && !r.GetForce() {
		return nil, proto.Errorf(proto.InvalidArgument, "only a single peer given by id can be asked; set force")
	}
	targets, err := targets(c, r.GetPeers(), r.GetFromRoles(), false)
	if err != nil {
		return nil, err
	}
	if single {
		return changeOne(c, targets[0], role, r.GetForce())
	}
	res := &pb.ChangeRoleResult{}
	for _, p := range targets {
		if p.GetRole() == role.GetName() {
			continue
		}
		if err := roomFor(&c.view, role); err != nil {
			if res.Failed == nil {
				res.Failed = map[string]string{}
			}
			res.Failed[p.GetId()] = string(proto.CodeOf(err))
			continue
		}
		move(c, p, role, c.by(), true)
		res.Changed = append(res.Changed, p.GetId())
	}
	return roleResult(res), nil
}

func roleResult(r *pb.ChangeRoleResult) *pb.Result {
	return &pb.Result{Body: &pb.Result_ChangeRole{ChangeRole: r}}
}

// changeOne moves a peer, or asks it. Who moves itself need not be asked.
func changeOne(c *call, p *pb.Peer, role *pb.Role, force bool) (*pb.Result, error) {
	if p.GetRole() == role.GetName() {
		return roleResult(&pb.ChangeRoleResult{}), nil
	}
	if err := roomFor(&c.view, role); err != nil {
		return nil, err
	}
	if force || p == c.peer {
		move(c, p, role, c.by(), p != c.peer)
		return roleResult(&pb.ChangeRoleResult{Changed: []string{p.GetId()}}), nil
	}
	if had := requestFor(&c.view, p.GetId()); had != nil {
		if had.GetRole() == role.GetName() && had.GetBy() == c.by() {
			return roleResult(&pb.ChangeRoleResult{RequestId: had.GetRequestId()}), nil
		}
		c.expireRequest(had)
	}
	req := &pb.RoleChangeRequested{
		RequestId: c.cfg.IDs(proto.RequestPrefix), PeerId: p.GetId(), Role: role.GetName(),
		By: c.by(), ByName: c.peer.GetName(), TimeMs: c.now.UnixMilli(),
	}
	c.emit(&pb.Event{Body: &pb.Event_RoleChangeRequested{RoleChangeRequested: req}})
	c.after(req.GetTimeMs(), RequestFor, untilForgotten, req.GetRequestId())
	return roleResult(&pb.ChangeRoleResult{RequestId: req.GetRequestId()}), nil
}

// request finds a role change that waits for its peer's answer.
func request(v *view, id string) *pb.RoleChangeRequested {
	for _, r := range v.pending {
		if r.GetRequestId() == id {
			return r
		}
	}
	return nil
}

// requestFor is the role change that a peer is asked for; there is one at most.
func requestFor(v *view, peerID string) *pb.RoleChangeRequested {
	for _, r := range v.pending {
		if r.GetPeerId() == peerID {
			return r
		}
	}
	return nil
}

func (s *State) expireRequest(r *pb.RoleChangeRequested) {
	answered(s, r, &pb.RoleChangeAnswered{Expired: true})
}

func answered(s *State, r *pb.RoleChangeRequested, a *pb.RoleChangeAnswered) {
	a.RequestId, a.PeerId, a.By = r.GetRequestId(), r.GetPeerId(), r.GetBy()
	s.emit(&pb.Event{Body: &pb.Event_RoleChangeAnswered{RoleChangeAnswered: a}})
}

func (c *call) answerRoleChange(a *pb.AnswerRoleChange) error {
	req := request(&c.view, a.GetRequestId())
	if req == nil || req.GetPeerId() != c.peer.GetId() {
		return proto.Errorf(proto.NotFound, "this request is no longer open")
	}
	if !a.GetAccept() {
		answered(c.State, req, &pb.RoleChangeAnswered{})
		return nil
	}
	role := c.role(req.GetRole())
	if c.peer.GetRole() != role.GetName() {
		// When the role is full the request stays open: a place may come free.
		if err := roomFor(&c.view, role); err != nil {
			return err
		}
	}
	answered(c.State, req, &pb.RoleChangeAnswered{Accepted: true})
	if p := c.peers[c.peer.GetId()]; p.GetRole() != role.GetName() {
		move(c, p, role, req.GetBy(), false)
	}
	return nil
}

// move gives a peer another role: what it may no longer publish is unpublished, on stage its hand goes down, and
// a question that was open is settled.
func move(c *call, p *pb.Peer, role *pb.Role, by string, forced bool) {
	id := p.GetId()
	if req := requestFor(&c.view, id); req != nil {
		c.expireRequest(req)
	}
	for _, t := range p.GetTracks() {
		if !mayPublish(role, t.GetKind(), t.GetSource()) {
			unpublishTrack(c.State, id, t)
		}
	}
	p = clonePeer(c.peers[id])
	p.PreviousRole, p.Role = p.GetRole(), role.GetName()
	if proto.Level(role) == 1 {
		p.HandRaisedMs = 0
	}
	c.emit(&pb.Event{Body: &pb.Event_PeerUpdated{PeerUpdated: &pb.PeerUpdated{
		Peer: p, What: pb.PeerUpdated_WHAT_ROLE, By: by, Forced: forced,
	}}})
}

// raiseHand raises the peer's own hand, or lowers anybody's whom the role allows.
func (c *call) raiseHand(h *pb.RaiseHand) error {
	p, err := c.self(h.GetPeerId())
	if err != nil {
		return err
	}
	if p != c.peer && (h.GetRaised() || !c.may.GetManageRoom() && !c.may.GetChangeRole()) {
		return denied("raise other people's hands, or lower them")
	}
	if h.GetRaised() == (p.GetHandRaisedMs() != 0) {
		return nil
	}
	if h.GetRaised() {
		if !c.may.GetRaiseHand() {
			return denied("raise a hand")
		}
		if hands(c) >= maxHands {
			return proto.Errorf(proto.LimitExceeded, "%d hands are up already", maxHands)
		}
	}
	p = clonePeer(p)
	p.HandRaisedMs = 0
	if h.GetRaised() {
		// Two hands in one millisecond still have an order.
		c.lastHand = max(c.now.UnixMilli(), c.lastHand+1)
		p.HandRaisedMs = c.lastHand
	}
	update(c, p, pb.PeerUpdated_WHAT_HAND, false)
	return nil
}

func hands(c *call) int {
	n := 0
	for _, p := range c.interest {
		if p.GetHandRaisedMs() != 0 {
			n++
		}
	}
	return n
}
