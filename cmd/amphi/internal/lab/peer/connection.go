package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/record"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// connection is a peer at one node: signalling and media.
type connection struct {
	peer   *Peer
	number int    // of the peer's connections
	fresh  bool   // made as a new peer
	floor  uint64 // events up to this one came over an earlier connection; guarded by the peer's mu
	began  time.Time
	client *client.Client
	media  *client.Media
	failed chan struct{} // closed when the PeerConnection is lost
	fail   sync.Once
	need   chan *amphiv1.SlotsNeeded
	asked  chan string // URL of the node to go on at
	sender *sender

	mu    sync.Mutex // guards the fields below
	slots func(*amphiv1.ServerMessage) *amphiv1.SlotsNeeded
	early []*amphiv1.ServerMessage // what came before the media was made
	came  map[record.Track]bool    // tracks of which something came
}

// open joins or resumes at a node and begins to connect the media.
func (p *Peer) open(ctx context.Context, url string) (*connection, error) {
	c := &connection{
		peer: p, began: time.Now(), failed: make(chan struct{}), need: make(chan *amphiv1.SlotsNeeded, 1),
		asked: make(chan string, 1), came: map[record.Track]bool{},
	}
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	p.mu.Lock()
	cfg := client.Config{
		URL: url, Agent: "amphi-lab", HTTPClient: p.cfg.HTTP, OnMessage: c.message, ResumeToken: p.resume, LastSeq: p.lastSeq,
		Redirected: true, // the lab decides who sits where
	}
	p.generation++
	generation := p.generation
	c.number, c.fresh = int(generation), p.resume == ""
	p.mu.Unlock()
	if cfg.ResumeToken == "" {
		cfg.Token, cfg.Join = p.cfg.Token, &amphiv1.Join{Name: p.cfg.Name}
	}
	var err error
	if c.client, err = client.Dial(opening, cfg); err != nil {
		return nil, err
	}
	joined := c.client.Joined()
	c.snapshot(joined.GetState())
	p.joined(url, c, joined, cfg.ResumeToken != "")
	// Commands do not wait for the media, as in the SDK.
	before := p.use(c)
	if err := c.connectMedia(opening, generation); err != nil {
		p.use(before)
		c.close(false)
		return nil, err
	}
	return c, nil
}

// use has commands go over c, and returns what they went over before.
func (p *Peer) use(c *connection) (before *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.conn = p.conn, c
	return before
}

// joined takes over what the node said.
func (p *Peer) joined(url string, c *connection, j *amphiv1.Joined, resuming bool) {
	p.mu.Lock()
	same := resuming && p.id == j.GetPeerId()
	p.id, p.node, p.resume, p.backups = j.GetPeerId(), url, j.GetResumeToken(), j.GetBackups()
	p.mu.Unlock()
	if same {
		p.note(Resumed, c.began, nil)
		return
	}
	p.cfg.Messages.Joined(p.cfg.Name, time.Now())
	p.note(Joined, c.began, nil)
}

// snapshot notes the messages and tracks that a whole state holds.
func (c *connection) snapshot(state *amphiv1.RoomState) {
	c.peer.turn.Lock()
	defer c.peer.turn.Unlock()
	c.peer.takes(c, state.GetSeq())
	if state == nil {
		return
	}
	for _, m := range state.GetMessages() {
		c.peer.cfg.Messages.Got(c.peer.cfg.Name, m.GetText(), m.GetId(), false)
	}
	videos := map[string]bool{}
	for _, peer := range state.GetPeers() {
		for _, t := range peer.GetTracks() {
			if t.GetKind() == amphiv1.Kind_KIND_VIDEO && peer.GetId() != c.client.PeerID() {
				videos[t.GetId()] = true
			}
		}
	}
	c.peer.mu.Lock()
	c.peer.videos = videos
	c.peer.mu.Unlock()
}

// takes tells whether an event is new to the peer. While it moves it has two connections, and the newer
// one repeats what the older one may still have brought; what comes twice over one connection counts twice.
func (p *Peer) takes(c *connection, seq uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.number < p.current {
		return false
	}
	if c.number > p.current {
		p.current = c.number
		if c.fresh {
			p.seen = 0
		}
		c.floor = p.seen
	}
	p.seen = max(p.seen, seq)
	return seq > c.floor
}

// event notes an event that is new to the peer, one after the other over all its connections.
func (p *Peer) event(c *connection, e *amphiv1.Event) bool {
	p.turn.Lock()
	defer p.turn.Unlock()
	if !p.takes(c, e.GetSeq()) {
		return false
	}
	if m := e.GetMessage(); m != nil {
		p.cfg.Messages.Got(p.cfg.Name, m.GetText(), m.GetId(), true)
	}
	p.tracks(e)
	return true
}

