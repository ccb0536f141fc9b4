package media

import (
	"context"
	"log/slog"
)

// manyDrops is how many packets dropped in a second are worth a warning; fewer are only of
// interest to who debugs.
const manyDrops = 100

// dropLog tells what was dropped since it was asked last. The zero value is ready; it belongs to
// one goroutine or is guarded by its owner's mutex.
type dropLog struct {
	told [drops]uint64
}

// since returns a log line for what was dropped between the last call and this one.
func (l *dropLog) since(count func(drop) uint64) (attrs []slog.Attr, total uint64) {
	for d := range drops {
		n := count(d) - l.told[d]
		if n == 0 {
			continue
		}
		l.told[d] += n
		total += n
		attrs = append(attrs, slog.Uint64(d.String(), n))
	}
	return attrs, total
}

// tellDrops logs one line, if anything was dropped. It is called once per second, so floods of
// any kind make no more lines than that.
func tellDrops(log *slog.Logger, message string, attrs []slog.Attr, total uint64) {
	if total == 0 {
		return
	}
	level := slog.LevelDebug
	if total >= manyDrops {
		level = slog.LevelWarn
	}
	log.LogAttrs(context.Background(), level, message, attrs...)
}

// tellDrops names the endpoints whose packets were dropped.
func (in *inbound) tellDrops() {
	in.mu.Lock()
	attrs, total := in.log.since(func(d drop) uint64 { return in.counts.dropped[d] })
	in.mu.Unlock()
	tellDrops(in.ep.log, "dropping what a client sends", attrs, total)
}
