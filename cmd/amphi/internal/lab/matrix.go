package lab

import (
	"slices"
	"strings"
	"time"
)

// Limits that hold in every scenario, and those of single kinds of trouble.
const (
	// quiet is the longest silence that is none: what a busy machine and a lost packet's repair make anyway.
	quiet = 200 * time.Millisecond

	backWarm, backCold         = 2 * time.Second, 4 * time.Second
	reparentP95, reparentMax   = 600 * time.Millisecond, 900 * time.Millisecond
	takeover, takeoverOfLeader = 2 * time.Second, 3500 * time.Millisecond
	// crowdBack is for some 200 at once, known for what gossip takes to tell all of a death.
	crowdBack, known       = 5 * time.Second, 3500 * time.Millisecond
	commit                 = 1900 * time.Millisecond
	healed, healedQuorum   = 10 * time.Second, 5 * time.Second
	drainAudio, drainVideo = 100 * time.Millisecond, 200 * time.Millisecond
	// flicker is what a link that loses or flaps may cost those who must use it.
	flicker = 1500 * time.Millisecond
)

// Matrix lists all scenarios. The short form holds the fewer and shorter ones.
func Matrix(short bool) []*Scenario {
	hold := 10 * time.Second
	quorum, viewers, membership := 10*time.Minute, 100, time.Hour
	if short {
		hold, quorum, viewers, membership = 4*time.Second, 30*time.Second, 10, 20*time.Second
	}
	targets := []string{publisherEdge, gateway, audienceEdge, owner, standby, leader, origin, combined}
	faults := []fault{
		kill(), pauseFor(5 * time.Second), hole("in", true, false), hole("out", false, true), hole("both", true, true),
		flapping(time.Second, hold), lossy(2, hold), lossy(10, hold), distant(80*time.Millisecond, hold), distant(200*time.Millisecond, hold),
		narrow(2e6, hold), clockStep(10*time.Minute, hold), clockStep(-10*time.Minute, hold), diskFull(hold),
	}
	// What the short form keeps: each target is killed, each fault is done to one target.
	kept := map[string]string{
		"SIGSTOP 5s": owner, "black hole in": gateway, "black hole out": publisherEdge, "black hole both": leader, "flap every 1s": audienceEdge,
		"2 % loss": publisherEdge, "RTT +200ms": gateway, "trunks at 2 Mbit/s": publisherEdge, "clock step 10m0s": leader, "disk full": leader,
	}
	var all []*Scenario
	for _, f := range faults {
		for _, t := range targets {
			sc := &Scenario{fault: f, target: t, short: f.name == "kill -9" || kept[f.name] == t}
			if t == combined {
				sc.founder = leader
			}
			all = append(all, sc)
		}
	}
	return append(all,
		&Scenario{fault: noQuorum(quorum), target: everything, aside: true, short: true},
		&Scenario{fault: regionCut(hold), target: everything, short: true},
		&Scenario{fault: drain(), title: "edge with many viewers", seats: crowd(viewers), crowd: true, short: true},
		&Scenario{fault: kill(), title: "edge with many viewers", seats: crowd(2 * viewers), crowd: true},
		&Scenario{fault: rollingRestart(), target: everything, short: true},
		&Scenario{fault: killAll(), target: everything, short: true},
		&Scenario{title: "latency of a hop", seats: busy, measure: measureHop},
		&Scenario{title: "copies between regions", measure: measureCopies, short: true},
		&Scenario{title: "layer up across regions", seats: layered, measure: measureLayerUp, short: true},
		&Scenario{title: "2 % loss between regions", measure: measureRepair, short: true},
		&Scenario{title: "trunk at 2 Mbit/s with five videos", seats: fiveAway, measure: measureShedding, short: true},
		&Scenario{title: "stream with 5 % loss between home and origin", seats: streamed, measure: measureStream, lasts: time.Minute, short: true},
		&Scenario{title: "membership", measure: measureMembership(membership), lasts: 2 * membership, short: true},
	)
}

// Choose keeps the scenarios of the short form, or those that only names, by the whole name or a part of
// it, if it names any. A node that is alone is everything at once, so each fault is done to it once.
func Choose(all []*Scenario, short, alone bool, only []string) []*Scenario {
	whole := map[string]bool{}
	for _, sc := range all {
		whole[sc.Name()] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(sc *Scenario) bool {
		switch {
		case alone && sc.target != owner:
			return true
		case len(only) > 0:
			return !slices.ContainsFunc(only, func(o string) bool {
				return o == sc.Name() || !whole[o] && strings.Contains(sc.Name(), o)
			})
		}
		return short && !sc.short && !alone
	})
}

