// Package serve answers HTTP requests for LL-HLS: playlists with blocking reload,
// parts, segments and init sections of any number of programs.
package serve

import (
	"errors"
	"net/http"
	"net/url"
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
	// AuthorizePlayback returns nil to allow; an error's code is unauthenticated, token_expired, permission_denied or not_found.
	// token is the query parameter "token", which the multivariant playlist hands down to the media playlists; empty when
	// there is none. open: everybody may, and so caches may keep the answer for everybody.
	AuthorizePlayback(r *http.Request, room, stream, token string) (open bool, err error)
}

// Config of a Handler.
type Config struct {
	// Authorizer is asked for every playlist; nil lets everybody in.
	Authorizer Authorizer
	// MaxWaiting bounds the requests that wait for something at once; one more is told to
	// come back. Default 20,000.
	MaxWaiting int
	// Grace is how much longer than a part a request waits for the next one before it is told to come
	// back. Default 1 s.
	Grace time.Duration
}

// Handler serves `/v1/hls/{room}/{stream}/...`. Safe for concurrent use.
type Handler struct {
	cfg      Config
	programs Programs
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
	NotModified  Outcome = "not_modified"
	TimedOut     Outcome = "timed_out"
	TooMany      Outcome = "too_many_waiting"
	ClientGone   Outcome = "client_gone"
	BadMethod    Outcome = "bad_method"
)

var outcomes = [...]Outcome{Sent, NotFound, BadRequest, Unauthorized, NotModified, TimedOut, TooMany, ClientGone, BadMethod}

// New makes a handler; it starts nothing.
func New(cfg Config, programs Programs) (*Handler, error) {
	if programs == nil {
		return nil, errors.New("serving HLS: no programs")
	}
	if cfg.MaxWaiting == 0 {
		cfg.MaxWaiting = 20_000
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Second
	}
	return &Handler{cfg: cfg, programs: programs}, nil
}

// Caching. Objects never change; a blocking answer belongs to its (msn, part) query and
// may be kept while anybody can still ask for it; everything else is short.
const (
	// CacheForever is for objects, whose names never mean two contents.
	CacheForever  = "public, max-age=31536000, immutable"
	cacheBlocking = "public, max-age=6"
	cacheShort    = "public, max-age=1"
	cacheNever    = "no-store"
	cachePrivate  = "private, max-age=1"
)

// CacheOf says how long a media playlist may be kept: by everybody if the stream is open to everybody.
func CacheOf(open, blocking bool) string {
	switch {
	case !open:
		return cachePrivate
	case blocking:
		return cacheBlocking
	}
	return cacheShort
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.count(h.serve(w, r, false))
}

func (h *Handler) count(o Outcome) {
	for i := range outcomes {
		if outcomes[i] == o {
			h.served[i].Add(1)
		}
	}
}

// Greet sets what every answer has in its head, and answers requests that are about nothing to play: done.
func Greet(w http.ResponseWriter, r *http.Request) (o Outcome, done bool) {
	hd := w.Header()
	f := fields{header: hd, values: make([]string, 0, 2)}
	f.set("Access-Control-Allow-Origin", "*")
	f.set("Timing-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return Sent, false
	case http.MethodOptions:
		hd.Set("Access-Control-Allow-Methods", "GET, HEAD")
		hd.Set("Access-Control-Allow-Headers", "*")
		hd.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return Sent, true
	}
	hd.Set("Allow", "GET, HEAD, OPTIONS")
	return failStatus(w, BadMethod, http.StatusMethodNotAllowed, cacheNever, proto.Errorf(proto.InvalidArgument, "only GET, HEAD and OPTIONS are answered here")), true
}

// serve answers a player, or a node that serves players.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, upstream bool) Outcome {
	if o, done := Greet(w, r); done {
		return o
	}
	path, ok := ParsePath(r.URL.Path)
	if !ok {
		return NothingHere(w)
	}
	// Who may not play is not told either what runs.
	open, token := true, ""
	if path.File == IndexName {
		token, _ = playlist.Parameter(r.URL.RawQuery, "token")
		if a := h.cfg.Authorizer; a != nil && !upstream {
			var err error
			if open, err = a.AuthorizePlayback(r, path.Room, path.Stream, token); err != nil {
				return Refuse(w, err)
			}
		}
	}
	p, ok := h.programs.Program(path.Room, path.Stream)
	switch {
	case !ok:
		return NothingHere(w)
	case path.Media == "":
		return h.multivariant(w, r, p, token, open)
	}
	m, ok := p.Media(path.Media)
	switch {
	case !ok:
		return NothingHere(w)
	case path.File != IndexName:
		return h.object(w, r, m, path.File)
	}
	q, list, o := h.reload(w, r, m)
	switch {
	case list == nil:
		return o
	case upstream:
		return h.forEdge(w, r, m, list)
	}
	m.CountReload()
	return h.give(w, r, PlaylistAnswer(r, CacheOf(open, q.Blocking), list.Form(q.Skip)))
}

// patience is how long a request waits for the next part.
func (h *Handler) patience(m *packager.Media) time.Duration { return m.PartLength() + h.cfg.Grace }

