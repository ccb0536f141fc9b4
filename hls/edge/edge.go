// Package edge serves streams that another node makes to any number of players: each object is fetched once, each
// playlist is followed by one request, and all that players ask is answered from that.
package edge

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/hls/playlist"
	"github.com/amphi-sfu/amphi/hls/serve"
)

// Origin is who makes a stream.
type Origin struct {
	// ID is another one whenever another node, or another start, makes the stream.
	ID string
	// URL is scheme and host of the origin's serve.Handler.Upstream; unused if Local: it is this node.
	URL   string
	Local bool
}

// Origins finds the origin of a stream. Called often, from any goroutine; must not block.
type Origins interface {
	// Origin's ok is false where nobody has ever made the stream.
	Origin(room, stream string) (o Origin, ok bool)
}

// Config of an Edge.
type Config struct {
	Logger *slog.Logger // default: slog.Default
	// Authorizer is asked about every playlist; nil lets everybody in.
	Authorizer serve.Authorizer
	// Transport reaches origins; default http.DefaultTransport.
	Transport http.RoundTripper
	// CacheBytes bounds the cache of objects; default 256 MiB.
	CacheBytes int64
	// MaxWaiting bounds the requests of players that wait at once; one more is told to come back. Default 20,000.
	MaxWaiting int
	// MaxUpstream bounds the objects that are fetched at once; default 256.
	MaxUpstream int
	// Patience is how long players wait while there is no origin, or it does not answer; default 8 s, which players take
	// for a slow answer and not for an error.
	Patience time.Duration
}

// Edge is a cache in front of the origins of all streams. Safe for concurrent use.
type Edge struct {
	cfg     Config
	log     *slog.Logger
	local   http.Handler
	origins Origins
	base    context.Context // of all upstream requests; ends with Run
	stop    context.CancelFunc
	wg      sync.WaitGroup
	cache   *cache
	stats   counters

	mu      sync.Mutex // guards the fields below
	closed  bool
	flights map[string]*flight
	lists   map[string]*followed
	heads   map[string]*head
	asks    map[*asking]struct{}
}

type counters struct {
	waiting, upstream                                    atomic.Int64
	hits, misses, shared, requests, failures, tooMany    atomic.Uint64
	bytesIn, bytesOut, answered, refused, gone, comeBack atomic.Uint64
}

// Stats is a snapshot.
type Stats struct {
	// Playlists that are followed, players' requests that wait and upstream requests under way.
	Playlists, Waiting, Upstream int
	// Requests for objects: from the cache, fetched, and that waited for what another had asked for.
	Hits, Misses, Shared uint64
	// Upstream requests, and those without an answer.
	Requests, Failures uint64
	// BytesIn came from origins, BytesOut went to players.
	BytesIn, BytesOut uint64
	// Objects are cached.
	Objects     int
	CachedBytes int64
	// Answers to players by outcome.
	Answers map[serve.Outcome]uint64
}

// New makes an edge; requests for streams that this node makes, or that nobody does, go to local.
func New(cfg Config, local http.Handler, origins Origins) (*Edge, error) {
	if local == nil || origins == nil {
		return nil, errors.New("making an HLS edge: no local handler or no origins")
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	cfg.CacheBytes = cmp.Or(cfg.CacheBytes, 256<<20)
	cfg.MaxWaiting = cmp.Or(cfg.MaxWaiting, 20_000)
	cfg.MaxUpstream = cmp.Or(cfg.MaxUpstream, 256)
	cfg.Patience = cmp.Or(cfg.Patience, 8*time.Second)
	e := &Edge{
		cfg: cfg, log: cfg.Logger, local: local, origins: origins, cache: newCache(cfg.CacheBytes),
		flights: map[string]*flight{}, lists: map[string]*followed{}, heads: map[string]*head{}, asks: map[*asking]struct{}{},
	}
	e.base, e.stop = context.WithCancel(context.Background())
	return e, nil
}

// lookEvery is how often upstream requests are looked at: one to an origin that is none any more is given up.
const lookEvery = 200 * time.Millisecond

// Run keeps the edge until ctx ends, then waits for all upstream requests.
func (e *Edge) Run(ctx context.Context) error {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-t.C:
			e.giveUp()
			e.forgetHeads(now)
		}
	}
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.stop()
	e.wg.Wait()
	return nil
}

