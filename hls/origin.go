// Package hls makes a room watchable by any number of people: it composes the
// stage into one program, packages it, and serves it as LL-HLS.
package hls

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/layout"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/serve"
	"github.com/amphi-sfu/amphi/hls/spill"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Config of an Origin.
type Config struct {
	Logger *slog.Logger // default: slog.Default
	// CompositorPath is the executable amphi-compositor. Required.
	CompositorPath string
	// CompositorEnv is the compositor's environment besides a minimal one.
	CompositorEnv []string
	// Limits of each compositor process.
	Limits compose.Limits
	// Watchdog is how long a compositor may be without a picture; default as in compose.Config.
	Watchdog time.Duration
	// Authorizer is asked about every playlist request; nil lets everybody in.
	Authorizer serve.Authorizer
	// OnState is told when a program's state changes, with the reason if there is one. It is
	// called from the program's goroutine and must not block or call the Origin.
	OnState func(room, stream string, s State, reason string)
	// MaxPrograms at once; default 16.
	MaxPrograms int
	// Cores is the CPU for programs: one that would need more, by what this node has learned, is refused. 0: no bound.
	Cores float64
	// Linger is how long the playlists of an ended program stay, so that players see its
	// end; default 60 s.
	Linger time.Duration
	// IdleAfter is how long nobody must have asked for a variant until it is encoded at one picture a part only; default 1 min.
	IdleAfter time.Duration
	// Pictures are for backgrounds and logos; nil: there are none.
	Pictures Pictures
	// SegmentDir is a folder of the Origin's own, for segments that viewers can go back to; empty: there are as many as
	// memory holds. MaxSegmentBytes bounds it; default as in spill.Config.
	SegmentDir      string
	MaxSegmentBytes int64
}

// Errors that callers branch on.
var (
	ErrRunning    = errors.New("stream is running already")
	ErrNotFound   = errors.New("no such stream")
	ErrTooMany    = errors.New("as many programs as this node may compose")
	ErrClosed     = errors.New("origin is closed")
	ErrBadRequest = errors.New("bad stream request")
)

// Origin composes and serves programs. Safe for concurrent use.
type Origin struct {
	cfg     Config
	log     *slog.Logger
	source  Source
	handler *serve.Handler
	disk    *spill.Disk     // nil: none
	base    context.Context // of all programs; ends with Run
	stop    context.CancelFunc
	wg      sync.WaitGroup // programs
	budget  budget

	mu       sync.Mutex // guards the fields below
	closed   bool
	programs map[key]*program
	ended    map[key]endedProgram
}

type key struct{ room, stream string }

type endedProgram struct {
	pack   *packager.Packager
	folder *spill.Folder // nil: none
	until  time.Time
}

// close takes away what is on disk.
func (e *endedProgram) close() {
	if e.folder != nil {
		e.folder.Close()
	}
}

// Rooms' names are compared without regard to case.
func keyOf(room, stream string) key { return key{strings.ToLower(room), stream} }

// New makes an Origin; it starts nothing.
func New(cfg Config, source Source) (*Origin, error) {
	if cfg.CompositorPath == "" || source == nil {
		return nil, errors.New("making an origin: no compositor path or no source")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxPrograms == 0 {
		cfg.MaxPrograms = 16
	}
	if cfg.IdleAfter == 0 {
		cfg.IdleAfter = idleAfter
	}
	if cfg.Linger == 0 {
		cfg.Linger = time.Minute
	}
	o := &Origin{cfg: cfg, log: cfg.Logger, source: source, budget: budget{cores: cfg.Cores}, programs: map[key]*program{}, ended: map[key]endedProgram{}}
	var err error
	o.handler, err = serve.New(serve.Config{Authorizer: cfg.Authorizer}, served{o})
	if err != nil {
		return nil, err
	}
	if cfg.SegmentDir != "" {
		if o.disk, err = spill.New(spill.Config{Logger: cfg.Logger, Dir: cfg.SegmentDir, MaxBytes: cfg.MaxSegmentBytes}); err != nil {
			o.log.Error("viewers can go back only as far as memory holds", "err", err)
		}
	}
	o.base, o.stop = context.WithCancel(context.Background())
	return o, nil
}

// Run keeps the Origin until ctx ends, then stops all programs and waits for them.
func (o *Origin) Run(ctx context.Context) error {
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	diskCtx, stopDisk := context.WithCancel(context.Background())
	var writer sync.WaitGroup
	defer writer.Wait()
	defer stopDisk() // after the programs
	if o.disk != nil {
		writer.Go(func() { _ = o.disk.Run(diskCtx) }) // it says itself what goes wrong
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-t.C:
			o.forget(now)
		}
	}
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.stop()
	o.wg.Wait()
	return nil
}

// forget drops ended programs that have lingered long enough.
func (o *Origin) forget(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, e := range o.ended {
		if now.After(e.until) {
			e.close()
			delete(o.ended, k)
		}
	}
}

