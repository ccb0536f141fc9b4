package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
)

// Disk keeps objects as files below a directory. Its links are a Gate's.
type Disk struct {
	dir  string
	gate *Gate
}

// arriving is where files are until they are whole; no key is there.
const arriving = ".new"

// NewDisk makes the directory if it is missing; no other process has the same. gate signs links and may be nil: there are none then.
func NewDisk(dir string, gate *Gate) (*Disk, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.RemoveAll(filepath.Join(dir, arriving)) // of a process that was killed
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, arriving), 0o750)
	}
	if err != nil {
		return nil, fmt.Errorf("opening a storage directory: %w", err)
	}
	return &Disk{dir: dir, gate: gate}, nil
}

func (d *Disk) path(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	return filepath.Join(d.dir, filepath.FromSlash(key)), nil
}

// Put implements Store. A file of the same file system is linked, not copied.
func (d *Disk) Put(ctx context.Context, u *Upload) error {
	to, err := d.path(u.Key)
	if err != nil {
		return err
	}
	if err := d.put(ctx, u.Path, to); err != nil {
		return fmt.Errorf("storing %s: %w", u.Key, diskError(err))
	}
	return nil
}

func (d *Disk) put(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	place, err := os.MkdirTemp(filepath.Join(d.dir, arriving), "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(place)
	name := filepath.Join(place, "file")
	if os.Link(from, name) != nil {
		if err := copyFile(ctx, from, name); err != nil {
			return err
		}
	}
	if err := os.Rename(name, to); err != nil {
		return err
	}
	// The directories above may be new, too.
	for p := filepath.Dir(to); ; p = filepath.Dir(p) {
		if err := durable.Sync(p); err != nil || p == d.dir {
			return err
		}
	}
}

func copyFile(ctx context.Context, from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &cancellable{ctx, in})
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// cancellable reads until ctx ends.
type cancellable struct {
	ctx context.Context
	io.Reader
}

func (c *cancellable) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(b)
}

// diskError says what an error of the file system means; paths of the node are not in it.
func diskError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: no space left", ErrFull)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: the directory cannot be written to", ErrDenied)
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	}
	var path *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// URL implements Store.
func (d *Disk) URL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if _, err := d.path(key); err != nil {
		return "", err
	}
	if d.gate == nil {
		return "", fmt.Errorf("%w: no links", ErrDenied)
	}
	return d.gate.Link(key, ttl), nil
}

// Open implements Store. What it returns is also an io.ReadSeeker.
func (d *Disk) Open(_ context.Context, key string) (io.ReadCloser, error) {
	p, err := d.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err == nil {
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil && info.Mode().IsRegular() {
			return f, nil
		}
		_ = f.Close()
		err = errors.Join(err, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("opening %s: %w", key, diskError(err))
}

// List implements Store.
func (d *Disk) List(ctx context.Context, prefix string) ([]Object, error) {
	root := d.dir // or, so that not everything is looked at, the directory that the prefix names
	if i := strings.LastIndex(prefix, "/"); i > 0 {
		var err error
		if root, err = d.path(prefix[:i]); err != nil {
			return nil, fmt.Errorf("listing %q: %w", prefix, err)
		}
	}
	var list []Object
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted meanwhile, or never there
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case p != d.dir && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return nil
		}
		relative, err := filepath.Rel(d.dir, p)
		if key := filepath.ToSlash(relative); err == nil && strings.HasPrefix(key, prefix) {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			list = append(list, Object{Key: key, Size: info.Size(), Time: info.ModTime()})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", prefix, diskError(err))
	}
	slices.SortFunc(list, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	return list, nil
}

// Delete implements Store. Directories that become empty go, too.
func (d *Disk) Delete(_ context.Context, key string) error {
	p, err := d.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting %s: %w", key, diskError(err))
	}
	for p = filepath.Dir(p); p != d.dir; p = filepath.Dir(p) {
		if os.Remove(p) != nil { // it is not empty
			break
		}
	}
	return nil
}
