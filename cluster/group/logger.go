package group

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logger passes Raft's own words on: what it calls warnings and errors (a peer that does not answer, again and again)
// at most once a second, the rest for debugging only.
func logger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(&sink{to: to})
	return l
}

type sink struct {
	to      *slog.Logger
	last    atomic.Int64 // in nanoseconds
	skipped atomic.Int64
}

// Accept implements hclog.SinkAdapter.
func (s *sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	as := slog.LevelDebug
	if level >= hclog.Warn {
		now, last := time.Now().UnixNano(), s.last.Load()
		if now-last < int64(time.Second) || !s.last.CompareAndSwap(last, now) {
			s.skipped.Add(1)
			return
		}
		as = slog.LevelWarn
		if n := s.skipped.Swap(0); n > 0 {
			args = append(args, "skipped", n)
		}
	}
	s.to.Log(context.Background(), as, "raft: "+msg, args...)
}
