package lease_test

import (
	"slices"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cluster/lease"
	"pgregory.net/rapid"
)

const ms = time.Millisecond

func TestHolder(t *testing.T) {
	t.Parallel()
	var h lease.Holder
	if h.Valid(0) {
		t.Error("valid without a grant")
	}
	h.Granted(100*ms, lease.TTL)
	h.Granted(50*ms, lease.TTL) // late answer to an earlier renewal
	if !h.Valid(1299*ms) || h.Valid(1300*ms) {
		t.Error("it does not run from 100 to 1300 ms")
	}
	h.Drop()
	if h.Valid(200 * ms) {
		t.Error("valid after it was dropped")
	}
}

func TestDead(t *testing.T) {
	t.Parallel()
	nodes := []string{"a", "b", "c", "d"}
	for name, c := range map[string]struct {
		reports map[string][]string // who renews just before the end, and whom it does not hear
		want    []string
	}{
		"all well":                       {map[string][]string{"a": nil, "b": nil, "c": nil, "d": nil}, nil},
		"two witnesses":                  {map[string][]string{"a": {"d"}, "b": {"d"}, "c": nil}, []string{"d"}},
		"one witness of three":           {map[string][]string{"a": {"d"}, "b": nil, "c": nil}, nil},
		"nobody else":                    {map[string][]string{"d": nil}, nil},
		"the only other one":             {map[string][]string{"a": {"b", "c", "d"}}, []string{"b", "c", "d"}},
		"two dead, both others say so":   {map[string][]string{"a": {"c", "d"}, "b": {"c", "d"}}, []string{"c", "d"}},
		"two dead, one of the others":    {map[string][]string{"a": {"c", "d"}, "b": nil}, nil},
		"heard by all, but not renewing": {map[string][]string{"a": nil, "b": nil, "c": nil}, nil},
		"unheard, but renewing":          {map[string][]string{"a": {"d"}, "b": {"d"}, "c": {"d"}, "d": nil}, nil},
	} {
		table := lease.NewTable(0, lease.TTL)
		for _, n := range nodes {
			table.Renewed(0, n, nil)
		}
		if got := table.Dead(1249*ms, nodes); got != nil {
			t.Errorf("%s: %v dead within the term", name, got)
		}
		for n, unheard := range c.reports {
			table.Renewed(1200*ms, n, unheard)
		}
		if got := table.Dead(1251*ms, nodes); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		table.Extend(1251 * ms)
		if got := table.Dead(2500*ms, nodes); got != nil {
			t.Errorf("%s: %v dead though extended", name, got)
		}
	}
}

// TestNeverDeadWhileHeld: whatever renewals arrive when, at an old leader or a new one, and however the clocks of
// holder and leader differ by up to 4 %, a node's lease never runs at the node once a leader takes it to have run out.
func TestNeverDeadWhileHeld(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.96, 1.04).Draw(t, "rate") // of the holder's clock against the leader's
		offset := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "offset"))
		holder := func(now time.Duration) time.Duration { return offset + time.Duration(float64(now)*rate) }
		var h lease.Holder
		table := lease.NewTable(0, lease.TTL)
		now := time.Duration(0)
		for range rapid.IntRange(1, 40).Draw(t, "n") {
			now += time.Duration(rapid.IntRange(0, 900).Draw(t, "gap")) * ms
			if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
				table = lease.NewTable(now, lease.TTL) // another leader
				continue
			}
			sent := now
			now += time.Duration(rapid.IntRange(0, 700).Draw(t, "way")) * ms
			table.Renewed(now, "n", nil)
			if rapid.Bool().Draw(t, "answered") {
				h.Granted(holder(sent), lease.TTL)
			}
		}
		for ; now < time.Hour; now += 7 * ms {
			if !table.Runs(now, "n") {
				break
			}
		}
		if h.Valid(holder(now)) {
			t.Fatalf("at %v the leader takes it for run out, the holder has it until %v of %v", now, h.Until(), holder(now))
		}
	})
}
