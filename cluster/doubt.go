package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/cluster/group"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// doubtEvery is how often it is looked whether the leader is silent.
	doubtEvery = 10 * time.Millisecond
	// doubtShare of Raft's time-out lies between two voters who stand for election: the first are refused, since the
	// others have a leader still, and one of the last gets all votes. All at once would share them.
	doubtShare = 4
	// askVoters is how long voters have to say who leads.
	askVoters = 250 * time.Millisecond
)

// doubtLeader has Raft look for another leader as soon as the present one is heard neither by Raft nor at all, instead of
// when a random timer has run. One that is heard, but not by Raft, has twice the time: a lost packet holds up one
// connection.
func (c *Cluster) doubtLeader(ctx context.Context) {
	ticks := time.NewTicker(doubtEvery)
	defer ticks.Stop()
	doubted := "" // the leader that was, as long as it is silent
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		silent, timeout := c.group.Silence()
		if silent < timeout {
			doubted = ""
			continue
		}
		leader := c.group.Leader()
		wait := timeout + time.Duration(c.rank(leader))*timeout/doubtShare
		if time.Since(c.deps.Peers.Heard(leader)) < timeout {
			wait += timeout
		}
		if silent < wait || doubted == leader {
			continue
		}
		doubted = leader
		if err := c.group.Doubt(); err != nil {
			c.log.Warn("Raft cannot be told to look at its leader", "err", err)
		}
	}
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

// leaderByVoters is whom the first voter to answer takes for the leader; a new one may not have reached this node yet.
func (c *Cluster) leaderByVoters(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, askVoters)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	voters := slices.DeleteFunc(c.group.Servers(), func(s group.Server) bool { return !s.Voter || s.ID == c.id })
	answers := make(chan string, len(voters))
	for _, s := range voters {
		wg.Go(func() {
			reply, err := c.call(ctx, s.ID, &pb.RegistryCall{Body: &pb.RegistryCall_Term{Term: true}})
			if err != nil {
				reply = nil
			}
			answers <- reply.GetLeader()
		})
	}
	for range voters {
		if leader := <-answers; leader != "" {
			return leader
		}
	}
	return ""
}
