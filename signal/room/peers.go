package room

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// maxReason bounds the words that go with a removal or the end of a room, in bytes.
	maxReason = 256
	// maxTargets bounds the lists of peers and roles in one command.
	maxTargets  = 1000
	defaultPage = 50
	maxPage     = 100
)

func (c *call) join(j *pb.Join) (*pb.Result, error) {
	switch {
	case c.from.Management:
		return nil, proto.Errorf(proto.InvalidMessage, "the management API cannot join")
	case c.from.PeerID != "":
		return nil, proto.Errorf(proto.AlreadyJoined, "the peer is in the room already")
	}
	if err := mayJoin(c, j); err != nil {
		return nil, err
	}
	if c.started == 0 {
		c.emit(&pb.Event{Body: &pb.Event_SessionStarted{SessionStarted: &pb.SessionStarted{SessionId: c.cfg.SessionID}}})
		c.limitDuration()
	}
	p := &pb.Peer{
		Id: c.cfg.IDs(proto.PeerPrefix), Name: j.GetName(), UserId: j.GetUserId(), Role: j.GetRole(),
		Metadata: j.GetMetadata(), JoinedMs: c.now.UnixMilli(),
	}
	c.home[p.GetId()] = c.from.Node
	c.emit(&pb.Event{Body: &pb.Event_PeerJoined{PeerJoined: &pb.PeerJoined{Peer: p}}})
	return joined(p), nil
}

func joined(p *pb.Peer) *pb.Result {
	return &pb.Result{Body: &pb.Result_Join{Join: &pb.JoinResult{Peer: p}}}
}

func mayJoin(c *call, j *pb.Join) error {
	role := c.roles[j.GetRole()]
	if role == nil {
		return proto.Errorf(proto.NotFound, "this room has no role %q", clip(j.GetRole()))
	}
	if err := cmp.Or(checkName(j.GetName()), checkMetadata(j.GetMetadata())); err != nil {
		return err
	}
	if len(j.GetUserId()) > proto.MaxUserID {
		return proto.Errorf(proto.InvalidArgument, "the user id is longer than %d bytes", proto.MaxUserID)
	}
	switch limit := c.template.GetLimits().GetMaxPeers(); {
	case c.banned[j.GetUserId()]:
		return proto.Errorf(proto.Banned, "you were removed from this session and may not come back")
	case c.locked:
		return proto.Errorf(proto.RoomLocked, "the room is locked")
	case limit > 0 && len(c.peers) >= int(limit):
		return proto.Errorf(proto.RoomFull, "the room has its %d peers", limit)
	}
	return roomFor(&c.view, role)
}

// roomFor refuses when a role has as many peers as it may; lost peers keep their place.
func roomFor(v *view, role *pb.Role) error {
	if n := role.GetMaxPeers(); n > 0 && v.counted[role.GetName()] >= n {
		return proto.Errorf(proto.RoleFull, "the role %q has its %d peers", role.GetName(), n)
	}
	return nil
}

func (c *call) leave() {
	c.depart(&pb.PeerLeft{PeerId: c.peer.GetId(), Reason: pb.LeaveReason_LEAVE_REASON_LEFT})
}

// depart takes a peer out for good, and ends the session with its last peer.
func (s *State) depart(e *pb.PeerLeft) {
	s.takeOut(e)
	delete(s.home, e.GetPeerId())
	delete(s.gone, e.GetPeerId())
	delete(s.held, e.GetPeerId())
	if len(s.peers) == 0 {
		s.end("empty", "")
	}
}

// takeOut unpublishes a peer's tracks and says that it left.
func (s *State) takeOut(e *pb.PeerLeft) {
	for _, t := range s.peers[e.GetPeerId()].GetTracks() {
		unpublishTrack(s, e.GetPeerId(), t)
	}
	s.emit(&pb.Event{Body: &pb.Event_PeerLeft{PeerLeft: e}})
}

// loseNow shows a peer as gone; its place, its id and its tracks' ids are held.
func (s *State) loseNow(id string) {
	delete(s.gone, id)
	s.held[id] = s.peers[id].GetTracks()
	for _, r := range s.pending {
		if r.GetPeerId() == id {
			s.expireRequest(r)
		}
	}
	s.takeOut(&pb.PeerLeft{PeerId: id, Reason: pb.LeaveReason_LEAVE_REASON_LOST})
	s.after(s.lost[id], HoldFor-LostAfter, untilExpired, id)
}

