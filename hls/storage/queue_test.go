package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
)

// fake is a store in memory that fails as a test wishes.
type fake struct {
	mu     sync.Mutex // guards the fields below
	err    error
	bad    string // a key that always fails
	stored []string
	tries  []time.Time
}

func (f *fake) Put(ctx context.Context, u *Upload) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, time.Now())
	if u.Key == f.bad {
		return errors.New("storing " + u.Key + ": it answers 400")
	}
	if f.err != nil {
		return fmt.Errorf("storing %s: %w", u.Key, f.err)
	}
	f.stored = append(f.stored, u.Key)
	return nil
}

func (f *fake) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fake) keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.stored)
}

func (*fake) URL(context.Context, string, time.Duration) (string, error) { return "", nil }
func (*fake) Open(context.Context, string) (io.ReadCloser, error)        { return nil, ErrNotFound }
func (*fake) List(context.Context, string) ([]Object, error)             { return nil, nil }
func (*fake) Delete(context.Context, string) error                       { return nil }

// told is what a queue tells.
type told struct {
	mu     sync.Mutex // guards the fields below
	status []Status
	done   []string
	errs   []error
	deaf   bool // what is told of jobs is not taken
}

func (o *told) onStatus(s Status) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status = append(o.status, s)
}

func (o *told) onDone(j Job, err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done, o.errs = append(o.done, j.ID+string(j.Note)), append(o.errs, err)
	return !o.deaf
}

func (o *told) jobs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.done)
}

// runQueue makes a queue and runs it until stop is called.
func runQueue(t *testing.T, dir string, store Store, o *told) (q *Queue, stop func()) {
	t.Helper()
	q, err := NewQueue(QueueConfig{Dir: dir, Store: store, OnStatus: o.onStatus, OnDone: o.onDone})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := q.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return q, func() { cancel(); wg.Wait() }
}

func job(id, path string, n int) Job {
	j := Job{ID: id, Note: []byte(`{"x":1}`)}
	for i := range n {
		j.Files = append(j.Files, File{Path: path, Key: fmt.Sprintf("%s/%d", id, i), ContentType: "text/plain"})
	}
	return j
}

