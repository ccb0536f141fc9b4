package media

import (
	"log/slog"
	"strings"
	"testing"
)

func TestDropLog(t *testing.T) {
	t.Parallel()
	var c dropCounters
	var l dropLog
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	second := func() (lines int) {
		before := strings.Count(out.String(), "\n")
		attrs, total := l.since(func(d drop) uint64 { return c[d].Load() })
		tellDrops(log, "dropping", attrs, total)
		return strings.Count(out.String(), "\n") - before
	}
	c.add(dropMalformed)
	if n := second(); n != 0 {
		t.Fatalf("%d lines for one packet", n)
	}
	for range 50_000 {
		c.add(dropRateLimit)
		c.add(dropSRTPAuth)
	}
	if n := second(); n != 1 || !strings.Contains(out.String(), "rate_limit=50000") || !strings.Contains(out.String(), "srtp_auth=50000") {
		t.Fatalf("%d lines for a flood:\n%s", n, out.String())
	}
	if n := second(); n != 0 {
		t.Fatalf("%d lines for nothing", n)
	}
}
