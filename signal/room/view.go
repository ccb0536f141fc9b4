package room

import (
	"cmp"
	"slices"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Bounds of what a session keeps.
const (
	// defaults for limits that a template leaves at 0.
	defaultFullPresence = 200
	defaultStoreKeys    = 100
	defaultStoreValue   = 1 << 10
	defaultStoreBytes   = 64 << 10
)

// view is a room as its events tell it. Owner and replicas fold the same events into it, so they agree. Values in
// it (peers, tracks, entries) are replaced, never changed.
type view struct {
	seq       uint64
	room      string
	sessionID string
	template  *pb.Template
	// public is the template as clients may see it.
	public   *pb.Template
	roles    map[string]*pb.Role
	started  int64
	ended    bool
	locked   bool
	metadata string
	chat     chatView
	peers    map[string]*pb.Peer
	// interest are the peers that everybody hears of, however large the room.
	interest map[string]*pb.Peer
	// counted is how many peers have each role, lost ones included; lost is when those were lost.
	counted map[string]uint32
	lost    map[string]int64
	// publisher is the peer of each track.
	publisher map[string]string
	// announced are peers beyond those of interest whom clients have heard of.
	announced map[string]bool
	store     storeView
	streams   map[string]*pb.Stream
	outputs   outputsView
	pending   []*pb.RoleChangeRequested
	banned    map[string]bool
}

func newView(st *pb.RoomState) view {
	v := view{
		seq: st.GetSeq(), room: st.GetRoom(), sessionID: st.GetSessionId(), template: st.GetTemplate(),
		started: st.GetStartedMs(), ended: st.GetEnded(), locked: st.GetLocked(), metadata: st.GetMetadata(),
		chat:      newChatView(st),
		roles:     map[string]*pb.Role{},
		peers:     make(map[string]*pb.Peer, len(st.GetPeers())),
		interest:  map[string]*pb.Peer{},
		counted:   map[string]uint32{},
		lost:      map[string]int64{},
		publisher: map[string]string{},
		announced: map[string]bool{},
		store:     newStoreView(st.GetStore()),
		streams:   map[string]*pb.Stream{},
		outputs:   newOutputsView(st),
		public:    Public(st.GetTemplate()),
		pending:   slices.Clone(st.GetPending()),
		banned:    map[string]bool{},
	}
	for _, r := range st.GetTemplate().GetRoles() {
		v.roles[r.GetName()] = r
	}
	for _, p := range st.GetPeers() {
		v.put(p)
	}
	for id, ms := range st.GetLostMs() {
		v.lost[id] = ms
	}
	for _, id := range st.GetAnnounced() {
		v.announced[id] = true
	}
	for _, s := range st.GetStreams() {
		v.streams[s.GetName()] = s
	}
	for _, u := range st.GetBannedUsers() {
		v.banned[u] = true
	}
	return v
}

// role is never nil: an unknown role allows nothing.
func (v *view) role(name string) *pb.Role {
	if r := v.roles[name]; r != nil {
		return r
	}
	return &pb.Role{}
}

// put stores a peer in place of what was known under its id.
func (v *view) put(p *pb.Peer) {
	v.drop(p.GetId())
	v.peers[p.GetId()] = p
	v.counted[p.GetRole()]++
	if !p.GetLost() && v.ofInterest(p) {
		v.interest[p.GetId()] = p
	}
	for _, t := range p.GetTracks() {
		v.publisher[t.GetId()] = p.GetId()
	}
}

func (v *view) drop(id string) {
	p := v.peers[id]
	if p == nil {
		return
	}
	delete(v.peers, id)
	delete(v.interest, id)
	if v.counted[p.GetRole()]--; v.counted[p.GetRole()] == 0 {
		delete(v.counted, p.GetRole())
	}
	for _, t := range p.GetTracks() {
		delete(v.publisher, t.GetId())
	}
}

// apply folds one event into the view.
func (v *view) apply(ev *pb.Event) {
	v.seq = ev.GetSeq()
	switch b := ev.GetBody().(type) {
	case *pb.Event_SessionStarted:
		v.sessionID, v.started = b.SessionStarted.GetSessionId(), ev.GetTimeMs()
	case *pb.Event_PeerJoined:
		v.applyJoined(b.PeerJoined)
	case *pb.Event_PeerUpdated:
		v.applyUpdated(b.PeerUpdated)
	case *pb.Event_PeerLeft:
		v.applyLeft(ev.GetTimeMs(), b.PeerLeft)
	case *pb.Event_TrackPublished:
		v.setTrack(b.TrackPublished.GetPeerId(), b.TrackPublished.GetTrack())
	case *pb.Event_TrackUpdated:
		v.setTrack(b.TrackUpdated.GetPeerId(), b.TrackUpdated.GetTrack())
	case *pb.Event_TrackUnpublished:
		v.removeTrack(b.TrackUnpublished)
	case *pb.Event_Message:
		v.chat.add(b.Message)
	case *pb.Event_ChatModerated:
		v.chat.moderate(b.ChatModerated.GetAction())
	case *pb.Event_StoreChanged:
		v.store.apply(b.StoreChanged)
	case *pb.Event_RoleChangeRequested:
		v.pending = append(slices.Clip(v.pending), b.RoleChangeRequested)
	case *pb.Event_RoleChangeAnswered:
		v.forget(func(r *pb.RoleChangeRequested) bool { return r.GetRequestId() == b.RoleChangeAnswered.GetRequestId() })
	case *pb.Event_RoomUpdated:
		v.locked, v.metadata = b.RoomUpdated.GetLocked(), b.RoomUpdated.GetMetadata()
	case *pb.Event_RoomEnded:
		v.applyEnded()
	case *pb.Event_StreamChanged:
		v.streams[b.StreamChanged.GetStream().GetName()] = b.StreamChanged.GetStream()
	case *pb.Event_OutputChanged:
		v.outputs.apply(b.OutputChanged)
	}
}

func (v *view) applyJoined(e *pb.PeerJoined) {
	p := e.GetPeer()
	v.put(p)
	delete(v.lost, p.GetId())
	v.announce(p, false)
}

func (v *view) applyUpdated(e *pb.PeerUpdated) {
	p := e.GetPeer()
	heard := v.heardOf(p.GetId())
	v.put(p)
	v.announce(p, heard)
}

// heardOf tells whether clients have heard of a peer.
func (v *view) heardOf(id string) bool {
	p := v.peers[id]
	return p != nil && !p.GetLost() && (v.announced[id] || v.ofInterest(p))
}

// announce notes that clients hear of a peer although it is not of interest, or had heard of it before. They
// then hear of everything that becomes of it, so that nobody is left standing in anybody's list.
func (v *view) announce(p *pb.Peer, heard bool) {
	if !v.ofInterest(p) && (heard || !v.large()) {
		v.announced[p.GetId()] = true
	} else {
		delete(v.announced, p.GetId())
	}
}

// announceAll notes, when a large room has become a small one, that clients hear of everybody from now on.
func (v *view) announceAll(wasLarge bool) {
	if !wasLarge || v.large() {
		return
	}
	for id, p := range v.peers {
		if !p.GetLost() && !v.ofInterest(p) {
			v.announced[id] = true
		}
	}
}

func (v *view) applyLeft(ms int64, e *pb.PeerLeft) {
	id := e.GetPeerId()
	p := v.peers[id]
	if p == nil {
		return
	}
	delete(v.announced, id)
	defer v.announceAll(v.large())
	v.forget(func(r *pb.RoleChangeRequested) bool { return r.GetPeerId() == id })
	if e.GetReason() == pb.LeaveReason_LEAVE_REASON_LOST {
		p = clonePeer(p)
		p.Lost = true
		p.Tracks = nil
		v.put(p)
		v.lost[id] = ms
		return
	}
	if e.GetBanned() && p.GetUserId() != "" {
		v.banned[p.GetUserId()] = true
	}
	delete(v.lost, id)
	v.drop(id)
}

func (v *view) applyEnded() {
	v.ended = true
	v.pending = nil
	clear(v.peers)
	clear(v.counted)
	clear(v.interest)
	clear(v.lost)
	clear(v.publisher)
	clear(v.announced)
	clear(v.streams)
	v.outputs.clear()
}

func (v *view) forget(match func(*pb.RoleChangeRequested) bool) {
	v.pending = slices.DeleteFunc(slices.Clone(v.pending), match)
}

// setTrack replaces a peer's track, or adds it.
func (v *view) setTrack(peerID string, t *pb.Track) {
	p := v.peers[peerID]
	if p == nil {
		return
	}
	p = clonePeer(p)
	if i := trackIndex(p, t.GetId()); i >= 0 {
		p.Tracks[i] = t
	} else {
		p.Tracks = append(p.Tracks, t)
	}
	v.put(p)
}

func (v *view) removeTrack(e *pb.TrackUnpublished) {
	p := v.peers[e.GetPeerId()]
	i := trackIndex(p, e.GetTrackId())
	if i < 0 {
		return
	}
	p = clonePeer(p)
	p.Tracks = slices.Delete(p.Tracks, i, i+1)
	v.drop(p.GetId())
	delete(v.publisher, e.GetTrackId())
	v.put(p)
}

// large tells whether clients hear of peers of interest only.
func (v *view) large() bool {
	full := v.template.GetLimits().GetFullPresencePeers()
	if full == 0 {
		full = defaultFullPresence
	}
	return len(v.peers)-len(v.lost) > int(full)
}

func (v *view) level(p *pb.Peer) uint32 { return proto.Level(v.role(p.GetRole())) }

// ofInterest tells whether everybody hears of a peer in a large room: it is on stage, or its hand is up.
func (v *view) ofInterest(p *pb.Peer) bool {
	return v.level(p) == 1 || p.GetHandRaisedMs() != 0
}

// present lists the peers that are not lost, by time of joining.
func (v *view) present() []*pb.Peer {
	all := make([]*pb.Peer, 0, len(v.peers))
	for _, p := range v.peers {
		if !p.GetLost() {
			all = append(all, p)
		}
	}
	sortPeers(all)
	return all
}

func sortPeers(ps []*pb.Peer) {
	slices.SortFunc(ps, func(a, b *pb.Peer) int {
		return cmp.Or(cmp.Compare(a.GetJoinedMs(), b.GetJoinedMs()), cmp.Compare(a.GetId(), b.GetId()))
	})
}

func streamList(v *view) []*pb.Stream {
	var list []*pb.Stream
	for _, s := range v.template.GetStreams() {
		if st := v.streams[s.GetName()]; st != nil {
			list = append(list, st)
		}
	}
	return list
}

func (v *view) counts() *pb.Counts {
	by := make(map[string]uint32, len(v.counted))
	for role, n := range v.counted {
		by[role] = n
	}
	for id := range v.lost {
		role := v.peers[id].GetRole()
		if by[role]--; by[role] == 0 {
			delete(by, role)
		}
	}
	return &pb.Counts{Total: uint32(len(v.peers) - len(v.lost)), ByRole: by}
}

// snapshot is the whole view, ordered so that equal views give equal snapshots.
func (v *view) snapshot() *pb.RoomState {
	st := v.shared()
	st.Template, st.SealedUrls = v.template, v.outputs.sealedURLs()
	st.Peers = make([]*pb.Peer, 0, len(v.peers))
	for _, p := range v.peers {
		st.Peers = append(st.Peers, p)
	}
	sortPeers(st.Peers)
	st.Messages = slices.Clone(v.chat.kept)
	st.Pending = slices.Clone(v.pending)
	st.BannedUsers = sortedKeys(v.banned)
	st.Announced = sortedKeys(v.announced)
	if len(v.lost) > 0 {
		st.LostMs = make(map[string]int64, len(v.lost))
		for id, ms := range v.lost {
			st.LostMs[id] = ms
		}
	}
	return st
}

// shared is the part of the state that is the same for owner, replicas and clients, with the template as these may see it.
func (v *view) shared() *pb.RoomState {
	return &pb.RoomState{
		Seq: v.seq, Room: v.room, SessionId: v.sessionID, StartedMs: v.started, Template: v.public,
		Store: v.store.list(), Streams: streamList(v), Outputs: slices.Clone(v.outputs.list), Locked: v.locked, Metadata: v.metadata,
		ChatPaused: v.chat.paused, RoleCounts: v.counts().GetByRole(), Ended: v.ended,
	}
}

func sortedKeys(m map[string]bool) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// clonePeer copies a peer and its list of tracks, but not the tracks.
func clonePeer(p *pb.Peer) *pb.Peer {
	return &pb.Peer{
		Id: p.GetId(), Name: p.GetName(), UserId: p.GetUserId(), Role: p.GetRole(), Metadata: p.GetMetadata(),
		JoinedMs: p.GetJoinedMs(), HandRaisedMs: p.GetHandRaisedMs(), Tracks: slices.Clone(p.GetTracks()),
		PreviousRole: p.GetPreviousRole(), Lost: p.GetLost(), ChatBlocked: p.GetChatBlocked(),
	}
}

func trackIndex(p *pb.Peer, id string) int {
	return slices.IndexFunc(p.GetTracks(), func(t *pb.Track) bool { return t.GetId() == id })
}

func trackOf(p *pb.Peer, id string) *pb.Track {
	if i := trackIndex(p, id); i >= 0 {
		return p.GetTracks()[i]
	}
	return nil
}
