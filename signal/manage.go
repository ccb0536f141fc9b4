package signal

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/api"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/room"
)

// management is the API's way into the rooms.
type management struct{ *Server }

// Call implements api.Rooms.
func (m management) Call(ctx context.Context, name string, cmd *amphiv1.Command) (*amphiv1.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, ownerWait)
	defer cancel()
	r, err := m.replicas.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Release()
	if cmd, err = m.seal(cmd); err != nil {
		return nil, err
	}
	return r.Call(ctx, "", cmd)
}

// View implements api.Rooms.
func (m management) View(ctx context.Context, name string, f func(*room.Replica)) error {
	ctx, cancel := context.WithTimeout(ctx, ownerWait)
	defer cancel()
	r, err := m.replicas.Open(name)
	if err != nil {
		return err
	}
	defer r.Release()
	return r.View(ctx, f)
}

// Active implements api.Rooms. Of the sessions of other nodes this one knows the records.
func (m management) Active() map[string]int {
	active := m.owner.Active()
	for name, peers := range m.records.running() {
		if placed, err := m.deps.Directory.Owner(name); err == nil && placed.GetNode() != m.cfg.Node {
			active[name] = peers
		}
	}
	return active
}

// Active counts the peers of each room with a running session that this node owns.
func (s *Server) Active() map[string]int { return s.owner.Active() }

func (s *Server) managementAPI() http.Handler {
	deps := api.Deps{Registry: s.deps.Registry, Rooms: management{s}, Nodes: s.deps.Nodes, Assets: s.deps.Assets, Logger: s.log,
		ChangeRoom: s.records.change, SealURL: s.sealURL, OpenURL: s.openURL, CatchUp: s.records.catchUp,
		Authorize: func(token string) error {
			_, err := s.verify(token, auth.Management)
			return err
		}, Playback: s.mintPlayback}
	if s.deps.Webhooks != nil {
		deps.Webhooks = s.deps.Webhooks
	}
	return api.Handler(deps)
}

// maxStatusPeers bounds the peers listed for one room.
const maxStatusPeers = 500

// Rooms tells what signalling knows of the rooms with clients on this node, by name: the peers here, who publish
// first, with what they publish. What their media does is for the media engine to tell.
func (s *Server) Rooms(ctx context.Context) []*amphiv1.RoomStatus {
	var list []*amphiv1.RoomStatus
	for _, name := range s.replicas.Names() {
		r, err := s.replicas.Open(name)
		if err != nil {
			break
		}
		var st *amphiv1.RoomStatus
		err = r.View(ctx, func(*room.Replica) { st = r.Follower().(*edge).status() })
		r.Release()
		if err == nil && st != nil {
			list = append(list, st)
		}
	}
	slices.SortFunc(list, func(a, b *amphiv1.RoomStatus) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return list
}

// status is nil while no session runs.
func (e *edge) status() *amphiv1.RoomStatus {
	counts := e.rep.Counts()
	if counts.GetTotal() == 0 {
		return nil
	}
	st := &amphiv1.RoomStatus{Name: e.room.Name(), SessionId: e.rep.SessionID(), PeersByLevel: map[uint32]uint32{}}
	st.Owner, st.Epoch = e.room.Owner()
	st.Mode, st.Plan = modeNames[e.modeOf()], e.room.Plan()
	if placed, err := e.server.deps.Directory.Owner(st.Name); err == nil && placed.GetEpoch() == st.Epoch {
		st.Standby = placed.GetStandby()
	}
	for role, n := range counts.GetByRole() {
		st.PeersByLevel[proto.Level(e.rep.Role(role))] += n
	}
	for id, p := range e.peers {
		known := e.rep.Peer(id)
		if known == nil {
			continue
		}
		ps := &amphiv1.PeerStatus{PeerId: id, Name: known.GetName(), Role: known.GetRole(),
			Level: proto.Level(e.rep.RoleOf(id)), Transport: "none"}
		if p.conn != nil {
			ps.Remote = p.conn.Remote()
		}
		for _, t := range known.GetTracks() {
			ps.Up = append(ps.Up, &amphiv1.UpTrackStatus{TrackId: t.GetId(), Source: t.GetSource(), Codec: t.GetCodec(), Muted: t.GetMuted()})
		}
		st.Peers = append(st.Peers, ps)
	}
	slices.SortFunc(st.Peers, func(a, b *amphiv1.PeerStatus) int {
		return cmp.Or(cmp.Compare(a.GetLevel(), b.GetLevel()), cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetPeerId(), b.GetPeerId()))
	})
	st.Peers = st.Peers[:min(len(st.Peers), maxStatusPeers)]
	return st
}
