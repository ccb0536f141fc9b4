package media

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/interest"
	"github.com/amphi-sfu/amphi/media/packet"
)

const (
	// comingFor is how long a layer that a publisher was asked for counts as on its way.
	comingFor = int64(3 * time.Second)
	// wakeFor is how long after it began to be sent an encoding is given to workers that
	// have no subscribers of it: they get some at its first packet, and would miss the
	// rest of its first picture.
	wakeFor = int64(50 * time.Millisecond)
)

// demand is what is wanted of an UpTrack on this node. What counts is what viewers would be
// sent by the size at which they show it, not what their links carry just now: a layer that
// comes and goes with a viewer's bandwidth would come too late.
type demand struct {
	wishes  [interest.Top + 1]atomic.Int32 // slots by the layer that they want
	large   atomic.Int32                   // slots that show it large
	told    atomic.Int32                   // what the publisher was told last
	raised  atomic.Int64                   // when it was told to send more
	begun   bool                           // it was told; belongs to the clock
	tracker *interest.Tracker              // belongs to the clock

	mu     sync.Mutex // guards the fields below
	sizes  map[any]pictureSize
	layers map[any]int8 // what other nodes want
}

type pictureSize struct{ width, height int }

// largeArea is from how many pixels on a picture is shown large.
const largeArea = 640 * 360

func (s pictureSize) large() bool { return s.width*s.height >= largeArea }

func (d *demand) init(now int64) {
	// Without a Config to be wrong about, New cannot fail.
	d.tracker, _ = interest.New(interest.Config{}, time.Duration(now))
	d.told.Store(int32(interest.Top))
	d.raised.Store(now)
}

// wish is what a slot wants of a track.
type wish struct {
	track *UpTrack
	layer int8
	large bool
}

// set counts the slot for another layer, or track; nil for none.
func (w *wish) set(u *UpTrack, layer int8, large bool) {
	layer = min(layer, interest.Top)
	if u == nil || layer < 0 {
		u, layer, large = nil, interest.None, false
	}
	if w.track == u && w.layer == layer && w.large == large {
		return
	}
	for _, c := range [...]struct {
		wish
		n int32
	}{{*w, -1}, {wish{u, layer, large}, 1}} {
		if c.track != nil {
			c.track.demand.wishes[c.layer].Add(c.n)
			if c.large {
				c.track.demand.large.Add(c.n)
			}
			if c.n > 0 && int32(c.layer) > c.track.demand.told.Load() {
				c.track.router.e.kickClock()
			}
			c.track.heard(c.n)
		}
	}
	*w = wish{u, layer, large}
}

// noteWish counts what the allocator found the slot to want. A client that has not been heard of for a
// while wants nothing until it is back.
func (dt *DownTrack) noteWish() {
	if dt.track == nil || dt.out.away {
		dt.wished.set(nil, interest.None, false)
		return
	}
	dt.wished.set(dt.track, dt.share.Wish, pictureSize{dt.share.Width, dt.share.Height}.large())
}

// setAway says whether the client has fallen silent.
func (o *outbound) setAway(away bool) {
	o.away = away
	for _, dt := range o.tracks {
		dt.noteWish()
	}
}

// heard counts those who listen to anything in the room.
func (u *UpTrack) heard(n int32) {
	if u.kind == codec.Audio {
		u.router.listeners.Add(n)
	}
}

// Want says at which size, in pixels, a picture of the track is used by somebody who attaches
// sinks to its encodings, so that the encoding for it is sent; 0,0: not any more. by is any
// comparable value that stands for who wants it.
func (u *UpTrack) Want(by any, width, height int) {
	d := &u.demand
	d.mu.Lock()
	defer d.mu.Unlock()
	if width <= 0 || height <= 0 {
		delete(d.sizes, by)
		return
	}
	if d.sizes == nil {
		d.sizes = map[any]pictureSize{}
	}
	d.sizes[by] = pictureSize{width, height}
}

// wanted is the highest encoding that anybody wants, interest.None when nobody wants any. As long
// as somebody listens to anything in the room all microphones are wanted: who speaks is told by what
// they send.
func (u *UpTrack) wanted() int8 {
	d := &u.demand
	most := interest.None
	if u.kind == codec.Audio && u.source == "mic" && u.router.listeners.Load() > 0 {
		most = 0
	}
	for l := interest.Top; l > most; l-- {
		if d.wishes[l].Load() > 0 {
			most = l
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sizes {
		most = max(most, u.encodingFor(s))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, enc := range u.encodings {
		if enc != nil && enc.attached.Load() > 0 {
			most = max(most, int8(i))
		}
	}
	return most
}

// encodingFor is the lowest encoding that fills a picture, the highest that may be when none
// known does.
func (u *UpTrack) encodingFor(s pictureSize) int8 {
	for _, enc := range u.Encodings() {
		if w, h := enc.Size(); w >= s.width && h >= s.height {
			return enc.index
		}
	}
	return interest.Top
}

// coming says that the publisher was asked for more a moment ago.
func (u *UpTrack) coming(now int64) bool { return now-u.demand.raised.Load() < comingFor }

// tellInterest tells the publisher of a track up to which layer it should send, when that has
// changed. It belongs to the clock.
func (ep *Endpoint) tellInterest(u *UpTrack, now int64) {
	if told, changed := u.updateInterest(now); changed {
		ep.tell(func(o Observer) { o.PublisherInterest(u.id, int(told)) })
	}
}

// updateInterest finds up to which layer the track should be sent to this node, and whether that
// has to be told. It belongs to the clock.
func (u *UpTrack) updateInterest(now int64) (told int8, changed bool) {
	d := &u.demand
	before := int8(d.told.Load())
	told = d.tracker.Update(u.wanted(), time.Duration(now))
	d.mu.Lock()
	told = max(told, d.relayedLocked())
	d.mu.Unlock()
	if told < before {
		d.told.Store(int32(told))
	} else if told > before {
		d.told.Store(int32(told))
		d.raised.Store(now)
	}
	for _, enc := range u.Encodings() {
		if enc.index > told {
			enc.rest(now)
		}
	}
	changed = told != before || !d.begun
	d.begun = true
	return told, changed
}

// encodingRest is what an encoding knows of its pauses; guarded by its mutex.
type encodingRest struct {
	woke   int64 // when it began to be sent last
	rested bool  // it was let go of meanwhile
}

// rest forgets what was sent before nobody wanted it: who comes later should not see an old picture.
func (e *Encoding) rest(now int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.rested && !e.live(now) {
		e.rested = true
		e.ring.Clear()
	}
}

// wake notes that p is the first packet after a pause, or of all. e.mu is held.
func (e *Encoding) wake(p *packet.Packet) {
	e.woke = p.ArrivalNS
	if e.rested && !p.Keyframe {
		e.lostTooMuch.Store(true) // the clock asks for a keyframe
	}
	e.rested = false
}

// sinksChanged notes how many sinks there are of this node's own. e.mu is held.
func (e *Encoding) sinksChanged() {
	n := int32(0)
	for _, s := range e.sinks {
		if _, relay := s.(packet.RelaySink); !relay {
			n++
		}
	}
	e.track.heard(n - e.attached.Swap(n))
}
