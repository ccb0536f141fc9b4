// Package record keeps programs: fragmented MP4 while they run, so that a crash costs what was not yet a part, and a
// progressive MP4, a VOD playlist, thumbnails and a chat log in the end.
package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
	"github.com/amphi-sfu/amphi/hls/packager"
)

// Source gives the published parts of programs, of the variants that takes tells and of the audio; the origin is one. f must not be called after remove has returned, and not at
// the same time; it does not block. f(nil) says that the program has ended.
type Source interface {
	TapParts(room, stream string, takes func(name string, variant int) bool, f func(*packager.Part)) (remove func(), err error)
}

// Config of a Recorder. Dir and Source are needed.
type Config struct {
	Logger *slog.Logger
	// Dir is where each recording has a directory; made if missing. No other Recorder has the same.
	Dir    string
	Source Source
	// QueueBytes is how much of a recording waits for a slow disk; default 32 MiB, beyond it parts are missing.
	QueueBytes int64
	// MaxRecordings run at once; default 32.
	MaxRecordings int
	// Thumbnail makes a JPEG of an access unit (H.264, Annex B) that decodes by itself. Nil: there are no thumbnails.
	Thumbnail func(ctx context.Context, annexB []byte) ([]byte, error)
	// OnState is called when a recording's phase or reason changes, OnAsset when a file is complete; again after a restart, until
	// it is Stored. One call at a time for each recording, from its goroutine: they may block it, not the program.
	OnState func(id string, s State)
	OnAsset func(Asset)
	// Now is the clock of what is noted; default time.Now.
	Now func() time.Time

	create func(path string) (file, error)
	retry  time.Duration // between attempts at making files
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Source == nil {
		return c, errors.New("recorder without a directory or a source")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.QueueBytes <= 0 {
		c.QueueBytes = 32 << 20
	}
	if c.MaxRecordings <= 0 {
		c.MaxRecordings = 32
	}
	if c.OnState == nil {
		c.OnState = func(string, State) {}
	}
	if c.OnAsset == nil {
		c.OnAsset = func(Asset) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.retry == 0 {
		c.retry = retryEvery
	}
	if c.create == nil {
		c.create = createFile
	}
	return c, nil
}

// Recorder has the recordings of a node. Safe for concurrent use. Run must be called once.
type Recorder struct {
	cfg       Config
	base      context.Context // ends with Run
	end       context.CancelFunc
	finishing chan struct{} // a place for the one recording that is being finished
	shelf     sync.Mutex    // guards manifests of finished recordings

	mu      sync.Mutex // guards the fields below
	running map[string]*recording
	closed  bool
	wg      sync.WaitGroup // of recordings
}

// New makes a Recorder and its directory.
func New(cfg Config) (*Recorder, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("making a recorder: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("making a recorder: %w", err)
	}
	r := &Recorder{cfg: cfg, finishing: make(chan struct{}, 1), running: map[string]*recording{}}
	r.base, r.end = context.WithCancel(context.Background())
	return r, nil
}

// Run waits for ctx. Recordings that run then are closed and left for Recover of the next start; it returns when all goroutines have.
func (r *Recorder) Run(ctx context.Context) error {
	<-ctx.Done()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.wg.Wait()
	return nil
}

// Start begins to record a running program, with its next keyframe. It returns ErrBadRequest, ErrExists, ErrTooMany, ErrClosed or the
// Source's error, wrapped, or what the disk says.
func (r *Recorder) Start(req Request) error {
	req, err := req.withDefaults()
	if err != nil {
		return err
	}
	c := &recording{
		r: r, dir: filepath.Join(r.cfg.Dir, req.ID), queue: newQueue(r.cfg.QueueBytes),
		log:      r.cfg.Logger.With("recording", req.ID, "room", req.Room, "stream", req.Stream),
		manifest: manifest{Request: req, Started: r.cfg.Now()},
		tapes:    map[string]*tape{}, files: map[string]*files{},
	}
	if err := r.admit(c, r.cfg.MaxRecordings); err != nil {
		return fmt.Errorf("starting recording %s: %w", req.ID, err)
	}
	if err := c.begin(); err != nil {
		r.forget(c)
		r.wg.Done()
		return fmt.Errorf("starting recording %s: %w", req.ID, err)
	}
	return nil
}

// admit takes one of so many places, which r.wg counts.
func (r *Recorder) admit(c *recording, places int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.running[c.manifest.Request.ID] != nil:
		return ErrExists
	case len(r.running) >= places:
		return ErrTooMany
	}
	r.running[c.manifest.Request.ID] = c
	r.wg.Add(1)
	return nil
}

func (r *Recorder) forget(c *recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, c.manifest.Request.ID)
}

