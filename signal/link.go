package signal

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/outbox"
	"github.com/amphi-sfu/amphi/signal/room"
	"github.com/amphi-sfu/amphi/signal/ws"
)

const (
	maxSubscriptions = 1000
	// fullSize is the size asked for where a client names none.
	fullSize = 8192
)

// link is a peer's media on this node: its endpoint, made at the first offer, and what its client should know of
// it. Safe for concurrent use.
type link struct {
	edge *edge
	peer string

	turn sync.Mutex // held while an offer is negotiated; taken before mu

	mu         sync.Mutex // guards the fields below
	conn       *ws.Conn   // nil while the client is lost
	ep         Endpoint   // nil before the first offer and after the end
	generation uint32
	identity   string    // of the client's PeerConnection
	observer   *observer // of ep
	subs       []Subscribing
	slots      *amphiv1.Slots
	needed     *amphiv1.SlotsNeeded
	quality    *amphiv1.Quality
	interest   map[string]*amphiv1.Interest // by track
	// held keeps slots back until the answer that makes them has been sent.
	held  bool
	ended bool
	// onGone, where set, is called when the endpoint fails.
	onGone func()
}

func newLink(e *edge, peerID string) *link { return &link{edge: e, peer: peerID} }

// connect says where the client is now, and tells it how its media stands.
func (l *link) connect(conn *ws.Conn) {
	l.mu.Lock()
	l.conn = conn
	slots, needed, alive := l.slots, l.needed, l.ep != nil
	interest := slices.Collect(maps.Values(l.interest))
	l.mu.Unlock()
	if conn == nil || !alive {
		return
	}
	if slots != nil {
		conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Slots{Slots: slots}})
	}
	if needed != nil {
		conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_SlotsNeeded{SlotsNeeded: needed}})
	}
	for _, in := range interest {
		conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Interest{Interest: in}})
	}
}

func (l *link) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ep != nil
}

// negotiate answers an offer, with a new endpoint where the client made a new PeerConnection.
func (l *link) negotiate(ctx context.Context, n *amphiv1.Negotiate) (string, error) {
	if err := checkSDP(n); err != nil {
		return "", err
	}
	publish, err := l.permitted(ctx, n.GetPublish())
	if err != nil {
		return "", err
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	ep, err := l.endpoint(ctx, n.GetGeneration(), identity(n.GetSdp()))
	if err != nil {
		return "", err
	}
	answer, err := ep.Negotiate(n.GetSdp(), publish)
	if err != nil {
		l.answered()
		return "", err
	}
	l.keepInterest(publish)
	l.resubscribe(ep)
	l.edge.server.insist(l.edge.room, func(*room.Replica) {
		// New tracks start as the room has them; the role may have changed since it was asked.
		l.edge.mute()
		if p := l.edge.peers[l.peer]; p != nil && p.link == l {
			l.edge.sync(p)
		}
	})
	return answer, nil
}

// checkSDP refuses what is not worth parsing.
func checkSDP(n *amphiv1.Negotiate) error {
	switch sections := strings.Count(n.GetSdp(), "\nm="); {
	case len(n.GetSdp()) > proto.MaxSDP:
		return proto.Errorf(proto.SDPTooLarge, "an offer has at most %d bytes", proto.MaxSDP)
	case sections > proto.MaxSections || len(n.GetPublish()) > proto.MaxSections:
		return proto.Errorf(proto.SDPTooLarge, "an offer has at most %d sections", proto.MaxSections)
	case !strings.HasPrefix(n.GetSdp(), "v=0"):
		return proto.Errorf(proto.SDPInvalid, "the offer is not SDP")
	}
	return nil
}

// permitted checks what the client wants to send against what the room knows of its peer.
func (l *link) permitted(ctx context.Context, sections []*amphiv1.PublishedSection) ([]Publishing, error) {
	var publish []Publishing
	var refused error
	err := l.edge.room.View(ctx, func(rep *room.Replica) {
		if role := rep.RoleOf(l.peer); !needsMedia(role) {
			refused = proto.Errorf(proto.PermissionDenied, "the role %q uses no WebRTC", role.GetName())
			return
		}
		for _, s := range sections {
			by, track := rep.Track(s.GetTrackId())
			if by.GetId() != l.peer {
				refused = proto.Errorf(proto.TrackNotFound, "publish the track %q first", clip(s.GetTrackId()))
				return
			}
			publish = append(publish, Publishing{
				Mid: s.GetMid(), TrackID: track.GetId(), Kind: track.GetKind(), Source: track.GetSource(), MaxKbps: maxKbps(track.GetLayers()),
			})
		}
	})
	if err != nil {
		return nil, err
	}
	return publish, refused
}

// needsMedia tells whether a role has a PeerConnection.
func needsMedia(r *amphiv1.Role) bool {
	return proto.Level(r) == 1 || r.GetSubscribe().GetDelivery() == amphiv1.Delivery_DELIVERY_WEBRTC
}

// clip shortens what came from outside for an error message.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.ToValidUTF8(s, "?")
}

