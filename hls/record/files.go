package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/amphi-sfu/amphi/hls/durable"
)

// file is what is used of an os.File; tests have slow and full ones.
type file interface {
	WriteAt(b []byte, at int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

func createFile(path string) (file, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
}

// files are the fragmented files of one tape, written one after another: {variant}.0.mp4, {variant}.1.mp4 and so on. It belongs to one goroutine.
type files struct {
	dir, name string
	create    func(path string) (file, error)
	count     int // files begun
	current   file
	good      int64 // bytes of the current file that were written whole
	dirty     bool  // something is not synced
	total     int64 // bytes in all files
}

// rawName is the name of a tape's n-th file.
func rawName(tape string, n int) string { return fmt.Sprintf("%s.%d.mp4", tape, n) }

// begin implements sink.
func (f *files) begin(header []byte) error {
	if err := f.close(); err != nil {
		return err
	}
	path := filepath.Join(f.dir, rawName(f.name, f.count))
	opened, err := f.create(path)
	if err != nil {
		return fmt.Errorf("creating a file of a recording: %w", err)
	}
	if _, err := opened.WriteAt(header, 0); err != nil {
		return errors.Join(fmt.Errorf("writing the head of a recording: %w", err), opened.Close(), os.Remove(path))
	}
	f.count++
	f.current, f.good, f.dirty = opened, int64(len(header)), true
	f.total += int64(len(header))
	return durable.Sync(f.dir)
}

// append implements sink. What a failed write left behind is overwritten by the next one.
func (f *files) append(b []byte) error {
	if f.current == nil {
		return errors.New("writing a recording: no file")
	}
	if _, err := f.current.WriteAt(b, f.good); err != nil {
		return fmt.Errorf("writing a recording: %w", err)
	}
	f.good += int64(len(b))
	f.total += int64(len(b))
	f.dirty = true
	return nil
}

// sync has everything on the disk.
func (f *files) sync() error {
	if f.current == nil || !f.dirty {
		return nil
	}
	if err := f.current.Sync(); err != nil {
		return fmt.Errorf("syncing a recording: %w", err)
	}
	f.dirty = false
	return nil
}

// close ends the current file. When that fails, the file is kept and can be closed again.
func (f *files) close() error {
	if f.current == nil {
		return nil
	}
	if err := f.current.Truncate(f.good); err != nil {
		return fmt.Errorf("ending a file of a recording: %w", err)
	}
	if err := f.sync(); err != nil {
		return err
	}
	err := f.current.Close()
	f.current = nil
	if err != nil {
		return fmt.Errorf("closing a file of a recording: %w", err)
	}
	return nil
}

const diskFull = "the disk is full"

// reasonOf puts an error of the disk into words for people; paths stay in the log.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return diskFull
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return "the recordings' directory cannot be written to"
	case errors.Is(err, syscall.EIO):
		return "the disk reports errors"
	default:
		return "the recording cannot be written: " + root(err)
	}
}

// root is the innermost error's text, without paths.
func root(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}
