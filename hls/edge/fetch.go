package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/serve"
)

const (
	// maxObject bounds what an origin may answer, in bytes.
	maxObject = 64 << 20
	// objectTimeout bounds an upstream request for an object: it may wait for a part, and then take its time.
	objectTimeout = 15 * time.Second
	// retryAfter is how long after a failed upstream request the next one is.
	retryAfter = 100 * time.Millisecond
)

// answer is what an origin said.
type answer struct {
	status      int
	contentType string
	body        []byte
	// local: this node has become the origin meanwhile.
	local bool
}

var (
	errTooLarge   = errors.New("the origin's answer is too large")
	errNoPlaylist = errors.New("this is no playlist")
)

// asking is an upstream request under way.
type asking struct {
	room, stream, origin string
	cancel               context.CancelFunc
}

// ask asks an origin once. An answer with status 503 is one: the origin is there, but has nothing yet.
func (e *Edge) ask(ctx context.Context, o Origin, p serve.Path, query string, timeout time.Duration) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := &asking{p.Room, p.Stream, o.ID, cancel}
	e.mu.Lock()
	e.asks[a] = struct{}{}
	e.mu.Unlock()
	e.stats.upstream.Add(1)
	e.stats.requests.Add(1)
	defer func() {
		e.stats.upstream.Add(-1)
		e.mu.Lock()
		delete(e.asks, a)
		e.mu.Unlock()
	}()
	got, err := e.roundTrip(ctx, address(o, p, query))
	if err != nil {
		e.stats.failures.Add(1)
		return nil, fmt.Errorf("asking the origin %s: %w", o.ID, err)
	}
	return got, nil
}

func (e *Edge) roundTrip(ctx context.Context, url string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := e.cfg.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := readAll(res.Body, res.ContentLength)
	if err != nil {
		return nil, err
	}
	e.stats.bytesIn.Add(uint64(len(body)))
	return &answer{status: res.StatusCode, contentType: res.Header.Get("Content-Type"), body: body}, nil
}

// readAll reads a body, whose length is known as a rule.
func readAll(r io.Reader, length int64) ([]byte, error) {
	switch {
	case length > maxObject:
		return nil, errTooLarge
	case length >= 0:
		body := make([]byte, length)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	if err == nil && len(body) > maxObject {
		err = errTooLarge
	}
	return body, err
}

// flight is one fetch for all who want the same.
type flight struct {
	done   chan struct{}
	answer *answer // once done is closed; nil: there was none in time
}

// fly joins the fetch of a path, or starts it; nil: there are too many. joined: somebody else had started it.
func (e *Edge) fly(key string, p serve.Path, keep func(*answer)) (f *flight, joined bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flights[key]; f != nil {
		return f, true
	}
	if e.closed || len(e.flights) >= e.cfg.MaxUpstream {
		return nil, false
	}
	f = &flight{done: make(chan struct{})}
	e.flights[key] = f
	e.wg.Go(func() {
		f.answer = e.bring(p)
		if f.answer != nil && f.answer.status == http.StatusOK {
			keep(f.answer)
		}
		e.mu.Lock()
		delete(e.flights, key)
		e.mu.Unlock()
		close(f.done)
	})
	return f, false
}

// bring asks the origin, and again, or the one that takes over, while there is no answer. nil: not within the patience.
func (e *Edge) bring(p serve.Path) *answer {
	ctx, cancel := context.WithTimeout(e.base, e.cfg.Patience)
	defer cancel()
	for ctx.Err() == nil {
		o, ok := e.origins.Origin(p.Room, p.Stream)
		switch {
		case !ok:
			return &answer{status: http.StatusNotFound}
		case o.Local:
			return &answer{local: true}
		}
		a, err := e.ask(e.base, o, p, "", objectTimeout)
		switch {
		case err != nil:
			e.log.Debug("an upstream request failed", "err", err)
		case a.status < http.StatusInternalServerError:
			return a
		case a.status == http.StatusServiceUnavailable:
			return nil // it has waited as long as is good for players
		}
		pause(ctx, retryAfter)
	}
	return nil
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// object answers with a part, a segment or an init section.
func (e *Edge) object(w http.ResponseWriter, r *http.Request, p serve.Path) serve.Outcome {
	key := keyOf(p)
	o, ok := e.cache.get(key)
	if ok {
		e.stats.hits.Add(1)
		return e.giveObject(w, r, p, o.contentType, o.body)
	}
	if _, ok := packager.ParseName(p.File); !ok {
		return serve.NothingHere(w) // as the origin would say
	}
	f, joined := e.fly(key, p, func(a *answer) { e.cache.put(&object{key, a.contentType, a.body}) })
	if f == nil {
		return serve.ComeBack(w, serve.TooMany)
	}
	if joined {
		e.stats.shared.Add(1)
	} else {
		e.stats.misses.Add(1)
	}
	if out := e.await(r, f.done, e.cfg.Patience); out != serve.Sent {
		return serve.ComeBack(w, out)
	}
	a := f.answer
	switch {
	case a == nil:
		return serve.ComeBack(w, serve.TimedOut)
	case a.local:
		return e.pass(w, r)
	case a.status != http.StatusOK:
		return serve.NothingHere(w)
	}
	return e.giveObject(w, r, p, a.contentType, a.body)
}

func (e *Edge) giveObject(w http.ResponseWriter, r *http.Request, p serve.Path, contentType string, body []byte) serve.Outcome {
	return e.give(w, r, serve.Answer{ContentType: contentType, Cache: serve.CacheForever, Tag: p.File, Chunks: [][]byte{body}})
}

// pass has this node's own origin answer, which it has become meanwhile.
func (e *Edge) pass(w http.ResponseWriter, r *http.Request) serve.Outcome {
	e.local.ServeHTTP(w, r)
	return serve.Sent
}

// head is a multivariant playlist, without any token.
type head struct {
	text []byte
	at   time.Time
}

const (
	// headFresh is how old a multivariant playlist may be without another look at it, headStale how old while one is
	// under way: it hardly ever changes, and its children tell if the stream is there.
	headFresh = time.Second
	headStale = 30 * time.Second
)

func (e *Edge) multivariant(w http.ResponseWriter, r *http.Request, p serve.Path, open bool, token string) serve.Outcome {
	key, now := keyOf(p), time.Now()
	e.mu.Lock()
	h := e.heads[key]
	e.mu.Unlock()
	if h == nil || now.Sub(h.at) >= headFresh {
		f, _ := e.fly(key, p, func(a *answer) { e.keepHead(key, &head{a.body, time.Now()}) })
		switch {
		case h != nil && now.Sub(h.at) < headStale:
		case f == nil:
			return serve.ComeBack(w, serve.TooMany)
		default:
			if out := e.await(r, f.done, e.cfg.Patience); out != serve.Sent {
				return serve.ComeBack(w, out)
			}
			switch a := f.answer; {
			case a == nil:
				return serve.ComeBack(w, serve.TimedOut)
			case a.local:
				return e.pass(w, r)
			case a.status != http.StatusOK:
				return serve.NothingHere(w)
			default:
				h = &head{text: a.body}
			}
		}
	}
	return e.give(w, r, serve.MultivariantAnswer(h.text, open, token))
}

func (e *Edge) keepHead(key string, h *head) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heads[key] = h
}

func (e *Edge) forgetHeads(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, h := range e.heads {
		if now.Sub(h.at) > headStale {
			delete(e.heads, key)
		}
	}
}
