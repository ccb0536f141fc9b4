// Package peer is one synthetic peer of the lab: it joins a room from a network of its own, publishes or
// only receives, comes back at another node when it loses its own, and notes what it gets.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/lab/record"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// openTimeout bounds one attempt to join or resume, retryPause the time between attempts.
	openTimeout = 3 * time.Second
	retryPause  = 100 * time.Millisecond
	// silence of media and signalling together after which a node is given up.
	silence = 800 * time.Millisecond
	// watchEvery is how often that is looked at.
	watchEvery = 50 * time.Millisecond
	// mediaTimeout is how long a new PeerConnection may take before the node is given up.
	mediaTimeout = 4 * time.Second
)

// Config of a Peer. All fields but Publisher, Simulcast and Logger are required.
type Config struct {
	// Name is unique in the lab; Room to join; Token, an app token of a role that may do what is asked.
	Name, Room, Token string
	// Nodes are the URLs to try, the best first.
	Nodes []string
	// Net is where its media sockets are, HTTP where its signalling is.
	Net  *Network
	HTTP *http.Client
	// Publish makes it send audio and video under the number Publisher.
	Publish   bool
	Publisher uint16
	// Simulcast sends the video in three layers; else it has so many Packets per frame, 3 if 0; none with AudioOnly.
	Simulcast bool
	Packets   int
	AudioOnly bool
	// Certificate is shared, to save making one for each connection.
	Certificate *webrtc.Certificate
	Messages    *record.Messages
	Logger      *slog.Logger
}

// Event is something that happened to a peer.
type Event struct {
	At   time.Time     `json:"at"`
	What string        `json:"what"`
	Took time.Duration `json:"took_ns,omitempty"`
	Err  string        `json:"error,omitempty"`
}

// Kinds of Event.
const (
	// Joined as a new peer; Resumed as the same; MediaUp: the PeerConnection is through.
	Joined, Resumed, MediaUp = "joined", "resumed", "media up"
	// Moved to another node without losing media; Lost its node; Failed to join or resume; Expired: it had to join as a new peer.
	Moved, Lost, Failed, Expired = "moved", "lost", "failed", "expired"
)

// Peer is a peer and what it noted. Its methods may be called from any goroutine.
type Peer struct {
	cfg   Config
	Media record.Media

	counts *counts // of what it publishes; outlives connections

	turn    sync.Mutex // to note an event; taken before mu
	mu      sync.Mutex // guards the fields below
	conn    *connection
	node    string
	id      string
	resume  string
	lastSeq uint64
	backups []string
	events  []Event
	videos  map[string]bool // ids of the others' video tracks
	// generation of the PeerConnection.
	generation uint32
	// seen is the number of the last event, current the connection that brings them.
	seen    uint64
	current int
}

// New makes a peer that has not joined yet.
func New(cfg Config) (*Peer, error) {
	switch {
	case cfg.Name == "" || cfg.Room == "" || cfg.Token == "" || len(cfg.Nodes) == 0:
		return nil, errors.New("a peer of the lab needs a name, a room, a token and nodes")
	case cfg.Net == nil || cfg.HTTP == nil || cfg.Certificate == nil || cfg.Messages == nil:
		return nil, errors.New("a peer of the lab needs networks, a certificate and a record of messages")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = cfg.Logger.With("peer", cfg.Name)
	return &Peer{cfg: cfg, counts: &counts{}, videos: map[string]bool{}}, nil
}

// Name is the configured one.
func (p *Peer) Name() string { return p.cfg.Name }

// Publisher is its number, if it publishes.
func (p *Peer) Publisher() (uint16, bool) { return p.cfg.Publisher, p.cfg.Publish }

// Node is the URL of the node that it is connected to, "" while it is not.
func (p *Peer) Node() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.node
}

// ID is its peer id, "" before it has joined.
func (p *Peer) ID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// Events are all that happened so far.
func (p *Peer) Events() []Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

func (p *Peer) note(what string, began time.Time, err error) {
	e := Event{At: time.Now(), What: what, Took: time.Since(began)}
	if err != nil {
		e.Err = err.Error()
	}
	p.cfg.Logger.Info("peer", "what", what, "took", e.Took.Round(time.Millisecond), "node", p.Node(), "err", e.Err)
	p.mu.Lock()
	defer p.mu.Unlock()
	const most = 1000
	if len(p.events) < most {
		p.events = append(p.events, e)
	}
}

// Run joins, comes back whenever its node is lost, and leaves when ctx ends.
func (p *Peer) Run(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		began := time.Now()
		url := p.next(attempt)
		c, err := p.open(ctx, url)
		if err != nil {
			if ctx.Err() == nil {
				p.note(Failed, began, fmt.Errorf("at %s: %w", url, err))
				p.expire(err)
			}
			pause(ctx, retryPause)
			continue
		}
		attempt = -1
		for c != nil {
			c = p.follow(ctx, c)
		}
	}
}

// follow keeps a connection while it lasts, and returns the one that replaces it, if the peer was moved.
func (p *Peer) follow(ctx context.Context, c *connection) *connection {
	next, err := c.serve(ctx)
	p.mu.Lock()
	p.lastSeq = max(p.lastSeq, c.client.LastSeq())
	if next == nil {
		p.conn, p.node = nil, ""
	}
	p.mu.Unlock()
	c.close(ctx.Err() != nil)
	switch {
	case next != nil:
		p.note(Moved, c.began, nil)
	case ctx.Err() == nil:
		p.note(Lost, c.began, err)
	}
	return next
}

// next is where to try: the backups that the last node named, then all in turn.
func (p *Peer) next(attempt int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	order := p.cfg.Nodes
	if p.resume != "" {
		order = slices.Clone(p.backups)
		// The node that was lost comes last.
		for i := range p.cfg.Nodes {
			if url := p.cfg.Nodes[(i+1)%len(p.cfg.Nodes)]; !slices.Contains(order, url) {
				order = append(order, url)
			}
		}
	}
	return order[attempt%len(order)]
}

// expire forgets a resume token that is no longer taken.
func (p *Peer) expire(err error) {
	switch proto.CodeOf(err) {
	case proto.ResumeExpired, proto.Unauthenticated:
	default:
		return
	}
	p.mu.Lock()
	had := p.resume != ""
	p.resume, p.lastSeq, p.id = "", 0, ""
	p.mu.Unlock()
	if had {
		p.note(Expired, time.Now(), err)
	}
}

// Say sends a chat message and notes what becomes of it.
func (p *Peer) Say(ctx context.Context, text string) error {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	if c == nil {
		return errors.New("not connected")
	}
	p.cfg.Messages.Sent(text, time.Now())
	id, err := c.client.Chat(ctx, text)
	if err == nil {
		p.cfg.Messages.Acked(text, id, time.Now())
	}
	return err
}

// Command sends any command; it fails while the peer is not connected.
func (p *Peer) Command(ctx context.Context, cmd *amphiv1.Command) (*amphiv1.Result, error) {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	if c == nil {
		return nil, errors.New("not connected")
	}
	return c.client.Command(ctx, cmd)
}

// Want limits the simulcast layer of all that it receives; -1 is no limit.
func (p *Peer) Want(ctx context.Context, layer int) error {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	if c == nil {
		return errors.New("not connected")
	}
	return c.client.SetSubscriptions(ctx, c.wanted(layer))
}

// pause waits for d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// counts are the numbers of the next packets.
type counts struct {
	audio atomic.Uint64
	video [3]atomic.Uint64
}
