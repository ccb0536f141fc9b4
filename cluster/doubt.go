package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

const (
	// doubtEvery is how often it is looked whether the leader is silent.
	doubtEvery = 10 * time.Millisecond
	// askShare of Raft's time-out is how often the other voters are asked about a silent leader.
	askShare = 10
	// doubtShare of Raft's time-out lies between two voters who stand though the voters could not agree: the first are refused,
	// since the others have a leader still, and one of the last gets all votes. All at once would share them.
	doubtShare = 4
)

// early is after how much silence a voter asks the others, and agrees to the doubt of another: by the time-out it is known what
// they think.
func early(timeout time.Duration) time.Duration { return timeout * 2 / 3 }

// fresh is for how long the others' agreement counts: they may have heard the leader since.
func fresh(timeout time.Duration) time.Duration { return timeout / 3 }

// doubts have the voters find out together that the leader is silent, and agree on who is elected in its place: one of them
// then stands at once, and gets all votes.
type doubts struct {
	c *Cluster

	mu    sync.Mutex // guards the field below
	voter voter
}

// run looks at the leader until ctx ends.
func (d *doubts) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ticks := time.NewTicker(doubtEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		v := d.view()
		if v.follows && v.quiet >= early(v.timeout) && d.stand(ctx, &wg, v) {
			continue
		}
		trust := v.follows && v.silent < v.timeout
		if v.follows && !trust && v.quiet < 2*v.timeout+v.turn {
			continue
		}
		if err := d.c.group.Trust(trust); err != nil {
			d.c.log.Warn("Raft's time-outs cannot be changed", "err", err)
		}
	}
}

// stand asks the other voters, and stands for election (true) when they have agreed and the time-out is over.
func (d *doubts) stand(ctx context.Context, wg *sync.WaitGroup, v view) bool {
	voters := d.voters()
	if !slices.Contains(voters, d.c.id) {
		return false
	}
	now := time.Now()
	d.mu.Lock()
	elected, ask := d.voter.elected(now, v), d.voter.asks(now, v)
	d.mu.Unlock()
	if ask {
		wg.Go(func() { d.ask(ctx, v, voters) })
	}
	if !elected {
		return false
	}
	d.c.log.Info("the leader is silent; this node stands for election", "leader", v.leader, "silent", v.quiet.Round(time.Millisecond), "term", v.term)
	if err := d.c.group.Stand(); err != nil {
		d.c.log.Warn("the node cannot stand for election", "err", err)
		return false
	}
	return true
}

// ask puts the doubt to the other voters once, until a majority has agreed.
func (d *doubts) ask(ctx context.Context, v view, voters []string) {
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	answers := make(chan bool, len(voters))
	others := slices.DeleteFunc(slices.Clone(voters), func(id string) bool { return id == d.c.id || id == v.leader })
	call := &pb.RegistryCall{Body: &pb.RegistryCall_Doubt{Doubt: v.doubt()}}
	for _, id := range others {
		wg.Go(func() {
			reply, err := d.c.call(ctx, id, call)
			answers <- err == nil && reply.GetAgreed()
		})
	}
	agreed := 1 // this node
	for range others {
		if <-answers {
			agreed++
		}
		if agreed > len(voters)/2 {
			d.mu.Lock()
			d.voter.agreed(time.Now(), v)
			d.mu.Unlock()
			return
		}
	}
}

// answer is what this node says to another's doubt.
func (d *doubts) answer(from string, q *pb.Doubt) bool {
	if voters := d.voters(); !slices.Contains(voters, from) || !slices.Contains(voters, d.c.id) {
		return false
	}
	v := d.view()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.voter.answer(time.Now(), d.c.id, v, from, q)
}

