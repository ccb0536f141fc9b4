package validate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Config says what to follow.
type Config struct {
	// URL of the multivariant playlist. Required; it may carry a token.
	URL string
	// Client makes the requests; default http.DefaultClient.
	Client *http.Client
	// PlaylistsOnly leaves parts and segments alone.
	PlaylistsOnly bool
}

// maxObject bounds what is read of one object.
const maxObject = 64 << 20

// follower fetches what a player would, of all media playlists at once.
type follower struct {
	cfg     Config
	base    *url.URL
	checker *Checker
}

// Follow plays a live stream, all its media playlists at once, until ctx ends or the stream does, and judges what
// it gets. An error says that there was nothing to judge.
func Follow(ctx context.Context, cfg Config) (*Checker, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("checking a stream: %w", err)
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	f := &follower{cfg: cfg, base: base, checker: New()}
	body, status, err := f.get(ctx, base)
	if err != nil {
		return nil, fmt.Errorf("checking a stream: %w", err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("checking a stream: %s: status %d", base.Redacted(), status)
	}
	p := f.checker.Multivariant(body)
	if p == nil {
		return f.checker, nil
	}
	var wg sync.WaitGroup
	seen := map[string]bool{"": true}
	follow := func(uri string) {
		if !seen[uri] {
			seen[uri] = true
			wg.Go(func() { f.follow(ctx, uri) })
		}
	}
	for _, v := range p.Variants {
		follow(v.URI)
	}
	for _, r := range p.Renditions {
		follow(r.URI)
	}
	wg.Wait()
	f.checker.Finish()
	return f.checker, nil
}

func (f *follower) get(ctx context.Context, u *url.URL) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	res, err := f.cfg.Client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, maxObject+1))
	if err == nil && len(body) > maxObject {
		err = fmt.Errorf("%s is longer than %d bytes", u.Redacted(), maxObject)
	}
	return body, res.StatusCode, err
}

// fetched remembers what one media playlist's follower has asked for.
type fetched struct {
	*follower
	name  string
	url   *url.URL
	inits map[string]bool
	done  map[place]bool
	first bool
}

// follow reloads one media playlist until it or ctx ends.
func (f *follower) follow(ctx context.Context, name string) {
	u, err := f.base.Parse(name)
	if err != nil {
		f.checker.Missing(name, name, err.Error())
		return
	}
	x := &fetched{follower: f, name: name, url: u, inits: map[string]bool{}, done: map[place]bool{}, first: true}
	var p *Playlist
	for n := 0; ctx.Err() == nil; n++ {
		q := next(p, n)
		body, status, err := f.get(ctx, x.address(q))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil || status != http.StatusOK && status != http.StatusServiceUnavailable:
			f.checker.Missing(name, "playlist", reason(status, err))
			pause(ctx, time.Second)
			continue
		case status == http.StatusServiceUnavailable: // nothing new yet: ask again, for all of it
			p = nil
			pause(ctx, 250*time.Millisecond)
			continue
		}
		now := f.checker.Media(name, time.Now(), q, body)
		if now == nil {
			p = nil
			pause(ctx, time.Second)
			continue
		}
		if !f.cfg.PlaylistsOnly {
			x.objects(ctx, now)
		}
		if now.Ended {
			return
		}
		switch {
		case !now.Control.Block:
			pause(ctx, time.Duration(now.Target)*time.Second)
		case len(now.Segments) == 0 || p != nil && now.sameEnd(p): // a server that should have waited, but did not
			pause(ctx, 250*time.Millisecond)
		}
		p = now
	}
}

func reason(status int, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("status %d", status)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// next is the request for what comes after p. Whole playlists and delta updates take turns.
func next(p *Playlist, n int) Request {
	if p == nil || !p.Control.Block || len(p.Segments) == 0 {
		return Request{Part: -1}
	}
	q := Request{Blocking: true, Part: -1, Skip: p.Control.SkipUntil > 0 && n%4 != 0}
	last := &p.Segments[len(p.Segments)-1]
	q.MSN = last.MSN + 1
	if p.PartTarget > 0 {
		q.Part = 0
		if last.Open() {
			q.MSN, q.Part = last.MSN, len(last.Parts)
		}
	}
	return q
}

func (x *fetched) address(q Request) *url.URL {
	u := *x.url
	v := u.Query()
	if q.Blocking {
		v.Set("_HLS_msn", strconv.FormatUint(q.MSN, 10))
		if q.Part >= 0 {
			v.Set("_HLS_part", strconv.Itoa(q.Part))
		}
	}
	if q.Skip {
		v.Set("_HLS_skip", "YES")
	}
	u.RawQuery = v.Encode()
	return &u
}

// objects fetches what is new. Of the first playlist only the end: the beginning may be about to leave the window.
func (x *fetched) objects(ctx context.Context, p *Playlist) {
	from := 0
	if x.first {
		from, x.first = max(0, len(p.Segments)-3), false
	}
	for i := from; i < len(p.Segments) && ctx.Err() == nil; i++ {
		s := &p.Segments[i]
		if s.Map != "" && !x.inits[s.Map] {
			x.inits[s.Map] = true
			if body := x.object(ctx, s.Map); body != nil {
				x.checker.Init(x.name, s.Map, body)
			}
		}
		for k, part := range s.Parts {
			if at := (place{s.MSN, k}); !part.Gap && !x.done[at] && !x.done[place{s.MSN, -1}] {
				x.done[at] = true
				if body := x.object(ctx, part.URI); body != nil {
					x.checker.Object(x.name, s.MSN, k, body)
				}
			}
		}
		if at := (place{s.MSN, -1}); !s.Open() && !s.Gap && !x.done[at] {
			x.done[at] = true
			if body := x.object(ctx, s.URI); body != nil {
				x.checker.Object(x.name, s.MSN, -1, body)
			}
		}
	}
	for at := range x.done {
		if at.msn+1 < p.Sequence {
			delete(x.done, at)
		}
	}
}

func (x *fetched) object(ctx context.Context, uri string) []byte {
	u, err := x.url.Parse(uri)
	if err == nil {
		var body []byte
		var status int
		if body, status, err = x.get(ctx, u); err == nil && status == http.StatusOK {
			return body
		} else if err == nil {
			err = fmt.Errorf("status %d", status)
		}
	}
	if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		x.checker.Missing(x.name, uri, err.Error())
	}
	return nil
}
