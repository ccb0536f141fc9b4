package cascade

import (
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// intake is a track of another node as it comes here. Guarded by the manager's mutex, but for streams and what a label's
// packets use of it.
type intake struct {
	room     *room
	feed     *feed
	track    Track
	remote   Remote // nil until it could be added; does not change while there are labels
	observer *observer
	interest int  // the highest encoding wanted here, -1: none
	dirty    bool // the parent does not know yet what is wanted
	// generation is that of what is being received, 0 before the first; home is where it was published.
	generation uint64
	home       string
	retry      time.Duration       // when to ask again, as it was refused; 0: it was not
	offer      *amphiv1.RelayOffer // the newest
	current    *source             // from the feed's link
	leaving    []*source           // from former parents, until current delivers as well
	streams    [maxEncodings]stream
	// begin is from where children go on that have come from another parent, while nothing has come here.
	begin   [maxEncodings]uint64
	reports [maxEncodings]*amphiv1.RelayReport // the newest, as the home sent them
}

// stream is what is known of an encoding as received.
type stream struct {
	highest atomic.Uint64
	last    atomic.Int64 // on media's clock; 0: begin anew
}

// source is one parent's part in an intake.
type source struct {
	node       string
	home       string
	generation uint64 // of its labels; 0: whichever it has
	labels     [maxEncodings]*label
	asked      int           // the highest encoding asked for
	until      time.Duration // of one that is leaving
}

// addLocked makes the track known to media. Another one may have its id still: it is tried again then.
func (in *intake) addLocked() {
	m := in.room.m
	t := in.track
	in.observer = &observer{in}
	remote, err := m.media.AddRemote(in.room.name, media.RemoteConfig{
		ID: t.ID, Source: t.Source, Origin: t.PeerID, Kind: t.Kind, Home: in.feed.home,
	}, in.observer)
	if err != nil {
		in.feed.restless = true
		m.log.Debug("a track of another node has to wait", "room", in.room.name, "track", t.ID, "err", err)
		return
	}
	in.remote = remote
	in.describeLocked()
}

// observer hears what is wanted of an intake.
type observer struct{ in *intake }

// Interest implements media.RemoteObserver.
func (o *observer) Interest(maxSpatial int) {
	in := o.in
	m := in.room.m
	m.mu.Lock()
	defer m.mu.Unlock()
	maxSpatial = min(maxSpatial, maxEncodings-1)
	if in.interest == maxSpatial || in.observer != o || in.room.intakes[in.track.ID] != in {
		return
	}
	for i := maxSpatial + 1; i <= in.interest; i++ {
		in.begin[i] = 0
	}
	for i := in.interest + 1; i <= maxSpatial; i++ {
		in.streams[i].last.Store(0) // it begins with a keyframe, not with what came after it was let go of
	}
	in.interest = maxSpatial
	in.setDirtyLocked()
	in.feed.flushLocked(m.now())
}

// RequestKeyframe implements media.RemoteObserver.
func (o *observer) RequestKeyframe(encoding int) {
	in := o.in
	m := in.room.m
	m.mu.Lock()
	defer m.mu.Unlock()
	s := in.current
	if s == nil || encoding > s.asked || encoding > in.interest || s.labels[encoding] == nil {
		return // it begins with one when it is asked for
	}
	m.sendLocked(s.node, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Keyframes{Keyframes: &amphiv1.RelayKeyframes{
		Labels: []uint32{s.labels[encoding].number},
	}}})
}

// wantLocked is what the parent is to be told.
func (in *intake) wantLocked() *amphiv1.RelayWant {
	f := in.feed
	if in.current == nil {
		in.current = &source{node: f.link.node, home: f.home, generation: in.generation, asked: -1}
		if in.offer == nil {
			in.current.generation = 0
		}
	}
	s := in.current
	w := &amphiv1.RelayWant{TrackId: in.track.ID, MaxLayer: int32(in.interest), Generation: s.generation, Large: in.largeLocked()}
	if in.remote == nil {
		w.MaxLayer = -1
	}
	s.asked = int(w.GetMaxLayer())
	if s.generation == 0 && in.generation != 0 {
		return w // what comes would be taken for what came before: first it has to be told what it is
	}
	for i := range min(int(w.GetMaxLayer())+1, kindEncodings(in.track.Kind)) {
		if s.labels[i] == nil {
			in.assignLocked(s, i)
		}
		w.Labels = append(w.Labels, s.labels[i].number)
		w.Have = append(w.Have, in.haveLocked(i))
	}
	return w
}

