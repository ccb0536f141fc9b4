package record

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
	"syscall"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
	"github.com/amphi-sfu/amphi/hls/movie"
)

// retryEvery is how long is waited when files cannot be made.
const retryEvery = 10 * time.Second

// maxAttempts at making the files, unless what fails is the disk's room: that is waited for.
const maxAttempts = 3

// finish makes the files. It goes on after the recorder's next start if that ends meanwhile.
func (c *recording) finish(reason string) {
	c.phase(Finishing, "")
	ctx := c.r.base
	for attempt := 1; ; attempt++ {
		assets, err := c.makeInTurn(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, movie.ErrEmpty):
			if err := removeRecording(c.dir); err != nil {
				c.log.Warn("removing a recording of nothing", "err", err)
			}
			c.phase(Failed, "nothing was recorded")
			return
		case err == nil:
			c.end(assets, Stopped, reason)
			return
		}
		c.log.Warn("finishing a recording", "err", err)
		why := reasonOf(err)
		if attempt >= maxAttempts && why != diskFull {
			c.phase(Failed, why) // what was recorded stays, and is tried again at the next start
			return
		}
		c.phase(Retrying, why)
		select {
		case <-time.After(c.r.cfg.retry):
			c.phase(Finishing, "")
		case <-ctx.Done():
			return
		}
	}
}

// makeInTurn makes the files, of one recording at a time. One that waits for room lets the others go first: what they bring to the
// storage makes some.
func (c *recording) makeInTurn(ctx context.Context) ([]Asset, error) {
	select {
	case c.r.finishing <- struct{}{}:
		defer func() { <-c.r.finishing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return c.make(ctx)
}

// end notes that there is no more to do, and tells of the assets.
func (c *recording) end(assets []Asset, p Phase, reason string) {
	c.r.shelf.Lock()
	c.manifest.Finished, c.manifest.Assets = true, assets
	err := c.manifest.save(c.dir)
	c.r.shelf.Unlock()
	if err != nil {
		c.log.Warn("finishing a recording", "err", err) // it is finished again at the next start
	} else if c.manifest.Request.NoPlaylist {
		c.dropRaw()
	}
	c.announce()
	c.phase(p, reason)
}

// dropRaw removes the files as they were written, which are of no use once the manifest says that all others are there.
func (c *recording) dropRaw() {
	list, err := rawFiles(c.dir)
	for _, f := range list {
		err = errors.Join(err, os.Remove(filepath.Join(c.dir, rawName(f.tape, f.n))))
	}
	if err != nil {
		c.log.Warn("removing files of a recording", "err", err)
	}
}

// announce tells of the assets that are not in the storage.
func (c *recording) announce() {
	for _, a := range c.manifest.left() {
		c.r.cfg.OnAsset(a)
	}
}

// raw is a tape's files as they were written.
type raw struct {
	name    string
	files   []string // names in the directory
	sources []movie.Source
	opened  []*os.File
}

func (t *raw) close() {
	for _, f := range t.opened {
		_ = f.Close() // nothing was written
	}
}

// size is how much was written.
func (t *raw) size() (n int64) {
	for _, s := range t.sources {
		n += s.Size
	}
	return n
}

// hasRoom says that a disk has room for a file of about so many bytes. One that does not fit is not begun: until it failed it would
// take the room from the recordings that run.
func hasRoom(dir string, size int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return nil // the disk will say itself
	}
	if size+size/8 > int64(fs.Bavail)*fs.Bsize {
		return &os.PathError{Op: "making a file in", Path: dir, Err: syscall.ENOSPC}
	}
	return nil
}

// rawFile is the n-th file of a tape.
type rawFile struct {
	tape string
	n    int
}

// rawFiles finds the files of a directory as they were written, in order.
func rawFiles(dir string) (found []rawFile, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for files of a recording: %w", err)
	}
	for _, e := range entries {
		tape, number, _ := strings.Cut(strings.TrimSuffix(e.Name(), ".mp4"), ".")
		if n, err := strconv.Atoi(number); err == nil && rawName(tape, n) == e.Name() {
			found = append(found, rawFile{tape, n})
		}
	}
	slices.SortFunc(found, func(a, b rawFile) int {
		if a.tape != b.tape {
			return strings.Compare(a.tape, b.tape)
		}
		return a.n - b.n
	})
	return found, nil
}

// rawTapes opens the files of a directory; one whose head was not written whole is passed over.
func rawTapes(dir string) (tapes []*raw, err error) {
	found, err := rawFiles(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if len(tapes) == 0 || tapes[len(tapes)-1].name != f.tape {
			tapes = append(tapes, &raw{name: f.tape})
		}
		if err = tapes[len(tapes)-1].open(dir, rawName(f.tape, f.n)); err != nil {
			break
		}
	}
	if err != nil {
		for _, t := range tapes {
			t.close()
		}
	}
	return tapes, err
}