// PlaylistAnswer is a playlist in the encoding that the client understands.
func PlaylistAnswer(r *http.Request, cache string, text *playlist.Form) Answer {
	a := Answer{ContentType: playlistType, Cache: cache, Tag: text.Tag(), Negotiated: true, Gzip: AcceptsGzip(r)}
	if a.Gzip {
		a.Chunks = [][]byte{text.Gzip()}
	} else {
		a.Chunks = [][]byte{text.Bytes()}
	}
	return a
}

// MultivariantAnswer is a multivariant playlist whose children get the viewer's token, if there is one; then it is that
// viewer's own.
func MultivariantAnswer(text []byte, open bool, token string) Answer {
	cache := cacheShort
	if !open || token != "" {
		cache = cacheNever
	}
	if token != "" {
		text = playlist.WithQuery(text, "token="+url.QueryEscape(token))
	}
	return Answer{ContentType: playlistType, Cache: cache, Tag: playlist.Tag(text), Chunks: [][]byte{text}}
}

// NothingHere says that there is nothing to play at a path.
func NothingHere(w http.ResponseWriter) Outcome {
	return fail(w, NotFound, cacheShort, proto.Errorf(proto.NotFound, "there is no such thing to play"))
}

// Refuse says why playback is not allowed: with the authorizer's code, if it is one for that.
func Refuse(w http.ResponseWriter, err error) Outcome {
	code := proto.CodeOf(err)
	switch code.HTTPStatus() {
	case http.StatusUnauthorized, http.StatusForbidden:
	case http.StatusNotFound:
		return NothingHere(w)
	default:
		code = proto.Unauthenticated
	}
	return fail(w, Unauthorized, cacheNever, proto.Errorf(code, "playback is not allowed with this token"))
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

// ComeBack tells the client to ask again soon: nothing is wrong with its request.
func ComeBack(w http.ResponseWriter, o Outcome) Outcome {
	if o == ClientGone {
		return o
	}
	w.Header().Set("Retry-After", "1")
	return fail(w, o, cacheNever, proto.Errorf(proto.Unavailable, "not yet, try again"))
}

func (h *Handler) multivariant(w http.ResponseWriter, r *http.Request, p *packager.Packager, token string, open bool) Outcome {
	select {
	case <-p.Ready():
	default:
		const start = 5 * time.Second // a program that was just started shows up within
		if o := h.await(r, p.Ready(), start); o != Sent {
			return ComeBack(w, o)
		}
	}
	b, ok := p.Multivariant()
	if !ok {
		return ComeBack(w, TimedOut)
	}
	return h.give(w, r, MultivariantAnswer(b, open, token))
}

// IndexName is that of all playlists.
const IndexName = "index.m3u8"

// playlistType is the media type of playlists.
const playlistType = "application/vnd.apple.mpegurl"

// reload waits for the playlist that a request asks for; nil: the request has been answered.
func (h *Handler) reload(w http.ResponseWriter, r *http.Request, m *packager.Media) (playlist.Reload, *packager.Published, Outcome) {
	q, err := playlist.ParseReload(r.URL.RawQuery)
	if err != nil {
		return q, nil, Malformed(w, err)
	}
	m.Touch(time.Now())
	p, o := h.until(r, m, q, h.patience(m))
	switch o {
	case Sent:
		return q, p, o
	case BadRequest:
		return q, nil, TooFar(w)
	}
	return q, nil, ComeBack(w, o)
}

// Malformed refuses a query that makes no sense.
func Malformed(w http.ResponseWriter, err error) Outcome {
	return fail(w, BadRequest, cacheShort, proto.Errorf(proto.InvalidArgument, "%v", err))
}

// TooFar refuses a reload that nothing will satisfy soon.
func TooFar(w http.ResponseWriter) Outcome {
	return fail(w, BadRequest, cacheShort, proto.Errorf(proto.InvalidArgument, "_HLS_msn or _HLS_part is too far ahead"))
}

// until waits for the playlist that q asks for, which may be several parts ahead; for each as long as wait.
func (h *Handler) until(r *http.Request, m *packager.Media, q playlist.Reload, wait time.Duration) (*packager.Published, Outcome) {
	for {
		p := m.Published()
		switch p.Check(q) {
		case playlist.Ready:
			return p, Sent
		case playlist.TooFar:
			return nil, BadRequest
		}
		if o := h.await(r, p.Next(), wait); o != Sent {
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

func (h *Handler) object(w http.ResponseWriter, r *http.Request, m *packager.Media, file string) Outcome {
	n, ok := packager.ParseName(file)
	if !ok {
		return NothingHere(w)
	}
	o, out := h.find(r, m, n, h.patience(m))
	switch out {
	case Sent:
	case NotFound:
		return NothingHere(w)
	default:
		return ComeBack(w, out)
	}
	contentType := "video/mp4"
	if n.Text {
		contentType = "text/vtt"
	}
	chunks, err := o.Read()
	if err != nil { // it left the disk this moment
		return NothingHere(w)
	}
	return h.give(w, r, Answer{ContentType: contentType, Cache: CacheForever, Tag: file, Chunks: chunks})
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

func (h *Handler) give(w http.ResponseWriter, r *http.Request, a Answer) Outcome {
	n, ok := a.Give(w, r)
	h.sent.Add(n)
	switch {
	case !ok:
		return ClientGone
	case n == 0 && r.Method == http.MethodGet:
		return NotModified
	}
	return Sent
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
