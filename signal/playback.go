package signal

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/room"
)

// playbackLife is how long a token is good that nobody asked another life for.
const playbackLife = 24 * time.Hour

// AuthorizePlayback decides about a request for a playlist of a stream, whatever node makes it: open streams are for
// everybody, others for who has a playback token of the deployment, or one that an API key has signed. An error has the
// code unauthenticated, token_expired, permission_denied for a token of another stream, or not_found. A stream that nobody
// knows any more, whose last minute may still be served, takes the tokens that it took.
func (s *Server) AuthorizePlayback(_ *http.Request, room, stream, token string) (open bool, err error) {
	settings, err := s.records.streamSettings(room, stream)
	switch {
	case err == nil && settings.GetOpenPlayback():
		return true, nil
	case token != "":
	case err != nil:
		return false, err
	default:
		return false, proto.Errorf(proto.Unauthenticated, "this stream takes a playback token")
	}
	p, err := s.openPlayback(token)
	switch {
	case err != nil:
		return false, err
	case key(p.Room) != key(room), p.Stream != "" && p.Stream != stream:
		return false, proto.Errorf(proto.PermissionDenied, "the playback token is for another stream")
	}
	return false, nil
}

// openPlayback reads either kind of token.
func (s *Server) openPlayback(token string) (auth.Playback, error) {
	now := s.cfg.Now()
	if strings.Count(token, ".") != 2 {
		return auth.OpenPlayback(s.records.secret(), now, token)
	}
	g, err := s.verifier.Verify(now, token, auth.Play)
	return auth.Playback{Room: g.Room, Stream: g.Stream, Viewer: g.UserID, Expires: g.ExpiresAt}, err
}

// streamSettings is what the room's template says of a stream.
func (r *records) streamSettings(name, stream string) (*amphiv1.StreamSettings, error) {
	room, err := r.room(name)
	if err != nil {
		return nil, err
	}
	t, err := r.template(room.GetTemplate())
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(t.GetStreams(), func(s *amphiv1.StreamSettings) bool { return s.GetName() == stream })
	if i < 0 {
		return nil, proto.Errorf(proto.NotFound, "this room has no such stream")
	}
	return t.GetStreams()[i], nil
}

// playbackURL is how a viewer plays a stream of the room.
func (s *Server) playbackURL(name string, settings *amphiv1.StreamSettings, viewer string, life time.Duration) *amphiv1.Playback {
	p := &amphiv1.Playback{Stream: settings.GetName(), Url: "/v1/hls/" + url.PathEscape(name) + "/" + settings.GetName() + "/index.m3u8"}
	if settings.GetOpenPlayback() {
		return p
	}
	expires := s.cfg.Now().Add(life)
	p.ExpiresMs = expires.UnixMilli()
	p.Url += "?token=" + auth.SealPlayback(s.records.secret(), auth.Playback{Room: name, Stream: settings.GetName(), Viewer: viewer, Expires: expires})
	return p
}

// playbacks is how somebody in a room plays its streams.
func (s *Server) playbacks(name string, t *amphiv1.Template, viewer string) []*amphiv1.Playback {
	var list []*amphiv1.Playback
	for _, settings := range t.GetStreams() {
		list = append(list, s.playbackURL(name, settings, viewer, playbackLife))
	}
	return list
}

// mintPlayback is what the management API gives for a viewer; no life is the usual one.
func (s *Server) mintPlayback(name, stream, viewer string, life time.Duration) (*amphiv1.Playback, error) {
	record, err := s.records.room(name)
	if err != nil {
		return nil, err
	}
	settings, err := s.records.streamSettings(name, cmp.Or(stream, room.DefaultStream))
	switch {
	case err != nil:
		return nil, err
	case len(viewer) > proto.MaxUserID:
		return nil, proto.Errorf(proto.InvalidArgument, "user_id has more than %d bytes", proto.MaxUserID)
	case life > auth.MaxLife:
		return nil, proto.Errorf(proto.InvalidArgument, "a token is good for at most %d days", int(auth.MaxLife.Hours()/24))
	}
	return s.playbackURL(record.GetName(), settings, viewer, cmp.Or(life, playbackLife)), nil
}