// largeLocked says that somebody here, or at a node that gets it from here, shows the track large.
func (in *intake) largeLocked() bool {
	if in.interest < 1 {
		return false // the lowest encoding is of one class
	}
	for _, s := range in.room.serves[in.track.ID] {
		if s.large {
			return true
		}
	}
	t, ok := in.room.m.media.Track(in.room.name, in.track.ID)
	return ok && t.Large()
}

// assignLocked gives an encoding from a source its label.
func (in *intake) assignLocked(s *source, encoding int) {
	m := in.room.m
	l := &label{source: s, intake: in, encoding: encoding, number: m.nextLabel.Add(1)}
	if l.number == 0 { // 0 is none
		l.number = m.nextLabel.Add(1)
	}
	l.awaited.Store(s.generation != 0 && in.generation != 0 && s.generation != in.generation)
	s.labels[encoding] = l
	m.in.add(l.number, l)
}

// haveLocked is what to go on from, 0 to begin anew.
func (in *intake) haveLocked(encoding int) uint64 {
	if in.generation == 0 || in.current.generation != in.generation {
		return 0
	}
	s := &in.streams[encoding]
	own := uint64(0)
	if last := s.last.Load(); last != 0 && in.room.m.media.Now()-last < int64(freshFor) {
		own = s.highest.Load()
	}
	return max(own, in.begin[encoding])
}

// offerLocked takes what the parent says about the track.
func (in *intake) offerLocked(o *amphiv1.RelayOffer, now time.Duration) {
	if len(o.GetEncodings()) > maxEncodings {
		in.room.m.drops.add(dropLayers)
		return
	}
	if o.GetGeneration() != 0 && o.GetGeneration() < in.generation && in.home == in.feed.home {
		in.room.m.drops.add(dropStale)
		return
	}
	in.offer = o
	in.describeLocked()
	s := in.current
	switch g := o.GetGeneration(); {
	case g == 0 || s == nil || s.generation == g:
	case s.generation == 0 && (in.generation == 0 || in.generation == g):
		s.generation = g
	default:
		in.removeLocked(s)
		in.current = nil
		in.wantNewLocked(g)
	}
	if in.generation == 0 || in.interest < 0 {
		in.beginLocked(o.GetGeneration())
	}
	in.room.tellTrackLocked(in.track.ID)
}

// wantNewLocked asks for another generation with labels of its own.
func (in *intake) wantNewLocked(generation uint64) {
	if in.feed.link == nil {
		return
	}
	in.current = &source{node: in.feed.link.node, home: in.feed.home, generation: generation, asked: -1}
	in.setDirtyLocked()
}

// begin makes the generation of a label the one that is received: its first packet has come.
func (m *Manager) begin(l *label) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := l.intake
	if in.current != l.source || !l.awaited.Load() {
		return
	}
	in.beginLocked(l.source.generation)
	in.room.tellTrackLocked(in.track.ID)
}

// beginLocked goes over to a generation, if it is another one.
func (in *intake) beginLocked(generation uint64) {
	if generation == 0 || generation == in.generation {
		return
	}
	for _, s := range in.leaving {
		in.removeLocked(s)
		in.unwantLocked(s)
	}
	in.leaving = nil
	before := in.generation
	in.generation, in.home = generation, in.feed.home
	in.reports, in.begin = [maxEncodings]*amphiv1.RelayReport{}, [maxEncodings]uint64{}
	for i := range in.streams {
		in.streams[i].last.Store(0)
		in.streams[i].highest.Store(0)
	}
	if before != 0 && in.remote != nil {
		in.remote.Restart(in.feed.home)
		in.describeLocked()
	}
	if s := in.current; s != nil {
		for _, l := range s.labels {
			if l != nil {
				l.awaited.Store(false)
			}
		}
	}
	in.room.m.log.Debug("a track begins", "room", in.room.name, "track", in.track.ID, "home", in.feed.home)
	for _, s := range in.room.serves[in.track.ID] {
		s.applyLocked()
	}
}

// leaveLocked goes on without the present parent: what it still sends is taken until the next one delivers.
func (in *intake) leaveLocked(now time.Duration) {
	if s := in.current; s != nil {
		s.until = now + leaveAfter
		in.leaving = append(in.leaving, s)
	}
	in.current = nil
	in.setDirtyLocked()
	in.feed.restless = true
}

