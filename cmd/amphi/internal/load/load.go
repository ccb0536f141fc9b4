// Package load drives a node with publishers, subscribers, HLS players and chat, and measures what
// they get: join time, loss, one-way delay, freezes, message latency, HLS latency, and what it costs the server.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v4/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/client"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/clip"
	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/player"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Kinds of traffic that publishers send.
const (
	// Simulcast is the built-in clip in three layers.
	Simulcast = "simulcast"
	// Single is the built-in clip's best layer alone.
	Single = "single"
	// Steady is the traffic with which servers are compared; it can't be decoded.
	Steady = "steady"
	// Audio is sound alone.
	Audio = "audio"
)

// Bounds of a load.
const (
	maxPublishers  = 200
	maxSubscribers = 3_000
	maxPlayers     = 10_000
	maxChat        = 1_000
	maxDuration    = 24 * time.Hour
	maxJoinRate    = 5_000
)

// Config describes a load. Counts may be 0.
type Config struct {
	// URL of the node; Room to join.
	URL, Room string
	// Publishers, Subscribers over WebRTC, and HLS Players.
	Publishers, Subscribers, Players int
	// ChatRate is in messages per second over all.
	ChatRate float64
	// Duration of the measurement, which begins when everybody is there.
	Duration time.Duration
	// Settle is the time between the last join and the measurement; default 2 s.
	Settle time.Duration
	// JoinRate is how many subscribers and players begin to join per second; default 20.
	JoinRate float64
	// Traffic is one of the constants above; default Simulcast.
	Traffic string
	// Pace is the time between the packets of a frame; 0 sends bursts, as encoders do.
	Pace time.Duration
	// ServerPID, if not 0, is the server's process, whose CPU time and memory are measured.
	ServerPID int
	// Token makes an app token for a role.
	Token func(role, user string) (string, error)
	// Open connects a client to a server that speaks other words, see client.Config; nil dials a node of Amphi.
	Open func(context.Context, client.Config) (client.Conn, error)
	// Roles to join with.
	Roles Roles
	// StartStream makes sure that the stream runs, when the publishers are there, and returns the path or URL of its
	// multivariant playlist. Needed with Players only.
	StartStream func(context.Context) (string, error)
	// Crowd has the players play without joining the room and without reading what they play, so that one process plays
	// thousands; PlayURL is the node that they ask, default URL.
	Crowd   bool
	PlayURL string
	// EdgeStatus is how the node at PlayURL serves other nodes' streams; nil: not known.
	EdgeStatus func(context.Context) (*amphiv1.EdgeStatus, error)
	Logger     *slog.Logger
}

// Roles are the names of roles of the room's template.
type Roles struct {
	Publish, Subscribe, Watch string
}

func (c Config) defaults() Config {
	if c.Settle == 0 {
		c.Settle = 2 * time.Second
	}
	if c.JoinRate == 0 {
		c.JoinRate = 20
	}
	if c.Traffic == "" {
		c.Traffic = Simulcast
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	for _, b := range []struct {
		what       string
		value, max float64
	}{
		{"publishers", float64(c.Publishers), maxPublishers},
		{"subscribers", float64(c.Subscribers), maxSubscribers},
		{"HLS players", float64(c.Players), maxPlayers},
		{"chat messages per second", c.ChatRate, maxChat},
		{"joins per second", c.JoinRate, maxJoinRate},
		{"seconds", c.Duration.Seconds(), maxDuration.Seconds()},
	} {
		if b.value < 0 || b.value > b.max {
			return fmt.Errorf("%v %s: want 0 to %v", b.value, b.what, b.max)
		}
	}
	switch {
	case c.Duration < 100*time.Millisecond:
		return errors.New("a duration under 100 ms measures nothing")
	case c.Publishers+c.Subscribers+c.Players == 0:
		return errors.New("nobody to join: want publishers, subscribers or HLS players")
	case c.ChatRate > 0 && c.Publishers+c.Subscribers == 0:
		return errors.New("chat needs a publisher or subscriber to send it")
	case c.Token == nil:
		return errors.New("no way to make tokens")
	case c.Players > 0 && c.StartStream == nil:
		return errors.New("no way to start the stream")
	case c.Pace < 0 || c.Pace > 4*time.Millisecond:
		return errors.New("pace: want 0 to 4 ms between packets")
	}
	return nil
}

// run is one load under way.
type run struct {
	cfg      Config
	clip     *clip.Clip
	cert     *webrtc.Certificate
	net      *stdnet.Net
	loopback bool
	http     *http.Client
	chat     *chat
	crowd    *player.Crowd
	counting atomic.Bool // the measurement is under way
	// edge is how the node served other nodes' streams when the measurement began, and edgeAfter when it ended.
	edge, edgeAfter *amphiv1.EdgeStatus
	stream          string // URL of the multivariant playlist
	// publishers by the id of each of their tracks; not changed once the first subscriber joins.
	publishers map[string]*publisher

	mu          sync.Mutex // guards the fields below
	failures    []string
	failed      int
	subscribers []*subscriber
	watchers    []*watcher
}

// maxFailures bounds how many failures are kept as text.
const maxFailures = 10

func (r *run) fail(who string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	if len(r.failures) < maxFailures {
		r.failures = append(r.failures, who+": "+err.Error())
	}
	r.cfg.Logger.Warn("load", "who", who, "error", err)
}

// Run joins everybody, measures for Config.Duration, and leaves. It fails only when there is nothing to
// report: single failures are in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg = cfg.defaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	r, err := newRun(cfg)
	if err != nil {
		return nil, err
	}
	defer r.http.CloseIdleConnections()
	rep, err := r.whole(ctx)
	if err != nil {
		return nil, err
	}
	return r.finish(rep), nil
}

