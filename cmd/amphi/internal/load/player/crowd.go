package player

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/tally"
)

// Crowd is any number of players that cost little: each reads the playlists once, then asks for the part after the newest
// and downloads it, whose name it knows from the one before. It also tells how far apart the players have the same part.
type Crowd struct {
	scratch *scratch

	mu     sync.Mutex // guards the fields below
	first  map[place]time.Time
	newest int64
}

// place is a part's.
type place struct {
	msn   int64
	index int
}

// NewCrowd makes a crowd of nobody.
func NewCrowd() *Crowd { return &Crowd{scratch: newScratch(), first: map[place]time.Time{}} }

// keepFirsts is for how many segments the first arrival of parts is known.
const keepFirsts = 8

// behind is how long after the first player this one has a part.
func (c *Crowd) behind(at place, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, ok := c.first[at]
	if !ok {
		c.first[at] = now
		if at.msn > c.newest {
			c.newest = at.msn
			for p := range c.first {
				if p.msn < c.newest-keepFirsts {
					delete(c.first, p)
				}
			}
		}
		return 0
	}
	return now.Sub(first)
}

// Play follows the stream until ctx ends; of the result Latency and the stalls are not measured. From when on arrivals
// count is told by counts, which is asked for every part.
func (c *Crowd) Play(ctx context.Context, cfg Config, counts func() bool) *Result {
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	if cfg.Poll == 0 {
		cfg.Poll = 500 * time.Millisecond
	}
	cfg.Sink = io.Discard
	p := &playing{cfg: cfg, begun: time.Now(), msn: -1}
	p.res.Spread = &tally.Histogram{}
	for ctx.Err() == nil {
		err := c.follow(ctx, p, counts)
		if errors.Is(err, errEnded) {
			break
		}
		if ctx.Err() == nil {
			p.res.Failures++
			p.res.LastError = err
			pause(ctx, cfg.Poll)
		}
	}
	return &p.res
}

// follow begins at the live edge, and goes on until something fails.
func (c *Crowd) follow(ctx context.Context, p *playing, counts func() bool) error {
	text, err := p.get(ctx, p.cfg.URL)
	if err != nil {
		return err
	}
	variants, err := parseMultivariant(text)
	if err != nil {
		return err
	}
	if p.variant, err = resolve(p.cfg.URL, variants[min(p.cfg.Variant, len(variants)-1)]); err != nil {
		return err
	}
	if text, err = p.get(ctx, p.variant); err != nil {
		return err
	}
	m, err := parseMedia(text)
	if err != nil {
		return err
	}
	epoch, newest, per, err := m.edge()
	if err != nil {
		return err
	}
	if _, err := p.download(ctx, newest.init); err != nil {
		return err
	}
	p.res.Started, p.res.Startup = true, time.Since(p.begun)
	list, err := url.Parse(p.variant)
	if err != nil {
		return fmt.Errorf("parsing the playlist's URL: %w", err)
	}
	l, err := dial(ctx, list)
	if err != nil {
		return err
	}
	defer l.close()
	reload, folder := list.RequestURI(), list.EscapedPath()
	folder = folder[:strings.LastIndexByte(folder, '/')+1]
	for at := (place{newest.msn, newest.index}); ; {
		if at.index++; at.index == per {
			at = place{at.msn + 1, 0}
		}
		if err := c.drain(l, p, reload+blocking(reload, at.msn, at.index)+"&_HLS_skip=YES"); err != nil {
			return err
		}
		if err := c.drain(l, p, fmt.Sprintf("%s%s-%d.%d.m4s", folder, epoch, at.msn, at.index)); err != nil {
			return err
		}
		if counts() {
			p.res.Spread.Add(c.behind(at, time.Now()))
		}
	}
}

// drain asks for something, as compressed as it comes, and throws it away.
func (c *Crowd) drain(l *line, p *playing, target string) error {
	p.res.Requests++
	n, err := l.discard(target, c.scratch)
	p.res.Bytes += n
	return err
}

// epochOf is what the names of a program's objects begin with; empty: it is none of ours.
func epochOf(uri string) string {
	epoch, _, _ := strings.Cut(uri, "-")
	if _, err := strconv.ParseUint(epoch, 10, 64); err != nil {
		return ""
	}
	return epoch
}
