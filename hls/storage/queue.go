package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
)

// Job is what is uploaded together.
type Job struct {
	// ID is unique; another job that is added with the same one replaces the first, the same one goes on with what is stored of it.
	ID    string `json:"id"`
	Files []File `json:"files"`
	// Note is the caller's, a JSON value; OnDone gets it back, also after a restart.
	Note json.RawMessage `json:"note,omitempty"`
	// Remove has the files removed here when all of them are stored.
	Remove bool `json:"remove,omitempty"`
}

// File is one file of a job. They are uploaded in this order, so a playlist comes last.
type File struct {
	Path        string `json:"path"`
	Key         string `json:"key"`
	ContentType string `json:"content_type"`
}

// maxFiles of a job.
const maxFiles = 10_000

// Status of a queue and its storage.
type Status struct {
	Health Health
	Reason string // why it is not OK
	Since  time.Time
	// Pending jobs, the one that is under way included.
	Pending int
	// Stored counts files since the start, Failures attempts that failed.
	Stored, Failures int64
}

// QueueConfig of a Queue. Dir and Store are needed.
type QueueConfig struct {
	Logger *slog.Logger
	// Dir holds the jobs; made if missing. No other queue has the same.
	Dir   string
	Store Store
	// FirstWait and LongestWait are between attempts when the storage fails, doubled from one to the other; default 1 s and 5 min.
	FirstWait, LongestWait time.Duration
	// OnStatus is called when the health or its reason changes, OnDone when a job is stored, or can never be: err says why. Both from Run's goroutine.
	// The job is forgotten when OnDone returns true; before that, also by a process that is killed meanwhile, it is called for the job again.
	OnStatus func(Status)
	OnDone   func(j Job, err error) bool
}

// Queue uploads jobs one at a time and tries until they are stored: a job that was added is kept on the disk. When one fails the next gets its
// turn. Safe for concurrent use.
type Queue struct {
	cfg  QueueConfig
	wake chan struct{} // has room for one
	disk sync.Mutex    // guards the files in Dir, so that they are those of jobs; taken before mu

	mu     sync.Mutex // guards the fields below
	jobs   []*entry   // in the order of their turns
	status Status
}

// entry is a job as it is kept.
type entry struct {
	Job Job `json:"job"`
	// Done counts files that are stored; Resume is the store's word about the next one. Changed under Queue.mu, by Run alone.
	Done   int       `json:"done,omitempty"`
	Resume string    `json:"resume,omitempty"`
	Added  time.Time `json:"added"`
	// Abandoned are uploads that nobody goes on with, to be aborted: of a job that this one replaced.
	Abandoned []abandoned `json:"abandoned,omitempty"`
}

// abandoned is an upload that was begun.
type abandoned struct {
	Key    string `json:"key"`
	Resume string `json:"resume"`
}

// leftovers are the uploads that are not gone on with when e is given up.
func (e *entry) leftovers() []abandoned {
	list := slices.Clone(e.Abandoned)
	if e.Resume != "" && e.Done < len(e.Job.Files) {
		list = append(list, abandoned{e.Job.Files[e.Done].Key, e.Resume})
	}
	return list
}

// ErrGone says that a file of a job is not there any more.
var ErrGone = errors.New("file to store is gone")

// NewQueue reads the jobs that were left.
func NewQueue(cfg QueueConfig) (*Queue, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.FirstWait <= 0 {
		cfg.FirstWait = time.Second
	}
	if cfg.LongestWait < cfg.FirstWait {
		cfg.LongestWait = max(cfg.FirstWait, 5*time.Minute)
	}
	if cfg.OnStatus == nil {
		cfg.OnStatus = func(Status) {}
	}
	if cfg.OnDone == nil {
		cfg.OnDone = func(Job, error) bool { return true }
	}
	if cfg.Dir == "" || cfg.Store == nil {
		return nil, errors.New("making an upload queue: no directory or no store")
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("making an upload queue: %w", err)
	}
	q := &Queue{cfg: cfg, wake: make(chan struct{}, 1), status: Status{Health: OK, Since: time.Now()}}
	files, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("making an upload queue: %w", err)
	}
	for _, f := range files {
		name := filepath.Join(cfg.Dir, f.Name())
		if strings.HasPrefix(f.Name(), durable.Unfinished) {
			_ = os.Remove(name) // it takes room, no more
			continue
		}
		if filepath.Ext(name) != ".json" {
			continue
		}
		e, err := load(name)
		if err != nil { // the file stays for somebody to look at
			cfg.Logger.Error("reading a job of the upload queue", "file", f.Name(), "err", err)
			continue
		}
		q.jobs = append(q.jobs, e)
	}
	slices.SortStableFunc(q.jobs, func(a, b *entry) int { return a.Added.Compare(b.Added) })
	return q, nil
}

// maxJob is the largest job that is read, in bytes.
const maxJob = 16 << 20

