package cascade

import (
	"slices"
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// feed is from whom this node takes the tracks of one home in one room. Guarded by the manager's mutex.
type feed struct {
	room *room
	home string
	// parent and backup are the plan's.
	parent, backup string
	link           *link // nil: nobody can be reached
	intakes        map[string]*intake
	dirty          bool // some intake is
	restless       bool // some intake has something to do in a while
	bad            map[string]badness
	path           []string // what the tracks pass, the home first and link's node last; nil: not known
	better         inquiry  // about a node to turn to instead of link's
}

// inquiry is the question whether a better node than the present one has the tracks. It is turned to when it says so.
type inquiry struct {
	node, why string
	again     time.Duration // when to ask again
}

// badness is that of a node that did not give what it should.
type badness struct {
	until  time.Duration // it is not turned to
	strike int           // how often in a row
}

// link is the node that is asked now.
type link struct {
	node    string
	since   time.Duration
	fresh   bool          // it has to be told, and to tell, everything
	sent    time.Duration // when it was told everything last; 0: never
	asked   time.Duration // since when it owes an answer; 0: it does not
	retry   time.Duration // when to ask again, as it refused; 0: it did not
	refused time.Duration // since when it refuses; 0: it does not
}

// candidatesLocked are the nodes to turn to, the best first. The home itself is the last resort.
func (f *feed) candidatesLocked() []string {
	list := []string{f.parent, f.backup, f.home}
	return slices.DeleteFunc(list, func(id string) bool { return id == "" || id == f.room.m.cfg.Node })
}

// bestLocked is the best node that can be reached, one that is to be avoided only if there is no other; empty: none.
func (f *feed) bestLocked(now time.Duration) string {
	avoided := ""
	for _, id := range f.candidatesLocked() {
		n := f.room.m.nodes[id]
		switch {
		case n == nil || !n.up:
		case f.bad[id].until <= now:
			return id
		case avoided == "":
			avoided = id
		}
	}
	return avoided
}

// chooseLocked turns to the best node that can be reached: at once if the present one is none to stay with, else when the
// better one has the tracks; and without soon only after a while.
func (f *feed) chooseLocked(now time.Duration, why string, soon bool) {
	best := f.bestLocked(now)
	if l := f.link; l != nil && f.room.m.nodes[l.node].up && f.bad[l.node].until <= now {
		switch {
		case best == l.node || !slices.Contains(f.candidatesLocked(), best):
			f.better = inquiry{}
		case f.better.node == best:
			f.inquireLocked(now)
		case soon || now-l.since >= returnAfter:
			f.better = inquiry{node: best, why: why}
			f.inquireLocked(now)
		}
		return
	}
	f.turnLocked(best, now, why)
}

// inquireLocked asks the better node what its tracks pass.
func (f *feed) inquireLocked(now time.Duration) {
	if now < f.better.again {
		return
	}
	f.better.again = now + inquireAgain
	f.room.m.number++
	f.room.m.sendLocked(f.better.node, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Wants{Wants: &amphiv1.RelayWants{
		Room: f.room.name, Home: f.home, Number: f.room.m.number,
	}}})
}

// betterLocked turns to the better node if it says that it has the tracks, and not from here.
func (f *feed) betterLocked(a *amphiv1.RelayAnswer, now time.Duration) {
	path := a.GetPath()
	if len(a.GetRefused()) > 0 || len(path) == 0 || len(path) > maxPath || path[0] != f.home || slices.Contains(path, f.room.m.cfg.Node) {
		return
	}
	f.turnLocked(f.better.node, now, f.better.why)
	f.flushLocked(now)
}

// turnLocked turns to a node, to nobody if best is empty.
func (f *feed) turnLocked(best string, now time.Duration, why string) {
	m := f.room.m
	f.better = inquiry{}
	current := ""
	if f.link != nil {
		current = f.link.node
	}
	if best == current {
		return
	}
	if f.link != nil && m.nodes[current].up {
		f.link.sent = 0 // what it gives is needed until the next one gives as much
		f.flushLocked(now)
	}
	f.link, f.path = nil, nil
	if best != "" {
		f.link = &link{node: best, since: now, fresh: true}
	}
	if current != "" {
		m.reparented++
		m.log.Debug("tracks come by another node", "room", f.room.name, "home", f.home, "from", current, "to", best, "why", why)
	}
	for _, in := range f.intakes {
		in.leaveLocked(now)
	}
}

