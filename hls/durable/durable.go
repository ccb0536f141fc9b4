// Package durable puts files on the disk so that a killed process or a loss of power leaves them whole or not there.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Unfinished begins the names of files that are being written. Those of a process that was killed may be removed.
const Unfinished = ".new-"

// Replace has write fill a file beside path, syncs it, and moves it there together with the directory's entry. On an error
// what was at path is as it was.
func Replace(path string, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), Unfinished+"*")
	if err != nil {
		return fmt.Errorf("creating a file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // it may be in its place already
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("placing a file: %w", err)
	}
	return Sync(filepath.Dir(path))
}

// Sync has a file, or the entries of a directory, on the disk.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	return nil
}
