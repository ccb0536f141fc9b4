package group

import "slices"

// Kind is what a Change does.
type Kind int

// AddNonvoter gives a node the log; Promote gives it a vote; Remove takes both.
const (
	AddNonvoter Kind = iota + 1
	Promote
	Remove
)

// Change is one change of the group's nodes.
type Change struct {
	Kind Kind
	ID   string
}

// Fact is what the leader knows of a node.
type Fact struct {
	ID string
	// Alive nodes have answered lately; Stable ones for some time, with a log that has come nearly as far as the leader's.
	Alive, Stable bool
	// Voter nodes are meant to vote.
	Voter bool
	// Gone nodes were dead for long enough to be replaced. Deleted ones are never to come back.
	Gone, Deleted bool
}

// Limits bound the number of voters.
type Limits struct {
	// Least is below which dead voters are not removed, Most up to which nodes are promoted.
	Least, Most int
}

// Next is the one change that the group needs most; false when it needs none. Only one at a time is made, by the leader, when
// the one before is committed. A voter is removed only while those that would be left are alive in their majority, and
// the majority that has to agree to it is alive as well.
func Next(servers []Server, facts []Fact, limits Limits) (Change, bool) {
	known := map[string]Fact{}
	for _, f := range facts {
		known[f.ID] = f
	}
	var voters []string
	for _, s := range servers {
		if s.Voter {
			voters = append(voters, s.ID)
		}
	}
	for _, f := range facts {
		if f.Alive && !f.Deleted && !slices.ContainsFunc(servers, func(s Server) bool { return s.ID == f.ID }) {
			return Change{AddNonvoter, f.ID}, true
		}
	}
	for _, s := range servers {
		f, ok := known[s.ID]
		if !s.Voter && ok && f.Deleted {
			return Change{Remove, s.ID}, true
		}
	}
	return nextVoter(servers, voters, known, limits)
}

func nextVoter(servers []Server, voters []string, known map[string]Fact, limits Limits) (Change, bool) {
	alive, gone := 0, 0
	for _, id := range voters {
		if known[id].Alive {
			alive++
		}
		if known[id].Gone {
			gone++
		}
	}
	if len(voters)-gone < limits.Most {
		for _, s := range servers {
			if f := known[s.ID]; !s.Voter && f.Voter && f.Stable && f.Alive && !f.Deleted {
				return Change{Promote, s.ID}, true
			}
		}
	}
	for _, id := range voters {
		f, ok := known[id]
		left := len(voters) - 1
		if !ok || f.Alive && !f.Deleted || !f.Gone && !f.Deleted {
			continue
		}
		if !f.Deleted && left < limits.Least {
			continue
		}
		healthy := alive
		if f.Alive {
			healthy--
		}
		if left > 0 && healthy > left/2 && healthy > len(voters)/2 {
			return Change{Remove, id}, true
		}
	}
	return Change{}, false
}

// String names the kind.
func (k Kind) String() string {
	switch k {
	case AddNonvoter:
		return "added"
	case Promote:
		return "votes"
	}
	return "removed"
}
