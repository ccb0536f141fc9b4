// Package storage keeps files that are complete: on a disk or in an S3-compatible object store, behind a queue that outlives
// the process and an absent storage, and hands out links that expire.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Store keeps objects by key. Implementations are safe for concurrent use. Errors wrap ErrFull, ErrDenied or ErrNotFound where that is
// what is wrong; with anything else the storage counts as away.
type Store interface {
	// Put stores a file as a whole: others see all of it or nothing. It may be called again after any failure.
	Put(ctx context.Context, u *Upload) error
	// URL is a link that works for anybody until ttl has passed.
	URL(ctx context.Context, key string, ttl time.Duration) (string, error)
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	// List returns the objects whose keys begin with prefix, ordered by key.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, key string) error
}

// Aborter is a Store that keeps what has arrived of an upload until it is completed, or told that nobody goes on with it.
type Aborter interface {
	// Abort removes what there is of an upload; resume is what Kept had. One that the store does not know is no error.
	Abort(ctx context.Context, key, resume string) error
}

// Upload is a file on its way into a Store.
type Upload struct {
	Key         string
	Path        string
	ContentType string
	// Resume is what the store was told to keep (Kept) when it tried before; empty the first time.
	Resume string
	// Kept is called when there is something to go on with after a restart. Nil: nobody keeps it.
	Kept func(resume string)
}

// Object is one stored object.
type Object struct {
	Key  string
	Size int64
	Time time.Time
}

// Errors by which a Store says why.
var (
	ErrFull     = errors.New("storage is full")
	ErrDenied   = errors.New("storage denies access")
	ErrNotFound = errors.New("no such object")
	ErrBadKey   = errors.New("bad key")
)

// maxKey is the longest key, in bytes; what S3 takes.
const maxKey = 1024

// CheckKey says whether a key can be stored anywhere: a clean relative path, without parts that begin with a dot.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKey || path.Clean(key) != key || strings.HasPrefix(key, "/") {
		return fmt.Errorf("%w: %q", ErrBadKey, key)
	}
	for part := range strings.SplitSeq(key, "/") {
		if strings.HasPrefix(part, ".") || len(part) > 255 || strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f || r == 0xfffd }) {
			return fmt.Errorf("%w: %q", ErrBadKey, key)
		}
	}
	return nil
}

// KeyPart makes a part of a key of any text: what is neither letter, digit, dash, underscore nor dot is written as its bytes in hexadecimal behind "=".
func KeyPart(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}

// Health of a storage.
type Health string

// The healths.
const (
	OK     Health = "ok"
	Away   Health = "away"   // it does not answer, or with faults
	Full   Health = "full"   // it has no room
	Denied Health = "denied" // it does not let us: credentials, rights, no such bucket
)

// healthOf says what an error of a Store means, and puts it into words for people.
func healthOf(err error) (Health, string) {
	switch {
	case err == nil:
		return OK, ""
	case errors.Is(err, ErrFull):
		return Full, err.Error()
	case errors.Is(err, ErrDenied):
		return Denied, err.Error()
	default:
		return Away, err.Error()
	}
}