func load(name string) (*entry, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxJob {
		return nil, fmt.Errorf("%d bytes", info.Size())
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parse(b)
}

func parse(b []byte) (*entry, error) {
	e := &entry{}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, err
	}
	if err := e.Job.check(); err != nil {
		return nil, err
	}
	if e.Done < 0 || e.Done > len(e.Job.Files) {
		return nil, fmt.Errorf("%d files of %d are done", e.Done, len(e.Job.Files))
	}
	return e, nil
}

func (j *Job) check() error {
	if j.ID == "" || len(j.ID) > 80 || len(j.Files) == 0 || len(j.Files) > maxFiles {
		return fmt.Errorf("upload %q of %d files", j.ID, len(j.Files))
	}
	for _, f := range j.Files {
		if err := CheckKey(f.Key); err != nil {
			return err
		}
		if !filepath.IsAbs(f.Path) {
			return fmt.Errorf("upload %q: path %q is not absolute", j.ID, f.Path)
		}
	}
	return nil
}

func (q *Queue) file(id string) string { return filepath.Join(q.cfg.Dir, KeyPart(id)+".json") }

// save has an entry on the disk that nobody else knows yet.
func (q *Queue) save(e *entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return q.write(e, b)
}

func (q *Queue) write(e *entry, b []byte) error {
	return durable.Replace(q.file(e.Job.ID), func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// Add keeps a job on the disk and returns; after that it is not lost.
func (q *Queue) Add(j Job) error {
	if err := j.check(); err != nil {
		return fmt.Errorf("queueing an upload: %w", err)
	}
	j.Files = slices.Clone(j.Files)
	e := &entry{Job: j, Added: time.Now()}
	q.disk.Lock()
	defer q.disk.Unlock()
	defer q.Retry()
	if q.has(&j) {
		return nil
	}
	q.mu.Lock()
	if i := slices.IndexFunc(q.jobs, func(o *entry) bool { return o.Job.ID == j.ID }); i >= 0 {
		e.Abandoned = q.jobs[i].leftovers()
	}
	q.mu.Unlock()
	if err := q.save(e); err != nil {
		return fmt.Errorf("queueing an upload: %w", diskError(err))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(slices.DeleteFunc(q.jobs, func(o *entry) bool { return o.Job.ID == j.ID }), e)
	return nil
}

// has tells whether a job is here as it is.
func (q *Queue) has(j *Job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.jobs, func(o *entry) bool {
		return o.Job.ID == j.ID && o.Job.Remove == j.Remove && bytes.Equal(o.Job.Note, j.Note) && slices.Equal(o.Job.Files, j.Files)
	})
}

// Retry ends the wait for the next attempt.
func (q *Queue) Retry() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Status as it is now.
func (q *Queue) Status() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.status
	s.Pending = len(q.jobs)
	return s
}

// Run uploads until ctx ends.
func (q *Queue) Run(ctx context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		e := q.first()
		var wait <-chan time.Time
		if e != nil {
			err := q.upload(ctx, e)
			if ctx.Err() != nil {
				break
			}
			if q.settle(e, err) {
				failures = 0
				continue
			}
			failures++
			wait = time.After(q.wait(failures))
		}
		select {
		case <-ctx.Done():
		case <-wait:
		case <-q.wake:
		}
	}
	return nil
}

// wait is how long to wait after so many failures in a row.
func (q *Queue) wait(failures int) time.Duration {
	d := q.cfg.FirstWait
	for ; failures > 1 && d < q.cfg.LongestWait; failures-- {
		d *= 2
	}
	return min(d, q.cfg.LongestWait)
}

func (q *Queue) first() *entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) == 0 {
		return nil
	}
	return q.jobs[0]
}

// upload stores the files of a job that are not stored yet.
func (q *Queue) upload(ctx context.Context, e *entry) error {
	_ = q.abort(ctx, e) // tried again in the end
	for e.Done < len(e.Job.Files) {
		f := &e.Job.Files[e.Done]
		if _, err := os.Stat(f.Path); errors.Is(err, fs.ErrNotExist) {
			if err := q.giveUp(ctx, e); err != nil {
				if h, _ := healthOf(err); h == Away { // then, when it is back
					return err
				}
			}
			return fmt.Errorf("%w: %s", ErrGone, f.Key)
		}
		err := q.cfg.Store.Put(ctx, &Upload{Key: f.Key, Path: f.Path, ContentType: f.ContentType, Resume: e.Resume, Kept: func(resume string) {
			q.advance(e, e.Done, resume)
		}})
		if err != nil {
			return err
		}
		q.mu.Lock()
		q.status.Stored++
		q.mu.Unlock()
		q.advance(e, e.Done+1, "")
	}
	_ = q.giveUp(ctx, e) // all is stored
	return nil
}