// The storage is away for an hour, during which the process restarts twice: everything that was added is stored, and hardly late.
func TestAnHourAway(t *testing.T) {
	t.Parallel()
	dir, path := t.TempDir(), randomFile(t, t.TempDir(), "file", 10)
	synctest.Test(t, func(t *testing.T) {
		store, o := &fake{err: errors.New("no route to host")}, &told{}
		begin := time.Now()
		var want []string
		for life := range 3 {
			q, stop := runQueue(t, dir, store, o)
			for n := range 3 {
				id := fmt.Sprintf("job%d-%d", life, n)
				if err := q.Add(job(id, path, 2)); err != nil {
					t.Fatal(err)
				}
				want = append(want, id+"/0", id+"/1")
			}
			<-time.After(20 * time.Minute)
			synctest.Wait()
			if s := q.Status(); s.Health != Away || s.Reason != "no route to host" || s.Pending != 3*(life+1) || s.Failures == 0 {
				t.Errorf("%+v", s)
			}
			if life == 2 {
				store.set(nil)
				back := time.Now()
				for len(o.jobs()) < 9 {
					<-time.After(time.Second)
				}
				if d := time.Since(back); d > 5*time.Minute {
					t.Errorf("all was stored %v after the storage came back", d)
				}
				if s := q.Status(); s.Health != OK || s.Pending != 0 || s.Stored != 18 {
					t.Errorf("%+v", s)
				}
			}
			stop()
		}
		got := store.keys()
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("stored %v", got)
		}
		if n := len(store.tries); time.Since(begin) < time.Hour || n > 150 {
			t.Errorf("%d attempts in %v", n, time.Since(begin))
		}
		if len(o.status) != 4 { // away in each life, OK in the end
			t.Errorf("told %d times: %+v", len(o.status), o.status)
		}
	})
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A job that the store does not take keeps nobody else waiting for long.
func TestABadJobIsNotInTheWay(t *testing.T) {
	t.Parallel()
	dir, path := t.TempDir(), randomFile(t, t.TempDir(), "file", 10)
	synctest.Test(t, func(t *testing.T) {
		store, o := &fake{bad: "bad/0"}, &told{}
		q, stop := runQueue(t, dir, store, o)
		defer stop()
		if err := q.Add(job("bad", path, 1)); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		for n := range 10 {
			if err := q.Add(job(fmt.Sprintf("good%d", n), path, 1)); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if got := store.keys(); len(got) != 10 {
			t.Errorf("stored %v", got)
		}
		if s := q.Status(); s.Pending != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatIsGoneIsSaid(t *testing.T) {
	t.Parallel()
	dir, path := t.TempDir(), randomFile(t, t.TempDir(), "file", 10)
	store, o := &fake{}, &told{}
	q, stop := runQueue(t, dir, store, o)
	defer stop()
	if err := q.Add(job("gone", filepath.Join(dir, "nothing"), 1)); err != nil {
		t.Fatal(err)
	}
	j := job("there", path, 1)
	j.Remove = true
	if err := q.Add(j); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both", func() bool { return len(o.jobs()) == 2 && q.Status().Pending == 0 })
	if got := o.jobs(); !slices.Equal(got, []string{`gone{"x":1}`, `there{"x":1}`}) || !errors.Is(o.errs[0], ErrGone) || o.errs[1] != nil {
		t.Errorf("%v, %v", got, o.errs)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
	for _, j := range []Job{{}, {ID: "x"}, job("x", "relative", 1), {ID: "x", Files: []File{{Path: "/x", Key: "../x"}}}} {
		if err := q.Add(j); err == nil {
			t.Errorf("%+v was taken", j)
		}
	}
}

// Against the real server: wrong credentials, then the right ones; the server is killed in the middle of a large upload and comes back;
// what is stored is what was to be.
func TestQueueAndAServerThatIsKilled(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	path := randomFile(t, t.TempDir(), "large", 6*minPart)
	o := &told{}
	j := Job{ID: "large", Files: []File{{Path: path, Key: "room/large.mp4", ContentType: "video/mp4"}}}
	q, stop := runQueue(t, dir, s.store(func(c *S3Config) { c.SecretKey = "wrong-wrong" }), o)
	if err := q.Add(j); err != nil {
		t.Fatal(err)
	}
	eventually(t, "denied", func() bool { return q.Status().Health == Denied })
	stop()

	r := startRelay(t, s.address)
	r.limit.Store(3 * minPart)
	store := s.store(func(c *S3Config) { c.Endpoint = "http://" + r.address })
	q, stop = runQueue(t, dir, store, o)
	eventually(t, "half of it", func() bool { return r.sent.Load() > 3*minPart })
	s.stop()
	eventually(t, "a storage that is away", func() bool { return q.Status().Health == Away })
	r.limit.Store(1 << 60)
	stop()
	s.start()
	q, stop = runQueue(t, dir, store, o)
	defer stop()
	eventually(t, "all of it", func() bool { return q.Status().Pending == 0 && q.Status().Stored == 1 })
	body, err := store.Open(t.Context(), "room/large.mp4")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	want, _ := os.ReadFile(path)
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if sent := r.sent.Load(); sent > 9*minPart {
		t.Errorf("%d bytes were sent for %d", sent, len(want))
	}
}

// A job that is added again as it is, as recordings' are after each start, goes on with what is stored of it; another one with its ID replaces it.
func TestAddedAgainGoesOn(t *testing.T) {
	t.Parallel()
	dir, path := t.TempDir(), randomFile(t, t.TempDir(), "file", 10)
	synctest.Test(t, func(t *testing.T) {
		store, o := &fake{bad: "same/2"}, &told{}
		q, stop := runQueue(t, dir, store, o)
		if err := q.Add(job("same", path, 3)); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		stop()
		q, stop = runQueue(t, dir, store, o)
		if err := q.Add(job("same", path, 3)); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if got := store.keys(); !slices.Equal(got, []string{"same/0", "same/1"}) {
			t.Errorf("stored %v", got)
		}
		if err := q.Add(job("same", path, 2)); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if got := store.keys(); !slices.Equal(got, []string{"same/0", "same/1", "same/0", "same/1"}) || q.Status().Pending != 0 {
			t.Errorf("stored %v", got)
		}
		stop()
	})
}

// Who could not take what became of a job is told again, also after a restart; the files are not stored again.
func TestNotTakenIsToldAgain(t *testing.T) {
	t.Parallel()
	dir, path := t.TempDir(), randomFile(t, t.TempDir(), "file", 10)
	synctest.Test(t, func(t *testing.T) {
		store, o := &fake{}, &told{deaf: true}
		q, stop := runQueue(t, dir, store, o)
		if err := q.Add(job("job", path, 1)); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		stop()
		if n := len(o.jobs()); n < 2 {
			t.Errorf("told %d times", n)
		}
		o = &told{}
		q, stop = runQueue(t, dir, store, o)
		<-time.After(time.Minute)
		stop()
		if q.Status().Pending != 0 || len(o.jobs()) != 1 || len(store.keys()) != 1 {
			t.Errorf("%+v, told %v, stored %v", q.Status(), o.jobs(), store.keys())
		}
	})
}

func FuzzJob(f *testing.F) {
	f.Add([]byte(`{"job":{"id":"a","files":[{"path":"/x","key":"k","content_type":"t"}]},"done":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parse(b)
		if err != nil {
			return
		}
		for _, file := range e.Job.Files[e.Done:] {
			if CheckKey(file.Key) != nil || !filepath.IsAbs(file.Path) {
				t.Fatalf("%+v", file)
			}
		}
	})
}

// unfinished are the uploads that a bucket has parts of.
func unfinished(t *testing.T, s *S3) (keys []string) {
	t.Helper()
	found, err := s.core.ListMultipartUploads(t.Context(), bucket, "", "", "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range found.Uploads {
		keys = append(keys, u.Key)
	}
	return keys
}

// An upload in parts of which nobody wants the rest leaves nothing in the bucket: its job was replaced, its file is gone, or the process
// that had begun it was killed before it could note that.
func TestAbandonedUploadsAreAborted(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const size = 6 * minPart
	files := t.TempDir()
	one, two := randomFile(t, files, "one", size), randomFile(t, files, "two", size)
	for name, c := range map[string]struct {
		then func(q *Queue, path string) error // after a failed attempt
		want error
	}{
		"replaced": {func(q *Queue, _ string) error {
			return q.Add(Job{ID: "a", Files: []File{{Path: two, Key: "replaced/two"}}})
		}, nil},
		"gone": {func(_ *Queue, path string) error { return os.Remove(path) }, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, s.address)
			r.limit.Store(size / 2)
			store := s.store(func(c *S3Config) { c.Endpoint = "http://" + r.address })
			dir, path, o := t.TempDir(), filepath.Join(files, name), &told{}
			if err := os.Link(one, path); err != nil {
				t.Fatal(err)
			}
			q, stop := runQueue(t, dir, store, o)
			if err := q.Add(Job{ID: "a", Files: []File{{Path: path, Key: name + "/one"}}}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a failure", func() bool { return q.Status().Failures > 0 })
			if got := unfinished(t, s.store(nil)); !slices.Contains(got, name+"/one") {
				t.Fatalf("nothing was begun: %q", got)
			}
			if err := c.then(q, path); err != nil {
				t.Fatal(err)
			}
			stop() // what is to be aborted is known after a restart, too
			r.limit.Store(1 << 60)
			_, stop = runQueue(t, dir, store, o)
			defer stop()
			eventually(t, "the end", func() bool { return len(o.jobs()) > 0 })
			if err := o.errs[0]; !errors.Is(err, c.want) {
				t.Error(err)
			}
			if got := unfinished(t, s.store(nil)); slices.ContainsFunc(got, func(k string) bool { return strings.HasPrefix(k, name) }) {
				t.Errorf("left: %q", got)
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		t.Parallel()
		store := s.store(nil)
		if _, err := store.core.NewMultipartUpload(t.Context(), bucket, "unknown/one", minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := store.Put(t.Context(), &Upload{Key: "unknown/one", Path: one}); err != nil {
			t.Fatal(err)
		}
		if got := unfinished(t, store); slices.Contains(got, "unknown/one") {
			t.Errorf("left: %q", got)
		}
	})
}

// begun is a store that begins uploads, fails, and wants them aborted.
type begun struct {
	fake
	put     chan func() // what a Put does before it fails; nil: it stores
	aborted []string
}

// Put implements Store.
func (b *begun) Put(ctx context.Context, u *Upload) error {
	if do := <-b.put; do != nil {
		do()
		u.Kept("upload of " + u.Key)
		return errors.New("cut")
	}
	return b.fake.Put(ctx, u)
}

// Abort implements Aborter.
func (b *begun) Abort(_ context.Context, key, resume string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.aborted = append(b.aborted, key+": "+resume)
	return nil
}

// A job that is replaced while it is tried, before it has begun its upload, has that aborted by the one that took its place.
func TestReplacedWhileItIsTried(t *testing.T) {
	t.Parallel()
	store := &begun{put: make(chan func(), 2)}
	dir := t.TempDir()
	path := randomFile(t, dir, "file", 10)
	o := &told{}
	q, stop := runQueue(t, filepath.Join(dir, "queue"), store, o)
	defer stop()
	store.put <- func() {
		if err := q.Add(Job{ID: "a", Note: []byte(`"new"`), Files: []File{{Path: path, Key: "new"}}}); err != nil {
			t.Error(err)
		}
	}
	store.put <- nil
	if err := q.Add(Job{ID: "a", Note: []byte(`"old"`), Files: []File{{Path: path, Key: "old"}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return len(o.jobs()) > 0 })
	if got := o.jobs(); !slices.Equal(got, []string{`a"new"`}) {
		t.Errorf("%q", got)
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	if !slices.Equal(store.aborted, []string{"old: upload of old"}) {
		t.Errorf("aborted: %q", store.aborted)
	}
}
