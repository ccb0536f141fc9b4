// Package spill keeps the older segments of programs on disk: a cache that starts empty, is bounded, and whose
// loss costs nothing but how far back viewers can go.
package spill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Config of a Disk.
type Config struct {
	Logger *slog.Logger // default: slog.Default
	// Dir is the Disk's own: what an earlier life left is removed, and all of it at the end. It is made with the first
	// Folder. Required.
	Dir string
	// MaxBytes bounds what all programs have there; default 16 GiB.
	MaxBytes int64
	// MaxQueue is how many segments may wait to be written; default 64.
	MaxQueue int
}

// ErrFull says that the disk, or what is allowed of it, is full.
var ErrFull = errors.New("no room left for segments")

// Disk writes segments, one after the other. Safe for concurrent use.
type Disk struct {
	cfg  Config
	root string
	jobs chan job
	wake chan struct{} // holds a token when there is something to take away

	mu    sync.Mutex // guards the fields below
	bytes int64
	made  int      // folders
	gone  []string // files to take away, and folders with all that is in them; no more than there are
}

type job struct {
	path   string
	chunks [][]byte
	done   func(path string, err error)
}

// New makes an empty Disk; it starts nothing.
func New(cfg Config) (*Disk, error) {
	if cfg.Dir == "" {
		return nil, errors.New("spilling segments: no directory")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 16 << 30
	}
	if cfg.MaxQueue == 0 {
		cfg.MaxQueue = 64
	}
	d := &Disk{cfg: cfg, root: cfg.Dir, jobs: make(chan job, cfg.MaxQueue), wake: make(chan struct{}, 1)}
	if err := os.RemoveAll(d.root); err != nil {
		return nil, fmt.Errorf("spilling segments: %w", err)
	}
	return d, nil
}

// Run writes until ctx ends, then takes everything away.
func (d *Disk) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			if err := os.RemoveAll(d.root); err != nil {
				d.cfg.Logger.Warn("removing segments", "dir", d.root, "err", err)
			}
			return nil
		case <-d.wake:
			d.sweep()
		case j := <-d.jobs:
			d.sweep()
			d.carryOut(j)
		}
	}
}

// sweep takes away what was asked to be.
func (d *Disk) sweep() {
	d.mu.Lock()
	gone := d.gone
	d.gone = nil
	d.mu.Unlock()
	for _, path := range gone {
		d.remove(path)
	}
}

// sweepSoon has a file or a folder taken away by Run.
func (d *Disk) sweepSoon(path string) {
	d.mu.Lock()
	d.gone = append(d.gone, path)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Disk) carryOut(j job) {
	err := d.write(j)
	if err != nil {
		err = fmt.Errorf("writing a segment: %w", err)
	}
	j.done(j.path, err)
}

func (d *Disk) write(j job) error {
	size := int64(0)
	for _, c := range j.chunks {
		size += int64(len(c))
	}
	if !d.take(size) {
		return ErrFull
	}
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		for _, c := range j.chunks {
			if _, err = f.Write(c); err != nil {
				break
			}
		}
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(j.path)
		}
	}
	if err != nil {
		d.take(-size)
	}
	if isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func (d *Disk) take(size int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size > 0 && d.bytes+size > d.cfg.MaxBytes {
		return false
	}
	d.bytes += size
	return true
}

func (d *Disk) remove(path string) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		d.removeFolder(path)
		return
	}
	if err == nil && os.Remove(path) == nil {
		d.take(-info.Size())
	}
}

func (d *Disk) removeFolder(dir string) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		d.remove(filepath.Join(dir, e.Name()))
	}
	if err = errors.Join(err, os.Remove(dir)); err != nil {
		d.cfg.Logger.Warn("removing segments", "dir", dir, "err", err)
	}
}

// Bytes is how much lies on disk.
func (d *Disk) Bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bytes
}

// Folder is one program's part of a Disk.
type Folder struct {
	disk *Disk
	dir  string
}

// Folder makes a new one.
func (d *Disk) Folder() (*Folder, error) {
	d.mu.Lock()
	d.made++
	f := &Folder{disk: d, dir: filepath.Join(d.root, fmt.Sprint(d.made))}
	d.mu.Unlock()
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("spilling segments: %w", err)
	}
	return f, nil
}

// Put asks for a file; done is called by another goroutine with its path, unless the Disk ends before. It returns false, and forgets
// it, when too many wait. The chunks must not change.
func (f *Folder) Put(name string, chunks [][]byte, done func(path string, err error)) bool {
	if name == "" || strings.ContainsAny(name, "/\\") || len(chunks) == 0 {
		return false
	}
	select {
	case f.disk.jobs <- job{path: filepath.Join(f.dir, name), chunks: chunks, done: done}:
		return true
	default:
		return false
	}
}

// Remove has a file taken away, before anything else is written. It never waits for the disk.
func (f *Folder) Remove(path string) { f.disk.sweepSoon(path) }

// Close has the folder taken away, as Remove has a file. What is written into it later fails.
func (f *Folder) Close() { f.disk.sweepSoon(f.dir) }

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
