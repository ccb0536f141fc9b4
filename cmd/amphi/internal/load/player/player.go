package player

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi/internal/load/tally"
)

// Result is what one player measured.
type Result struct {
	// Started tells whether it came to playing; Startup is how long that took from the first request.
	Started bool
	Startup time.Duration
	// Stalls are times when the play head met the end of what was there.
	Stalls  int
	Stalled time.Duration
	// Latency is now - wall-clock time of the picture at the play head, sampled at each part.
	Latency tally.Histogram
	// Edge is the same at the moment when a part's download was complete, for its first sample: what the server's
	// side costs, whatever the player buffers.
	Edge tally.Histogram
	// Spread is, of a player in a crowd, how long after the first player it had each part; nil for others.
	Spread   *tally.Histogram
	Requests int
	Failures int
	// Gaps are parts that the playlist says are missing.
	Gaps  int
	Bytes int64
	// LastError is the newest failure.
	LastError error
}

// Config describes a player.
type Config struct {
	// URL of the multivariant playlist.
	URL    string
	Client *http.Client
	// Variant is the index of the variant to play; beyond the last it is the last.
	Variant int
	// Poll is the time between reloads while the stream isn't there or the server can't block; default 500 ms.
	Poll time.Duration
	// Sink gets each init section and part as it was downloaded: a file that plays. Nil: they are thrown away.
	Sink io.Writer
}

// Play follows the stream until ctx ends, and returns what it measured.
func Play(ctx context.Context, cfg Config) *Result {
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	if cfg.Poll == 0 {
		cfg.Poll = 500 * time.Millisecond
	}
	if cfg.Sink == nil {
		cfg.Sink = io.Discard
	}
	p := &playing{cfg: cfg, begun: time.Now(), msn: -1}
	for ctx.Err() == nil {
		err := p.follow(ctx)
		if errors.Is(err, errEnded) {
			break
		}
		if err != nil && ctx.Err() == nil {
			p.res.Failures++
			p.res.LastError = err
			p.variant = ""
			p.msn = -1
			pause(ctx, cfg.Poll)
		}
	}
	p.head.advance(time.Now(), &p.res)
	return &p.res
}

var errEnded = errors.New("the stream has ended")

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// playing is one player's state; it belongs to one goroutine.
type playing struct {
	cfg     Config
	begun   time.Time
	variant string // URL of the media playlist
	init    string // its init section, once fetched
	msn     int64  // the next part wanted; -1 not known yet
	index   int
	head    head
	res     Result
}

// follow loads the playlists and then part after part, until something fails or ctx ends.
func (p *playing) follow(ctx context.Context) error {
	if p.variant == "" {
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
	}
	for {
		target := p.variant
		if p.msn >= 0 {
			target += blocking(target, p.msn, p.index)
		}
		text, err := p.get(ctx, target)
		if err != nil {
			return err
		}
		m, err := parseMedia(text)
		if err != nil {
			return err
		}
		progress, err := p.take(ctx, m)
		if err != nil {
			return err
		}
		if m.Ended {
			return errEnded
		}
		if !m.Control.Block || !progress {
			pause(ctx, p.cfg.Poll)
		}
	}
}

func blocking(target string, msn int64, index int) string {
	sep := "?"
	if u, err := url.Parse(target); err == nil && u.RawQuery != "" {
		sep = "&"
	}
	return sep + "_HLS_msn=" + strconv.FormatInt(msn, 10) + "&_HLS_part=" + strconv.Itoa(index)
}

// take downloads what is new in m. It reports whether anything was.
func (p *playing) take(ctx context.Context, m *media) (bool, error) {
	if len(m.parts) == 0 {
		return false, nil
	}
	if p.msn < 0 || m.parts[0].msn > p.msn {
		// Start, or start again after falling out of the window: hold back from the live edge.
		first := m.parts[m.startPart()]
		p.msn, p.index = first.msn, first.index
		p.head.jump(first.start, m)
	}
	progress := false
	for _, x := range m.parts {
		if x.msn < p.msn || x.msn == p.msn && x.index < p.index {
			continue
		}
		if x.init != p.init {
			if _, err := p.download(ctx, x.init); err != nil {
				return progress, err
			}
			p.init = x.init
		}
		if x.gap {
			p.res.Gaps++
		} else if _, err := p.download(ctx, x.uri); err != nil {
			return progress, err
		}
		now := time.Now()
		p.res.Edge.Add(now.Sub(x.start))
		p.head.have(now, x.start.Add(x.duration), p.begun, &p.res)
		p.msn, p.index = x.msn, x.index+1
		if x.last {
			p.msn, p.index = x.msn+1, 0
		}
		progress = true
	}
	return progress, nil
}

func (p *playing) download(ctx context.Context, uri string) (int64, error) {
	target, err := resolve(p.variant, uri)
	if err != nil {
		return 0, err
	}
	res, err := p.request(ctx, target)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	n, err := io.Copy(p.cfg.Sink, io.LimitReader(res.Body, 64<<20))
	p.res.Bytes += n
	if err != nil {
		return n, fmt.Errorf("downloading %s: %w", uri, err)
	}
	return n, nil
}

func (p *playing) get(ctx context.Context, target string) ([]byte, error) {
	res, err := p.request(ctx, target)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxPlaylist+1))
	if err != nil {
		return nil, fmt.Errorf("reading a playlist: %w", err)
	}
	if len(data) > maxPlaylist {
		return nil, fmt.Errorf("a playlist of more than %d bytes", maxPlaylist)
	}
	p.res.Bytes += int64(len(data))
	return data, nil
}

func (p *playing) request(ctx context.Context, target string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	p.res.Requests++
	res, err := p.cfg.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("requesting %s: %w", target, err)
	}
	if res.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4096))
		_ = res.Body.Close()
		return nil, fmt.Errorf("%s answers %s", target, res.Status)
	}
	return res, nil
}

func resolve(base, ref string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("parsing %q: %w", base, err)
	}
	r, err := b.Parse(ref)
	if err != nil {
		return "", fmt.Errorf("parsing %q: %w", ref, err)
	}
	return r.String(), nil
}
