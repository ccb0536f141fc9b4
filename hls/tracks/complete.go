package tracks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
	"github.com/amphi-sfu/amphi/hls/movie"
	"github.com/amphi-sfu/amphi/hls/webm"
)

// File is a complete file. Another one begins with another codec, or a track that was not there.
type File struct {
	Name        string
	ContentType string
	Size        int64
	Duration    time.Duration
	// Checksum is "sha256:" and the hexadecimal digest.
	Checksum string
	// Number counts the files of a recording.
	Number int
}

// Complete completes the files of a recording: after its end, or after the process that recorded was killed. It can be done again.
func Complete(dir, name string) ([]File, error) {
	if !nameOK(name) {
		return nil, fmt.Errorf("completing tracks %q: bad name", name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("completing tracks: %w", err)
	}
	raws := map[int][]int{} // files of each movie
	var files []File
	var faults []error
	add := func(f File, err error) {
		if err != nil {
			faults = append(faults, err)
		} else if f.Name != "" {
			files = append(files, f)
		}
	}
	for _, e := range entries {
		n, k, kind := parseName(name, e.Name())
		switch kind {
		case isWebM:
			add(completeWebM(dir, e.Name(), n))
		case isMovie:
			add(describeFile(dir, e.Name(), n))
		case isRaw:
			raws[n] = append(raws[n], k)
		}
	}
	for n, list := range raws {
		slices.Sort(list)
		f, err := completeMovie(dir, name, n, list)
		files = slices.DeleteFunc(files, func(o File) bool { return o.Name == f.Name }) // made again
		add(f, err)
	}
	slices.SortFunc(files, func(a, b File) int { return a.Number - b.Number })
	return files, errors.Join(faults...)
}

type kind uint8

const (
	isOther kind = iota
	isWebM
	isMovie
	isRaw
)

// parseName says what a file of a recording is: the k-th of the n-th take.
func parseName(name, file string) (n, k int, of kind) {
	rest, ok := strings.CutPrefix(file, name+"-")
	if !ok {
		return 0, 0, isOther
	}
	number, ext, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 {
		return 0, 0, isOther
	}
	switch {
	case file == webmName(name, n):
		return n, 0, isWebM
	case file == mp4Name(name, n):
		return n, 0, isMovie
	}
	k, err = strconv.Atoi(strings.TrimSuffix(ext, ".mp4"))
	if err != nil || k < 0 || file != rawName(name, n, k) {
		return 0, 0, isOther
	}
	return n, k, isRaw
}

func completeWebM(dir, name string, n int) (File, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return File{}, fmt.Errorf("completing a track: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return File{}, errors.Join(fmt.Errorf("completing a track: %w", err), f.Close())
	}
	s, err := webm.Finish(f, info.Size())
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if errors.Is(err, webm.ErrMalformed) || err == nil && s.Blocks == 0 { // killed before there was anything
		return File{}, os.Remove(path)
	}
	if err != nil {
		return File{}, fmt.Errorf("completing %s: %w", name, err)
	}
	out, err := describeFile(dir, name, n)
	out.Duration = time.Duration(s.Duration) * time.Millisecond
	return out, err
}

// completeMovie makes one movie of the raw files of a take, and removes them.
func completeMovie(dir, name string, n int, raws []int) (File, error) {
	var sources []movie.Source
	defer func() {
		for _, s := range sources {
			if f, ok := s.R.(*os.File); ok {
				_ = f.Close() // nothing was written
			}
		}
	}()
	for _, k := range raws {
		f, err := os.Open(filepath.Join(dir, rawName(name, n, k)))
		if err != nil {
			return File{}, fmt.Errorf("completing a track: %w", err)
		}
		sources = append(sources, movie.Source{R: f})
		info, err := f.Stat()
		if err != nil {
			return File{}, fmt.Errorf("completing a track: %w", err)
		}
		head, err := movie.Scan(f, info.Size(), nil, func(*movie.Fragment) error { return nil })
		if err != nil && !errors.Is(err, movie.ErrMalformed) {
			return File{}, fmt.Errorf("completing a track: %w", err)
		}
		if sources[len(sources)-1].Size = head.Whole; err != nil {
			_ = f.Close() // it has no head: there was nothing in it
			sources = sources[:len(sources)-1]
		}
	}
	m, err := movie.NewMovie(sources)
	if err != nil && !errors.Is(err, movie.ErrEmpty) {
		return File{}, fmt.Errorf("completing a track: %w", err)
	}
	out := File{}
	if err == nil {
		final := mp4Name(name, n)
		if err := place(filepath.Join(dir, final), m); err != nil {
			return File{}, err
		}
		if out, err = describeFile(dir, final, n); err != nil {
			return File{}, err
		}
		out.Duration = m.Summary().Duration
	}
	for _, k := range raws {
		if err := os.Remove(filepath.Join(dir, rawName(name, n, k))); err != nil {
			return out, fmt.Errorf("completing a track: %w", err)
		}
	}
	return out, nil
}

// place writes a movie beside and puts it in its place when it is on the disk. What a killed process left beside is written over.
func place(path string, m *movie.Movie) error {
	return durable.Replace(path, func(f *os.File) error { return m.WriteTo(context.Background(), f) })
}

func describeFile(dir, name string, n int) (File, error) {
	out := File{Name: name, Number: n, ContentType: "video/webm"}
	if filepath.Ext(name) == ".mp4" {
		out.ContentType = "video/mp4"
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return out, fmt.Errorf("reading a track: %w", err)
	}
	sum := sha256.New()
	out.Size, err = io.Copy(sum, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return out, fmt.Errorf("reading a track: %w", err)
	}
	out.Checksum = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return out, nil
}