// advance notes how far a job is. When another has taken its place, that one gets to know of the upload that was begun.
func (q *Queue) advance(e *entry, done int, resume string) {
	q.mu.Lock()
	e.Done, e.Resume = done, resume
	held := slices.Contains(q.jobs, e)
	if i := slices.IndexFunc(q.jobs, func(o *entry) bool { return o.Job.ID == e.Job.ID }); !held && i >= 0 && resume != "" {
		q.jobs[i].Abandoned = append(q.jobs[i].Abandoned, abandoned{e.Job.Files[done].Key, resume})
		e = q.jobs[i]
	}
	q.mu.Unlock()
	if done < len(e.Job.Files) {
		q.keep(e)
	}
}

// abort removes from the store what was abandoned; what cannot be removed now stays in the list, and the last error says why.
func (q *Queue) abort(ctx context.Context, e *entry) (failure error) {
	store, ok := q.cfg.Store.(Aborter)
	q.mu.Lock()
	list := e.Abandoned
	q.mu.Unlock()
	if !ok || len(list) == 0 {
		return nil
	}
	done := map[abandoned]bool{}
	for _, a := range list {
		if err := store.Abort(ctx, a.Key, a.Resume); err != nil {
			q.cfg.Logger.Warn("an upload that nobody goes on with stays in the storage", "job", e.Job.ID, "err", err)
			failure = err
			continue
		}
		done[a] = true
	}
	q.mu.Lock()
	e.Abandoned = slices.DeleteFunc(slices.Clone(e.Abandoned), func(a abandoned) bool { return done[a] })
	q.mu.Unlock()
	q.keep(e)
	return failure
}

// giveUp aborts what is left of a job that ends.
func (q *Queue) giveUp(ctx context.Context, e *entry) error {
	q.mu.Lock()
	e.Abandoned, e.Resume = e.leftovers(), ""
	q.mu.Unlock()
	return q.abort(ctx, e)
}

// keep writes how far a job is; when that fails, some of it is done again after a restart.
func (q *Queue) keep(e *entry) {
	q.disk.Lock()
	defer q.disk.Unlock()
	if !q.holds(e) { // replaced meanwhile
		return
	}
	q.mu.Lock()
	b, err := json.Marshal(e)
	q.mu.Unlock()
	if err == nil {
		err = q.write(e, b)
	}
	if err != nil {
		q.cfg.Logger.Warn("keeping the state of an upload", "job", e.Job.ID, "err", diskError(err))
	}
}

func (q *Queue) holds(e *entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Contains(q.jobs, e)
}

// settle draws the consequences of an attempt: whether the next job may follow at once.
func (q *Queue) settle(e *entry, err error) bool {
	if err == nil || errors.Is(err, ErrGone) || errors.Is(err, ErrBadKey) {
		if err == nil {
			q.note(OK, "")
		}
		return q.finish(e, err)
	}
	q.cfg.Logger.Warn("storing files", "job", e.Job.ID, "err", err)
	q.mu.Lock()
	q.status.Failures++
	if i := slices.Index(q.jobs, e); i >= 0 && len(q.jobs) > 1 { // the next one's turn
		q.jobs = append(slices.Delete(q.jobs, i, i+1), e)
	}
	q.mu.Unlock()
	health, reason := healthOf(err)
	q.note(health, reason)
	return false
}

// finish forgets a job that is done, or never will be; false: it is to be told of once more.
func (q *Queue) finish(e *entry, err error) bool {
	if !q.holds(e) { // replaced meanwhile
		return true
	}
	if !q.cfg.OnDone(e.Job, err) {
		q.keep(e) // with all that is stored
		return false
	}
	if err == nil && e.Job.Remove {
		for _, f := range e.Job.Files {
			if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				q.cfg.Logger.Warn("removing a stored file", "job", e.Job.ID, "err", diskError(err))
			}
		}
	}
	q.disk.Lock()
	defer q.disk.Unlock()
	q.mu.Lock()
	before := len(q.jobs)
	q.jobs = slices.DeleteFunc(q.jobs, func(o *entry) bool { return o == e })
	replaced := len(q.jobs) == before // OnDone or somebody else added another with its ID
	q.mu.Unlock()
	if replaced {
		return true
	}
	if err := os.Remove(q.file(e.Job.ID)); err != nil {
		q.cfg.Logger.Warn("forgetting an upload", "job", e.Job.ID, "err", diskError(err))
	}
	return true
}

// note notes the storage's health, and tells when it is news.
func (q *Queue) note(h Health, reason string) {
	// Which object failed is not why.
	if i := strings.Index(reason, ": "); i >= 0 && strings.HasPrefix(reason, "storing ") {
		reason = reason[i+2:]
	}
	q.mu.Lock()
	news := q.status.Health != h || q.status.Reason != reason
	if news {
		q.status.Health, q.status.Reason, q.status.Since = h, reason, time.Now()
	}
	s := q.status
	s.Pending = len(q.jobs)
	q.mu.Unlock()
	if news {
		q.cfg.OnStatus(s)
	}
}
