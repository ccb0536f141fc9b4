package cluster

import (
	"testing"
	"time"
)

func TestSilentFor(t *testing.T) {
	t.Parallel()
	const timeout = 400
	for _, c := range []struct {
		rank, silent, unheard int
		want                  bool
	}{
		{0, 399, 399, false},
		{0, 400, 1000, true},
		{0, 799, 399, false}, // heard, but not by Raft
		{0, 800, 0, true},
		{1, 499, 499, false},
		{1, 500, 500, true},
		{2, 700, 599, false}, // a voter whose last heartbeat was long before takes its turn all the same
		{2, 700, 600, true},
		{2, 999, 0, false},
		{2, 1000, 0, true},
	} {
		ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		if got := silentFor(ms(timeout), c.rank, ms(c.silent), ms(c.unheard)); got != c.want {
			t.Errorf("voter %d, unheard by Raft for %d ms, at all for %d: %v", c.rank, c.silent, c.unheard, got)
		}
	}
}
