package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// promised is for how long a voter that has agreed to one founding refuses another; a founder acts within half of it.
const promised = 10 * time.Second

// founder is a voter's part in the founding of the cluster.
type founder struct {
	mu     sync.Mutex // guards the fields below
	voters []string   // agreed to
	until  time.Time
}

// promise agrees to one set of voters at a time.
func (f *founder) promise(voters []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Before(f.until) && !slices.Equal(f.voters, voters) {
		return false
	}
	f.voters, f.until = slices.Clone(voters), time.Now().Add(promised)
	return true
}

// agree answers the founder: yes if this node has never been in a group, is one of the voters and has not agreed to
// others.
func (c *Cluster) agree(from string, voters []string) error {
	founded, err := c.group.Founded()
	switch {
	case err != nil || founded:
		return proto.Errorf(proto.Conflict, "this node is in a cluster already")
	case !slices.IsSorted(voters) || len(voters) == 0 || voters[0] != from || !slices.Contains(voters, c.id):
		return proto.Errorf(proto.InvalidArgument, "the founder is the first of the voters, of which this node is one")
	case !c.founder.promise(voters):
		return proto.Errorf(proto.Conflict, "this node has agreed to other voters")
	}
	return nil
}

// found waits until enough voters see each other; the first of them by id then founds the cluster, if every one
// agrees. It ends when this node is in a group, whoever founded it.
func (c *Cluster) found(ctx context.Context) {
	for {
		founded, err := c.group.Founded()
		if err != nil || founded {
			return
		}
		if voters := c.firstVoters(); len(voters) > 0 && voters[0] == c.id && c.allAgree(ctx, voters) {
			if err := c.group.Found(voters); err != nil {
				c.log.Warn("the cluster could not be founded", "err", err)
			} else {
				c.log.Info("the cluster is founded", "voters", voters)
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(4 * pause):
		}
	}
}

// firstVoters are the first living voters by id, as many as are expected; nil while there are fewer.
func (c *Cluster) firstVoters() []string {
	voters := []string{c.id}
	for _, m := range c.deps.Members() {
		if m.ID != c.id && slices.Contains(m.Roles, "voter") {
			voters = append(voters, m.ID)
		}
	}
	if len(voters) < c.cfg.BootstrapExpect {
		return nil
	}
	slices.Sort(voters)
	return voters[:c.cfg.BootstrapExpect]
}

func (c *Cluster) allAgree(ctx context.Context, voters []string) bool {
	if !c.founder.promise(voters) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, promised/2)
	defer cancel()
	for _, id := range voters {
		if id == c.id {
			continue
		}
		reply, err := c.call(ctx, id, &pb.RegistryCall{Body: &pb.RegistryCall_Found{Found: &pb.Founding{Voters: voters}}})
		if err != nil || reply.GetError() != nil {
			return false
		}
	}
	return ctx.Err() == nil
}
