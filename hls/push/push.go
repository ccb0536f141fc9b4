// Package push sends one variant of a program live to one target elsewhere, over
// RTMP, RTMPS or SRT. A target that is slow or away loses pictures by whole groups;
// neither the program nor another target notices.
package push

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// Phase of a push.
type Phase string

// The phases. Failed and Stopped are final; Retrying goes on for as long as the program.
const (
	Connecting Phase = "connecting" // before the target first had anything
	Live       Phase = "live"
	Retrying   Phase = "retrying" // the target is away or refuses; tried again, with back-off
	Failed     Phase = "failed"   // given up; see Config.GiveUp
	Stopped    Phase = "stopped"  // the program or the push has ended
)

// State of a push.
type State struct {
	Phase  Phase
	Since  time.Time // of the phase
	Reason string    // why it is not live, or that the target is slow; holds no secret
	// Bytes and Frames (pictures) that were sent, over all connections. Dropped are pictures that were not, counted from
	// the first connection on, because the target was slow or away.
	Bytes, Frames, Dropped int64
	// Retries counts attempts to connect that failed and connections that broke.
	Retries int
}

// Config of a Pusher.
type Config struct {
	Logger *slog.Logger // default: slog.Default
	// URL of the target, see CheckURL. It holds secrets and is never logged nor told.
	URL string
	// Variant of the program, 0 the best. One that the program does not have means its last.
	Variant int
	// OnState is told when Phase or Reason change. It is called by the goroutine of Run and must not block.
	OnState func(State)
	// TLS says how RTMPS targets are verified; nil means by the system's roots. It may not switch verification off.
	TLS *tls.Config
	// DenyPrivate refuses targets at addresses that are not public: LANs, loopback. Link-local addresses, where clouds
	// keep credentials, are always refused.
	DenyPrivate bool
	// GiveUp ends the push when the target took nothing for so long; 0: never.
	GiveUp time.Duration
}

// How patient a Pusher is.
const (
	firstRetry     = 250 * time.Millisecond
	lastRetry      = 2 * time.Second // with the time to connect, a target that is back has its first picture within 5 s
	connectTimeout = 3 * time.Second // name, connection, handshakes
	stall          = 8 * time.Second // a write that takes longer ends the connection
	slowFor        = 10 * time.Second
	drain          = 2 * time.Second // for what is queued when the program ends
)

// Errors that callers branch on.
var (
	ErrBadURL = errors.New("bad push URL")
	ErrDenied = errors.New("address is not allowed")
	errGaveUp = errors.New("target took nothing for too long")
)

// Pusher pushes to one target. Begin, Takes, Video, Audio and End are those of an hls.Tap: called one at a time, they never
// block; the rest is safe for concurrent use.
type Pusher struct {
	cfg    Config
	target target
	log    *slog.Logger
	q      *queue

	run     packager.Run // of the tap's caller
	variant int          // of this run

	background sync.WaitGroup // what libraries are slow to end

	mu    sync.Mutex // guards the field below
	state State
}

// link is a connection to a target. Its methods but gone are called by one goroutine.
type link interface {
	// write sends one unit; it returns when the unit has left or the link is broken.
	write(u *unit) error
	// gone is closed when the other end has.
	gone() <-chan struct{}
	// trouble says what is wrong with a link that lives, if anything.
	trouble() string
	// close ends the link; what it leaves to Pusher.background ends soon.
	close()
}

// New makes a Pusher; it starts nothing. It returns ErrBadURL, wrapped.
func New(cfg Config) (*Pusher, error) {
	t, err := parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.TLS != nil && cfg.TLS.InsecureSkipVerify {
		return nil, errors.New("making a push: TLS without verification")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Pusher{cfg: cfg, target: t, log: cfg.Logger.With("target", t.redacted), q: newQueue()}
	p.state = State{Phase: Connecting, Since: time.Now(), Reason: "waiting for the program"}
	return p, nil
}

// State is the state now.
func (p *Pusher) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state
	s.Dropped = p.q.dropped()
	return s
}

// Begin implements hls.Tap.
func (p *Pusher) Begin(r packager.Run) {
	p.run = r
	p.variant = min(p.cfg.Variant, len(r.Variants)-1)
	p.q.begin(r.AudioConfig)
}

// Takes implements hls.Tap.
func (p *Pusher) Takes(variant int) bool { return variant == p.variant }

// Video implements hls.Tap.
func (p *Pusher) Video(_ int, tick int64, annexB []byte) {
	if p.run.FPS <= 0 {
		return
	}
	fps := int64(p.run.FPS)
	at := time.Duration(tick/fps)*time.Second + time.Duration(tick%fps)*time.Second/time.Duration(fps)
	p.q.video(p.run.Epoch.Add(at), annexB)
}

