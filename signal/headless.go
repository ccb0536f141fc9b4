package signal

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/whip"
)

// headless is the peers of WHIP and WHEP: in the room like others, but with HTTP in place of a WebSocket. They are
// there as long as their media is.
type headless struct {
	server *Server

	mu       sync.Mutex // guards the field below
	sessions map[string]*peer
}

func newHeadless(s *Server) *headless { return &headless{server: s, sessions: map[string]*peer{}} }

// Publish implements whip.Stage.
func (h *headless) Publish(ctx context.Context, r whip.Request) (whip.Session, error) {
	return h.begin(ctx, r, func(ctx context.Context, p *peer, sections []Section) ([]*amphiv1.PublishedSection, error) {
		var published []*amphiv1.PublishedSection
		sources := map[string]int{}
		for _, s := range sections {
			if !s.Sends {
				continue
			}
			cmd := &amphiv1.Command{Body: &amphiv1.Command_Publish{Publish: &amphiv1.PublishTrack{Kind: s.Kind, Source: source(s.Kind, sources)}}}
			res, err := p.edge.room.Call(ctx, p.id, cmd)
			if err != nil {
				return nil, err
			}
			published = append(published, &amphiv1.PublishedSection{Mid: s.Mid, TrackId: res.GetPublish().GetTrack().GetId()})
		}
		if len(published) == 0 {
			return nil, proto.Errorf(proto.SDPInvalid, "the offer has nothing to publish")
		}
		return published, nil
	})
}

// source names the tracks of an offer that does not: the first of its kind is microphone or camera, the second
// belongs to the screen, further ones are the application's own.
func source(kind amphiv1.Kind, taken map[string]int) string {
	names := []string{proto.SourceCamera, proto.SourceScreen, proto.SourcePrefix + "video-3", proto.SourcePrefix + "video-4"}
	if kind == amphiv1.Kind_KIND_AUDIO {
		names = []string{proto.SourceMic, proto.SourceScreenAudio, proto.SourcePrefix + "audio-3", proto.SourcePrefix + "audio-4"}
	}
	n := taken[kind.String()]
	taken[kind.String()]++
	return names[min(n, len(names)-1)]
}

// Play implements whip.Stage.
func (h *headless) Play(ctx context.Context, r whip.Request) (whip.Session, error) {
	return h.begin(ctx, r, func(ctx context.Context, p *peer, _ []Section) ([]*amphiv1.PublishedSection, error) {
		var refused error
		err := p.edge.room.View(ctx, func(rep *room.Replica) {
			if !needsMedia(rep.RoleOf(p.id)) {
				refused = proto.Errorf(proto.PermissionDenied, "this role receives nothing over WebRTC")
				return
			}
			p.pick = pickStage
			if r.Track != "" {
				if !rep.MaySubscribe(p.id, r.Track) {
					refused = proto.Errorf(proto.TrackNotFound, "there is no track %q for this role", clip(r.Track))
					return
				}
				p.pick = nil
				p.wanted = &amphiv1.SetSubscriptions{Tracks: []*amphiv1.Subscription{{TrackId: r.Track, Width: fullSize, Height: fullSize}}}
			}
			p.edge.sync(p)
		})
		if err != nil {
			return nil, err
		}
		return nil, refused
	})
}

// pickStage chooses the dominant speaker's video and the loudest audio. Whoever spoke last stays in the picture;
// before anybody has spoken it is whoever has been on stage longest.
func pickStage(e *edge, id string) *amphiv1.SetSubscriptions {
	p := e.peers[id]
	video, audio := p.shown, p.heard
	for _, s := range e.speakers {
		by, track := e.rep.Track(s.TrackID)
		if by == nil || track.GetMuted() || !e.rep.MaySubscribe(id, s.TrackID) {
			continue
		}
		audio = s.TrackID
		if v := e.videoOf(by, id); v != "" {
			video = v
		}
		break
	}
	if !e.rep.MaySubscribe(id, video) {
		video = e.firstOnStage(id, amphiv1.Kind_KIND_VIDEO)
	}
	if !e.rep.MaySubscribe(id, audio) {
		audio = e.firstOnStage(id, amphiv1.Kind_KIND_AUDIO)
	}
	p.shown, p.heard = video, audio
	set := &amphiv1.SetSubscriptions{}
	for _, t := range []string{video, audio} {
		if t != "" {
			set.Tracks = append(set.Tracks, &amphiv1.Subscription{TrackId: t, Width: fullSize, Height: fullSize})
		}
	}
	return set
}

// videoOf is the screen or else the camera of a peer, if id may receive it.
func (e *edge) videoOf(by *amphiv1.Peer, id string) string {
	found := ""
	for _, t := range by.GetTracks() {
		if t.GetKind() != amphiv1.Kind_KIND_VIDEO || t.GetMuted() || !e.rep.MaySubscribe(id, t.GetId()) {
			continue
		}
		if found == "" || t.GetSource() == proto.SourceScreen {
			found = t.GetId()
		}
	}
	return found
}

func (e *edge) firstOnStage(id string, kind amphiv1.Kind) string {
	for _, by := range e.onStage() {
		for _, t := range by.GetTracks() {
			if t.GetKind() == kind && !t.GetMuted() && e.rep.MaySubscribe(id, t.GetId()) {
				return t.GetId()
			}
		}
	}
	return ""
}

