package record

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/storage"
)

// From the program into a storage: what is stored leaves the recorder's directory, and what was not stored when the process ended is after the next start.
func TestAssetsAreStored(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p")
	dir, spool := t.TempDir(), t.TempDir()
	s := &states{}
	r, stop := run(t, Config{Source: p, Dir: dir}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(120)
	written(t, r, "rec1", 3*time.Second)
	if err := errors.Join(r.Note("rec1", []byte("{}")), r.Stop("rec1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	stop() // before anything was queued

	disk, err := storage.NewDisk(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	again := &states{}
	r, _ = run(t, Config{Source: p, Dir: dir}, again)
	done := func(j storage.Job, err error) bool {
		a, bad := AssetOf(j)
		if err := errors.Join(err, bad, r.Stored(a)); err != nil {
			t.Error(err)
		}
		return true
	}
	q, err := storage.NewQueue(storage.QueueConfig{Dir: spool, Store: disk, OnDone: done})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = q.Run(ctx) })
	defer func() { cancel(); wg.Wait() }()
	if found, err := r.Recover(); err != nil || len(found) != 0 {
		t.Fatalf("%v, %v", found, err)
	}
	eventually(t, "assets", func() bool { again.mu.Lock(); defer again.mu.Unlock(); return len(again.assets) == 3 })
	for _, a := range again.assets {
		j, err := r.Job(a)
		if err == nil {
			err = q.Add(j)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "everything in the storage", func() bool { return q.Status().Pending == 0 && !exists(r.Dir("rec1")) })
	list, err := disk.List(t.Context(), "demo/s1/rec1/")
	if err != nil || len(list) != 5 { // movie, two playlists with one file, chat log
		t.Errorf("%+v, %v", list, err)
	}
	if key := KeyOf(Asset{Room: "a b", Recording: "r", File: "f.mp4"}); key != "a=20b/-/r/f.mp4" {
		t.Errorf("key %q", key)
	}
	if err := r.Stored(Asset{Recording: "../x"}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("%v", err)
	}
}
