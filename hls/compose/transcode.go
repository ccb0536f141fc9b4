package compose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/wire"
)

const (
	// maxSourceQueue bounds the bytes that wait for a transcoder; beyond it pictures are dropped up to the next keyframe, and sound.
	maxSourceQueue = 8 << 20
	// maxLives is how many transcoders in a row may end within goodLife of their start, until it is given up.
	maxLives = 5
	// unread is how long the process may leave what it is sent unread.
	unread = 10 * time.Second
)

// ErrTranscoder is returned, wrapped, when the transcoder does not live.
var ErrTranscoder = errors.New("transcoder does not live")

// TranscodeConfig of a Transcoder.
type TranscodeConfig struct {
	Logger *slog.Logger // default: slog.Default
	// Path of the program amphi-compositor, Env what it gets besides a minimal environment. Both as in Config.
	Path   string
	Env    []string
	Limits Limits
	// Transcode says what comes and what is wanted.
	Transcode wire.Transcode
	// OnUnit takes what comes out: wire.TypeTargetVideo or wire.TypeTargetAudio. It is called from one goroutine; the bytes are
	// valid during the call only.
	OnUnit func(wire.Type, wire.Unit)
	// OnEnd, if not nil, is told of each process that ended though nobody had asked for it; ErrQuiet, wrapped, for those that were
	// ended because nothing came out of them.
	OnEnd func(error)
}

// Transcoder runs amphi-compositor to transcode what one publisher sends. When the process dies another one takes over, at
// the next keyframe. Its methods are safe for concurrent use, and those that write never block.
type Transcoder struct {
	cfg   TranscodeConfig
	child *Child // for its way to start a process
	wake  chan struct{}
	// unread and look are the constants, but for tests.
	unread, look time.Duration

	mu           sync.Mutex // guards the fields below
	queue        []byte     // for the process that is there, or the next one
	waiting      bool       // for a keyframe
	dropped      int64
	keyed        bool  // a keyframe has come for the process that is there
	video, audio quiet // of that process
}

// NewTranscoder makes a Transcoder; it starts nothing.
func NewTranscoder(cfg TranscodeConfig) (*Transcoder, error) {
	if cfg.Path == "" || cfg.OnUnit == nil {
		return nil, errors.New("making a transcoder: no path or nobody who takes what it makes")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Limits = cfg.Limits.withDefaults()
	c := &Child{cfg: Config{Path: cfg.Path, Args: []string{"--transcode"}, Env: cfg.Env, Limits: cfg.Limits}, log: cfg.Logger}
	return &Transcoder{cfg: cfg, child: c, wake: make(chan struct{}, 1), unread: unread, look: quietLook}, nil
}

// WriteVideo takes an access unit, in decoding order; key says that it decodes by itself.
func (t *Transcoder) WriteVideo(at time.Duration, key bool, annexB []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keyed = t.keyed || key; t.keyed {
		t.video.in++
	}
	if t.waiting && !key {
		t.dropped++
		return
	}
	t.waiting = !t.addLocked(wire.TypeSourceVideo, wire.Unit{Time: at, Data: annexB})
}

// WriteAudio takes an access unit.
func (t *Transcoder) WriteAudio(at time.Duration, au []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.audio.in++
	t.addLocked(wire.TypeSourceAudio, wire.Unit{Time: at, Data: au})
}

func (t *Transcoder) addLocked(typ wire.Type, u wire.Unit) bool {
	if len(t.queue)+len(u.Data) > maxSourceQueue {
		t.dropped++
		return false
	}
	b, err := wire.AppendUnit(t.queue, typ, u)
	if err != nil {
		t.dropped++
		return false
	}
	t.queue = b
	t.poke()
	return true
}

// ForceKeyframe makes the next picture that comes out a keyframe.
func (t *Transcoder) ForceKeyframe() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) < maxSourceQueue {
		t.queue = wire.AppendForceKeyframe(t.queue)
		t.poke()
	}
}

func (t *Transcoder) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Dropped counts access units that were left out because the process was away or too slow.
func (t *Transcoder) Dropped() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped
}