// begin joins, prepares what the session is for, and negotiates; on any failure the peer leaves again.
func (h *headless) begin(ctx context.Context, r whip.Request,
	prepare func(context.Context, *peer, []Section) ([]*amphiv1.PublishedSection, error)) (whip.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, ownerWait)
	defer cancel()
	if err := checkSDP(&amphiv1.Negotiate{Sdp: r.Offer}); err != nil {
		return whip.Session{}, err
	}
	if h.server.deps.Media == nil {
		return whip.Session{}, proto.Errorf(proto.Unavailable, "this node serves no media")
	}
	sections, err := h.server.deps.Media.Sections(r.Offer)
	if err != nil {
		return whip.Session{}, err
	}
	p, err := h.join(ctx, r)
	if err != nil {
		return whip.Session{}, err
	}
	published, err := prepare(ctx, p, sections)
	answer := ""
	if err == nil {
		answer, err = p.link.negotiate(ctx, &amphiv1.Negotiate{Sdp: r.Offer, Publish: published, Generation: 1})
	}
	if err != nil {
		h.leave(p)
		return whip.Session{}, err
	}
	p.link.answered()
	id := proto.NewID("wh_")
	h.mu.Lock()
	h.sessions[id] = p
	h.mu.Unlock()
	h.server.background(func() { h.mind(id, p) })
	return whip.Session{ID: id, Answer: answer, ICEServers: h.server.iceServers(p.id, r.Host), Gone: p.gone}, nil
}

// join makes a peer without a WebSocket.
func (h *headless) join(ctx context.Context, r whip.Request) (*peer, error) {
	grant, err := h.server.verify(r.Token, auth.App)
	if err != nil {
		return nil, err
	}
	if key(grant.Room) != key(r.Room) {
		return nil, proto.Errorf(proto.PermissionDenied, "the token is for another room")
	}
	record, err := h.server.records.joinable(ctx, grant.Room)
	if err != nil {
		return nil, err
	}
	if err := h.guided(record, grant, r); err != nil {
		return nil, err
	}
	held, err := h.server.replicas.Open(key(record.GetName()))
	if err != nil {
		return nil, err
	}
	defer held.Release()
	var refused error
	if err := held.View(ctx, func(rep *room.Replica) { refused = room.Readable(rep.Template()) }); err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, refused
	}
	type outcome struct {
		p   *peer
		err error
	}
	done := make(chan outcome, 1)
	cmd := &amphiv1.Command{Body: &amphiv1.Command_Join{Join: h.server.completed(&amphiv1.Join{}, grant)}}
	err = held.Request("", cmd, func(res *amphiv1.Result) {
		if res.GetError() != nil {
			done <- outcome{err: proto.FromWire(res.GetError())}
			return
		}
		done <- outcome{p: held.Follower().(*edge).place(res.GetJoin().GetPeer().GetId())}
	})
	if err != nil {
		return nil, err
	}
	select {
	case o := <-done:
		return o.p, o.err
	case <-held.Over():
		return nil, proto.Errorf(proto.Unavailable, "the room has just closed here")
	}
}

// ticketLife is how long a redirected client has to get to the other node.
const ticketLife = 30 * time.Second

// guided is the *whip.Elsewhere that sends a client on, nil where it is right here.
func (h *headless) guided(record *amphiv1.Room, grant auth.Grant, r whip.Request) error {
	err := h.server.guided(record, grant.Role, r.Host, r.Region, r.Redirected)
	var refusal *proto.Error
	if !errors.As(err, &refusal) || refusal.Code != proto.Redirected {
		return err
	}
	signer, err := h.server.records.signer()
	if err != nil {
		return nil // it could not show the other node who it is
	}
	grant.IssuedAt = h.server.cfg.Now()
	grant.ExpiresAt = grant.IssuedAt.Add(ticketLife)
	token, err := signer.Mint(grant)
	if err != nil {
		return err
	}
	return &whip.Elsewhere{URL: refusal.Details["url"], Ticket: token}
}

// place makes a headless peer of one that has joined.
func (e *edge) place(id string) *peer {
	p := &peer{id: id, edge: e, gone: make(chan struct{}), failed: make(chan struct{})}
	p.link = newLink(e, id)
	var once sync.Once
	p.link.onGone = func() { once.Do(func() { close(p.failed) }) }
	e.peers[id] = p
	e.room.Hold()
	return p
}

// mind lets a headless peer leave when its media has ended.
func (h *headless) mind(id string, p *peer) {
	select {
	case <-p.failed:
		h.leave(p)
		<-p.gone
	case <-p.gone:
	}
	h.mu.Lock()
	delete(h.sessions, id)
	h.mu.Unlock()
}

// leave takes a headless peer out of the room.
func (h *headless) leave(p *peer) {
	ctx, cancel := context.WithTimeout(context.Background(), ownerWait)
	defer cancel()
	_, err := p.edge.room.Call(ctx, p.id, &amphiv1.Command{Body: &amphiv1.Command_Leave{Leave: &amphiv1.Leave{}}})
	if err != nil {
		// It is gone from this node at least; the owner learns of it as of any lost client.
		h.server.insist(p.edge.room, func(*room.Replica) {
			p.since, p.unreported = time.Now().UnixMilli(), false
			p.edge.report(p)
			p.edge.remove(p, nil)
		})
	}
}

// End implements whip.Stage.
func (h *headless) End(_ context.Context, id string) error {
	h.mu.Lock()
	p := h.sessions[id]
	h.mu.Unlock()
	if p == nil {
		return proto.Errorf(proto.NotFound, "there is no such session")
	}
	h.leave(p)
	return nil
}
