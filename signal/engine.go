package signal

import (
	"errors"
	"sync/atomic"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Engine makes the media engine what this package needs.
func Engine(e *media.Engine) Media { return engine{e} }

type engine struct{ *media.Engine }

// Router implements Media.
func (e engine) Router(room string) MediaRouter { return router{e.Engine.Router(room)} }

// Sections implements Media.
func (e engine) Sections(offer string) ([]Section, error) {
	list, err := media.Sections(offer)
	if err != nil {
		return nil, offerError(err)
	}
	out := make([]Section, len(list))
	for i, s := range list {
		out[i] = Section{Mid: s.Mid, Kind: kindOf(s.Kind), Sends: s.Direction.Sends(), Receives: s.Direction.Receives()}
	}
	return out, nil
}

func kindOf(k media.Kind) amphiv1.Kind {
	if k == media.Audio {
		return amphiv1.Kind_KIND_AUDIO
	}
	return amphiv1.Kind_KIND_VIDEO
}

type router struct{ *media.Router }

// NewEndpoint implements MediaRouter.
func (r router) NewEndpoint(peerID string, to EndpointObserver) (Endpoint, error) {
	w := &watcher{to: to}
	ep, err := r.Router.NewEndpoint(media.EndpointConfig{ID: peerID, Observer: w})
	if err != nil {
		return nil, offerError(err)
	}
	w.ep.Store(ep)
	return endpoint{ep}, nil
}

// Mute implements MediaRouter.
func (r router) Mute(muted func(trackID string) bool) {
	for _, u := range r.UpTracks() {
		u.SetMuted(muted(u.ID()))
	}
}

// Watch implements MediaRouter.
func (r router) Watch(tracks func(), speakers func([]Speaking)) {
	r.OnTracks(tracks)
	r.OnSpeakers(func(list []media.Speaker) {
		now := make([]Speaking, len(list))
		for i, s := range list {
			now[i] = Speaking{TrackID: s.TrackID, Level: int32(s.LevelDBov)}
		}
		speakers(now)
	})
}

// Loudest implements MediaRouter.
func (r router) Loudest(n int) { r.SetLoudest(n) }

type endpoint struct{ *media.Endpoint }

// Negotiate implements Endpoint.
func (ep endpoint) Negotiate(offer string, publish []Publishing) (string, error) {
	list := make([]media.Publish, len(publish))
	for i, p := range publish {
		list[i] = media.Publish{Mid: p.Mid, TrackID: p.TrackID, Kind: media.Audio, Source: p.Source, MaxBitrate: int64(p.MaxKbps) * 1000}
		if p.Kind == amphiv1.Kind_KIND_VIDEO {
			list[i].Kind = media.Video
		}
	}
	answer, err := ep.Endpoint.Negotiate(offer, list)
	if err != nil {
		return "", offerError(err)
	}
	return answer, nil
}

// offerError gives media's errors their codes; what is not the offer's fault stays internal.
func offerError(err error) error {
	var refused *media.NegotiationError
	switch {
	case errors.As(err, &refused) && (refused.Reason == "sdp_too_large" || refused.Reason == "sdp_too_many_sections"):
		return proto.Errorf(proto.SDPTooLarge, "%s", refused.Detail)
	case errors.As(err, &refused):
		e := proto.Errorf(proto.SDPInvalid, "%s", refused.Detail)
		e.Details = map[string]string{"reason": string(refused.Reason)}
		return e
	case errors.Is(err, media.ErrTrackExists):
		return proto.Errorf(proto.Conflict, "the track is still published by another connection")
	case errors.Is(err, media.ErrClosed):
		return proto.Errorf(proto.Unavailable, "the connection is closed; offer again with a new one")
	}
	return err
}

// Subscribe implements Endpoint. In media a higher priority comes first, in a template a lower number.
func (ep endpoint) Subscribe(subs []Subscribing) {
	list := make([]media.Subscription, len(subs))
	for i, s := range subs {
		list[i] = media.Subscription{TrackID: s.TrackID, MaxWidth: s.Width, MaxHeight: s.Height,
			Priority: 6 - s.Priority, MaxSpatial: s.MaxSpatial}
	}
	ep.Endpoint.Subscribe(list)
}

// watcher translates what an endpoint tells.
type watcher struct {
	to EndpointObserver
	ep atomic.Pointer[media.Endpoint] // nil until it has been made
}

// EndpointState implements media.Observer.
func (w *watcher) EndpointState(s media.State) {
	if s == media.Failed || s == media.Closed {
		w.to.Gone()
	}
}

// SlotsChanged implements media.Observer.
func (w *watcher) SlotsChanged(slots []media.Slot) {
	list := make([]*amphiv1.Slot, len(slots))
	for i, s := range slots {
		list[i] = &amphiv1.Slot{Mid: s.Mid, TrackId: s.TrackID}
	}
	w.to.Slots(list)
}

// SlotsNeeded implements media.Observer.
func (w *watcher) SlotsNeeded(audio, video int) { w.to.SlotsNeeded(audio, video) }

// TracksQuality implements media.Observer.
func (w *watcher) TracksQuality(stats []media.DownTrackStats) {
	q := &amphiv1.Quality{Network: network(stats)}
	if ep := w.ep.Load(); ep != nil {
		q.EstimateKbps = uint32(ep.Stats().Estimate / 1000)
	}
	for _, d := range stats {
		q.Tracks = append(q.Tracks, &amphiv1.TrackQuality{
			TrackId: d.TrackID, Max: int32(d.Max.Spatial), Target: int32(d.Target.Spatial), Current: int32(d.Current.Spatial),
			Reason: reasonWord(d.Reason), BitrateKbps: uint32(d.Bitrate / 1000),
		})
	}
	w.to.Quality(q)
}

// PublisherInterest implements media.Observer.
func (w *watcher) PublisherInterest(trackID string, maxSpatial int) {
	w.to.Interest(&amphiv1.Interest{TrackId: trackID, MaxSpatial: int32(maxSpatial)})
}

// network judges the link to a client from -1, unknown, to 5 by the share of packets lost, and by whether
// tracks had to be cut for its bandwidth.
func network(stats []media.DownTrackStats) int32 {
	worst, known, short := 0.0, false, false
	for _, d := range stats {
		known = known || d.Packets > 0
		worst = max(worst, d.FractionLost)
		short = short || d.Reason == media.ReasonBandwidth
	}
	score := int32(1)
	switch {
	case !known:
		return -1
	case worst < 0.01:
		score = 5
	case worst < 0.03:
		score = 4
	case worst < 0.08:
		score = 3
	case worst < 0.2:
		score = 2
	}
	if short {
		score = min(score, 3)
	}
	return score
}

// reasonWord is a reason as clients know it (TrackQuality.reason).
func reasonWord(r media.Reason) string {
	switch r {
	case media.ReasonOK:
		return ""
	case media.ReasonNoMedia, media.ReasonNoLayer:
		return "publisher"
	case media.ReasonKeyframe, media.ReasonNoPath, media.ReasonNoSlot:
		return "starting"
	}
	return string(r)
}
