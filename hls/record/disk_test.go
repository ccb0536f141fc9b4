package record

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is what files of a test are on: it has so much room, and can be slow.
type disk struct {
	mu   sync.Mutex // guards the fields below
	room int64      // negative: as much as wanted
	gate chan struct{}
}

func (d *disk) create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d}, nil
}

func (d *disk) set(room int64, gate chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room, d.gate = room, gate
}

type diskFile struct {
	*os.File
	disk *disk
}

// WriteAt writes half when there is no room for all, as disks do.
func (f *diskFile) WriteAt(b []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	gate, full := f.disk.gate, f.disk.room >= 0 && int64(len(b)) > f.disk.room
	if !full && f.disk.room >= 0 {
		f.disk.room -= int64(len(b))
	}
	f.disk.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if full {
		n, _ := f.File.WriteAt(b[:len(b)/2], at)
		return n, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return f.File.WriteAt(b, at)
}

// While the disk is full the state says so and the program goes on; the recording does when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p")
	d, s := &disk{room: 120_000}, &states{}
	r, _ := run(t, Config{Source: p, create: d.create}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(240)
	eventually(t, "a full disk", func() bool { return s.last().Phase == Retrying })
	if reason := s.last().Reason; reason != "the disk is full" {
		t.Errorf("reason %q", reason)
	}
	before, _ := r.State("rec1")
	d.set(-1, nil)
	p.play(120)
	eventually(t, "room", func() bool { return s.last().Phase == Active })
	written(t, r, "rec1", before.Length+3*time.Second)
	if err := r.Stop("rec1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	if s.last().Dropped == 0 {
		t.Error("nothing is missing")
	}
	path := filepath.Join(r.Dir("rec1"), "720p.mp4")
	video, audio := frames(t, path)
	gaps(t, video, 1.0/30)
	gaps(t, audio, 1024.0/48000)
	if len(video) < 120 || len(video) >= 360 { // how much is missing depends on when there was room
		t.Errorf("%d pictures of 360", len(video))
	}
	decodes(t, path)
	decodes(t, filepath.Join(r.Dir("rec1"), "720p.m3u8"))
}

// A disk that does not answer costs the recording parts and the program nothing.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "720p")
	gate := make(chan struct{})
	d, s := &disk{room: -1, gate: gate}, &states{}
	r, _ := run(t, Config{Source: p, create: d.create, QueueBytes: 200_000}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(600) // 20 s; it would hang here
	d.set(-1, nil)
	close(gate)
	eventually(t, "parts that are missing", func() bool { return s.last().Phase == Retrying && strings.Contains(s.last().Reason, "slow") })
	p.play(120)
	eventually(t, "recording again", func() bool { return s.last().Phase == Active })
	if err := r.Stop("rec1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	path := filepath.Join(r.Dir("rec1"), "720p.mp4")
	video, _ := frames(t, path)
	gaps(t, video, 1.0/30)
	if len(video) < 120 || len(video) > 500 {
		t.Errorf("%d pictures", len(video))
	}
	decodes(t, path)
}

// smallDisk is a directory of 4 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4096k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Making the files needs room, too, and waits for it: on a real file system that is full.
func TestFinishingWaitsForRoom(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	p := newProgram(t, "720p")
	s := &states{}
	r, stop := run(t, Config{Source: p, Dir: dir, retry: 20 * time.Millisecond}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(600)
	written(t, r, "rec1", 19*time.Second)
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if f.Close() != nil || r.Stop("rec1") != nil {
		t.Fatal("stopping")
	}
	eventually(t, "a full disk", func() bool { return s.last().Phase == Retrying && s.last().Reason == diskFull })
	decodes(t, filepath.Join(dir, "rec1", rawName("720p", 0))) // what there is can be played
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "files", func() bool { return s.last().Phase == Stopped })
	decodes(t, filepath.Join(dir, "rec1", "720p.mp4"))
	if left, _ := filepath.Glob(filepath.Join(dir, "rec1", ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	stop()
}

// A recording that waits for room holds up no smaller one, which makes room once it is stored, and takes none meanwhile.
func TestSmallOnesGoFirst(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	p := newProgram(t, "720p")
	s := &states{}
	r, stop := run(t, Config{Source: p, Dir: dir, retry: 20 * time.Millisecond}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(600)
	small := request
	small.ID = "rec2"
	if err := r.Start(small); err != nil {
		t.Fatal(err)
	}
	p.play(120)
	written(t, r, "rec2", 3*time.Second)
	size := func(id string) int64 {
		info, err := os.Stat(filepath.Join(dir, id, rawName("720p", 0)))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	free := 2*size("rec2") + 64<<10
	if size("rec1") < free {
		t.Fatalf("%d and %d bytes: nothing is tried here", size("rec1"), size("rec2"))
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	var filled int64
	for err == nil {
		n := 0
		n, err = filler.Write(make([]byte, 4096))
		filled += int64(n)
	}
	if filler.Truncate(filled-free) != nil || filler.Close() != nil || r.Stop("rec1") != nil {
		t.Fatal("stopping")
	}
	eventually(t, "a full disk", func() bool { return s.last().Phase == Retrying && s.last().Reason == diskFull })
	if err := hasRoom(filepath.Join(dir, "rec1"), size("rec1")); reasonOf(err) != diskFull {
		t.Errorf("room for the large one: %v", err)
	}
	if err := r.Stop("rec2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the small one", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.ContainsFunc(s.assets, func(a Asset) bool { return a.Recording == "rec2" && a.Type == Program })
	})
	decodes(t, filepath.Join(dir, "rec2", "720p.mp4"))
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the large one", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.ContainsFunc(s.assets, func(a Asset) bool { return a.Recording == "rec1" && a.Type == Program })
	})
	stop()
}

// /dev/full is a disk without any room.
func TestReasons(t *testing.T) {
	t.Parallel()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	_, err = f.WriteString("x")
	if got := reasonOf(err); got != diskFull {
		t.Errorf("%v is %q", err, got)
	}
	if got := reasonOf(&os.PathError{Op: "open", Path: "/secret/path", Err: syscall.ENAMETOOLONG}); strings.Contains(got, "secret") {
		t.Errorf("a path in %q", got)
	}
}