// tracks keeps the list of what there is to receive.
func (p *Peer) tracks(e *amphiv1.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := e.GetTrackPublished(); t.GetTrack().GetKind() == amphiv1.Kind_KIND_VIDEO && t.GetPeerId() != p.id {
		p.videos[t.GetTrack().GetId()] = true
	}
	if t := e.GetTrackUnpublished(); t != nil {
		delete(p.videos, t.GetTrackId())
	}
}

// message runs on the reader of the signalling connection.
func (c *connection) message(msg *amphiv1.ServerMessage) {
	if e := msg.GetEvent(); e != nil && !c.peer.event(c, e) {
		return
	}
	if m := msg.GetMove(); m != nil {
		select {
		case c.asked <- m.GetUrl():
		default: // asked already
		}
	}
	c.mu.Lock()
	handle := c.slots
	if handle == nil {
		c.early = append(c.early, msg)
	}
	c.mu.Unlock()
	if handle != nil {
		c.ask(handle(msg))
	}
}

// ask passes on how many slots are wanted, the newest request only.
func (c *connection) ask(need *amphiv1.SlotsNeeded) {
	if need == nil {
		return
	}
	select {
	case <-c.need:
	default:
	}
	select {
	case c.need <- need:
	default:
	}
}

func (c *connection) connectMedia(ctx context.Context, generation uint32) error {
	p := c.peer
	api, err := client.NewAPI(client.TransportConfig{
		NACK: true, Feedback: true, Respond: p.cfg.Publish, Codec: "vp8", Net: p.cfg.Net,
	})
	if err != nil {
		return err
	}
	c.media, err = client.NewMedia(c.client, client.MediaConfig{
		API: api, Certificate: p.cfg.Certificate, OnTrack: c.receive, Generation: generation,
	})
	if err != nil {
		return err
	}
	c.media.PeerConnection().OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		if s == webrtc.ICEConnectionStateFailed || s == webrtc.ICEConnectionStateClosed {
			c.fail.Do(func() { close(c.failed) })
		}
	})
	c.mu.Lock()
	c.slots = c.media.Handle
	early := c.early
	c.early = nil
	c.mu.Unlock()
	for _, msg := range early {
		c.ask(c.media.Handle(msg))
	}
	if p.cfg.Publish {
		if c.sender, err = c.publish(ctx); err != nil {
			return err
		}
	}
	p.mu.Lock()
	others := len(p.videos)
	p.mu.Unlock()
	if err := c.media.AddSlots(max(1, others), max(1, others)); err != nil {
		return err
	}
	if err := c.client.SetSubscriptions(ctx, &amphiv1.SetSubscriptions{Auto: true}); err != nil {
		return err
	}
	return c.media.Negotiate(ctx)
}

// wanted is a subscription to everything, videos up to a layer.
func (c *connection) wanted(layer int) *amphiv1.SetSubscriptions {
	s := &amphiv1.SetSubscriptions{Auto: true}
	if layer < 0 {
		return s
	}
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	for id := range c.peer.videos {
		top := uint32(layer)
		s.Tracks = append(s.Tracks, &amphiv1.Subscription{TrackId: id, Width: 1280, Height: 720, MaxSpatial: &top})
	}
	return s
}

// receive reads one section until the connection is closed.
func (c *connection) receive(_ string, remote *webrtc.TrackRemote) {
	buf := make([]byte, 1600)
	var h rtp.Header
	var last record.Track
	known := false
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		skip, err := h.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		if s, ok := record.ReadStamp(buf[skip:n]); ok {
			c.peer.Media.Add(s, time.Now().UnixNano())
			if t := s.Track(); !known || t != last {
				known, last = true, t
				c.mu.Lock()
				c.came[t] = true
				c.mu.Unlock()
			}
		}
	}
}

// moving is a connection being made at another node while the old one still carries media.
type moving struct {
	conn *connection
	err  error
}

