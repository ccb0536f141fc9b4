package room

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

const (
	maxTracks      = 10
	maxPixels      = 16384
	maxDescription = 256
)

// publish announces a track. A source that is published already keeps its track, brought up to date.
func (c *call) publish(p *pb.PublishTrack) (*pb.Result, error) {
	role := c.role(c.peer.GetRole())
	if err := checkTrack(p); err != nil {
		return nil, err
	}
	if !mayPublish(role, p.GetKind(), p.GetSource()) {
		return nil, denied("publish " + p.GetSource())
	}
	t := &pb.Track{
		Kind: p.GetKind(), Source: p.GetSource(), Muted: p.GetMuted(), Description: p.GetDescription(),
	}
	if p.GetKind() == pb.Kind_KIND_VIDEO {
		t.Width, t.Height = p.GetWidth(), p.GetHeight()
		t.Layers = allowedLayers(role, p)
	}
	for _, had := range c.peer.GetTracks() {
		if had.GetSource() != p.GetSource() {
			continue
		}
		if had.GetKind() != p.GetKind() {
			return nil, proto.Errorf(proto.InvalidArgument, "%s is published as the other kind", p.GetSource())
		}
		t.Id, t.Codec = had.GetId(), had.GetCodec()
		changeTrack(c, c.peer.GetId(), had, t)
		return published(t), nil
	}
	if len(c.peer.GetTracks()) >= maxTracks {
		return nil, proto.Errorf(proto.LimitExceeded, "a peer publishes at most %d tracks", maxTracks)
	}
	t.Id = c.cfg.IDs(proto.TrackPrefix)
	c.emit(&pb.Event{Body: &pb.Event_TrackPublished{TrackPublished: &pb.TrackPublished{PeerId: c.peer.GetId(), Track: t}}})
	return published(t), nil
}

func published(t *pb.Track) *pb.Result {
	return &pb.Result{Body: &pb.Result_Publish{Publish: &pb.PublishResult{Track: t}}}
}

func checkTrack(p *pb.PublishTrack) error {
	switch p.GetSource() {
	case proto.SourceMic, proto.SourceCamera, proto.SourceScreen, proto.SourceScreenAudio:
	default:
		if !ownSource(p.GetSource()) {
			return proto.Errorf(proto.InvalidArgument, "the source is unknown; your own begin with %q", proto.SourcePrefix)
		}
	}
	switch {
	case p.GetKind() != pb.Kind_KIND_AUDIO && p.GetKind() != pb.Kind_KIND_VIDEO:
		return proto.Errorf(proto.InvalidArgument, "the kind must be audio or video")
	case p.GetWidth() > maxPixels || p.GetHeight() > maxPixels:
		return proto.Errorf(proto.InvalidArgument, "the picture is larger than %d pixels", maxPixels)
	}
	return checkDescription(p.GetDescription())
}

func checkDescription(s string) error {
	if len(s) > maxDescription || !utf8.ValidString(s) {
		return proto.Errorf(proto.InvalidArgument, "the description is longer than %d bytes or not UTF-8", maxDescription)
	}
	return nil
}

