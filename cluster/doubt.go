package cluster

import (
	"context"
	"time"
)

const (
	// doubtEvery is how often it is looked whether the leader is silent.
	doubtEvery = 10 * time.Millisecond
	// doubtShare of Raft's time-out lies between two voters who stand for election: the first are refused, since the
	// others have a leader still, and one of the last gets all votes. All at once would share them.
	doubtShare = 4
)

// doubtLeader has Raft look for another leader as soon as the present one is heard neither by Raft nor at all, instead of
// when a random timer has run. One that is heard, but not by Raft, has twice the time: a lost packet holds up one
// connection.
func (c *Cluster) doubtLeader(ctx context.Context) {
	ticks := time.NewTicker(doubtEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		silent, follows := c.group.Silence()
		trust, timeout := false, c.group.Timeout()
		switch {
		case follows && silent < timeout:
			trust = true
		case follows:
			leader := c.group.Leader()
			if !silentFor(timeout, c.rank(leader), silent, time.Since(c.deps.Peers.Heard(leader))) {
				continue
			}
		}
		if err := c.group.Trust(trust); err != nil {
			c.log.Warn("Raft's time-outs cannot be changed", "err", err)
		}
	}
}

// silentFor says that a leader that Raft has not heard for silent, and nothing else for unheard, is to be doubted by the voter of
// this rank. Ranks count from the same moment for all: two that stood at once would share the votes.
func silentFor(timeout time.Duration, rank int, silent, unheard time.Duration) bool {
	turn := time.Duration(rank) * timeout / doubtShare
	return min(silent, unheard) >= timeout+turn || silent >= 2*timeout+turn
}

// rank is the node's place among the voters but leader; 0 without a vote: such a node only stops to wait for the leader.
func (c *Cluster) rank(leader string) int {
	rank := 0
	for _, s := range c.group.Servers() { // by id
		switch {
		case s.ID == c.id:
			if s.Voter {
				return rank
			}
			return 0
		case s.Voter && s.ID != leader:
			rank++
		}
	}
	return 0
}