// Run transcodes until ctx ends (nil). It returns ErrTranscoder, wrapped, when processes keep dying.
func (t *Transcoder) Run(ctx context.Context) error {
	short := 0
	for ctx.Err() == nil {
		begun := time.Now()
		err := t.live(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if short++; time.Since(begun) > goodLife {
			short = 0
		}
		if t.cfg.OnEnd != nil {
			t.cfg.OnEnd(err)
		}
		t.cfg.Logger.Warn("transcoder ended", "err", err, "lived", time.Since(begun).Round(time.Millisecond))
		if short >= maxLives {
			return fmt.Errorf("%w: %w", ErrTranscoder, err)
		}
		if !sleep(ctx, time.Duration(short)*minBackoff) {
			return nil
		}
	}
	return nil
}

// live runs one process to its end.
func (t *Transcoder) live(ctx context.Context) error {
	conn, childEnd, err := wire.Pair()
	if err != nil {
		return err
	}
	dead := make(chan struct{})
	p, err := t.child.spawn(childEnd, dead)
	_ = childEnd.Close()
	if err != nil {
		_ = conn.Close()
		return err
	}
	first, err := wire.AppendTranscode(nil, &t.cfg.Transcode)
	if err != nil {
		p.kill()
	}
	t.mu.Lock()
	t.queue = append(first, t.queue...)
	t.mu.Unlock()
	t.poke()

	ending, broken := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var cause error // why the connection broke
	breaks := func(err error) {
		once.Do(func() {
			cause = err
			_ = conn.Close()
			close(broken)
		})
	}
	var wg sync.WaitGroup
	wg.Go(func() { t.write(conn, ending, breaks) })
	wg.Go(func() { breaks(t.read(conn)) })
	if err := t.watch(ctx, dead, broken); err != nil {
		breaks(err)
		p.kill() // it may be stopped, and not see that we hang up
	}
	close(ending)
	timer := time.AfterFunc(time.Second, p.kill)
	defer timer.Stop()
	_ = conn.Close() // the process ends by itself
	<-dead
	wg.Wait()
	t.mu.Lock()
	t.queue, t.waiting = nil, true // the next one has not heard the beginning
	t.keyed, t.video, t.audio = false, quiet{}, quiet{}
	t.mu.Unlock()
	if exit := p.exit(); exit != "" {
		return fmt.Errorf("%s: %w", exit, cause)
	}
	return cause
}

// watch waits for the end of a process or of the connection to it (nil), or of patience with it.
func (t *Transcoder) watch(ctx context.Context, dead, broken <-chan struct{}) error {
	look := time.NewTicker(t.look)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-dead:
			return nil
		case <-broken:
			return nil
		case <-look.C:
			if what := t.quiet(); what != "" {
				return fmt.Errorf("no %s came: %w", what, ErrQuiet)
			}
		}
	}
}

// quiet names what has been missing for too long; "" for nothing.
func (t *Transcoder) quiet() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	video, audio := t.video.look(), t.audio.look()
	switch {
	case video && t.cfg.Transcode.Video:
		return "picture"
	case audio && len(t.cfg.Transcode.AudioConfig) > 0:
		return "sound"
	}
	return ""
}

// write sends what is queued until the connection closes.
func (t *Transcoder) write(conn net.Conn, ending <-chan struct{}, breaks func(error)) {
	var spare []byte
	for {
		select {
		case <-ending:
			return
		case <-t.wake:
		}
		t.mu.Lock()
		b := t.queue
		t.queue = spare[:0]
		t.mu.Unlock()
		if len(b) > 0 {
			err := conn.SetWriteDeadline(time.Now().Add(t.unread))
			if err == nil {
				_, err = conn.Write(b)
			}
			if err != nil {
				breaks(fmt.Errorf("writing to the transcoder: %w", err))
				return
			}
		}
		spare = b
	}
}

// read hands on what the process makes until the connection closes.
func (t *Transcoder) read(conn net.Conn) error {
	r := wire.NewReader(conn)
	for {
		f, err := r.Next()
		if err != nil {
			return err
		}
		u, err := f.Unit()
		if err != nil || f.Type != wire.TypeTargetVideo && f.Type != wire.TypeTargetAudio {
			return fmt.Errorf("frame type %d: %w", f.Type, wire.ErrMalformed)
		}
		t.mu.Lock()
		if f.Type == wire.TypeTargetVideo {
			t.video.out++
		} else {
			t.audio.out++
		}
		t.mu.Unlock()
		t.cfg.OnUnit(f.Type, u)
	}
}