// giveUp ends the upstream requests whose origin is another one by now.
func (e *Edge) giveUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for a := range e.asks {
		if o, ok := e.origins.Origin(a.room, a.stream); ok && o.ID != a.origin {
			a.cancel()
		}
	}
}

// ServeHTTP implements http.Handler.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := serve.ParsePath(r.URL.Path)
	if ok {
		var o Origin
		// Rooms' names are compared without regard to case.
		path.Room = strings.ToLower(path.Room)
		o, ok = e.origins.Origin(path.Room, path.Stream)
		ok = ok && !o.Local
	}
	if !ok {
		e.local.ServeHTTP(w, r)
		return
	}
	e.count(e.serve(w, r, path))
}

func (e *Edge) count(o serve.Outcome) {
	switch o {
	case serve.Sent, serve.NotModified:
		e.stats.answered.Add(1)
	case serve.Unauthorized, serve.BadRequest, serve.BadMethod, serve.NotFound:
		e.stats.refused.Add(1)
	case serve.ClientGone:
		e.stats.gone.Add(1)
	case serve.TooMany:
		e.stats.tooMany.Add(1)
	default:
		e.stats.comeBack.Add(1)
	}
}

// serve answers a request for a stream that another node makes.
func (e *Edge) serve(w http.ResponseWriter, r *http.Request, path serve.Path) serve.Outcome {
	if o, done := serve.Greet(w, r); done {
		return o
	}
	if path.File != serve.IndexName {
		return e.object(w, r, path)
	}
	open := true
	token, _ := playlist.Parameter(r.URL.RawQuery, "token")
	if a := e.cfg.Authorizer; a != nil {
		var err error
		if open, err = a.AuthorizePlayback(r, path.Room, path.Stream, token); err != nil {
			return serve.Refuse(w, err)
		}
	}
	if path.Media == "" {
		return e.multivariant(w, r, path, open, token)
	}
	q, err := playlist.ParseReload(r.URL.RawQuery)
	if err != nil {
		return serve.Malformed(w, err)
	}
	return e.playlist(w, r, path, q, open)
}

// give answers with a, and counts.
func (e *Edge) give(w http.ResponseWriter, r *http.Request, a serve.Answer) serve.Outcome {
	n, ok := a.Give(w, r)
	e.stats.bytesOut.Add(uint64(n))
	if !ok {
		return serve.ClientGone
	}
	return serve.Sent
}

// await blocks until ready is closed, the client is gone, or time is up. Every wait of a player is here.
func (e *Edge) await(r *http.Request, ready <-chan struct{}, d time.Duration) serve.Outcome {
	defer e.stats.waiting.Add(-1)
	if e.stats.waiting.Add(1) > int64(e.cfg.MaxWaiting) {
		return serve.TooMany
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ready:
		return serve.Sent
	case <-r.Context().Done():
		return serve.ClientGone
	case <-t.C:
		return serve.TimedOut
	}
}

// keyOf is what a path is known by: the token is no part of it.
func keyOf(p serve.Path) string {
	return p.Room + "/" + p.Stream + "/" + p.Media + "/" + p.File
}

// address is the URL of a path at an origin.
func address(o Origin, p serve.Path, query string) string {
	path := serve.Prefix + p.Room + "/" + p.Stream + "/" + p.File
	if p.Media != "" {
		path = serve.Prefix + p.Room + "/" + p.Stream + "/" + p.Media + "/" + p.File
	}
	u := url.URL{Path: path, RawQuery: query}
	return o.URL + u.String()
}

// Stats counts what happened so far.
func (e *Edge) Stats() Stats {
	s := Stats{
		Waiting: int(e.stats.waiting.Load()), Upstream: int(e.stats.upstream.Load()),
		Hits: e.stats.hits.Load(), Misses: e.stats.misses.Load(), Shared: e.stats.shared.Load(),
		Requests: e.stats.requests.Load(), Failures: e.stats.failures.Load(),
		BytesIn: e.stats.bytesIn.Load(), BytesOut: e.stats.bytesOut.Load(),
		Answers: map[serve.Outcome]uint64{
			serve.Sent: e.stats.answered.Load(), "refused": e.stats.refused.Load(), serve.ClientGone: e.stats.gone.Load(),
			serve.TooMany: e.stats.tooMany.Load(), serve.TimedOut: e.stats.comeBack.Load(),
		},
	}
	s.Objects, s.CachedBytes = e.cache.size()
	e.mu.Lock()
	s.Playlists = len(e.lists)
	e.mu.Unlock()
	return s
}