// DetachNode notes that a node has gone, and with it the connections of all its peers.
func (s *State) DetachNode(now time.Time, node string) {
	s.advance(now)
	for id, home := range s.home {
		if home == node {
			disconnected(s, id, s.now.UnixMilli())
		}
	}
}

func disconnected(s *State, id string, ms int64) {
	if _, already := s.gone[id]; already || s.peers[id] == nil || s.peers[id].GetLost() {
		return
	}
	s.gone[id] = ms
	s.after(ms, LostAfter, untilLost, id)
}

// peerConnection takes a node's word that a client was lost, or that it came back; the latter is answered like a join.
func (c *call) peerConnection(pc *pb.PeerConnection) (*pb.Result, error) {
	if c.from.Management || c.from.PeerID != "" || c.from.Node == "" {
		return nil, proto.Errorf(proto.PermissionDenied, "only nodes report connections")
	}
	id := pc.GetPeerId()
	p := c.peers[id]
	if p == nil {
		return nil, proto.Errorf(proto.ResumeExpired, "the peer's place is no longer held")
	}
	if !pc.GetConnected() {
		// A node that the client has left since has no say; after a takeover the first to speak has.
		if home := c.home[id]; home == c.from.Node || home == "" {
			disconnected(c.State, id, missedSince(c.now.UnixMilli(), pc.GetSinceMs()))
		}
		return nil, nil
	}
	c.home[id] = c.from.Node
	delete(c.gone, id)
	if p.GetLost() {
		p = clonePeer(p)
		p.Lost = false
		p.Tracks = c.held[id]
		delete(c.held, id)
		c.emit(&pb.Event{Body: &pb.Event_PeerJoined{PeerJoined: &pb.PeerJoined{Peer: p}}})
	}
	return joined(p), nil
}

// missedSince is from when a client counts as missing whose connection is known to be gone now: from when its next ping
// was due, but not from before it was heard last. So a closed tab and a dead network look alike to others.
func missedSince(now, heard int64) int64 {
	if heard <= 0 || heard > now {
		return now
	}
	return max(min(now, heard+PingEvery.Milliseconds()), now-HoldFor.Milliseconds())
}

func (c *call) updatePeer(u *pb.UpdatePeer) error {
	p, err := c.self(u.GetPeerId())
	if err != nil {
		return err
	}
	if p != c.peer && !c.from.Management {
		return denied("change other people's names")
	}
	if err := cmp.Or(checkName(u.GetName()), checkMetadata(u.GetMetadata())); err != nil {
		return err
	}
	if u.Name != nil && u.GetName() != p.GetName() {
		p = clonePeer(p)
		p.Name = u.GetName()
		update(c, p, pb.PeerUpdated_WHAT_NAME, false)
	}
	if u.Metadata != nil && u.GetMetadata() != p.GetMetadata() {
		p = clonePeer(p)
		p.Metadata = u.GetMetadata()
		update(c, p, pb.PeerUpdated_WHAT_METADATA, false)
	}
	return nil
}

func update(c *call, p *pb.Peer, what pb.PeerUpdated_What, forced bool) {
	c.emit(&pb.Event{Body: &pb.Event_PeerUpdated{PeerUpdated: &pb.PeerUpdated{Peer: p, What: what, By: c.by(), Forced: forced}}})
}

// self finds the peer that a command is about: the one named, or who asks.
func (c *call) self(id string) (*pb.Peer, error) {
	if id == "" && c.peer == nil {
		return nil, proto.Errorf(proto.InvalidArgument, "peer_id is missing")
	}
	if id == "" {
		return c.peer, nil
	}
	return find(&c.view, id)
}

func find(v *view, id string) (*pb.Peer, error) {
	if p := v.peers[id]; p != nil && !p.GetLost() {
		return p, nil
	}
	return nil, proto.Errorf(proto.NotFound, "there is no such peer in the room")
}

func (c *call) removePeers(r *pb.RemovePeers) error {
	if !c.may.GetRemoveOthers() {
		return denied("remove people")
	}
	if len(r.GetReason()) > maxReason {
		return proto.Errorf(proto.InvalidArgument, "the reason is longer than %d bytes", maxReason)
	}
	targets, err := targets(c, r.GetPeers(), r.GetRoles(), true)
	if err != nil {
		return err
	}
	if r.GetBan() {
		// Somebody without a user id would be back at once: better nobody leaves than that who asks believes otherwise.
		for _, p := range targets {
			if p.GetUserId() == "" {
				return proto.Errorf(proto.InvalidArgument, "%q has no user id and cannot be banned; remove without a ban, or lock the room", clip(p.GetName()))
			}
		}
		targets = withOtherPeers(c, targets)
	}
	for _, p := range targets {
		c.depart(&pb.PeerLeft{
			PeerId: p.GetId(), Reason: pb.LeaveReason_LEAVE_REASON_REMOVED,
			Message: r.GetReason(), By: c.by(), Banned: r.GetBan(),
		})
	}
	return nil
}

