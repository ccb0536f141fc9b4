// Package lease is the arithmetic of node leases, with no clock of its own: all times are readings of one node's
// monotonic clock. A Holder is at the node that has a lease, a Table at the leader who grants them.
package lease

import (
	"slices"
	"time"
)

// TTL is how long a lease runs at its holder from when the renewal was sent; Every is how often it is renewed.
const (
	TTL   = 1200 * time.Millisecond
	Every = 300 * time.Millisecond
)

// Holder is one node's lease. The zero value has none.
type Holder struct {
	until time.Duration
}

// Granted takes the leader's answer to a renewal that was sent at sent. Answers may come late and out of order.
func (h *Holder) Granted(sent, ttl time.Duration) { h.until = max(h.until, sent+ttl) }

// Valid tells whether the node may decide at now.
func (h *Holder) Valid(now time.Duration) bool { return now < h.until }

// Until is when it runs out.
func (h *Holder) Until() time.Duration { return h.until }

// Drop ends the lease.
func (h *Holder) Drop() { h.until = 0 }

// Table is the leader's memory of the leases. It outlasts the holders' by a margin, for clocks that run at different
// rates.
type Table struct {
	term  time.Duration
	grace time.Duration // until then every lease runs
	nodes map[string]entry
}

type entry struct {
	until   time.Duration
	unheard []string
}

// Margin is by how much the leader's reckoning is longer than the holder's: two clocks may differ by 4 % of their rate.
func Margin(ttl time.Duration) time.Duration { return ttl / 24 }

// NewTable is of a node that has just become the leader at now: nobody knows what its predecessor granted, so every
// lease runs a whole term.
func NewTable(now, ttl time.Duration) *Table {
	t := &Table{term: ttl + Margin(ttl), nodes: map[string]entry{}}
	t.Extend(now)
	return t
}

// Extend lets every lease run a whole term from now.
func (t *Table) Extend(now time.Duration) { t.grace = now + t.term }

// Renewed notes a renewal that was received at now, and which nodes its sender does not hear.
func (t *Table) Renewed(now time.Duration, node string, unheard []string) {
	t.nodes[node] = entry{until: now + t.term, unheard: unheard}
}

// Runs tells whether node's lease runs at now.
func (t *Table) Runs(now time.Duration, node string) bool {
	return now < t.grace || now < t.nodes[node].until
}

// Renewing tells whether node has renewed its lease here within a term.
func (t *Table) Renewing(now time.Duration, node string) bool { return now < t.nodes[node].until }

// Forget drops a node.
func (t *Table) Forget(node string) { delete(t.nodes, node) }

// Dead lists which of the nodes are dead: their lease has run out, and two others witness that they do not hear it, or
// all others where there are fewer. Others are nodes whose own lease runs.
func (t *Table) Dead(now time.Duration, nodes []string) []string {
	var dead []string
	for _, n := range nodes {
		if t.Runs(now, n) {
			continue
		}
		others, witnesses := 0, 0
		for _, o := range nodes {
			if o == n || !t.Runs(now, o) {
				continue
			}
			others++
			if t.Renewing(now, o) && slices.Contains(t.nodes[o].unheard, n) {
				witnesses++
			}
		}
		if witnesses > 0 && witnesses >= min(2, others) {
			dead = append(dead, n)
		}
	}
	return dead
}
