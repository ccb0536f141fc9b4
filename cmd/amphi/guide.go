package main

import (
	"cmp"
	"slices"
)

// member is a node of the cluster as its neighbours know it.
type member struct {
	id, region, zone string
	roles            []string
	url              string
	// load is 0 (idle) to 255.
	load     uint8
	draining bool
	// alive: gossip does not suspect it.
	alive bool
}

const (
	roleStage    = "stage"
	roleAudience = "audience"
	roleOrigin   = "origin"
	roleVoter    = "voter"
)

const (
	// busy is the load from which on a node sends new clients on, if there is one with at most spare.
	busy, spare = 230, 128
	// similar is by how much the load of nodes may differ that share new clients.
	similar = 32
	// backupNodes is how many nodes a client is told to come back to.
	backupNodes = 2
)

// has says that the node has a role.
func (m member) has(role string) bool { return slices.Contains(m.roles, role) }

// serves says how well a node suits clients of a level: 0 best, negative not at all. Level 2 belongs on dedicated audience
// nodes; level 3 is served by any edge; level 0, any client, wherever there is room.
func (m member) serves(level uint32) int {
	stage, audience := m.has(roleStage), m.has(roleAudience)
	switch {
	case !m.alive || m.draining || !stage && !audience:
		return -1
	case level == 1 && !stage:
		return -1
	case level == 2 && stage:
		return 1
	}
	return 0
}

// elsewhere is the URL of the node that a new client of this level should use; empty: this one. members holds all nodes,
// this one among them. Clients of different turns are spread over nodes that do it about as well: what a node's load is
// comes round only now and then. Who asks for a region gets it while a node there has room.
func elsewhere(members []member, self string, level, turn uint32, region string) string {
	i := slices.IndexFunc(members, func(m member) bool { return m.id == self })
	if i < 0 {
		return ""
	}
	me := members[i]
	if region != "" && region != me.region && level != 0 {
		there := me
		there.region = region
		best := choose(members, there, level, func(m member) bool { return m.region == region && m.load < busy })
		if len(best) > 0 {
			return best[int(turn)%alike(best, there, level)].url
		}
	}
	best := choose(members, me, level, func(m member) bool { return m.id != self })
	if len(best) == 0 {
		return "" // nobody does it better
	}
	mine, theirs := me.serves(level), best[0].serves(level)
	switch {
	case mine < 0:
	case level == 0:
		return "" // who comes back has things here
	case theirs < mine && best[0].region == me.region && best[0].load < busy:
	case theirs == mine && me.load >= busy && best[0].load <= spare:
	default:
		return ""
	}
	return best[int(turn)%alike(best, me, level)].url
}

// alike is how many nodes at the beginning of the list, which is not empty, suit about as well as the first.
func alike(best []member, me member, level uint32) int {
	n := 1
	for n < len(best) && distance(best[n], me) == distance(best[0], me) && best[n].serves(level) == best[0].serves(level) &&
		int(best[n].load) <= int(best[0].load)+similar {
		n++
	}
	return n
}

// backups are the URLs of nodes for a client of this level when this node is lost: near ones that do not fail with it.
func backups(members []member, self string, level uint32) []string {
	i := slices.IndexFunc(members, func(m member) bool { return m.id == self })
	if i < 0 {
		return nil
	}
	me := members[i]
	best := choose(members, me, level, func(m member) bool { return m.id != self })
	// Another failure domain first, but not another region for it.
	slices.SortStableFunc(best, func(a, b member) int {
		return cmp.Or(cmp.Compare(distance(a, me), distance(b, me)), -cmp.Compare(apart(a, me), apart(b, me)))
	})
	var urls []string
	for _, m := range best[:min(len(best), backupNodes)] {
		urls = append(urls, m.url)
	}
	return urls
}

// choose lists the nodes that serve a level, the best first.
func choose(members []member, me member, level uint32, may func(member) bool) []member {
	fit := slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.serves(level) < 0 || m.url == "" || !may(m) })
	slices.SortFunc(fit, func(a, b member) int {
		return cmp.Or(cmp.Compare(distance(a, me), distance(b, me)), cmp.Compare(a.serves(level), b.serves(level)),
			cmp.Compare(a.load, b.load), cmp.Compare(a.id, b.id))
	})
	return fit
}

func distance(m, me member) int {
	if m.region == me.region {
		return 0
	}
	return 1
}

func apart(m, me member) int {
	if m.zone == me.zone {
		return 0
	}
	return 1
}
