package cascade

import (
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"google.golang.org/protobuf/proto"
)

// serve is what another node wants of a track, and gets from here. Guarded by the manager's mutex.
type serve struct {
	room       *room
	node       string
	track      string
	home       string // of the track when it was wanted last
	max        int
	large      bool
	generation uint64 // of the labels; 0 until they are used
	labels     [maxEncodings]uint32
	have       [maxEncodings]uint64
	expires    time.Duration
	relays     [maxEncodings]*relay
	source     MediaTrack // where the layer is wanted
	told       *amphiv1.RelayOffer
}

// wantsLocked takes what another node wants, and answers.
func (m *Manager) wantsLocked(from string, w *amphiv1.RelayWants) {
	answer := &amphiv1.RelayAnswer{Room: w.GetRoom(), Home: w.GetHome(), Number: w.GetNumber()}
	r, why, ok := m.askedLocked(from, w)
	if !ok {
		m.drops.add(why)
		answer.Refused = []*amphiv1.RelayRefusal{{Reason: why.String()}}
		m.sendAnswerLocked(from, answer)
		return
	}
	answer.Path = r.pathLocked(w.GetHome())
	for _, x := range w.GetWants() {
		s, why, ok := r.wantLocked(from, w.GetHome(), x)
		if !ok {
			m.drops.add(why)
			answer.Refused = append(answer.Refused, &amphiv1.RelayRefusal{TrackId: x.GetTrackId(), Reason: why.String()})
			continue
		}
		if s == nil {
			continue
		}
		if w.GetFresh() {
			s.told = nil
		}
		s.applyLocked()
		if o := s.newsLocked(); o != nil {
			answer.Offers = append(answer.Offers, o)
		}
	}
	m.sendAnswerLocked(from, answer)
}

// askedLocked finds the room that a node asks about, or says why it gets nothing of it.
func (m *Manager) askedLocked(from string, w *amphiv1.RelayWants) (r *room, why drop, ok bool) {
	r = m.rooms[w.GetRoom()]
	switch {
	case r == nil:
		return nil, dropRoom, false
	case !r.members[from]:
		return nil, dropMember, false
	case len(w.GetWants()) > maxWants:
		return nil, dropTooMany, false
	case w.GetHome() == m.cfg.Node:
		return r, 0, true
	case w.GetHome() == from:
		return nil, dropLoop, false
	}
	f := r.feeds[w.GetHome()]
	switch {
	case f == nil:
		return nil, dropHome, false
	case f.link != nil && f.link.node == from || slices.Contains(f.path, from):
		return nil, dropLoop, false // it gives these tracks to us
	}
	return r, 0, true
}

// wantLocked takes what a node wants of one track. s is nil when that is nothing it did not have.
func (r *room) wantLocked(from, home string, w *amphiv1.RelayWant) (s *serve, why drop, ok bool) {
	id := w.GetTrackId()
	s = r.serves[id][from]
	track, known := r.tracks[id]
	if !known {
		return nil, dropTrack, false
	}
	most := kindEncodings(track.Kind)
	switch {
	case w.GetMaxLayer() >= maxEncodings || w.GetMaxLayer() < -1 || len(w.GetLabels()) > most || len(w.GetHave()) > len(w.GetLabels()):
		return nil, dropLayers, false
	case r.homes[id] != home:
		if s != nil && s.home == home && w.GetMaxLayer() < 0 { // it has moved, and the other node has noticed
			s.closeLocked()
			return nil, 0, true
		}
		return nil, dropHome, false
	}
	if s == nil {
		n := r.m.nodeLocked(from)
		if n.serves >= maxServes {
			return nil, dropTooMany, false
		}
		n.serves++
		s = &serve{room: r, node: from, track: id, max: -1}
		if r.serves[id] == nil {
			r.serves[id] = map[string]*serve{}
		}
		r.serves[id][from] = s
	}
	s.home = home
	s.setLocked(w)
	return s, 0, true
}

// setLocked notes a want.
func (s *serve) setLocked(w *amphiv1.RelayWant) {
	if w.GetMaxLayer() >= 0 && len(w.GetLabels()) > 0 { // without labels those before stay
		labels, have := [maxEncodings]uint32{}, [maxEncodings]uint64{}
		copy(labels[:], w.GetLabels())
		copy(have[:], w.GetHave())
		if w.GetGeneration() != 0 || labels != s.labels {
			s.generation = w.GetGeneration()
		}
		s.labels, s.have = labels, have
	}
	s.max, s.large = int(w.GetMaxLayer()), w.GetLarge()
	s.expires = s.room.m.now() + lease
}

// applyLocked brings what is sent in line with what is wanted and what there is.
func (s *serve) applyLocked() {
	m := s.room.m
	t, ok := m.media.Track(s.room.name, s.track)
	if s.source != nil && (!ok || s.source != t) {
		s.source.WantLayer(s, -1)
		s.source = nil
	}
	if !ok {
		s.detachLocked()
		return
	}
	generation := s.room.generationLocked(s.track, t, s.generation)
	if in := s.room.intakes[s.track]; in != nil && s.generation == generation {
		for i, have := range s.have {
			if in.haveNone(i) {
				in.begin[i] = max(in.begin[i], have)
			}
		}
	}
	t.WantLayer(s, s.max)
	s.source = t
	if generation != 0 && s.generation == 0 && s.max >= 0 {
		s.generation = generation
	}
	var encodings [maxEncodings]Encoding
	if generation != 0 && s.generation == generation {
		for _, enc := range t.Encodings() {
			if i := enc.Spatial(); i <= s.max && i < maxEncodings && s.labels[i] != 0 {
				encodings[i] = enc
			}
		}
	}
	for i, enc := range encodings {
		if old := s.relays[i]; old != nil && (old.enc != enc || old.label != s.labels[i] || old.generation != generation) {
			old.detachLocked()
			s.relays[i] = nil
		}
		if r := s.relays[i]; r != nil {
			r.class.Store(uint32(classOf(s.room.tracks[s.track], i, s.large)))
		} else if enc != nil {
			s.attachLocked(i, t, enc, generation)
		}
	}
}

