// Package serve answers HTTP requests for LL-HLS: playlists with blocking reload,
// parts, segments and init sections of any number of programs.
package serve

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/playlist"
	"github.com/amphi-sfu/amphi/proto"
)

// Programs finds what is on. Called for every request, from any goroutine; must not block.
type Programs interface {
	Program(room, stream string) (p *packager.Packager, ok bool)
}

// Authorizer decides who may have a program's playlists. Parts and segments are not
// asked about: their names hold the program's epoch and come from a playlist only, and
// an answer of theirs must be the same for all, or no cache could keep it.
type Authorizer interface {
	// AuthorizePlayback returns nil to allow. token is the query parameter "token", which the
	// multivariant playlist hands down to the media playlists; empty when there is none.
	AuthorizePlayback(r *http.Request, room, stream, token string) error
}

// Config of a Handler.
type Config struct {
	Logger *slog.Logger // default: slog.Default
	// Authorizer is asked for every playlist; nil lets everybody in.
	Authorizer Authorizer
	// MaxWaiting bounds the requests that wait for something at once; one more is told to
	// come back. Default 20,000.
	MaxWaiting int
	// Grace is how much longer than a part a request waits before it is told to come
	// back. Default 1 s.
	Grace time.Duration
}

// Handler serves `/v1/hls/{room}/{stream}/...`. Safe for concurrent use.
type Handler struct {
	cfg      Config
	programs Programs
	log      *slog.Logger
	waiting  atomic.Int64
	served   [len(outcomes)]atomic.Int64
	sent     atomic.Int64
}

// Prefix of all paths.
const Prefix = "/v1/hls/"

// Outcome names what became of a request; it is a metric label.
type Outcome string

// The outcomes.
const (
	Sent         Outcome = "sent"
	NotFound     Outcome = "not_found"
	BadRequest   Outcome = "bad_request"
	Unauthorized Outcome = "unauthorized"
	TimedOut     Outcome = "timed_out"
	TooMany      Outcome = "too_many_waiting"
	ClientGone   Outcome = "client_gone"
	BadMethod    Outcome = "bad_method"
)

var outcomes = [...]Outcome{Sent, NotFound, BadRequest, Unauthorized, TimedOut, TooMany, ClientGone, BadMethod}

// New makes a handler; it starts nothing.
func New(cfg Config, programs Programs) (*Handler, error) {
	if programs == nil {
		return nil, errors.New("serving HLS: no programs")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = 20_000
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Second
	}
	return &Handler{cfg: cfg, programs: programs, log: cfg.Logger}, nil
}

