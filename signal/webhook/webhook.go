// Package webhook tells applications what happens, by HTTP: events go through an outbox on disk, are signed as Standard
// Webhooks says, sent in order per room, tried again for a day, and can be sent again later.
package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Bounds of the outbox and of its targets.
const (
	// MaxTargets can be told.
	MaxTargets = 8
	// MaxEvents, MaxBytes and MaxAge bound what is kept, sent or not; the oldest go.
	MaxEvents = 20000
	MaxBytes  = 16 << 20
	MaxAge    = 7 * 24 * time.Hour
	// MaxBody bounds one event, in bytes.
	MaxBody = 64 << 10
	// GiveUp is the age at which an event that a target does not take is not tried any more; it can still be replayed.
	GiveUp = 24 * time.Hour
)

// Event is something that happened.
type Event struct {
	// ID is unique; a receiver that has seen it knows the event. Another node that tells the same event again uses the same.
	ID string
	// Type is such as "peer.joined".
	Type string
	// Room orders events: those of one room arrive one after the other. Empty is the node's own.
	Room string
	Time time.Time
	// Data is encoded as JSON.
	Data any
}

// Target is who is told.
type Target struct {
	URL string
	// Secrets sign, each 24 to 64 bytes, or base64 of that behind "whsec_". Two while they are exchanged.
	Secrets []string
	// Events are types, or beginnings such as "peer.*"; empty is all.
	Events []string
}

// Config of a Sender.
type Config struct {
	Logger *slog.Logger
	// Dir has the outbox's file; empty keeps it in memory.
	Dir     string
	Targets []Target
	// Parallel is how many requests are under way to one target; default 8. Timeout ends each; default 15 s.
	Parallel int
	Timeout  time.Duration
	// FirstRetry doubles up to LastRetry; defaults 1 s and 5 min.
	FirstRetry, LastRetry time.Duration
	// Transport is for tests.
	Transport http.RoundTripper
}

// Sender keeps the outbox and empties it. Safe for concurrent use. Run must be called once.
type Sender struct {
	cfg     Config
	log     *slog.Logger
	client  *http.Client
	wake    chan struct{} // holds a token when there may be work
	targets []*target
	journal *journal // Run's
	wg      sync.WaitGroup

	mu       sync.Mutex // guards the fields below, and the lanes of targets
	incoming []*entry   // not in the journal yet
	marks    []mark     // likewise
	entries  []*entry   // oldest first
	byID     map[string]*entry
	bytes    int
	last     uint64
	stats    Stats
}

// Stats are counts since the start, but for Waiting.
type Stats struct {
	// Waiting deliveries, to all targets.
	Waiting int
	// Emitted events, and deliveries that succeeded or failed.
	Emitted, Delivered, Failed uint64
	// Dropped deliveries and events, by reason: "expired", "full", "too_large", "unknown".
	Dropped map[string]uint64
}

// entry is an event in the outbox.
type entry struct {
	n    uint64
	id   string
	kind string
	room string
	at   time.Time
	body []byte
}

func (e *entry) size() int { return len(e.id) + len(e.room) + len(e.kind) + len(e.body) + 100 }

// New makes a Sender, and reads what its outbox has. An error says what is wrong with the configuration or the file, without
// secrets.
func New(cfg Config) (*Sender, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Parallel = cmp.Or(cfg.Parallel, 8)
	cfg.Timeout = cmp.Or(cfg.Timeout, 15*time.Second)
	cfg.FirstRetry = cmp.Or(cfg.FirstRetry, time.Second)
	cfg.LastRetry = cmp.Or(cfg.LastRetry, 5*time.Minute)
	s := &Sender{cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), byID: map[string]*entry{}, stats: Stats{Dropped: map[string]uint64{}}}
	if len(cfg.Targets) > MaxTargets {
		return nil, fmt.Errorf("webhooks: %d targets; at most %d are possible", len(cfg.Targets), MaxTargets)
	}
	for i, t := range cfg.Targets {
		made, err := newTarget(t)
		if err == nil && slices.ContainsFunc(s.targets, func(o *target) bool { return o.key == made.key }) {
			err = errors.New("the same URL twice")
		}
		if err != nil {
			return nil, fmt.Errorf("webhooks[%d]: %w", i, err)
		}
		s.targets = append(s.targets, made)
	}
	transport := cfg.Transport
	if transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.MaxConnsPerHost = cfg.Parallel
		transport = own
	}
	s.client = &http.Client{Transport: transport, Timeout: cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s, s.load()
}

func newTarget(t Target) (*target, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		return nil, errors.New("the URL is not an http or https address")
	}
	if len(t.Secrets) == 0 || len(t.Secrets) > 2 {
		return nil, errors.New("one secret is needed, two while they are exchanged")
	}
	shown := *u
	shown.User = nil
	if u.RawQuery != "" {
		shown.RawQuery = "…"
	}
	made := &target{url: t.URL, shown: shown.String(), key: keyOf(t.URL), events: slices.Clone(t.Events), lanes: map[string]*lane{}, pending: map[*entry]struct{}{}}
	for _, s := range t.Secrets {
		secret, err := ParseSecret(s)
		if err != nil {
			return nil, err
		}
		made.secrets = append(made.secrets, secret)
	}
	for _, e := range t.Events {
		if e == "" || len(e) > 64 {
			return nil, errors.New("an event's type is empty or too long")
		}
	}
	return made, nil
}

// Emit queues an event, and does not block. One whose id is known is not queued again.
func (s *Sender) Emit(ev Event) {
	body, err := json.Marshal(struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      any    `json:"data"`
	}{ev.Type, ev.Time.UTC().Format("2006-01-02T15:04:05.000Z"), ev.Data})
	if err == nil && len(body) > MaxBody {
		err = fmt.Errorf("%d bytes", len(body))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.drop("too_large", 1)
		s.log.Error("webhook event lost", "type", ev.Type, "room", ev.Room, "err", err)
		return
	case len(s.targets) == 0 || s.byID[ev.ID] != nil:
		return
	case len(s.incoming) >= MaxEvents:
		s.drop("full", 1)
		return
	}
	s.last++
	e := &entry{n: s.last, id: ev.ID, kind: ev.Type, room: ev.Room, at: ev.Time, body: body}
	s.byID[e.id] = e
	s.incoming = append(s.incoming, e)
	s.stats.Emitted++
	s.nudge()
}

func (s *Sender) drop(reason string, n uint64) { s.stats.Dropped[reason] += n }

func (s *Sender) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// goodbye is how long the requests that are under way have left when Run is to end.
const goodbye = 2 * time.Second

// Run sends until ctx ends, and waits for the requests that are under way. What was not sent is sent after the next start,
// where the outbox is on disk.
func (s *Sender) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		s.store(time.Now())
		timer.Reset(s.schedule(inner, time.Now()))
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		}
	}
	late := time.AfterFunc(goodbye, stop)
	s.wg.Wait()
	late.Stop()
	stop()
	s.store(time.Now())
	s.client.CloseIdleConnections()
	return s.journal.close()
}

// Close frees what New opened, for a Sender that never ran.
func (s *Sender) Close() error { return s.journal.close() }

// Stats is a snapshot.
func (s *Sender) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Dropped = map[string]uint64{}
	for reason, n := range s.stats.Dropped {
		st.Dropped[reason] = n
	}
	for _, t := range s.targets {
		st.Waiting += t.waiting()
	}
	return st
}