// judgeLimits compares the result with the targets.
func (r *run) judgeLimits() {
	res, f := r.result, r.scenario.fault
	if f.name == killAll().name {
		// Sessions end with all nodes: what counts is what is durable.
		res.check("C7", "acknowledged durable writes lost", float64(len(res.Store)), 0)
		res.checkTime("", "normal after the start", res.NormalFromMend, patience)
		return
	}
	r.limitDecisions()
	res.checkTime("C10", "normal after the end", res.NormalFromMend, healed)
	if r.lab.cfg.Topology.Alone {
		return // nobody else has what it had in memory
	}
	res.check("C6", "peers that had to join anew", float64(res.Expired), 0)
	switch {
	case f.name == drain().name || f.name == rollingRestart().name:
		res.checkTime("C9", "audio gap of moved clients", res.Direct.Audio.Max, drainAudio)
		res.figure("ms of that in which the lab ran", milliseconds(res.Awake))
		res.checkTime("C9", "video gap of moved clients", res.Direct.Video.Max, drainVideo)
		res.check("C9", "attempts that failed", float64(res.Refused), 0)
	case f.name == noQuorum(0).name:
		res.checkTime("C11", "gap", res.Others.worse().Max, quiet)
		res.checkTime("C11", "normal after the return", res.NormalFromMend, healedQuorum)
	case r.scenario.crowd:
		res.checkTime("C12", "media back p95", res.Back.P95, crowdBack)
		r.limitOthers()
	case f.cutsOff && r.target != nil:
		res.checkTime("C6", "media back p95", res.Back.P95, backWarm)
		res.checkTime("C6", "media back max", res.Back.Max, backCold)
		r.limitOthers()
		r.limitStall()
		if f.name == kill().name {
			at := res.Known
			if at == 0 {
				at = f.hold
			}
			res.checkTime("C13", "death known to all", at, known)
		}
	case r.target == nil: // a region is cut off
		res.checkTime("C5", "gap of others", res.Others.worse().Max, reparentMax)
	default:
		res.checkTime("C4", "gap", max(res.Direct.worse().Max, res.Others.worse().Max), flicker)
		r.limitLoss()
	}
}

// limitDecisions is about what was acknowledged, in every scenario.
func (r *run) limitDecisions() {
	res := r.result
	res.check("C7", "acknowledged messages lost", float64(res.Messages.Lost), 0)
	res.check("C7", "messages out of order", float64(res.Messages.Reordered), 0)
	res.check("C7", "messages twice", float64(res.Messages.Repeated), 0)
	res.check("C7", "acknowledged writes lost", float64(len(res.Store)), 0)
}

// limitOthers is about those that lost a relay, or nothing at all.
func (r *run) limitOthers() {
	res := r.result
	if !contains(res.Roles, gateway) {
		res.checkTime("C7", "gap of others", res.Others.worse().Max, quiet)
		return
	}
	res.checkTime("C5", "gap of others p95", res.Others.worse().P95, reparentP95)
	res.checkTime("C5", "gap of others max", res.Others.worse().Max, reparentMax)
	res.check("C5", "packets missing", float64(res.Missing), 0)
}

// limitStall is about decisions.
func (r *run) limitStall() {
	res := r.result
	isOwner, isLeader := contains(res.Roles, owner), contains(res.Roles, leader)
	switch {
	case isOwner && isLeader:
		res.checkTime("C7", "decisions stall", max(res.Stall, res.DurableStall), takeoverOfLeader)
	case isOwner:
		res.checkTime("C7", "decisions stall", max(res.Stall, res.DurableStall), takeover)
	case isLeader:
		res.checkTime("C8", "commits stall", res.DurableStall, commit)
	}
}

// limitLoss is about what repair between nodes leaves.
func (r *run) limitLoss() {
	if r.scenario.fault.name != "2 % loss" || r.result.Packets == 0 {
		return
	}
	r.result.check("C4", "packets missing, percent", 100*float64(r.result.Missing)/float64(r.result.Packets), 0.05)
}
