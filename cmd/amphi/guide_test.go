package main

import (
	"slices"
	"testing"
)

// town is two regions: two stage nodes and two for the audience in one, a stage node in the other.
func town() []member {
	stage, audience := []string{roleStage, roleOrigin, roleVoter}, []string{roleAudience}
	return []member{
		{id: "s1", region: "r", zone: "a", roles: stage, url: "s1", alive: true},
		{id: "s2", region: "r", zone: "b", roles: stage, url: "s2", alive: true},
		{id: "a1", region: "r", zone: "a", roles: audience, url: "a1", alive: true, load: 20},
		{id: "a2", region: "r", zone: "b", roles: audience, url: "a2", alive: true, load: 10},
		{id: "t1", region: "t", zone: "a", roles: stage, url: "t1", alive: true},
	}
}

func change(members []member, id string, f func(*member)) []member {
	i := slices.IndexFunc(members, func(m member) bool { return m.id == id })
	f(&members[i])
	return members
}

func TestWhereNewClientsGo(t *testing.T) {
	t.Parallel()
	drain := func(m *member) { m.draining = true }
	dead := func(m *member) { m.alive = false }
	for _, c := range []struct {
		name    string
		members []member
		self    string
		level   uint32
		want    string
	}{
		{"stage peers stay on a stage node", town(), "s1", 1, ""},
		{"stage peers leave an audience node", town(), "a1", 1, "s1"},
		{"level 2 goes to the least loaded audience node", town(), "s1", 2, "a2"},
		{"level 2 stays on an audience node", town(), "a1", 2, ""},
		{"level 2 stays where its region has no audience node", town(), "t1", 2, ""},
		{"level 3 is served by any edge", town(), "s1", 3, ""},
		{"a dead audience node gets nobody", change(town(), "a2", dead), "s1", 2, "a1"},
		{"a full audience node gets nobody", change(change(town(), "a2", drain), "a1", func(m *member) { m.load = 240 }), "s1", 2, ""},
		{"a draining node takes nobody", change(town(), "s1", drain), "s1", 1, "s2"},
		{"nor back", change(town(), "s1", drain), "s1", 0, "s2"},
		{"who comes back stays otherwise", town(), "s1", 0, ""},
		{"a full node sends on", change(town(), "s1", func(m *member) { m.load = 240 }), "s1", 1, "s2"},
		{"a full node keeps clients when all are busy", change(change(town(), "s1", func(m *member) { m.load = 240 }), "s2", func(m *member) { m.load = 200 }), "s1", 1, ""},
		{"another region helps when nobody else does", change(change(town(), "s1", drain), "s2", dead), "s1", 1, "t1"},
		{"an unknown node sends nobody away", town(), "x", 1, ""},
	} {
		if got := elsewhere(c.members, c.self, c.level, 0, ""); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestClientsGetTheRegionTheyAskFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		members []member
		self    string
		level   uint32
		region  string
		want    string
	}{
		{"another region", town(), "s1", 1, "t", "t1"},
		{"its own", town(), "s1", 1, "r", ""},
		{"the audience of another region", town(), "t1", 2, "r", "a2"},
		{"a region that nobody knows", town(), "s1", 1, "mars", ""},
		{"a region without a living node", change(town(), "t1", func(m *member) { m.alive = false }), "s1", 1, "t", ""},
		{"a region that is full", change(town(), "t1", func(m *member) { m.load = 250 }), "s1", 1, "t", ""},
		{"who comes back stays", town(), "s1", 0, "t", ""},
	} {
		if got := elsewhere(c.members, c.self, c.level, 0, c.region); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestNewClientsAreSpread(t *testing.T) {
	t.Parallel()
	got := map[string]int{}
	for turn := range uint32(100) {
		got[elsewhere(town(), "s1", 2, turn, "")]++
	}
	if got["a1"] != 50 || got["a2"] != 50 {
		t.Errorf("%v", got)
	}
}

func TestBackupsDoNotFailTogether(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		self  string
		level uint32
		want  []string
	}{
		{"s1", 1, []string{"s2", "t1"}}, {"a1", 2, []string{"a2", "s2"}}, {"a1", 1, []string{"s2", "s1"}}, {"t1", 1, []string{"s2", "s1"}}, {"x", 1, nil},
	} {
		if got := backups(town(), c.self, c.level); !slices.Equal(got, c.want) {
			t.Errorf("of %s, level %d: %v, want %v", c.self, c.level, got, c.want)
		}
	}
}