// Audio implements hls.Tap.
func (p *Pusher) Audio(sample int64, data []byte) {
	at := time.Duration(sample/packager.AudioRate)*time.Second +
		time.Duration(sample%packager.AudioRate)*time.Second/packager.AudioRate
	p.q.audio(p.run.Epoch.Add(at), data)
}

// End implements hls.Tap: what is queued still goes out, then Run returns.
func (p *Pusher) End() { p.q.close() }

// Run pushes until ctx or the program ends, which is no error, or until the Pusher gives up. It returns after its
// goroutines have.
func (p *Pusher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer p.background.Wait()
	defer cancel()
	if p.cfg.OnState != nil {
		p.cfg.OnState(p.State())
	}
	p.background.Go(func() { // a program that has ended gives the target a little longer
		select {
		case <-ctx.Done():
			return
		case <-p.q.closed():
		}
		t := time.NewTimer(drain)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
			cancel()
		}
	})
	err := p.attempts(ctx)
	if errors.Is(err, errGaveUp) {
		p.set(Failed, p.target.clean(err))
		return fmt.Errorf("pushing to %s: %w", p.target.redacted, err)
	}
	p.set(Stopped, "")
	return nil
}

// attempts connects, sends, and connects again. It returns nil when the program has ended or ctx has.
func (p *Pusher) attempts(ctx context.Context) error {
	wait := firstRetry
	lastLive := time.Now()
	for ctx.Err() == nil {
		if !p.q.waitKey(ctx) {
			return nil
		}
		began := time.Now()
		sent, err := p.attempt(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		if sent {
			lastLive = now
			if now.Sub(began) > slowFor {
				wait = firstRetry
			}
		}
		p.q.offline()
		p.failed(err)
		if p.cfg.GiveUp > 0 && now.Sub(lastLive) > p.cfg.GiveUp {
			return fmt.Errorf("%w: %w", errGaveUp, err)
		}
		if p.q.isClosed() || !sleep(ctx, jittered(wait)) {
			return nil // nobody would wait for it
		}
		wait = min(2*wait, lastRetry)
	}
	return nil
}

// jittered is between half of d and d, so that many pushes do not knock together.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt is one connection: sent says whether the target took anything; err is nil when the program has ended.
func (p *Pusher) attempt(ctx context.Context) (sent bool, err error) {
	l, err := p.dial(ctx)
	if err != nil {
		return false, err
	}
	defer l.close()
	p.q.online()
	slow := time.Time{}
	dropped := p.q.dropped()
	for {
		u, err := p.q.take(ctx, l.gone())
		if err != nil || u == nil {
			return sent, err
		}
		if err := l.write(u); err != nil {
			return sent, err
		}
		sent = true
		p.count(u)
		switch n := p.q.dropped(); {
		case n != dropped:
			dropped, slow = n, time.Now()
			p.set(Live, "target is slow: pictures are dropped")
		case time.Since(slow) > slowFor:
			p.set(Live, l.trouble())
		}
	}
}

func (p *Pusher) dial(life context.Context) (link, error) {
	ctx, cancel := context.WithTimeout(life, connectTimeout)
	defer cancel()
	guard := guard{denyPrivate: p.cfg.DenyPrivate}
	var l link
	var err error
	if p.target.scheme == schemeSRT {
		l, err = dialSRT(ctx, life, &p.target, guard, p.background.Go)
	} else {
		l, err = dialRTMP(ctx, life, &p.target, guard, p.cfg.TLS)
	}
	var dns *net.DNSError
	switch {
	case err == nil:
	case errors.As(err, &dns):
		err = errors.New("name of the target is not known")
	case ctx.Err() != nil:
		err = errors.New("target does not answer")
	}
	return l, err
}

func (p *Pusher) count(u *unit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Bytes += int64(len(u.data))
	if u.video {
		p.state.Frames++
	}
}

// failed notes an attempt that failed or a connection that broke.
func (p *Pusher) failed(err error) {
	p.mu.Lock()
	p.state.Retries++
	p.mu.Unlock()
	p.set(Retrying, p.target.clean(err))
}

// set changes phase and reason, and tells of it.
func (p *Pusher) set(phase Phase, reason string) {
	p.mu.Lock()
	if p.state.Phase == phase && p.state.Reason == reason {
		p.mu.Unlock()
		return
	}
	if p.state.Phase != phase {
		p.state.Since = time.Now()
	}
	p.state.Phase, p.state.Reason = phase, reason
	s := p.state
	p.mu.Unlock()
	s.Dropped = p.q.dropped()
	p.log.Info("push", "phase", phase, "reason", reason, "dropped", s.Dropped, "retries", s.Retries)
	if p.cfg.OnState != nil {
		p.cfg.OnState(s)
	}
}
