package cascade

import (
	"time"

	"github.com/amphi-sfu/amphi/cascade/plan"
	"github.com/amphi-sfu/amphi/media/codec"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// room is what this node knows of one room. All of it is guarded by the manager's mutex.
type room struct {
	m       *Manager
	name    string
	members map[string]bool
	tracks  map[string]Track
	homes   map[string]string // of tracks
	feeds   map[string]*feed  // by home
	intakes map[string]*intake
	// published are the tracks of this node's own publishers.
	published map[string]publication
	serves    map[string]map[string]*serve // by track and node
	expired   time.Duration                // when it was looked for wants that have expired
}

// publication is one of the times that a track was published here.
type publication struct {
	track      MediaTrack
	generation uint64
}

// Update states the whole of what is known of a room: its plan, nil before there is one, and its tracks on whatever nodes.
// A plan that makes no sense leaves the one before.
func (m *Manager) Update(name string, p *amphiv1.RelayPlan, tracks []Track) {
	decoded, err := plan.Decode(p)
	if err != nil {
		m.drops.add(dropPlan)
		m.log.Warn("refusing a relay plan", "room", name, "err", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	r := m.rooms[name]
	if r == nil {
		r = &room{
			m: m, name: name, feeds: map[string]*feed{}, intakes: map[string]*intake{},
			published: map[string]publication{}, serves: map[string]map[string]*serve{},
		}
		m.rooms[name] = r
		m.media.Watch(name, func() { m.tracksChanged(r) })
	}
	now := m.now()
	r.members = map[string]bool{}
	for _, n := range p.GetNodes() {
		r.members[n] = true
	}
	r.setTracksLocked(p, tracks)
	r.setFeedsLocked(decoded, now)
	r.setIntakesLocked()
	r.tickLocked(now)
	for id := range r.serves {
		if _, ok := r.tracks[id]; !ok {
			r.dropServesLocked(id)
		}
	}
	r.mediaChangedLocked()
}

// Close says that the room has closed on this node.
func (m *Manager) Close(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rooms[name]; r != nil {
		r.closeLocked()
		delete(m.rooms, name)
		delete(m.changed, r)
	}
}

// tracksChanged makes Run look at the room.
func (m *Manager) tracksChanged(r *room) {
	m.mu.Lock()
	if m.rooms[r.name] == r {
		m.changed[r] = struct{}{}
	}
	m.mu.Unlock()
	m.wake()
}

// setTracksLocked notes the tracks and where they are published. A track whose publisher is nowhere for the moment stays
// where it was.
func (r *room) setTracksLocked(p *amphiv1.RelayPlan, tracks []Track) {
	homes := map[string]string{}
	r.tracks = map[string]Track{}
	for _, t := range tracks {
		r.tracks[t.ID] = t
		home, ok := p.GetHomes()[t.PeerID]
		switch {
		case ok && int64(home) < int64(len(p.GetNodes())):
			homes[t.ID] = p.GetNodes()[home]
		case r.homes[t.ID] != "":
			homes[t.ID] = r.homes[t.ID]
		}
	}
	r.homes = homes
}

// setFeedsLocked notes from whom this node takes the tracks of each home.
func (r *room) setFeedsLocked(p *plan.Plan, now time.Duration) {
	self := r.m.cfg.Node
	known := map[string]bool{}
	for _, tree := range p.Trees {
		for _, hop := range tree.Hops {
			if hop.Node != self || tree.Home == self {
				continue
			}
			known[tree.Home] = true
			f := r.feeds[tree.Home]
			if f == nil {
				f = &feed{room: r, home: tree.Home, intakes: map[string]*intake{}, bad: map[string]badness{}}
				r.feeds[tree.Home] = f
			}
			if f.parent != hop.Parent || f.backup != hop.Backup {
				f.parent, f.backup = hop.Parent, hop.Backup
				f.chooseLocked(now, "the plan changed", true)
			}
		}
	}
	for home, f := range r.feeds {
		if !known[home] && len(f.intakes) == 0 {
			delete(r.feeds, home)
		}
	}
}

// setIntakesLocked begins with tracks of other nodes, and ends those that are gone or come from here.
func (r *room) setIntakesLocked() {
	for id, in := range r.intakes {
		if _, ok := r.tracks[id]; !ok || r.homes[id] == r.m.cfg.Node {
			in.closeLocked()
		}
	}
	for id, t := range r.tracks {
		home := r.homes[id]
		f := r.feeds[home]
		if home == r.m.cfg.Node || f == nil {
			continue
		}
		in := r.intakes[id]
		switch {
		case in == nil:
			in = &intake{room: r, feed: f, track: t, interest: -1}
			r.intakes[id], f.intakes[id] = in, in
			in.setDirtyLocked()
			in.addLocked()
		case in.feed != f:
			in.moveLocked(f)
		}
	}
}

// mediaChangedLocked looks again at tracks and encodings on this node.
func (r *room) mediaChangedLocked() {
	for id, p := range r.published {
		if t, ok := r.m.media.Track(r.name, id); !ok || t != p.track {
			delete(r.published, id)
		}
	}
	for _, in := range r.intakes {
		if in.remote == nil {
			in.addLocked()
		} else if _, ok := r.m.media.Track(r.name, in.track.ID); !ok {
			in.againLocked()
		}
	}
	for _, of := range r.serves {
		for _, s := range of {
			s.applyLocked()
		}
	}
	r.tellLocked()
}

// generationLocked names the publication of a track that is here now; 0: none. Who gets one of the home before still does
// until the next one has come.
func (r *room) generationLocked(id string, t MediaTrack, got uint64) uint64 {
	in := r.intakes[id]
	switch {
	case in == nil:
	case in.remote != nil:
		if in.home != in.feed.home && in.generation != got {
			return 0
		}
		return in.generation
	case r.published[id].generation != got || got == 0: // its publisher has gone to another node, and is still here too
		return 0
	}
	if len(t.Encodings()) == 0 {
		return 0
	}
	p, ok := r.published[id]
	if !ok || p.track != t {
		r.m.generation += generationStep
		p = publication{t, r.m.generation}
		r.published[id] = p
	}
	return p.generation
}

func (r *room) tickLocked(now time.Duration) {
	if now-r.expired >= expirePeriod {
		r.expired = now
		r.expireLocked(now)
	}
	for _, f := range r.feeds {
		f.tickLocked(now)
	}
}

func (r *room) nodeUpLocked(id string, now time.Duration) {
	for _, f := range r.feeds {
		if f.link != nil && f.link.node == id {
			f.link.fresh = true
		}
		f.chooseLocked(now, "a node is back", false)
		f.flushLocked(now)
	}
}

func (r *room) nodeDownLocked(id, reason string, now time.Duration) {
	for _, of := range r.serves {
		if s := of[id]; s != nil { // the want stays until it expires: the node may be back at once
			s.detachLocked()
			s.told = nil
		}
	}
	for _, f := range r.feeds {
		if f.link != nil && f.link.node == id {
			f.badLocked(now, "the trunk is down: "+reason)
		}
		f.flushLocked(now)
	}
}

func (r *room) closeLocked() {
	for _, in := range r.intakes {
		in.closeLocked()
	}
	for id := range r.serves {
		r.dropServesLocked(id)
	}
}

// kindEncodings is how many encodings a track may have.
func kindEncodings(k codec.Kind) int {
	if k == codec.Audio {
		return 1
	}
	return maxEncodings
}
