package media

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/negotiate"
	"github.com/amphi-sfu/amphi/media/seq"
)

// Subscription is what a client wants of one track.
type Subscription struct {
	TrackID string
	// MaxWidth and MaxHeight are the size at which the client shows a video, in
	// pixels of the screen; 0,0: hidden, nothing is sent. Ignored for audio.
	MaxWidth, MaxHeight int
	// Priority 1..5, higher is served first when the bandwidth is short.
	Priority int
	// MaxSpatial caps the encoding by index; -1 does not.
	MaxSpatial int
}

// slot is a receiving section of the client and the DownTrack that sends on it.
type slot struct {
	mid       string
	kind      codec.Kind
	group     int // sections of one group are synchronised by the client
	ssrc, rtx uint32
	track     *UpTrack // nil: free
	sub       Subscription
	dt        *DownTrack
}

// role is what a section of an offer is for.
type role struct {
	section *negotiate.Section
	publish *Publish // the client publishes a track with it
	slot    bool     // the client receives with it
}

// assignRoles checks what may be published against an offer.
func assignRoles(o *negotiate.Offer, publish []Publish) ([]role, error) {
	roles := make([]role, len(o.Sections))
	byMid := map[string]*Publish{}
	ids := map[string]bool{}
	for i := range publish {
		p := &publish[i]
		s := o.Section(p.Mid)
		if s == nil || s.Rejected || s.Kind != p.Kind || !s.Direction.Sends() {
			return nil, &negotiate.Error{
				Reason: negotiate.UnknownSection,
				Detail: fmt.Sprintf("no section %q of the offer sends %s", p.Mid, p.Kind),
			}
		}
		if byMid[p.Mid] != nil || ids[p.TrackID] {
			return nil, &negotiate.Error{
				Reason: negotiate.UnknownSection, Detail: fmt.Sprintf("section %q or its track is published twice", p.Mid),
			}
		}
		byMid[p.Mid], ids[p.TrackID] = p, true
	}
	slots := 0
	for i := range o.Sections {
		s := &o.Sections[i]
		roles[i] = role{section: s, publish: byMid[s.Mid]}
		if roles[i].publish == nil && !s.Rejected && s.Kind != 0 && len(s.Formats) > 0 && s.Direction.Receives() && slots < maxSlots {
			roles[i].slot = true
			slots++
		}
	}
	return roles, nil
}

// updateTracks makes the tracks that roles publish newly, and returns those that
// they do not publish any more.
func (ep *Endpoint) updateTracks(roles []role) (gone []*UpTrack, err error) {
	ep.mu.Lock()
	old := ep.published
	ep.mu.Unlock()
	published := map[string]*UpTrack{}
	var made []*UpTrack
	for _, r := range roles {
		p := r.publish
		if p == nil || len(r.section.Formats) == 0 {
			continue
		}
		if u := old[p.Mid]; u != nil && u.id == p.TrackID && u.kind == p.Kind {
			published[p.Mid] = u
			continue
		}
		u, err := ep.router.addTrack(p.TrackID, p.Kind, p.Source, ep.id)
		if err != nil {
			for _, u := range made {
				u.close()
			}
			return nil, err
		}
		made = append(made, u)
		published[p.Mid] = u
	}
	for mid, u := range old {
		if published[mid] != u {
			gone = append(gone, u)
		}
	}
	ep.mu.Lock()
	ep.published = published
	ep.mu.Unlock()
	return gone, nil
}

func (ep *Endpoint) publishedTracks() map[string]*UpTrack {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	return maps.Clone(ep.published)
}