// begin makes the directory and starts the goroutine.
func (c *recording) begin() error {
	if err := os.Mkdir(c.dir, 0o750); errors.Is(err, fs.ErrExist) {
		return ErrExists
	} else if err != nil {
		return err
	}
	if err := errors.Join(c.manifest.save(c.dir), durable.Sync(c.r.cfg.Dir)); err != nil {
		return errors.Join(err, os.RemoveAll(c.dir))
	}
	remove, err := c.r.cfg.Source.TapParts(c.manifest.Request.Room, c.manifest.Request.Stream, c.manifest.Request.wants, c.part)
	if err != nil {
		return errors.Join(err, os.RemoveAll(c.dir))
	}
	go func() {
		defer c.r.wg.Done()
		defer c.r.forget(c)
		c.phase(Starting, "")
		reason, aborted := c.run(c.r.base.Done())
		remove()
		c.close()
		if aborted {
			return
		}
		c.manifest.Ended = c.r.cfg.Now()
		c.finish(reason)
	}()
	return nil
}

// Recover finishes what was running or being finished when the process before ended. It returns the requests of those; their states and assets are
// told as they are finished, and so are assets of earlier ones that are not Stored. Call it once, before the first Start.
func (r *Recorder) Recover() ([]Request, error) {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("recovering recordings: %w", err)
	}
	var found []Request
	var faults []error
	for _, e := range entries {
		if !e.IsDir() || !nameOK(e.Name()) {
			continue
		}
		dir := filepath.Join(r.cfg.Dir, e.Name())
		m, err := loadManifest(dir)
		if errors.Is(err, fs.ErrNotExist) { // killed before anything was recorded
			_ = os.Remove(dir) // unless there is something else in it
			continue
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if m.Request.ID != e.Name() {
			continue
		}
		if m.Finished && len(m.left()) == 0 { // killed before it was removed
			faults = append(faults, removeRecording(dir))
			continue
		}
		c := &recording{r: r, dir: dir, manifest: *m, log: r.cfg.Logger.With("recording", m.Request.ID, "room", m.Request.Room)}
		c.queue = newQueue(0)
		if err := r.admit(c, math.MaxInt); err != nil { // however many wait for the storage
			faults = append(faults, err)
			continue
		}
		if !m.Finished {
			found = append(found, m.Request)
		}
		go func() {
			defer r.wg.Done()
			defer r.forget(c)
			if m.Finished {
				c.announce()
				return
			}
			c.finish("the node was restarted")
		}()
	}
	if err := errors.Join(faults...); err != nil {
		return found, fmt.Errorf("recovering recordings: %w", err)
	}
	return found, nil
}

// Pause leaves out what comes until Resume; the time is closed up. It returns ErrNotFound.
func (r *Recorder) Pause(id string) error { return r.do(id, pause) }

// Resume goes on with the next keyframe. It returns ErrNotFound.
func (r *Recorder) Resume(id string) error { return r.do(id, resume) }

// Stop ends a recording, whose files are then made; its state tells. It returns ErrNotFound.
func (r *Recorder) Stop(id string) error { return r.do(id, stop) }

func (r *Recorder) do(id string, a action) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	c.queue.push(item{do: a})
	return nil
}

func (r *Recorder) find(id string) (*recording, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.running[id]
	if c == nil {
		return nil, fmt.Errorf("recording %q: %w", id, ErrNotFound)
	}
	return c, nil
}

// MaxNote is the longest note, in bytes.
const MaxNote = 64 << 10

// Note adds a JSON value to the chat log, with the time in the recording. It returns ErrNotFound, or ErrBadRequest for what is no JSON or too long.
func (r *Recorder) Note(id string, data []byte) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if len(data) > MaxNote || !json.Valid(data) {
		return fmt.Errorf("%w: note of %d bytes", ErrBadRequest, len(data))
	}
	c.queue.push(item{note: append([]byte(nil), data...), at: r.cfg.Now()})
	return nil
}

// State of a recording that runs or is being finished; ErrNotFound for others.
func (r *Recorder) State(id string) (State, error) {
	c, err := r.find(id)
	if err != nil {
		return State{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, nil
}

// Dir is where the files of a recording are.
func (r *Recorder) Dir(id string) string { return filepath.Join(r.cfg.Dir, id) }