// open adds a file up to its last whole fragment.
func (t *raw) open(dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("opening a file of a recording: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("opening a file of a recording: %w", err), f.Close())
	}
	head, err := movie.Scan(f, info.Size(), nil, func(*movie.Fragment) error { return nil })
	switch {
	case errors.Is(err, movie.ErrMalformed) || err == nil && head.Whole == head.Size:
		return f.Close()
	case err != nil:
		return errors.Join(err, f.Close())
	case head.Whole < info.Size():
		if err := os.Truncate(filepath.Join(dir, name), head.Whole); err != nil {
			return errors.Join(fmt.Errorf("cutting a file of a recording: %w", err), f.Close())
		}
	}
	t.files, t.opened = append(t.files, name), append(t.opened, f)
	t.sources = append(t.sources, movie.Source{R: f, Size: head.Whole})
	return nil
}

// make makes all files of the recording. It can be done again.
func (c *recording) make(ctx context.Context) ([]Asset, error) {
	// What an attempt that was killed left behind takes room.
	if entries, err := os.ReadDir(c.dir); err == nil {
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), durable.Unfinished) {
				_ = os.Remove(filepath.Join(c.dir, e.Name())) // if it cannot be, the rest says why
			}
		}
	}
	tapes, err := rawTapes(c.dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, t := range tapes {
			t.close()
		}
	}()
	tapes = slices.DeleteFunc(tapes, func(t *raw) bool { return len(t.sources) == 0 })
	if len(tapes) == 0 {
		return nil, movie.ErrEmpty
	}
	var assets []Asset
	var vods []*vod
	var best *raw
	var bestSize int
	for _, t := range tapes {
		v, err := readVOD(t)
		if err != nil {
			return nil, err
		}
		vods = append(vods, v)
		if size := v.video.Width * v.video.Height; best == nil || size > bestSize {
			best, bestSize = t, size
		}
		if c.manifest.Request.NoMovie {
			continue
		}
		a, err := c.makeMovie(ctx, t, v)
		if err != nil {
			return nil, err
		}
		assets = append(assets, a)
	}
	if !c.manifest.Request.NoPlaylist {
		a, err := c.makePlaylists(vods)
		if err != nil {
			return nil, err
		}
		assets = append(assets, a)
	}
	assets = append(assets, c.makeThumbnails(ctx, best, vods[slices.Index(tapes, best)])...)
	if a, err := c.asset(Chat, chatName); err == nil {
		assets = append(assets, a)
	}
	return assets, nil
}

func (c *recording) makeMovie(ctx context.Context, t *raw, v *vod) (Asset, error) {
	m, err := movie.NewMovie(t.sources)
	if err != nil {
		return Asset{}, err
	}
	if err := hasRoom(c.dir, t.size()); err != nil {
		return Asset{}, err
	}
	name := t.name + ".mp4"
	if err := durable.Replace(filepath.Join(c.dir, name), func(f *os.File) error { return m.WriteTo(ctx, f) }); err != nil {
		return Asset{}, err
	}
	a, err := c.asset(Program, name)
	a.Variant, a.Duration, a.Started = t.name, m.Summary().Duration, v.started()
	a.Width, a.Height = v.video.Width, v.video.Height
	return a, err
}

// asset describes a file.
func (c *recording) asset(of Type, name string, with ...string) (Asset, error) {
	req := &c.manifest.Request
	a := Asset{
		ID: req.ID + "/" + name, Recording: req.ID, Type: of, Room: req.Room, Session: req.Session, Stream: req.Stream,
		ContentType: contentTypes[filepath.Ext(name)], File: name, With: with, Created: c.r.cfg.Now(),
	}
	f, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		return a, fmt.Errorf("reading a file of a recording: %w", err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return a, fmt.Errorf("reading a file of a recording: %w", err)
	}
	a.Size, a.Checksum = n, "sha256:"+hex.EncodeToString(sum.Sum(nil))
	for _, w := range with {
		info, err := os.Stat(filepath.Join(c.dir, w))
		if err != nil {
			return a, fmt.Errorf("reading a file of a recording: %w", err)
		}
		a.Size += info.Size()
	}
	return a, nil
}

// makeThumbnails makes pictures of the program at even distances; one that fails is left out.
func (c *recording) makeThumbnails(ctx context.Context, t *raw, v *vod) (assets []Asset) {
	n := c.manifest.Request.Thumbnails
	if c.r.cfg.Thumbnail == nil || n == 0 || len(v.segments) == 0 {
		return nil
	}
	n = min(n, len(v.segments))
	for i := range n {
		s := &v.segments[(2*i+1)*len(v.segments)/(2*n)]
		sample := make([]byte, s.key.Size)
		if _, err := t.sources[s.file].R.ReadAt(sample, s.key.Offset); err != nil {
			c.log.Warn("reading a picture for a thumbnail", "err", err)
			continue
		}
		jpeg, err := c.r.cfg.Thumbnail(ctx, v.tracks[s.file].AnnexB(sample))
		if err != nil {
			c.log.Warn("making a thumbnail", "err", err)
			continue
		}
		name := fmt.Sprintf("thumbnail-%02d.jpg", i)
		if err = durable.Replace(filepath.Join(c.dir, name), func(f *os.File) error { _, err := f.Write(jpeg); return err }); err == nil {
			var a Asset
			if a, err = c.asset(Thumbnail, name); err == nil {
				a.At, a.Started = s.at, s.wall
				assets = append(assets, a)
			}
		}
		if err != nil {
			c.log.Warn("writing a thumbnail", "err", err)
		}
	}
	return assets
}
