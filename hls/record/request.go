package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
)

// Errors that a caller branches on.
var (
	ErrExists     = errors.New("recording exists")
	ErrNotFound   = errors.New("no such recording")
	ErrBadRequest = errors.New("bad request for a recording")
	ErrClosed     = errors.New("recorder has ended")
	ErrTooMany    = errors.New("too many recordings")
)

// Request says what is recorded.
type Request struct {
	// ID names the recording, also in files: letters, digits, dash and underscore, 1–64.
	ID      string `json:"id"`
	Room    string `json:"room"`
	Session string `json:"session,omitempty"`
	Stream  string `json:"stream"`
	// Variants that are recorded, by name. Empty is the best one; AllVariants is all of them.
	Variants []string `json:"variants,omitempty"`
	// NoPlaylist leaves out the VOD playlist and its files, NoMovie the progressive MP4. Not both.
	NoPlaylist bool `json:"no_playlist,omitempty"`
	NoMovie    bool `json:"no_movie,omitempty"`
	// Thumbnails is how many are made; 0 is 5, negative none, at most 100.
	Thumbnails int `json:"thumbnails,omitempty"`
}

// AllVariants in Request.Variants is every variant of the program.
const AllVariants = "*"

const (
	defaultThumbnails = 5
	maxThumbnails     = 100
	maxVariants       = 6
)

func (r Request) withDefaults() (Request, error) {
	if !nameOK(r.ID) {
		return r, fmt.Errorf("%w: id %q", ErrBadRequest, r.ID)
	}
	if r.Room == "" || r.Stream == "" || len(r.Room) > 256 || len(r.Stream) > 256 || len(r.Session) > 256 {
		return r, fmt.Errorf("%w: room %q, stream %q", ErrBadRequest, r.Room, r.Stream)
	}
	if len(r.Variants) > maxVariants {
		return r, fmt.Errorf("%w: %d variants", ErrBadRequest, len(r.Variants))
	}
	for _, v := range r.Variants {
		if v != AllVariants && !nameOK(v) {
			return r, fmt.Errorf("%w: variant %q", ErrBadRequest, v)
		}
	}
	if r.NoPlaylist && r.NoMovie {
		return r, fmt.Errorf("%w: neither movie nor playlist", ErrBadRequest)
	}
	if r.Thumbnails == 0 {
		r.Thumbnails = defaultThumbnails
	}
	r.Thumbnails = min(max(0, r.Thumbnails), maxThumbnails)
	r.Variants = slices.Clone(r.Variants)
	return r, nil
}

func nameOK(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// wants says whether a variant, the n-th of the program, is recorded.
func (r *Request) wants(name string, n int) bool {
	if len(r.Variants) == 0 {
		return n == 0
	}
	return slices.Contains(r.Variants, name) || slices.Contains(r.Variants, AllVariants)
}

// manifest is what a recording's directory says of it.
type manifest struct {
	Request Request `json:"request"`
	// Started and Ended are of the recording; Ended is zero while it runs, or was running when the node was killed.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Finished says that the files are complete.
	Finished bool    `json:"finished,omitempty"`
	Assets   []Asset `json:"assets,omitempty"`
	// Stored are the files of those assets that are in the storage.
	Stored []string `json:"stored,omitempty"`
}

const manifestName = "recording.json"

// save replaces the manifest in one step.
func (m *manifest) save(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("writing a recording's manifest: %w", err)
	}
	return durable.Replace(filepath.Join(dir, manifestName), func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// maxManifest is the largest that is read, in bytes.
const maxManifest = 1 << 20

func loadManifest(dir string) (*manifest, error) {
	path := filepath.Join(dir, manifestName)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading a recording's manifest: %w", err)
	}
	if info.Size() > maxManifest {
		return nil, fmt.Errorf("reading a recording's manifest: %d bytes", info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a recording's manifest: %w", err)
	}
	return parseManifest(b)
}

func parseManifest(b []byte) (*manifest, error) {
	m := &manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("reading a recording's manifest: %w", err)
	}
	var err error
	if m.Request.Thumbnails == 0 {
		m.Request.Thumbnails = -1
	}
	if m.Request, err = m.Request.withDefaults(); err != nil {
		return nil, fmt.Errorf("reading a recording's manifest: %w", err)
	}
	return m, nil
}

// removeRecording removes a directory, its manifest last: one that is killed meanwhile does not leave files that nobody knows.
func removeRecording(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != manifestName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