// applySlots brings the slots in line with the offer and answers its sections.
func (ep *Endpoint) applySlots(roles []role) []negotiate.SectionAnswer {
	answers := make([]negotiate.SectionAnswer, len(roles))
	ep.mu.Lock()
	defer ep.mu.Unlock()
	kept := make([]*slot, 0, len(ep.slots))
	groups := map[codec.Kind]int{}
	for i, r := range roles {
		s := r.section
		a := &answers[i]
		if s.Rejected || s.Kind == 0 || len(s.Formats) == 0 {
			continue
		}
		a.Accept = true
		switch {
		case r.publish != nil:
			a.Direction = negotiate.RecvOnly
			a.RIDs = s.RIDs
		case r.slot:
			sl := ep.slotLocked(s)
			sl.group = groups[s.Kind]
			groups[s.Kind]++
			kept = append(kept, sl)
			sl.answer(a, s)
		}
	}
	for _, sl := range ep.slots {
		if !slices.Contains(kept, sl) {
			ep.out.w.post(func() { ep.out.removeTrack(sl.dt) })
		}
	}
	ep.slots = kept
	return answers
}

// slotLocked returns the slot of a section, making it on first use.
func (ep *Endpoint) slotLocked(s *negotiate.Section) *slot {
	i := slices.IndexFunc(ep.slots, func(sl *slot) bool { return sl.mid == s.Mid && sl.kind == s.Kind })
	var sl *slot
	if i >= 0 {
		sl = ep.slots[i]
	} else {
		sl = &slot{mid: s.Mid, kind: s.Kind, ssrc: randomSSRC(), rtx: randomSSRC()}
		sl.dt = &DownTrack{
			out: ep.out, mid: s.Mid, kind: s.Kind,
			wire: wire{ssrc: sl.ssrc, rtxSSRC: sl.rtx}, keyframes: newKeyframeLimit(),
			// Low numbers: receivers take the first one they see for rollover 0.
			seqs: seq.NewMap(uint64(rand.Uint32N(1 << 15))), rtxNext: uint64(rand.Uint32N(1 << 15)),
		}
		if ep.transport != nil {
			sl.dt.cursor.notBefore = ep.router.e.now() + int64(slotGrace)
		}
		ep.out.w.post(func() { ep.out.tracks = append(ep.out.tracks, sl.dt) })
	}
	dt, formats, ext := sl.dt, s.Formats, s.Extensions
	ep.out.w.post(func() { dt.configure(formats, ext) })
	return sl
}

func randomSSRC() uint32 { return rand.Uint32N(1<<32-2) + 1 }

func (sl *slot) answer(a *negotiate.SectionAnswer, s *negotiate.Section) {
	a.Direction = negotiate.SendOnly
	a.SSRC, a.CNAME = sl.ssrc, cname
	a.Stream, a.Track = "slot-"+strconv.Itoa(sl.group), "slot-"+sl.mid
	if slices.ContainsFunc(s.Formats, func(f negotiate.Format) bool { return f.RTX != 0 }) {
		a.RTX = sl.rtx
	}
}

// configure takes what was negotiated for the slot.
func (dt *DownTrack) configure(formats []negotiate.Format, ext negotiate.Extensions) {
	dt.out.unpace() // what waits was numbered for the header that it would have had
	dt.formats = formats
	dt.wire.levelID, dt.wire.transportID, dt.wire.descriptorID = ext.AudioLevel, 0, ext.Descriptor
	if slices.ContainsFunc(formats, func(f negotiate.Format) bool { return f.Feedback.TransportCC }) {
		dt.wire.transportID = ext.TransportCC
	}
	if dt.wire.transportID != 0 {
		dt.out.bw.enable()
	}
	dt.sourcePT, dt.wire.pt = 0, 0
	dt.out.bw.stale, dt.out.awake = true, awakeTicks
}

func (o *outbound) removeTrack(dt *DownTrack) {
	dt.unbind()
	o.tracks = slices.DeleteFunc(o.tracks, func(x *DownTrack) bool { return x == dt })
}

// Subscribe sets the whole of what the client wants. Tracks that do not exist yet are
// waited for.
func (ep *Endpoint) Subscribe(subs []Subscription) {
	if len(subs) > maxSubscriptions {
		subs = subs[:maxSubscriptions]
	}
	m := make(map[string]Subscription, len(subs))
	for _, s := range subs {
		s.Priority = min(max(s.Priority, 1), 5)
		m[s.TrackID] = s
	}
	ep.mu.Lock()
	if ep.closed {
		ep.mu.Unlock()
		return
	}
	ep.subs = m
	ep.mu.Unlock()
	ep.reconcile()
}

