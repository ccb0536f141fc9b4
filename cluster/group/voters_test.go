package group

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// facts: a letter for each node: v alive voter-to-be, s the same and stable, n alive without the role, d dead, g gone, x deleted and dead, y
// deleted and alive.
func facts(letters string) []Fact {
	var all []Fact
	for i, l := range letters {
		all = append(all, Fact{
			ID: fmt.Sprint(i), Alive: l == 'v' || l == 's' || l == 'n' || l == 'y', Stable: l == 's', Voter: l != 'n',
			Gone: l == 'g' || l == 'x', Deleted: l == 'x' || l == 'y',
		})
	}
	return all
}

// servers: V voter, N non-voter, - not in the group.
func servers(letters string) []Server {
	var all []Server
	for i, l := range letters {
		if l != '-' {
			all = append(all, Server{ID: fmt.Sprint(i), Voter: l == 'V'})
		}
	}
	return all
}

func TestNext(t *testing.T) {
	t.Parallel()
	limits := Limits{Least: 3, Most: 5}
	for name, c := range map[string]struct {
		servers, facts string
		want           Change
	}{
		"all well":                                {"VVV", "sss", Change{}},
		"a new node gets the log":                 {"VVV-", "sssv", Change{AddNonvoter, "3"}},
		"a dead one does not":                     {"VVV-", "sssg", Change{}},
		"a stable one with the role votes":        {"VVVN", "ssss", Change{Promote, "3"}},
		"not before it is stable":                 {"VVVN", "sssv", Change{}},
		"not without the role":                    {"VVVN", "sssn", Change{}},
		"not more than five":                      {"VVVVVN", "ssssss", Change{}},
		"unless one of five is gone":              {"VVVVVN", "gsssss", Change{Promote, "5"}},
		"then that one is removed":                {"VVVVVV", "gsssss", Change{Remove, "0"}},
		"of five the gone one is removed":         {"VVVVV", "gssss", Change{Remove, "0"}},
		"of three it stays":                       {"VVV", "gss", Change{}},
		"a dead one is not yet gone":              {"VVVVV", "dssss", Change{}},
		"not when the rest has no majority":       {"VVVVV", "ggdss", Change{}},
		"the first of two":                        {"VVVVV", "ggsss", Change{Remove, "0"}},
		"a deleted non-voter goes":                {"VVVN", "sssx", Change{Remove, "3"}},
		"a deleted voter goes, also of three":     {"VVV", "xss", Change{Remove, "0"}},
		"but not when the rest is not healthy":    {"VVV", "xds", Change{}},
		"a deleted voter that lives goes as well": {"VVVV", "ysss", Change{Remove, "0"}},
		"the last one stays":                      {"V", "y", Change{}},
	} {
		got, ok := Next(servers(c.servers), facts(c.facts), limits)
		if got != c.want || ok != (c.want != Change{}) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// TestNextNeverBreaksTheQuorum: whatever the group and what is known of it, a change leaves a majority of the voters
// alive if there was one, is never one that the present majority cannot agree to, and a group that changes as it is
// told comes to rest.
func TestNextNeverBreaksTheQuorum(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "nodes")
		var s, f string
		for range n {
			s += string(rapid.SampledFrom([]rune("VVVN-")).Draw(t, "server"))
			f += string(rapid.SampledFrom([]rune("sssvndgxy")).Draw(t, "fact"))
		}
		group, known := servers(s), facts(f)
		for range 4 * n {
			change, ok := Next(group, known, Limits{Least: 3, Most: 5})
			if !ok {
				return
			}
			before, after := quorum(group, known), []Server(nil)
			switch i := slices.IndexFunc(group, func(s Server) bool { return s.ID == change.ID }); change.Kind {
			case AddNonvoter:
				after = append(slices.Clone(group), Server{ID: change.ID})
			case Promote:
				after = slices.Clone(group)
				after[i].Voter = true
			case Remove:
				after = slices.Delete(slices.Clone(group), i, i+1)
				if group[i].Voter && !before {
					t.Fatalf("%s %s: %v has to be agreed to by a majority that is dead", s, f, change)
				}
			}
			if before && !quorum(after, known) {
				t.Fatalf("%s %s: %v breaks the quorum", s, f, change)
			}
			group = after
		}
		t.Fatalf("%s %s: it goes on for ever", s, f)
	})
}

func quorum(group []Server, known []Fact) bool {
	voters, alive := 0, 0
	for _, s := range group {
		if s.Voter {
			voters++
			if slices.ContainsFunc(known, func(f Fact) bool { return f.ID == s.ID && f.Alive }) {
				alive++
			}
		}
	}
	return alive > voters/2
}

func TestHeartbeatFollowsTheRoundTrip(t *testing.T) {
	t.Parallel()
	for rtt, want := range map[time.Duration]time.Duration{
		0: 200 * time.Millisecond, 30 * time.Millisecond: 200 * time.Millisecond, 80 * time.Millisecond: 400 * time.Millisecond,
		200 * time.Millisecond: time.Second, time.Minute: 3 * time.Second,
	} {
		if got := Heartbeat(rtt); got != want {
			t.Errorf("%v: %v, want %v", rtt, got, want)
		}
	}
}
