//go:build cgo

package program

import (
	"io"
	"sync"

	"github.com/amphi-sfu/amphi/hls/wire"
)

// sender writes frames to the node, whole and one at a time, straight from the
// goroutine that made them: a queue would only add latency.
type sender struct {
	mu  sync.Mutex // guards the fields below, and the order of writes
	w   io.Writer
	buf []byte
	err error
}

func newSender(w io.Writer) *sender { return &sender{w: w} }

// send writes what encode appends. After a failed write all fail.
func (s *sender) send(encode func([]byte) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	b, err := encode(s.buf[:0])
	s.buf = b[:0]
	if err != nil {
		return err
	}
	_, s.err = s.w.Write(b)
	return s.err
}

func (s *sender) ready(r *wire.Ready) error {
	return s.send(func(b []byte) ([]byte, error) { return wire.AppendReady(b, r) })
}

func (s *sender) video(au wire.VideoAU) error {
	return s.send(func(b []byte) ([]byte, error) { return wire.AppendVideoAU(b, au) })
}

func (s *sender) audio(au wire.AudioAU) error {
	return s.send(func(b []byte) ([]byte, error) { return wire.AppendAudioAU(b, au) })
}

func (s *sender) stats(st *wire.Stats) error {
	return s.send(func(b []byte) ([]byte, error) { return wire.AppendStats(b, st) })
}

func (s *sender) keyframeRequest(r wire.KeyframeRequest) error {
	return s.send(func(b []byte) ([]byte, error) { return wire.AppendKeyframeRequest(b, r), nil })
}