// reconcile gives wanted tracks their slots, in order of priority, and says so. A
// track keeps its slot as long as it is wanted.
func (ep *Endpoint) reconcile() {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.closed {
		return
	}
	ep.changed = true
	waiting := ep.wantedLocked()
	changed := false
	for _, sl := range ep.slots {
		if sl.track == nil {
			continue
		}
		i := slices.Index(waiting, sl.track)
		if i < 0 {
			sl.track, changed = nil, true
			dt := sl.dt
			ep.out.w.post(dt.unbind)
			continue
		}
		waiting = slices.Delete(waiting, i, i+1)
		if sub := ep.subs[sl.track.id]; sub != sl.sub {
			ep.bindLocked(sl, sl.track, sub)
		}
	}
	for _, u := range waiting {
		if sl := ep.freeSlotLocked(u); sl != nil {
			ep.bindLocked(sl, u, ep.subs[u.id])
			changed = true
		}
	}
	if changed {
		list := ep.slotListLocked()
		ep.tell(func(o Observer) { o.SlotsChanged(list) })
	}
	ep.askForSlotsLocked()
}

// wantedLocked lists the tracks that are wanted and exist, the most important first.
func (ep *Endpoint) wantedLocked() []*UpTrack {
	var tracks []*UpTrack
	for id := range ep.subs {
		if u := ep.router.UpTrack(id); u != nil && !u.closed.Load() {
			tracks = append(tracks, u)
		}
	}
	slices.SortFunc(tracks, func(a, b *UpTrack) int {
		if d := ep.subs[b.id].Priority - ep.subs[a.id].Priority; d != 0 {
			return d
		}
		if a.kind != b.kind {
			return int(a.kind) - int(b.kind)
		}
		return compareStrings(a.id, b.id)
	})
	return tracks
}

func (ep *Endpoint) bindLocked(sl *slot, u *UpTrack, sub Subscription) {
	sl.track, sl.sub = u, sub
	dt := sl.dt
	ep.out.w.post(func() { dt.bind(u, sub) })
}

// freeSlotLocked finds a slot for a track: where another track of the same publisher
// has the group already, the client synchronises both.
func (ep *Endpoint) freeSlotLocked(u *UpTrack) *slot {
	taken := map[int]bool{}
	mine := map[int]bool{}
	for _, sl := range ep.slots {
		if sl.track != nil {
			taken[sl.group] = true
			if sl.track.origin == u.origin {
				mine[sl.group] = true
			}
		}
	}
	var best *slot
	rank := func(sl *slot) int {
		switch {
		case mine[sl.group]:
			return 0
		case !taken[sl.group]:
			return 1
		}
		return 2
	}
	for _, sl := range ep.slots {
		if sl.kind == u.kind && sl.track == nil && (best == nil || rank(sl) < rank(best)) {
			best = sl
		}
	}
	return best
}

func (ep *Endpoint) slotListLocked() []Slot {
	list := make([]Slot, len(ep.slots))
	for i, sl := range ep.slots {
		list[i].Mid = sl.mid
		if sl.track != nil {
			list[i].TrackID = sl.track.id
		}
	}
	return list
}

// askForSlotsLocked asks the client for more receiving sections when there are too few.
func (ep *Endpoint) askForSlotsLocked() {
	var have, want [codec.Video + 1]int
	for _, sl := range ep.slots {
		have[sl.kind]++
	}
	for _, u := range ep.wantedLocked() {
		want[u.kind]++
	}
	audio, video := want[codec.Audio], want[codec.Video]
	if audio <= have[codec.Audio] && video <= have[codec.Video] || ep.transport == nil {
		ep.told.audioNeeded, ep.told.videoNeeded = 0, 0
		return
	}
	audio, video = max(audio, have[codec.Audio]), max(video, have[codec.Video])
	if audio == ep.told.audioNeeded && video == ep.told.videoNeeded {
		return
	}
	ep.told.audioNeeded, ep.told.videoNeeded = audio, video
	ep.tell(func(o Observer) { o.SlotsNeeded(audio, video) })
}