func (f *feed) tickLocked(now time.Duration) {
	if l := f.link; l != nil && len(f.intakes) > 0 {
		switch {
		case l.asked != 0 && now-l.asked >= deafAfter:
			f.badLocked(now, "no answer")
		case l.refused != 0 && now-l.refused >= refusedMost:
			f.badLocked(now, "it refuses")
		}
	}
	f.chooseLocked(now, "it can be reached again", f.link == nil)
	if f.restless {
		f.restless = false
		for _, in := range f.intakes {
			f.restless = in.tickLocked(now) || f.restless
		}
	}
	f.flushLocked(now)
}

// badLocked turns to another node, if there is one, and avoids this one for a while: the longer, the more often that was
// so in a row.
func (f *feed) badLocked(now time.Duration, why string) {
	l := f.link
	b := f.bad[l.node]
	b.until = now + badFor<<min(b.strike, maxStrike)
	b.strike++
	f.bad[l.node] = b
	f.chooseLocked(now, why, true)
	if f.link == l { // nobody else: it goes on asking
		l.asked, l.refused, l.fresh = 0, 0, true
	}
}

// flushLocked tells the parent what is wanted: all of it once a second, changes at once.
func (f *feed) flushLocked(now time.Duration) {
	l := f.link
	if l == nil || len(f.intakes) == 0 {
		return
	}
	again := l.retry != 0 && now >= l.retry
	whole := l.fresh || again || l.sent == 0 || now-l.sent >= refresh
	if !whole && !f.dirty {
		return
	}
	f.dirty = false
	var wants []*amphiv1.RelayWant
	for _, in := range f.intakes {
		if whole || in.dirty {
			wants = append(wants, in.wantLocked())
			in.dirty = false
		}
	}
	if len(wants) == 0 {
		return
	}
	if whole {
		l.sent, l.retry = max(now, 1), 0
	}
	for part := range slices.Chunk(wants, maxWants) {
		f.room.m.number++
		f.room.m.sendLocked(l.node, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Wants{Wants: &amphiv1.RelayWants{
			Room: f.room.name, Home: f.home, Number: f.room.m.number, Fresh: l.fresh, Wants: part,
		}}})
		l.fresh = false
		if l.asked == 0 {
			l.asked = max(now, 1)
		}
	}
}

// answerLocked takes what a parent says.
func (f *feed) answerLocked(from string, a *amphiv1.RelayAnswer, now time.Duration) {
	m := f.room.m
	l := f.link
	if l == nil || l.node != from {
		if l != nil && f.better.node == from {
			f.betterLocked(a, now)
		}
		return // it was asked until a moment ago
	}
	if slices.Contains(a.GetPath(), m.cfg.Node) || len(a.GetPath()) > maxPath {
		m.drops.add(dropLoop)
		f.badLocked(now, "what it has comes from here")
		f.flushLocked(now)
		return
	}
	if a.GetNumber() != 0 {
		l.asked = 0
	}
	f.path = a.GetPath()
	if len(f.path) == 0 || f.path[0] != f.home {
		f.path = nil
	}
	f.refusedLocked(a.GetRefused(), now)
	for _, o := range a.GetOffers() {
		if in := f.intakes[o.GetTrackId()]; in != nil {
			in.offerLocked(o, now)
		}
	}
	f.flushLocked(now)
}

// refusedLocked notes what a parent does not give, to ask again.
func (f *feed) refusedLocked(list []*amphiv1.RelayRefusal, now time.Duration) {
	whole := f.path == nil
	for _, x := range list {
		if in := f.intakes[x.GetTrackId()]; in != nil {
			in.retry, f.restless = now+refusedRetry, true
			continue
		}
		whole = whole || x.GetTrackId() == ""
	}
	switch {
	case !whole:
		f.link.refused = 0
		if now-f.link.since > badFor { // it does what it should
			delete(f.bad, f.link.node)
		}
	default:
		f.link.retry = now + refusedRetry
		if f.link.refused == 0 {
			f.link.refused = max(now, 1)
		}
	}
}
