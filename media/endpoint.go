package media

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/pion/srtp/v3"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/negotiate"
)

// cname is the same for everything that a node sends: tracks of one publisher are
// synchronised by their stream id.
const cname = "amphi"

// EndpointConfig of a new endpoint.
type EndpointConfig struct {
	// ID is the peer's id; it names the origin of the endpoint's tracks.
	ID string
	// Observer hears what happens; nil: nobody does.
	Observer Observer
}

// Publish allows one sending section of a client to become a track.
type Publish struct {
	Mid     string
	TrackID string
	Kind    codec.Kind
	Source  string
	// MaxBitrate is what the encodings may take together, in bits per second; 0 stands for a
	// generous default. Twice that is let through, for retransmissions and the like.
	MaxBitrate int64
}

// Endpoint is the engine's end of one remote RTCPeerConnection. Its methods are
// safe for concurrent use.
type Endpoint struct {
	router   *Router
	id       string
	log      *slog.Logger
	observer Observer
	ssrc     uint32 // of our RTCP
	in       inbound
	out      *outbound
	outRTCP  rtcpSealer
	path     atomic.Pointer[path]

	negotiating sync.Mutex // held by one Negotiate or Close at a time; taken first

	mu        sync.Mutex // guards the fields below; taken before a Router's
	transport *transport
	sdp       sdpSession
	state     State
	slots     []*slot
	published map[string]*UpTrack // by mid
	subs      map[string]Subscription
	told      toldObserver
	snapshot  outSnapshot
	changed   bool // something that TracksQuality tells about may have
	closed    bool
}

// sdpSession is the origin line of the answers (RFC 8866 section 5.2).
type sdpSession struct {
	id, version uint64
}

// rtcpSealer encrypts outgoing RTCP; a mutex of its own as it is used from the
// worker, the clock and the reader.
type rtcpSealer struct {
	sync.Mutex
	ctx *srtp.Context
}

// toldObserver is what an observer was told last, so as not to repeat it.
type toldObserver struct {
	audioNeeded, videoNeeded int
	quality                  []DownTrackStats
}

// NewEndpoint makes an endpoint, which connects when it has negotiated.
func (r *Router) NewEndpoint(cfg EndpointConfig) (*Endpoint, error) {
	if cfg.Observer == nil {
		cfg.Observer = NoObserver{}
	}
	ep := &Endpoint{
		router: r, id: cfg.ID, observer: cfg.Observer, ssrc: rand.Uint32(), sdp: sdpSession{id: rand.Uint64() >> 2},
		log:       r.e.log.With("room", r.room, "peer", cfg.ID),
		published: map[string]*UpTrack{},
		subs:      map[string]Subscription{},
	}
	ep.in.init(ep)
	w := r.e.chooseWorker()
	ep.out = &outbound{ep: ep, w: w, transport: uint64(rand.Uint32N(1 << 15)), limits: newOutLimits()}
	// Once it is registered a router or engine that closes may close it: that waits until it is whole.
	ep.negotiating.Lock()
	defer ep.negotiating.Unlock()
	if err := r.register(ep); err != nil {
		ep.mu.Lock()
		ep.closed = true
		ep.mu.Unlock()
		w.load.Add(-1)
		return nil, fmt.Errorf("adding an endpoint: %w", err)
	}
	w.post(func() { w.endpoints[ep.out] = struct{}{} })
	return ep, nil
}

// register makes the engine and the router know an endpoint; neither does after an error.
func (r *Router) register(ep *Endpoint) error {
	if err := r.e.addEndpoint(ep); err != nil {
		return err
	}
	if err := r.addEndpoint(ep); err != nil {
		r.e.removeEndpoint(ep)
		return err
	}
	return nil
}

// ID is the peer's id.
func (ep *Endpoint) ID() string { return ep.id }

// State returns the state of the connection.
func (ep *Endpoint) State() State {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	return ep.state
}

// setState notes and tells a change of state; Closed is final, and so is Failed but for that.
func (ep *Endpoint) setState(s State) {
	ep.mu.Lock()
	if ep.state == s || ep.state == Closed || ep.state == Failed && s != Closed {
		ep.mu.Unlock()
		return
	}
	ep.state = s
	ep.mu.Unlock()
	ep.out.w.post(func() { ep.out.setAway(s == Disconnected || s == Failed) })
	ep.log.Debug("endpoint changed state", "state", s.String())
	ep.tell(func(o Observer) { o.EndpointState(s) })
}

func (ep *Endpoint) tell(f func(Observer)) {
	ep.router.e.notify.post(func() { f(ep.observer) })
}

// Close ends the endpoint, its tracks and its connection, and waits for it.
func (ep *Endpoint) Close() error {
	ep.negotiating.Lock()
	defer ep.negotiating.Unlock()
	ep.mu.Lock()
	if ep.closed {
		ep.mu.Unlock()
		return nil
	}
	ep.closed = true
	t := ep.transport
	published := ep.published
	ep.published = map[string]*UpTrack{}
	ep.subs = map[string]Subscription{}
	ep.mu.Unlock()

	for _, u := range published {
		u.close()
	}
	ep.out.w.call(ep.out.close)
	if t != nil {
		t.close()
	}
	ep.in.close()
	ep.path.Store(nil)
	ep.router.removeEndpoint(ep)
	ep.router.e.removeEndpoint(ep)
	ep.setState(Closed)
	return nil
}

// Negotiate answers an offer of the client. Sending sections that publish names become
// tracks; the others are answered inactive. Receiving sections become sending slots.
// An offer that cannot be answered gives a *negotiate.Error and changes nothing.
func (ep *Endpoint) Negotiate(offer string, publish []Publish) (answer string, err error) {
	o, err := negotiate.Parse(offer)
	if err != nil {
		return "", fmt.Errorf("reading the offer: %w", err)
	}
	ep.negotiating.Lock()
	defer ep.negotiating.Unlock()
	roles, err := assignRoles(o, publish)
	if err != nil {
		return "", fmt.Errorf("reading the offer: %w", err)
	}
	ep.mu.Lock()
	closed, t := ep.closed, ep.transport
	ep.mu.Unlock()
	if closed {
		return "", ErrClosed
	}
	if t != nil {
		if err := t.acceptable(o); err != nil {
			return "", fmt.Errorf("reading the offer: %w", err)
		}
	}
	fresh := t == nil
	if fresh {
		t = newTransport(ep, o)
	}
	gone, err := ep.updateTracks(roles)
	if err != nil {
		if fresh {
			t.close()
		}
		return "", err
	}
	if !fresh {
		t.update(o)
	}
	ep.in.configure(roles, ep.publishedTracks())
	for _, u := range gone {
		u.close()
	}
	sections := ep.applySlots(roles)
	ep.mu.Lock()
	ep.transport = t
	ep.sdp.version++
	a := negotiate.Answer{
		SessionID: ep.sdp.id, Version: ep.sdp.version, Ufrag: t.ufrag, Pwd: t.pwd,
		Fingerprint: ep.router.e.identity.fingerprint, Active: t.active,
		Candidates: ep.router.e.connector.candidates, Sections: sections,
	}
	ep.mu.Unlock()
	ep.reconcile()
	return a.Marshal(o), nil
}