// Caching. Objects never change; a blocking answer belongs to its (msn, part) query and
// may be kept while anybody can still ask for it; everything else is short.
const (
	cacheForever  = "public, max-age=31536000, immutable"
	cacheBlocking = "public, max-age=6"
	cacheShort    = "public, max-age=1"
	cacheNever    = "no-store"
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o := h.serve(w, r)
	for i := range outcomes {
		if outcomes[i] == o {
			h.served[i].Add(1)
		}
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) Outcome {
	hd := w.Header()
	hd.Set("Access-Control-Allow-Origin", "*")
	hd.Set("Timing-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		hd.Set("Access-Control-Allow-Methods", "GET, HEAD")
		hd.Set("Access-Control-Allow-Headers", "*")
		hd.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return Sent
	default:
		hd.Set("Allow", "GET, HEAD, OPTIONS")
		return failStatus(w, BadMethod, http.StatusMethodNotAllowed, cacheNever, proto.Errorf(proto.InvalidMessage, "only GET, HEAD and OPTIONS are answered here"))
	}
	path, ok := parsePath(r.URL.Path)
	if !ok {
		return notFound(w)
	}
	p, ok := h.programs.Program(path.room, path.stream)
	if !ok {
		return notFound(w)
	}
	if path.file == indexName {
		token := r.URL.Query().Get("token")
		if a := h.cfg.Authorizer; a != nil {
			if err := a.AuthorizePlayback(r, path.room, path.stream, token); err != nil {
				return fail(w, Unauthorized, cacheNever, unauthorized(err))
			}
		}
		if path.media == "" {
			return h.multivariant(w, r, p, token)
		}
	}
	m, ok := p.Media(path.media)
	if !ok {
		return notFound(w)
	}
	c := p.Config()
	wait := time.Duration(c.PartTicks)*time.Second/time.Duration(c.FPS) + h.cfg.Grace
	if path.file == indexName {
		return h.playlist(w, r, m, wait)
	}
	return h.object(w, r, m, path.file, wait)
}

func notFound(w http.ResponseWriter) Outcome {
	return fail(w, NotFound, cacheShort, proto.Errorf(proto.NotFound, "there is no such thing to play"))
}

// unauthorized is why playback is not allowed: the authorizer's code, if it is about the token.
func unauthorized(err error) *proto.Error {
	code := proto.CodeOf(err)
	if code.HTTPStatus() != http.StatusUnauthorized {
		code = proto.Unauthenticated
	}
	return proto.Errorf(code, "playback is not allowed with this token")
}

// fail answers with an error, which a cache may keep as said.
func fail(w http.ResponseWriter, o Outcome, cache string, err *proto.Error) Outcome {
	return failStatus(w, o, err.Code.HTTPStatus(), cache, err)
}

// failStatus is fail with a status that no code has. The body is that of PROTOCOL.md section 5.
func failStatus(w http.ResponseWriter, o Outcome, status int, cache string, err *proto.Error) Outcome {
	body, _ := protojson.Marshal(proto.Wire(err)) // all texts are ours: it cannot fail
	hd := w.Header()
	hd.Set("Cache-Control", cache)
	hd.Set("Content-Type", "application/json")
	hd.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(append([]byte(`{"error":`), body...), "}\n"...))
	return o
}

// comeBack tells the client to ask again soon: nothing is wrong with its request.
func comeBack(w http.ResponseWriter, o Outcome) Outcome {
	if o == ClientGone {
		return o
	}
	w.Header().Set("Retry-After", "1")
	return fail(w, o, cacheNever, proto.Errorf(proto.Unavailable, "not yet, try again"))
}

func (h *Handler) multivariant(w http.ResponseWriter, r *http.Request, p *packager.Packager, token string) Outcome {
	select {
	case <-p.Ready():
	default:
		const start = 5 * time.Second // a program that was just started shows up within
		if o := h.await(r, p.Ready(), start); o != Sent {
			return comeBack(w, o)
		}
	}
	query := ""
	if token != "" {
		query = "token=" + escape(token)
	}
	b, ok := p.Multivariant(query)
	if !ok {
		return comeBack(w, TimedOut)
	}
	w.Header().Set("Content-Type", playlistType)
	cache := cacheShort
	if token != "" {
		cache = cacheNever
	}
	return h.send(w, r, cache, b)
}

const (
	indexName    = "index.m3u8"
	playlistType = "application/vnd.apple.mpegurl"
)

func (h *Handler) playlist(w http.ResponseWriter, r *http.Request, m *packager.Media, wait time.Duration) Outcome {
	q, err := playlist.ParseReload(r.URL.Query())
	if err != nil {
		return fail(w, BadRequest, cacheShort, proto.Errorf(proto.InvalidArgument, "%v", err))
	}
	p, o := h.until(r, m, q, wait)
	switch o {
	case BadRequest:
		return fail(w, o, cacheShort, proto.Errorf(proto.InvalidArgument, "_HLS_msn or _HLS_part is too far ahead"))
	case Sent:
	default:
		return comeBack(w, o)
	}
	m.CountReload()
	cache := cacheShort
	if q.Blocking {
		cache = cacheBlocking
	}
	hd := w.Header()
	hd.Set("Content-Type", playlistType)
	hd.Set("Vary", "Accept-Encoding")
	if acceptsGzip(r) {
		hd.Set("Content-Encoding", "gzip")
		return h.send(w, r, cache, p.Gzip(q.Skip))
	}
	return h.send(w, r, cache, p.Bytes(q.Skip))
}