// identity tells one PeerConnection from another: the fingerprint of its certificate (RFC 8122 section 5).
func identity(sdp string) string {
	_, rest, _ := strings.Cut(sdp, "\na=fingerprint:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// endpoint is the present one, or a new one for a new generation, or for a client that began to count anew. turn is held.
func (l *link) endpoint(ctx context.Context, generation uint32, identity string) (Endpoint, error) {
	l.mu.Lock()
	old, ended := l.ep, l.ended
	if old != nil && generation == l.generation && identity == l.identity && !ended {
		l.held = true
		l.mu.Unlock()
		return old, nil
	}
	l.ep, l.observer = nil, nil
	l.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	if ended {
		return nil, proto.Errorf(proto.NotJoined, "the peer has left")
	}
	router, err := l.router(ctx)
	if err != nil {
		return nil, err
	}
	o := &observer{l, generation}
	ep, err := router.NewEndpoint(l.peer, o)
	if err != nil {
		// A router that closed under the room's feet is not asked again.
		_ = l.edge.room.Do(func(*room.Replica) { l.edge.forgetRouter(router) })
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		l.edge.server.background(func() { _ = ep.Close() })
		return nil, proto.Errorf(proto.NotJoined, "the peer has left")
	}
	l.ep, l.observer, l.generation, l.identity = ep, o, generation, identity
	l.slots, l.needed, l.interest, l.held = nil, nil, map[string]*amphiv1.Interest{}, true
	return ep, nil
}

func (l *link) router(ctx context.Context) (MediaRouter, error) {
	if l.edge.server.deps.Media == nil {
		return nil, proto.Errorf(proto.Unavailable, "this node serves no media")
	}
	var router MediaRouter
	err := l.edge.room.View(ctx, func(*room.Replica) { router = l.edge.media() })
	return router, err
}

// answered lets what the answer's sections carry be told: the client knows them now.
func (l *link) answered() {
	l.mu.Lock()
	l.held = false
	conn, slots := l.conn, l.slots
	l.mu.Unlock()
	if conn != nil && slots != nil {
		conn.Send(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Slots{Slots: slots}})
	}
}

// subscribe states what the client is to receive; saying the same again costs nothing.
func (l *link) subscribe(subs []Subscribing) {
	l.mu.Lock()
	same := slices.Equal(l.subs, subs)
	l.subs = subs
	ep := l.ep
	l.mu.Unlock()
	if ep != nil && !same {
		ep.Subscribe(subs)
	}
}

// keepInterest forgets the tracks that are published no more.
func (l *link) keepInterest(publish []Publishing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.interest, func(id string, _ *amphiv1.Interest) bool {
		return !slices.ContainsFunc(publish, func(p Publishing) bool { return p.TrackID == id })
	})
}

func (l *link) resubscribe(ep Endpoint) {
	l.mu.Lock()
	subs := l.subs
	l.mu.Unlock()
	ep.Subscribe(subs)
}

// drop closes the endpoint, if any; a later offer makes a new one.
func (l *link) drop() { l.let(false, nil) }

// end closes the endpoint for good.
func (l *link) end() { l.let(true, nil) }

// over is closed when there is no endpoint any more, for a link that has no other use left.
func (l *link) over() <-chan struct{} {
	gone := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ep == nil {
		close(gone)
		return gone
	}
	l.onGone = sync.OnceFunc(func() { close(gone) })
	return gone
}

// let closes the endpoint; with an observer, only if it is that one's.
func (l *link) let(ended bool, of *observer) bool {
	l.mu.Lock()
	if of != nil && l.observer != of {
		l.mu.Unlock()
		return false
	}
	ep := l.ep
	l.ep, l.observer, l.slots, l.needed, l.interest, l.ended = nil, nil, nil, nil, nil, l.ended || ended
	l.mu.Unlock()
	if ep != nil {
		l.edge.server.background(func() { _ = ep.Close() })
	}
	return true
}

// observer passes on to the client what happens to one endpoint of a link.
type observer struct {
	link       *link
	generation uint32
}

// tell sends to the client what note has changed in the link, if the endpoint is still the present one.
func (o *observer) tell(m *amphiv1.ServerMessage, note func(l *link) (send bool)) {
	l := o.link
	l.mu.Lock()
	send := l.observer == o && note(l)
	conn := l.conn
	l.mu.Unlock()
	if send && conn != nil {
		conn.Push(outbox.NewFrame(m))
	}
}

// Slots implements EndpointObserver.
func (o *observer) Slots(slots []*amphiv1.Slot) {
	m := &amphiv1.Slots{Slots: slots, Generation: o.generation}
	o.tell(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Slots{Slots: m}}, func(l *link) bool {
		l.slots = m
		return !l.held
	})
}

// SlotsNeeded implements EndpointObserver.
func (o *observer) SlotsNeeded(audio, video int) {
	m := &amphiv1.SlotsNeeded{Audio: uint32(audio), Video: uint32(video)}
	o.tell(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_SlotsNeeded{SlotsNeeded: m}}, func(l *link) bool {
		l.needed = m
		return true
	})
}

// Quality implements EndpointObserver.
func (o *observer) Quality(q *amphiv1.Quality) {
	o.tell(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Quality{Quality: q}}, func(l *link) bool {
		l.quality = q
		return true
	})
}

// Interest implements EndpointObserver.
func (o *observer) Interest(in *amphiv1.Interest) {
	o.tell(&amphiv1.ServerMessage{Body: &amphiv1.ServerMessage_Interest{Interest: in}}, func(l *link) bool {
		l.interest[in.GetTrackId()] = in
		return true
	})
}

// Gone implements EndpointObserver.
func (o *observer) Gone() {
	l := o.link
	if !l.let(false, o) {
		return
	}
	l.mu.Lock()
	gone := l.onGone
	l.mu.Unlock()
	if gone != nil {
		gone()
	}
}

// maxKbps adds up the bit rates of layers; it is 0 when one of them has no limit, and without layers.
func maxKbps(layers []*amphiv1.SimulcastLayer) (total int) {
	for _, l := range layers {
		if l.GetMaxBitrateKbps() == 0 {
			return 0
		}
		total += int(l.GetMaxBitrateKbps())
	}
	return total
}
