package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	// thumbnailTime bounds how long a thumbnail may take, thumbnailMemory its memory in bytes, maxThumbnail what comes out.
	thumbnailTime   = 20 * time.Second
	thumbnailMemory = 1 << 30
	thumbnailFiles  = 32
	thumbnailNice   = 10 // it may wait
	maxThumbnail    = 4 << 20
)

// Thumbnail makes a JPEG, at most width pixels wide, of an access unit (H.264, Annex B) that decodes by itself: in a process of the
// program amphi-compositor at path, which has the rights of nobody if the node may choose, and is gone in the end.
func Thumbnail(ctx context.Context, path string, width int, annexB []byte) ([]byte, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("making a thumbnail: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, thumbnailTime)
	defer cancel()
	l := Limits{Nice: thumbnailNice, Memory: thumbnailMemory, Files: thumbnailFiles}.withDefaults()
	cmd := l.command(ctx, path, "--thumbnail", strconv.Itoa(width))
	cmd.Stdin = bytes.NewReader(annexB)
	if os.Geteuid() == 0 && reachable(path) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: l.UID, Gid: l.GID}
	}
	out, stderr := &bounded{left: maxThumbnail}, &bounded{left: maxLine}
	cmd.Stdout, cmd.Stderr = out, stderr
	// The death signal is sent when the thread that started the process ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("making a thumbnail: %w: %s", err, bytes.TrimSpace(stderr.b))
	}
	if len(out.b) == 0 {
		return nil, errors.New("making a thumbnail: nothing came out")
	}
	return out.b, nil
}

// bounded takes so many bytes and no more.
type bounded struct {
	b    []byte
	left int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, io.ErrShortBuffer
	}
	b.b = append(b.b, p...)
	return len(p), nil
}