// until waits for the playlist that q asks for.
func (h *Handler) until(r *http.Request, m *packager.Media, q playlist.Reload, wait time.Duration) (*packager.Published, Outcome) {
	deadline := time.Now().Add(wait)
	for {
		p := m.Published()
		switch p.Check(q) {
		case playlist.Ready:
			return p, Sent
		case playlist.TooFar:
			return nil, BadRequest
		}
		if o := h.await(r, p.Next(), time.Until(deadline)); o != Sent {
			return nil, o
		}
	}
}

// await blocks until ready is closed, the client is gone, or time is up. It is the only
// place where a request waits, and so the only one that counts against MaxWaiting.
func (h *Handler) await(r *http.Request, ready <-chan struct{}, d time.Duration) Outcome {
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > int64(h.cfg.MaxWaiting) {
		return TooMany
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ready:
		return Sent
	case <-r.Context().Done():
		return ClientGone
	case <-t.C:
		return TimedOut
	}
}

func (h *Handler) object(w http.ResponseWriter, r *http.Request, m *packager.Media, file string, wait time.Duration) Outcome {
	n, ok := packager.ParseName(file)
	if !ok {
		return notFound(w)
	}
	o, out := h.find(r, m, n, wait)
	switch out {
	case Sent:
	case NotFound:
		return notFound(w)
	default:
		return comeBack(w, out)
	}
	w.Header().Set("Content-Type", "video/mp4")
	return h.send(w, r, cacheForever, o.Chunks...)
}

// find looks an object up. The part that the preload hint names is asked for before it
// exists: then the request waits until it does, or until it is clear that it never will.
func (h *Handler) find(r *http.Request, m *packager.Media, n packager.Name, wait time.Duration) (packager.Object, Outcome) {
	deadline := time.Now().Add(wait)
	for {
		p := m.Published() // before the look-up, so that nothing falls between
		if o, ok := m.Object(n); ok {
			return o, Sent
		}
		if n.Part < 0 || n.Epoch != m.Epoch() || p.Ended || n.MSN != p.OpenMSN || n.Part != p.OpenParts {
			return packager.Object{}, NotFound
		}
		if o := h.await(r, p.Next(), time.Until(deadline)); o != Sent {
			return packager.Object{}, o
		}
	}
}

func (h *Handler) send(w http.ResponseWriter, r *http.Request, cache string, chunks ...[]byte) Outcome {
	size := 0
	for _, c := range chunks {
		size += len(c)
	}
	w.Header().Set("Cache-Control", cache)
	w.Header().Set("Content-Length", strconv.Itoa(size))
	if r.Method == http.MethodHead {
		return Sent
	}
	for _, c := range chunks {
		n, err := w.Write(c)
		h.sent.Add(int64(n))
		if err != nil {
			return ClientGone
		}
	}
	return Sent
}

// acceptsGzip reads Accept-Encoding as far as it matters: gzip named and not with q=0.
func acceptsGzip(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept-Encoding") {
		for e := range strings.SplitSeq(v, ",") {
			name, param, _ := strings.Cut(e, ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") {
				q := strings.ReplaceAll(param, " ", "")
				return !strings.HasPrefix(q, "q=0") || strings.Trim(q[3:], ".0") != ""
			}
		}
	}
	return false
}

// Stats is a snapshot.
type Stats struct {
	Waiting  int64
	Requests map[Outcome]int64
	Bytes    int64 // of bodies
}

// Stats counts what happened so far.
func (h *Handler) Stats() Stats {
	s := Stats{Waiting: h.waiting.Load(), Requests: map[Outcome]int64{}, Bytes: h.sent.Load()}
	for i := range outcomes {
		s.Requests[outcomes[i]] = h.served[i].Load()
	}
	return s
}