// haveNone says that nothing of an encoding comes here now.
func (in *intake) haveNone(encoding int) bool {
	last := in.streams[encoding].last.Load()
	return last == 0 || in.room.m.media.Now()-last >= int64(freshFor)
}

// attachLocked begins to send an encoding.
func (s *serve) attachLocked(i int, t MediaTrack, enc Encoding, generation uint64) {
	m := s.room.m
	if n := m.nodes[s.node]; n == nil || !n.up {
		return
	}
	r := &relay{
		m: m, room: s.room.name, track: s.track, node: s.node, label: s.labels[i], generation: generation, source: t, enc: enc, encoding: i,
		home: s.room.intakes[s.track] == nil,
	}
	class := classOf(s.room.tracks[s.track], i, s.large)
	r.class.Store(uint32(class))
	r.audio = class == Audio
	if !m.out.add(r) {
		m.drops.add(dropLabelInUse)
		return
	}
	s.relays[i] = r
	if in := s.room.intakes[s.track]; in != nil && in.reports[i] != nil {
		r.queueReport(in.reports[i].GetNtp(), in.reports[i].GetRtp())
	}
	r.attachLocked(s.have[i])
}

// detachLocked sends nothing of it.
func (s *serve) detachLocked() {
	for i, r := range s.relays {
		if r != nil {
			r.detachLocked()
			s.relays[i] = nil
		}
	}
}

func (s *serve) closeLocked() {
	s.detachLocked()
	if s.source != nil {
		s.source.WantLayer(s, -1)
	}
	s.room.m.nodeLocked(s.node).serves--
	delete(s.room.serves[s.track], s.node)
	if len(s.room.serves[s.track]) == 0 {
		delete(s.room.serves, s.track)
	}
}

func (r *room) dropServesLocked(track string) {
	for _, s := range r.serves[track] {
		s.closeLocked()
	}
}

// expireLocked lets go of wants that were not repeated, and asks again for keyframes that have not come.
func (r *room) expireLocked(now time.Duration) {
	for _, of := range r.serves {
		for _, s := range of {
			if now >= s.expires {
				s.closeLocked()
				continue
			}
			for _, r := range s.relays {
				if r != nil {
					r.askAgain(now)
				}
			}
		}
	}
}

// pathLocked is what tracks of a home pass up to here; nil while that is not known to begin with the home.
func (r *room) pathLocked(home string) []string {
	self := r.m.cfg.Node
	if home == self {
		return []string{self}
	}
	if f := r.feeds[home]; f != nil && len(f.path) > 0 {
		return append(slices.Clone(f.path), self)
	}
	return nil
}

// offerLocked says what the track consists of, as far as is known here.
func (s *serve) offerLocked() *amphiv1.RelayOffer {
	o := &amphiv1.RelayOffer{TrackId: s.track}
	if in := s.room.intakes[s.track]; in != nil {
		if in.offer != nil {
			o.Encodings = in.offer.GetEncodings()
		}
		if in.home == in.feed.home {
			o.Generation = in.generation
		}
		return o
	}
	t, ok := s.room.m.media.Track(s.room.name, s.track)
	if !ok {
		return o
	}
	o.Generation = s.room.generationLocked(s.track, t, 0)
	for _, enc := range t.Encodings() {
		for len(o.Encodings) <= enc.Spatial() {
			o.Encodings = append(o.Encodings, &amphiv1.RelayEncoding{})
		}
		w, h := enc.Size()
		o.Encodings[enc.Spatial()] = &amphiv1.RelayEncoding{
			Rid: enc.RID(), PayloadType: uint32(enc.Codec().PayloadType), Width: uint32(w), Height: uint32(h),
		}
	}
	return o
}

// newsLocked is what the node does not know yet; nil: it knows all.
func (s *serve) newsLocked() *amphiv1.RelayOffer {
	o := s.offerLocked()
	if s.told != nil && proto.Equal(s.told, o) {
		return nil
	}
	s.told = o
	return o
}

// tellLocked tells everybody what has changed.
func (r *room) tellLocked() {
	for id := range r.serves {
		r.tellTrackLocked(id)
	}
}

func (r *room) tellTrackLocked(id string) {
	home := r.homes[id]
	for node, s := range r.serves[id] {
		if n := r.m.nodes[node]; n == nil || !n.up {
			continue
		}
		if o := s.newsLocked(); o != nil {
			r.m.sendAnswerLocked(node, &amphiv1.RelayAnswer{Room: r.name, Home: home, Path: r.pathLocked(home), Offers: []*amphiv1.RelayOffer{o}})
		}
	}
}

// classOf says how important an encoding is.
func classOf(t Track, encoding int, large bool) Class {
	switch {
	case t.Kind == codec.Audio:
		return Audio
	case t.Source == "screen":
		return Screen
	case encoding == 0:
		return Base
	case encoding == 1 && large:
		return MiddleLarge
	case encoding == 1:
		return MiddleSmall
	case large:
		return TopLarge
	}
	return TopSmall
}