// voters are those of the group, by id.
func (d *doubts) voters() []string {
	var ids []string
	for _, s := range d.c.group.Servers() {
		if s.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// view is how this node sees the leader now.
func (d *doubts) view() view {
	g := d.c.group
	v := view{timeout: g.Timeout(), term: g.Term(), leads: g.Leading()}
	if v.silent, v.follows = g.Silence(); !v.follows {
		return v
	}
	v.leader = g.Leader()
	v.quiet = quiet(v.timeout, v.silent, time.Since(d.c.deps.Peers.Heard(v.leader)))
	if v.quiet >= early(v.timeout) {
		v.lastTerm, v.lastIndex = g.Last()
		v.turn = time.Duration(d.rank(v.leader)) * v.timeout / doubtShare
	}
	return v
}

// rank is the node's place among the voters but leader; 0 without a vote: such a node only stops to wait for the leader.
func (d *doubts) rank(leader string) int {
	others := slices.DeleteFunc(d.voters(), func(id string) bool { return id == leader })
	return max(0, slices.Index(others, d.c.id))
}

// quiet is how long the leader has been silent that Raft has not heard for silent, and nothing else for unheard. One that is
// heard, but not by Raft, has twice the time: a lost packet holds up one connection.
func quiet(timeout, silent, unheard time.Duration) time.Duration {
	return max(min(silent, unheard), silent-timeout)
}

// view is how a node sees the leader that it follows.
type view struct {
	timeout time.Duration // Raft's
	leader  string
	term    uint64
	// follows: there is a leader, which is another node; leads: this node is the leader.
	follows, leads bool
	// silent is for how long Raft has not heard it; quiet takes into account what else is heard of it.
	silent, quiet time.Duration
	// Of leaders who have been quiet for a while: the last entry of the log, and when it is this node's turn to stand alone.
	lastTerm, lastIndex uint64
	turn                time.Duration
}

func (v view) doubt() *pb.Doubt {
	return &pb.Doubt{Leader: v.leader, Term: v.term, LastTerm: v.lastTerm, LastIndex: v.lastIndex}
}

// voter is a voter's part in a doubt: what it has asked, and whom it has promised its vote. That binds nobody but itself, in
// the end Raft's votes count.
type voter struct {
	// asked is when this node asked the others last, about a leader of a term; heard is when a majority has agreed.
	asked, heard     time.Time
	askedOf, heardOf uint64
	// promised is whom this node gives way to, until.
	promised string
	until    time.Time
}

// asks tells whether it is time to ask the others, and notes that it is done.
func (p *voter) asks(now time.Time, v view) bool {
	if now.Before(p.until) || p.askedOf == v.term && now.Sub(p.asked) < v.timeout/askShare {
		return false
	}
	p.asked, p.askedOf = now, v.term
	return true
}

// agreed notes that a majority has agreed to this node's doubt.
func (p *voter) agreed(now time.Time, v view) {
	if !now.Before(p.until) {
		p.heard, p.heardOf = now, v.term
	}
}

// elected tells whether this node is to stand now.
func (p *voter) elected(now time.Time, v view) bool {
	return v.quiet >= v.timeout && p.heardOf == v.term && now.Sub(p.heard) < fresh(v.timeout) && !now.Before(p.until)
}

// answer tells whether this node, self, agrees to another's doubt and gives way to it. Of two who ask each other the one with
// the longer log is elected, or else the one with the smaller id.
func (p *voter) answer(now time.Time, self string, v view, from string, q *pb.Doubt) bool {
	longer := v.lastTerm > q.GetLastTerm() || v.lastTerm == q.GetLastTerm() && v.lastIndex > q.GetLastIndex()
	same := v.lastTerm == q.GetLastTerm() && v.lastIndex == q.GetLastIndex()
	asking := p.askedOf == v.term && now.Sub(p.asked) < v.timeout/2 && !now.Before(p.until)
	switch {
	case v.leads || v.term != q.GetTerm() || !v.follows || v.leader != q.GetLeader() || v.quiet < early(v.timeout):
		return false // it has another leader, or hears this one
	case longer, asking && same && self < from:
		return false // it will stand itself
	case p.promised != from && now.Before(p.until):
		return false
	}
	p.promised, p.until = from, now.Add(v.timeout/2)
	return true
}