// serve keeps the connection until it is lost, which it tells, or ctx ends. When the node sends the peer
// away, the next connection is made first, and returned.
func (c *connection) serve(ctx context.Context) (next *connection, lost error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if c.sender != nil {
		wg.Go(func() { c.sender.run(ctx) })
	}
	wg.Go(func() { c.negotiate(ctx) })
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	connected, done := c.media.Connected(), c.client.Done()
	var moved chan moving
	defer func() {
		if moved == nil {
			return
		}
		cancel()
		if m := <-moved; m.conn != nil {
			m.conn.close(false)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case url := <-c.asked:
			if moved == nil {
				moved = c.beginMove(ctx, &wg, url)
			}
		case <-done:
			done = nil
			if moved != nil {
				continue // the other node has the peer now
			}
			url, sent := c.sentAway()
			if !sent {
				return nil, c.client.Err()
			}
			moved = c.beginMove(ctx, &wg, url)
		case m := <-moved:
			moved = nil
			switch {
			case m.err == nil:
				return m.conn, nil
			case done == nil:
				return nil, fmt.Errorf("moving to another node: %w", m.err)
			}
		case <-c.failed:
			return nil, errors.New("the media connection failed")
		case <-connected:
			connected = nil
			c.peer.note(MediaUp, c.began, nil)
		case now := <-tick.C:
			if moved != nil {
				continue
			}
			if err := c.check(now, connected == nil); err != nil {
				return nil, err
			}
		}
	}
}

// sentAway tells whether the node has said goodbye to a client that may go on elsewhere, and where.
func (c *connection) sentAway() (url string, sent bool) {
	g := c.client.Goodbye()
	if !g.GetResume() || proto.Code(g.GetReason().GetCode()) == proto.Replaced {
		return "", false
	}
	if url = g.GetReason().GetDetails()["url"]; url == "" {
		url = c.peer.next(0)
	}
	return url, true
}

func (c *connection) beginMove(ctx context.Context, wg *sync.WaitGroup, url string) chan moving {
	moved := make(chan moving, 1)
	wg.Go(func() { moved <- c.move(ctx, url) })
	return moved
}

// move makes the next connection and waits for its media.
func (c *connection) move(ctx context.Context, url string) moving {
	began := time.Now()
	c.peer.mu.Lock()
	c.peer.lastSeq = max(c.peer.lastSeq, c.client.LastSeq())
	c.peer.mu.Unlock()
	next, err := c.peer.open(ctx, url)
	if err != nil {
		c.peer.note(Failed, began, fmt.Errorf("at %s: %w", url, err))
		return moving{err: err}
	}
	patience := time.NewTimer(mediaTimeout)
	defer patience.Stop()
	select {
	case <-next.media.Connected():
		next.awaitTracks(ctx, c.tracks())
		return moving{conn: next}
	case <-patience.C:
		err = fmt.Errorf("no media connection within %v", mediaTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.peer.use(c)
	next.close(false)
	return moving{err: err}
}

// tracks is how many tracks have come.
func (c *connection) tracks() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.came)
}

// awaitTracks waits until so many tracks come, but not for ever: some may have ended.
func (c *connection) awaitTracks(ctx context.Context, tracks int) {
	const most = 2 * time.Second
	for began := time.Now(); c.tracks() < tracks && time.Since(began) < most && ctx.Err() == nil; {
		pause(ctx, 5*time.Millisecond)
	}
}

// check tells what is wrong: nothing heard at all, or media that doesn't get through.
func (c *connection) check(now time.Time, connected bool) error {
	if !connected {
		if now.Sub(c.began) > mediaTimeout {
			return fmt.Errorf("no media connection within %v", mediaTimeout)
		}
		return nil
	}
	media := time.Unix(0, c.peer.Media.Last())
	if media.Before(c.began) {
		return nil // nothing is sent: the client's own heartbeat looks after the connection
	}
	quiet := min(now.Sub(c.client.Heard()), now.Sub(media))
	if quiet > silence {
		return fmt.Errorf("nothing heard for %v", quiet.Round(time.Millisecond))
	}
	return nil
}

// negotiate offers more sections when they are asked for.
func (c *connection) negotiate(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.client.Done():
			return
		case need := <-c.need:
			offering, cancel := context.WithTimeout(ctx, openTimeout)
			err := c.media.AddSlots(int(need.GetAudio()), int(need.GetVideo()))
			if err == nil {
				err = c.media.Negotiate(offering)
			}
			cancel()
			if err != nil && ctx.Err() == nil {
				c.peer.cfg.Logger.Warn("offering more sections", "err", err)
			}
		}
	}
}

// close ends both connections, with a goodbye when the peer is to leave.
func (c *connection) close(leave bool) {
	if leave {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = c.client.Leave(ctx) // a node that is gone needs no goodbye
		cancel()
	} else {
		c.client.Drop()
	}
	if c.media != nil {
		_ = c.media.Close()
	}
}
