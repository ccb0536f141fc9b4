package signal

import (
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/template"
)

// media is the room's router on this node, made on first use. It belongs to the room's goroutine.
func (e *edge) media() MediaRouter {
	if e.router == nil {
		e.router = e.server.deps.Media.Router(e.room.Name())
		e.router.Watch(
			func() { _ = e.room.Do(func(*room.Replica) { e.mute() }) },
			func(now []Speaking) { _ = e.room.Do(func(*room.Replica) { e.speaking(now) }) })
		e.limitMicrophones()
	}
	return e.router
}

// limitMicrophones has the media forward as many microphones as the session's template says.
func (e *edge) limitMicrophones() {
	if e.router == nil || e.rep == nil {
		return
	}
	n := uint32(template.DefaultMicrophones) // templates of before it was a limit
	if l := e.rep.Template().GetLimits(); l != nil && l.LoudestMicrophones != nil {
		n = l.GetLoudestMicrophones()
	}
	e.router.Loudest(int(n))
}

func (e *edge) forgetRouter(r MediaRouter) {
	if e.router == r {
		e.router = nil
	}
}

// mute has the media drop what the room has muted, and what it does not know.
func (e *edge) mute() {
	if e.router == nil || e.rep == nil {
		return
	}
	muted := map[string]bool{}
	for id := range e.stage {
		for _, t := range e.rep.Peer(id).GetTracks() {
			muted[t.GetId()] = t.GetMuted() || e.hushed[t.GetId()] != nil
		}
	}
	e.router.Mute(func(trackID string) bool {
		m, known := muted[trackID]
		return m || !known
	})
}

// sync brings what a peer receives in line with what it wants and what its role allows. A role without WebRTC has
// no endpoint.
func (e *edge) sync(p *peer) {
	if !needsMedia(e.rep.RoleOf(p.id)) {
		p.link.drop()
		p.link.subscribe(nil)
		return
	}
	wanted := p.wanted
	if p.pick != nil {
		wanted = p.pick(e, p.id)
	}
	p.link.subscribe(e.resolve(p.id, wanted))
}

// resubscribe lets a peer whose subscriptions follow the speakers choose again.
func (e *edge) resubscribe(p *peer) {
	if p.pick != nil {
		e.sync(p)
	}
}

// resolve turns a wish into the tracks that the peer may receive.
func (e *edge) resolve(id string, wanted *amphiv1.SetSubscriptions) []Subscribing {
	var subs []Subscribing
	named := map[string]bool{}
	for _, s := range wanted.GetTracks() {
		if named[s.GetTrackId()] {
			continue
		}
		named[s.GetTrackId()] = true
		if !e.rep.MaySubscribe(id, s.GetTrackId()) {
			continue
		}
		// A paused audio track needs no slot; a video one keeps its own, so that it is back at once.
		if _, track := e.rep.Track(s.GetTrackId()); s.GetPaused() && track.GetKind() == amphiv1.Kind_KIND_AUDIO {
			continue
		}
		subs = append(subs, e.subscribing(s))
	}
	if !wanted.GetAuto() {
		return subs
	}
	for _, by := range e.onStage() {
		for _, t := range by.GetTracks() {
			if len(subs) < maxSubscriptions && !named[t.GetId()] && e.rep.MaySubscribe(id, t.GetId()) {
				subs = append(subs, e.subscribing(&amphiv1.Subscription{TrackId: t.GetId(), Width: fullSize, Height: fullSize}))
			}
		}
	}
	return subs
}

// subscribing adds what the room knows: audio has no size, and a role's priority is its tracks'.
func (e *edge) subscribing(s *amphiv1.Subscription) Subscribing {
	by, track := e.rep.Track(s.GetTrackId())
	sub := Subscribing{TrackID: s.GetTrackId(), MaxSpatial: -1, Priority: 3,
		Width: int(min(s.GetWidth(), fullSize)), Height: int(min(s.GetHeight(), fullSize))}
	if p := e.rep.Role(by.GetRole()).GetPriority(); p >= 1 && p <= 5 {
		sub.Priority = int(p)
	}
	if s.MaxSpatial != nil {
		sub.MaxSpatial = int(min(s.GetMaxSpatial(), 3))
	}
	if track.GetKind() == amphiv1.Kind_KIND_AUDIO {
		sub.Width, sub.Height = fullSize, fullSize
	}
	if s.GetPaused() {
		sub.Width, sub.Height = 0, 0
	}
	return sub
}