// whole is the load from the first join to the last leave.
func (r *run) whole(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if err := r.startPublishers(ctx, &wg); err != nil {
		return nil, err
	}
	if r.cfg.Players > 0 {
		path, err := r.cfg.StartStream(ctx)
		if err != nil {
			return nil, fmt.Errorf("starting the stream: %w", err)
		}
		if r.stream, err = streamURL(cmp.Or(r.cfg.PlayURL, r.cfg.URL), path); err != nil {
			return nil, err
		}
	}
	m := &meter{pid: r.cfg.ServerPID}
	if err := m.beforeJoins(); err != nil {
		return nil, err
	}
	if err := r.join(ctx, &wg); err != nil {
		return nil, err
	}
	if !sleep(ctx, r.cfg.Settle) {
		return nil, ctx.Err()
	}
	r.edge = r.edgeStatus(ctx)
	r.counting.Store(true)
	err := r.measure(ctx, &wg, m)
	r.counting.Store(false)
	if err != nil {
		return nil, err
	}
	r.edgeAfter = r.edgeStatus(ctx)
	return r.report(m), nil
}

func newRun(cfg Config) (*run, error) {
	r := &run{cfg: cfg, publishers: make(map[string]*publisher), chat: &chat{}, crowd: player.NewCrowd()}
	var err error
	switch cfg.Traffic {
	case Simulcast:
		r.clip, err = clip.Builtin(true)
	case Single, Audio:
		r.clip, err = clip.Builtin(false)
	case Steady:
		r.clip = clip.Steady(1)
	default:
		err = fmt.Errorf("traffic %q is none of simulcast, single, steady, audio", cfg.Traffic)
	}
	if err != nil {
		return nil, err
	}
	if r.cert, err = certificate(); err != nil {
		return nil, err
	}
	if r.net, err = stdnet.NewNet(); err != nil {
		return nil, fmt.Errorf("reading the network interfaces: %w", err)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parsing the node's URL: %w", err)
	}
	r.loopback = isLoopback(u.Hostname())
	// One connection per player would be the browser's way; sharing lets a small machine play many.
	r.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxPlayers, IdleConnTimeout: 30 * time.Second}}
	return r, nil
}

// join lets subscribers and players in at the configured rate, and waits until all have tried.
func (r *run) join(ctx context.Context, wg *sync.WaitGroup) error {
	var joining sync.WaitGroup
	began := time.Now()
	interval := time.Duration(float64(time.Second) / r.cfg.JoinRate)
	for i := range r.cfg.Subscribers + r.cfg.Players {
		if !sleep(ctx, time.Until(began.Add(time.Duration(i)*interval))) {
			break
		}
		joining.Add(1)
		ready := sync.OnceFunc(joining.Done)
		wg.Go(func() {
			defer ready()
			if i < r.cfg.Subscribers {
				r.subscribe(ctx, i, ready)
			} else {
				r.watch(ctx, i-r.cfg.Subscribers, ready)
			}
		})
	}
	joining.Wait()
	return ctx.Err()
}

func (r *run) measure(ctx context.Context, wg *sync.WaitGroup, m *meter) error {
	r.window((*subscriber).begin)
	r.chat.begin()
	if err := m.begin(r.received()); err != nil {
		return err
	}
	chatting, stop := context.WithCancel(ctx)
	if r.cfg.ChatRate > 0 {
		wg.Go(func() { r.talk(chatting) })
	}
	sleep(ctx, r.cfg.Duration)
	stop()
	if err := m.end(r.received()); err != nil {
		return err
	}
	r.window((*subscriber).end)
	r.chat.end()
	return nil
}

func (r *run) window(what func(*subscriber)) {
	for _, s := range r.everySubscriber() {
		what(s)
	}
}

func (r *run) everySubscriber() []*subscriber {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*subscriber(nil), r.subscribers...)
}

// received is how many packets all subscribers have received so far.
func (r *run) received() (n uint64) {
	for _, s := range r.everySubscriber() {
		n += s.received.Load()
	}
	return n
}

// leave says goodbye, so that the next load finds the room empty, and closes in any case.
func leave(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.Leave(ctx)
}

// sleep waits for d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