// setDirtyLocked has the parent told what is wanted with the next flush.
func (in *intake) setDirtyLocked() { in.dirty, in.feed.dirty = true, true }

// moveLocked goes over to another home.
func (in *intake) moveLocked(f *feed) {
	in.leaveLocked(in.room.m.now())
	delete(in.feed.intakes, in.track.ID)
	in.feed, in.offer = f, nil
	f.intakes[in.track.ID] = in
	f.restless = true
	in.setDirtyLocked()
}

// tickLocked lets former parents go, and tries again what could not be done. It says whether there is more to do.
func (in *intake) tickLocked(now time.Duration) (restless bool) {
	if in.remote == nil {
		in.addLocked()
	}
	if in.retry != 0 && now >= in.retry {
		in.retry = 0
		in.setDirtyLocked()
	}
	kept := in.leaving[:0]
	for _, s := range in.leaving {
		if now < s.until && !in.replacedLocked(s) {
			kept = append(kept, s)
			continue
		}
		in.removeLocked(s)
		in.unwantLocked(s)
	}
	clear(in.leaving[len(kept):])
	in.leaving = kept
	return len(kept) > 0 || in.retry != 0 || in.remote == nil
}

// replacedLocked says that the present parent delivers what a former one did.
func (in *intake) replacedLocked(s *source) bool {
	if in.current == nil || in.current.generation != s.generation {
		return false
	}
	for i, l := range s.labels {
		if l == nil || i > in.interest || l.last.Load() == 0 {
			continue
		}
		if c := in.current.labels[i]; c == nil || c.last.Load() == 0 {
			return false
		}
	}
	return true
}

// unwantLocked tells a former parent that nothing is wanted any more, unless it is the present one again.
func (in *intake) unwantLocked(s *source) {
	if in.current != nil && in.current.node == s.node {
		return
	}
	m := in.room.m
	if n := m.nodes[s.node]; n == nil || !n.up {
		return
	}
	m.number++
	m.sendLocked(s.node, &amphiv1.RelayMessage{Body: &amphiv1.RelayMessage_Wants{Wants: &amphiv1.RelayWants{
		Room: in.room.name, Home: s.home, Number: m.number,
		Wants: []*amphiv1.RelayWant{{TrackId: in.track.ID, MaxLayer: -1}},
	}}})
}

// removeLocked takes the labels of a source away.
func (in *intake) removeLocked(s *source) {
	var numbers []uint32
	for i, l := range s.labels {
		if l != nil {
			numbers = append(numbers, l.number)
			s.labels[i] = nil
		}
	}
	if len(numbers) > 0 {
		in.room.m.in.remove(numbers...)
	}
}

// forgetLocked gives up all sources.
func (in *intake) forgetLocked() {
	all := in.leaving
	if in.current != nil {
		all = append(all, in.current)
	}
	in.leaving, in.current = nil, nil
	in.setDirtyLocked()
	for _, s := range all {
		in.removeLocked(s)
		in.unwantLocked(s)
	}
}

// againLocked begins as if the track were new: media has ended it, as when its publisher was here for a moment.
func (in *intake) againLocked() {
	in.forgetLocked()
	in.remote, in.generation, in.interest = nil, 0, -1
	in.addLocked()
}

func (in *intake) closeLocked() {
	in.forgetLocked()
	delete(in.room.intakes, in.track.ID)
	delete(in.feed.intakes, in.track.ID)
	if in.remote != nil {
		in.remote.Close()
	}
}

// describeLocked tells media what the track consists of.
func (in *intake) describeLocked() {
	if in.remote == nil || in.offer == nil {
		return
	}
	var infos []media.EncodingInfo
	for _, e := range in.offer.GetEncodings() {
		infos = append(infos, media.EncodingInfo{
			RID: e.GetRid(), Codec: codec.ByPayloadType(uint8(min(e.GetPayloadType(), 255))),
			Width: int(min(e.GetWidth(), 1<<16)), Height: int(min(e.GetHeight(), 1<<16)),
		})
	}
	in.remote.Describe(infos)
}

// reportLocked takes a sender report and passes it on.
func (in *intake) reportLocked(encoding int, r *amphiv1.RelayReport) {
	in.reports[encoding] = r
	in.remote.WriteReport(encoding, packet.SenderReport{NTP: r.GetNtp(), RTP: r.GetRtp()})
	for _, s := range in.room.serves[in.track.ID] {
		if relay := s.relays[encoding]; relay != nil {
			relay.queueReport(r.GetNtp(), r.GetRtp())
		}
	}
}