// withOtherPeers adds the other peers of the same users: a second tab would stay, and a lost one come back. Who asks is
// meant only when named.
func withOtherPeers(c *call, named []*pb.Peer) []*pb.Peer {
	users, seen := map[string]bool{}, map[string]bool{c.by(): true}
	for _, p := range named {
		users[p.GetUserId()], seen[p.GetId()] = true, true
	}
	for id, p := range c.peers {
		if users[p.GetUserId()] && !seen[id] {
			named = append(named, p)
		}
	}
	sortPeers(named)
	return named
}

// targets lists the peers named by id or by role, by time of joining. Who asks is meant only when named by id.
// It is an error when ids are given and none of them is here; lost peers count only if asked for.
func targets(c *call, ids, roles []string, lost bool) ([]*pb.Peer, error) {
	if len(ids) == 0 && len(roles) == 0 {
		return nil, proto.Errorf(proto.InvalidArgument, "name peers or roles")
	}
	if len(ids) > maxTargets || len(roles) > maxTargets {
		return nil, proto.Errorf(proto.InvalidArgument, "more than %d peers or roles", maxTargets)
	}
	var found []*pb.Peer
	seen := map[string]bool{}
	for _, id := range ids {
		if p := c.peers[id]; p != nil && !seen[id] && (lost || !p.GetLost()) {
			seen[id] = true
			found = append(found, p)
		}
	}
	if len(found) == 0 && len(roles) == 0 {
		return nil, proto.Errorf(proto.NotFound, "there is no such peer in the room")
	}
	for _, name := range roles {
		if c.roles[name] == nil {
			return nil, proto.Errorf(proto.NotFound, "this room has no role %q", clip(name))
		}
	}
	if len(roles) > 0 {
		for id, p := range c.peers {
			if !seen[id] && p != c.peer && (lost || !p.GetLost()) && slices.Contains(roles, p.GetRole()) {
				found = append(found, p)
			}
		}
	}
	sortPeers(found)
	return found, nil
}

// list answers ListPeers: a page of those that match, by name and id.
func list(v *view, q *pb.ListPeers) *pb.ListPeersResult {
	limit := int(q.GetLimit())
	if limit == 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	search := strings.ToLower(q.GetSearch())
	afterID, afterName, paging := strings.Cut(q.GetAfter(), "|")
	type row struct {
		name string
		peer *pb.Peer
	}
	less := func(a, b row) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.peer.GetId(), b.peer.GetId()))
	}
	after := row{name: afterName, peer: &pb.Peer{Id: afterID}}
	var rows []row
	res := &pb.ListPeersResult{}
	for _, p := range v.peers {
		if p.GetLost() || len(q.GetRoles()) > 0 && !slices.Contains(q.GetRoles(), p.GetRole()) {
			continue
		}
		r := row{name: strings.ToLower(p.GetName()), peer: p}
		if !strings.Contains(r.name, search) {
			continue
		}
		res.Total++
		// Only the first rows of the page are kept, and one more to see whether there is a next page.
		if paging && less(r, after) <= 0 || len(rows) > limit && less(r, rows[limit]) > 0 {
			continue
		}
		i, _ := slices.BinarySearchFunc(rows, r, less)
		rows = slices.Insert(rows, i, r)
		rows = rows[:min(len(rows), limit+1)]
	}
	for i, r := range rows {
		if i == limit {
			last := rows[i-1]
			res.Next = last.peer.GetId() + "|" + last.name
			break
		}
		res.Peers = append(res.Peers, r.peer)
	}
	return res
}

func checkName(name string) error {
	if len(name) > proto.MaxPeerName {
		return proto.Errorf(proto.InvalidArgument, "the name is longer than %d bytes", proto.MaxPeerName)
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return proto.Errorf(proto.InvalidArgument, "the name has characters that cannot be shown")
	}
	return nil
}

func checkMetadata(m string) error {
	if len(m) > proto.MaxMetadata || !utf8.ValidString(m) {
		return proto.Errorf(proto.InvalidArgument, "the metadata is longer than %d bytes or not UTF-8", proto.MaxMetadata)
	}
	return nil
}

// clip shortens what came from outside for an error message.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.ToValidUTF8(s, "")
}