// StartRequest asks for a program.
type StartRequest struct {
	Room, Stream string
	Settings     Settings
	Stage        Stage
	// After is where another origin's program of the stream may have come to, that players still watch.
	After After
}

// After is what a program begins above, behind a discontinuity: the epoch of the one before, and the first media and
// discontinuity sequence numbers that it certainly has not used. The zero value is no program.
type After struct{ Epoch, MSN, Discontinuity uint64 }

// Info is about a program that was started.
type Info struct {
	// Path of the multivariant playlist on this node.
	Path    string
	Epoch   uint64
	Started time.Time
	// FirstMSN is its first media sequence number, Segment how long each of its segments is.
	// FirstDiscontinuity is its first discontinuity sequence number.
	FirstMSN, FirstDiscontinuity uint64
	Segment                      time.Duration
}

func validName(s string) bool {
	ok, err := regexp.MatchString(`^[a-zA-Z0-9._-]{1,64}$`, s)
	return err == nil && ok && s != "." && s != ".."
}

// Start begins a program; it does not wait for the first picture. It returns ErrRunning,
// ErrTooMany, ErrClosed, ErrBadRequest or a *NoRoomError, wrapped.
func (o *Origin) Start(_ context.Context, r StartRequest) (Info, error) {
	if !validName(r.Room) || !validName(r.Stream) {
		return Info{}, fmt.Errorf("starting stream %q of room %q: %w: name", r.Stream, r.Room, ErrBadRequest)
	}
	settings, err := r.Settings.withDefaults()
	if err != nil {
		return Info{}, fmt.Errorf("starting a stream: %w: %w", ErrBadRequest, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	k := keyOf(r.Room, r.Stream)
	switch {
	case o.closed:
		return Info{}, ErrClosed
	case o.programs[k] != nil:
		return Info{}, ErrRunning
	}
	if err := o.admitLocked(&settings); err != nil {
		return Info{}, fmt.Errorf("starting a stream: %w", err)
	}
	p, err := o.newProgram(r, settings, o.ended[k].pack)
	if err != nil {
		return Info{}, fmt.Errorf("starting a stream: %w: %w", ErrBadRequest, err)
	}
	if before, ok := o.ended[k]; ok {
		before.close()
		delete(o.ended, k)
	}
	o.programs[k] = p
	ctx, cancel := context.WithCancel(o.base)
	p.cancel = cancel
	o.wg.Go(func() {
		defer cancel()
		defer close(p.done)
		p.run(ctx)
		o.retire(k, p)
	})
	cfg := p.pack.Config()
	return Info{Path: serve.Prefix + r.Room + "/" + r.Stream + "/index.m3u8", Epoch: p.epoch, Started: p.started,
		FirstMSN: cfg.FirstMSN, FirstDiscontinuity: cfg.FirstDiscontinuity, Segment: cfg.SegmentLength()}, nil
}

// retire moves a program that has ended to those that linger.
func (o *Origin) retire(k key, p *program) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.programs[k] == p {
		delete(o.programs, k)
		o.ended[k] = endedProgram{p.pack, p.folder, time.Now().Add(o.cfg.Linger)}
	}
}

// newProgram prepares a program; before is one of the same stream that players may
// still be watching.
func (o *Origin) newProgram(r StartRequest, s Settings, before *packager.Packager) (*program, error) {
	now := time.Now()
	part, segment := s.grid()
	length := time.Duration(segment) * time.Second / time.Duration(s.FPS)
	// Tick 0 is on a grid of the wall clock, and so are the numbers of segments: another
	// origin's program of the same stream then has the same grid and higher numbers.
	epoch := now.Add(now.Truncate(length).Sub(now.Round(0))) // keeps the monotonic reading
	cfg := packager.Config{
		Epoch: newEpoch(now), Start: epoch, FPS: s.FPS, PartTicks: part, SegmentTicks: segment,
		PartHoldBack: s.HoldBack, Window: s.Window, Variants: s.Variants, Captions: s.Captions, AudioBitrate: s.AudioBitrate,
		FirstMSN: uint64(epoch.UnixNano() / int64(length)),
	}
	if before != nil {
		st := before.Stats()
		cfg.Epoch = max(cfg.Epoch, before.Config().Epoch+1)
		cfg.FirstMSN = max(cfg.FirstMSN, st.NextMSN)
		cfg.FirstDiscontinuity, cfg.Continues = st.Discontinuity, true
	}
	if r.After != (After{}) {
		cfg.Epoch, cfg.FirstMSN = max(cfg.Epoch, r.After.Epoch+1), max(cfg.FirstMSN, r.After.MSN)
		cfg.FirstDiscontinuity, cfg.Continues = max(cfg.FirstDiscontinuity, r.After.Discontinuity), true
	}
	log := o.log.With("room", r.Room, "stream", r.Stream)
	folder := o.window(&cfg, s, length, log)
	p := &program{
		about: about{room: r.Room, stream: r.Stream, settings: s, epoch: cfg.Epoch, started: now}, log: log, source: o.source,
		wake: make(chan struct{}, 1), done: make(chan struct{}), stage: r.Stage.clone(), mode: s.Layout,
		options: s.Options, pictures: o.cfg.Pictures, folder: folder, idleAfter: o.cfg.IdleAfter, budget: &o.budget,
	}
	p.expected = o.budget.expect(s.cost(usualPeers, nil))
	if o.cfg.OnState != nil {
		p.onState = func(st State, why string) { o.cfg.OnState(r.Room, r.Stream, st, why) }
	}
	if err := p.assemble(cfg, &o.cfg, epoch); err != nil {
		if folder != nil {
			folder.Close()
		}
		return nil, err
	}
	return p, nil
}

// assemble makes the program's parts; they check what the settings say.
func (p *program) assemble(cfg packager.Config, o *Config, epoch time.Time) (err error) {
	if p.pack, err = packager.New(cfg); err != nil {
		return err
	}
	if p.arranger, err = layout.New(p.settings.Width, p.settings.Height); err != nil {
		return err
	}
	p.composer, err = compose.New(compose.Config{
		Logger: p.log, Path: o.CompositorPath, Env: o.CompositorEnv, Limits: o.Limits, Watchdog: o.Watchdog,
		Start: p.settings.start(), Epoch: epoch, FirstTick: p.firstTick,
	}, output{p})
	return err
}

// newEpoch is higher than one of an earlier millisecond, and not to be guessed from when the program began: who has no
// playlist shall not find the names of its objects, for which nobody is asked for a token.
func newEpoch(now time.Time) uint64 {
	var chance [4]byte
	_, _ = rand.Read(chance[:]) // never fails
	const bits = 22
	return uint64(now.UnixMilli())<<bits | uint64(binary.BigEndian.Uint32(chance[:])>>(32-bits))
}

// Stop ends a program and waits until its compositor has gone. Its playlists linger, so
// that players see the end.
func (o *Origin) Stop(ctx context.Context, room, stream string) error {
	p, err := o.find(room, stream)
	if err != nil {
		return err
	}
	p.cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SetStage replaces who a program shows. It does not block.
func (o *Origin) SetStage(room, stream string, s Stage) error {
	p, err := o.find(room, stream)
	if err == nil {
		p.setStage(s)
	}
	return err
}

// SetLayout changes how a program shows them: kind and options as a whole, nil options are the defaults. It does not block;
// options must not be written to afterwards.
func (o *Origin) SetLayout(room, stream string, m layout.Mode, options *amphiv1.LayoutOptions) error {
	if err := checkLook(m, options); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	p, err := o.find(room, stream)
	if err == nil {
		p.setLayout(m, options)
	}
	return err
}

// AddCue puts timed metadata into a program; the cue's time is one of the wall clock. It returns ErrNotFound or
// ErrBadRequest, wrapped.
func (o *Origin) AddCue(room, stream string, c packager.Cue) error {
	p, err := o.find(room, stream)
	if err != nil {
		return err
	}
	now := time.Now()
	c.At = p.programTime(now, c.At)
	if err := p.pack.AddCue(c, now); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return nil
}

// AddCaption puts a caption under a program's pictures; its times are of the wall clock. It returns ErrNotFound or
// ErrBadRequest, wrapped.
func (o *Origin) AddCaption(room, stream, language string, c packager.Caption) error {
	p, err := o.find(room, stream)
	if err != nil {
		return err
	}
	now := time.Now()
	c.Start, c.End = p.programTime(now, c.Start), p.programTime(now, c.End)
	if err := p.pack.AddCaption(language, c); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return nil
}

// NextMSN is the first media sequence number that a program has not used; 0: it does not run.
func (o *Origin) NextMSN(room, stream string) uint64 {
	p, err := o.find(room, stream)
	if err != nil {
		return 0
	}
	return p.pack.Stats().NextMSN
}

func (o *Origin) find(room, stream string) (*program, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.programs[keyOf(room, stream)]; p != nil {
		return p, nil
	}
	return nil, ErrNotFound
}

// Handler serves everything below serve.Prefix.
func (o *Origin) Handler() http.Handler { return o.handler }

// Upstream serves the same to nodes of the deployment that serve players (hls/edge).
func (o *Origin) Upstream() http.Handler { return o.handler.Upstream() }

// served is what the handler sees of the Origin.
type served struct{ o *Origin }

// Program implements serve.Programs.
func (s served) Program(room, stream string) (*packager.Packager, bool) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	k := keyOf(room, stream)
	if p := s.o.programs[k]; p != nil {
		return p.pack, true
	}
	e, ok := s.o.ended[k]
	return e.pack, ok
}