// ownSource tells whether a source is one of the application's own: "x-" and 1 to 30 of a-z, 0-9 and "-".
func ownSource(s string) bool {
	name, ok := strings.CutPrefix(s, proto.SourcePrefix)
	return ok && name != "" && len(name) <= 30 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// allowedLayers reduces the layers that a client announces to those of its role, at most at the role's rates.
// A client that announces none, or whose role has none, sends a single encoding.
func allowedLayers(role *pb.Role, p *pb.PublishTrack) []*pb.SimulcastLayer {
	params := role.GetPublish().GetVideoParams()
	if p.GetSource() == proto.SourceScreen {
		params = role.GetPublish().GetScreenParams()
	}
	var layers []*pb.SimulcastLayer
	for _, most := range params.GetLayers() {
		i := slices.IndexFunc(p.GetLayers(), func(l *pb.SimulcastLayer) bool { return l.GetRid() == most.GetRid() })
		if i < 0 {
			continue
		}
		l := &pb.SimulcastLayer{
			Rid:            most.GetRid(),
			ScaleDownBy:    most.GetScaleDownBy(),
			MaxBitrateKbps: lower(p.GetLayers()[i].GetMaxBitrateKbps(), most.GetMaxBitrateKbps()),
			MaxFramerate:   lower(p.GetLayers()[i].GetMaxFramerate(), most.GetMaxFramerate()),
		}
		if s := p.GetLayers()[i].GetScaleDownBy(); s >= 1 && s <= 16 {
			l.ScaleDownBy = s
		}
		layers = append(layers, l)
	}
	return layers
}

// lower is the smaller of two limits, of which 0 is none.
func lower(a, b uint32) uint32 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// changeTrack says that a track is different now; nothing if it is not.
func changeTrack(c *call, peerID string, had, t *pb.Track) {
	if !gproto.Equal(had, t) {
		c.emit(&pb.Event{Body: &pb.Event_TrackUpdated{TrackUpdated: &pb.TrackUpdated{PeerId: peerID, Track: t, By: c.by()}}})
	}
}

func unpublishTrack(s *State, peerID string, t *pb.Track) {
	s.emit(&pb.Event{Body: &pb.Event_TrackUnpublished{
		TrackUnpublished: &pb.TrackUnpublished{PeerId: peerID, TrackId: t.GetId()},
	}})
}

func ownTrack(c *call, id string) (*pb.Track, error) {
	if t := trackOf(c.peer, id); t != nil {
		return t, nil
	}
	return nil, proto.Errorf(proto.TrackNotFound, "you publish no such track")
}

func (c *call) unpublish(u *pb.UnpublishTrack) error {
	t, err := ownTrack(c, u.GetTrackId())
	if err != nil {
		return err
	}
	unpublishTrack(c.State, c.peer.GetId(), t)
	return nil
}

func (c *call) updateTrack(u *pb.UpdateTrack) error {
	had, err := ownTrack(c, u.GetTrackId())
	if err != nil {
		return err
	}
	if err := checkDescription(u.GetDescription()); err != nil {
		return err
	}
	if u.GetWidth() > maxPixels || u.GetHeight() > maxPixels {
		return proto.Errorf(proto.InvalidArgument, "the picture is larger than %d pixels", maxPixels)
	}
	if u.Codec != nil && !slices.Contains([]string{"", "opus", "vp8", "vp9", "h264", "av1"}, u.GetCodec()) {
		return proto.Errorf(proto.InvalidArgument, "the codec is unknown")
	}
	t := cloneTrack(had)
	set(&t.Muted, u.Muted)
	set(&t.Width, u.Width)
	set(&t.Height, u.Height)
	set(&t.Description, u.Description)
	set(&t.Codec, u.Codec)
	changeTrack(c, c.peer.GetId(), had, t)
	return nil
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

func cloneTrack(t *pb.Track) *pb.Track {
	return &pb.Track{
		Id: t.GetId(), Kind: t.GetKind(), Source: t.GetSource(), Muted: t.GetMuted(), Width: t.GetWidth(), Height: t.GetHeight(),
		Codec: t.GetCodec(), Layers: t.GetLayers(), Description: t.GetDescription(),
	}
}

// mutePeers mutes other people's tracks at once, or asks them to unmute.
func (c *call) mutePeers(m *pb.MutePeers) error {
	if m.GetMuted() && !c.may.GetMuteOthers() {
		return denied("mute people")
	}
	if !m.GetMuted() && !c.may.GetAskUnmute() {
		return denied("ask people to unmute")
	}
	if len(m.GetSources()) > maxTracks {
		return proto.Errorf(proto.InvalidArgument, "more than %d sources", maxTracks)
	}
	targets, err := muteTargets(c, m)
	if err != nil {
		return err
	}
	for _, p := range targets {
		if m.GetMuted() {
			muteNow(c, p, m)
		} else {
			askUnmute(c, p, m)
		}
	}
	return nil
}

// muteTargets lists the peers concerned: by id, by role, and the publishers of the tracks named.
func muteTargets(c *call, m *pb.MutePeers) ([]*pb.Peer, error) {
	if len(m.GetTrackIds()) == 0 {
		return targets(c, m.GetPeers(), m.GetRoles(), false)
	}
	if len(m.GetTrackIds()) > maxTargets || len(m.GetPeers())+len(m.GetRoles()) > 0 {
		return nil, proto.Errorf(proto.InvalidArgument, "name either tracks or peers and roles, at most %d", maxTargets)
	}
	var found []*pb.Peer
	for _, id := range m.GetTrackIds() {
		if p := c.peers[c.publisher[id]]; p != nil && !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, proto.Errorf(proto.TrackNotFound, "there is no such track in the room")
	}
	return found, nil
}

// concerned tells whether a mute command is about a track.
func concerned(m *pb.MutePeers, t *pb.Track) bool {
	if len(m.GetTrackIds()) > 0 && !slices.Contains(m.GetTrackIds(), t.GetId()) {
		return false
	}
	return len(m.GetSources()) == 0 || slices.Contains(m.GetSources(), t.GetSource())
}

func muteNow(c *call, p *pb.Peer, m *pb.MutePeers) {
	for _, had := range p.GetTracks() {
		if concerned(m, had) && !had.GetMuted() {
			t := cloneTrack(had)
			t.Muted = true
			changeTrack(c, p.GetId(), had, t)
		}
	}
}

// askUnmute asks for the muted tracks concerned, and for the sources that the peer may publish but does not. Without
// a list of sources that is only its microphone.
func askUnmute(c *call, p *pb.Peer, m *pb.MutePeers) {
	req := &pb.UnmuteRequested{PeerId: p.GetId(), By: c.by()}
	has := map[string]bool{}
	for _, t := range p.GetTracks() {
		has[t.GetSource()] = true
		if concerned(m, t) && t.GetMuted() {
			req.TrackIds = append(req.TrackIds, t.GetId())
			req.Sources = append(req.Sources, t.GetSource())
		}
	}
	wanted := m.GetSources()
	if len(wanted) == 0 && len(m.GetTrackIds()) == 0 && len(req.GetTrackIds()) == 0 {
		wanted = []string{proto.SourceMic}
	}
	role := c.role(p.GetRole())
	for _, source := range wanted {
		may := mayPublish(role, pb.Kind_KIND_AUDIO, source) || mayPublish(role, pb.Kind_KIND_VIDEO, source)
		if may && !has[source] && !slices.Contains(req.GetSources(), source) {
			req.Sources = append(req.Sources, source)
		}
	}
	if len(req.GetSources()) > 0 {
		c.emit(&pb.Event{Body: &pb.Event_UnmuteRequested{UnmuteRequested: req}})
	}
}
