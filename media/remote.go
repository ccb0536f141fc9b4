package media

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/interest"
	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/amphi-sfu/amphi/media/reception"
)

// MaxEncodings is how many simulcast streams a track has at most.
const MaxEncodings = maxEncodings

// generationShift is where a remote track's generation is in its extended sequence numbers: above
// those of the wire, so that numbers rise from one generation to the next.
const generationShift = 48

// RemoteConfig of a track whose publisher is attached to another node.
type RemoteConfig struct {
	// ID, Source and Origin are as of any UpTrack: the track's id, what it shows, whose it is.
	ID, Source, Origin string
	Kind               codec.Kind
	// Home names the node of the publisher: sender reports are in that node's time.
	Home string
}

// RemoteObserver hears what this node wants of a remote track. Calls come one at a time, from
// a goroutine of the engine, and must not block.
type RemoteObserver interface {
	// Interest says up to which encoding, low to high, the track is wanted here; -1: not at
	// all, as at first. It may exceed the highest one.
	Interest(maxSpatial int)
	// RequestKeyframe asks for a keyframe of an encoding; requests have been merged.
	RequestKeyframe(encoding int)
}

// Remote feeds an UpTrack with packets that come from another node. Its methods are safe for
// concurrent use, but for what Restart says.
type Remote struct {
	track      *UpTrack
	observer   RemoteObserver
	generation atomic.Uint64
	home       atomic.Pointer[remoteClock]
	last       [maxEncodings]atomic.Pointer[Encoding]
}

// EncodingInfo is what is known of an encoding before its packets come.
type EncodingInfo struct {
	RID           string
	Codec         codec.Codec
	Width, Height int
}

// AddRemote makes an UpTrack of a track that is published at another node. It is an UpTrack like
// any other, and wanted by nobody at first.
func (r *Router) AddRemote(cfg RemoteConfig, observer RemoteObserver) (*Remote, error) {
	u := newUpTrack(r, cfg.ID, cfg.Kind, cfg.Source, cfg.Origin)
	u.remote = true
	if _, _, err := r.replaceTrack(u); err != nil {
		return nil, fmt.Errorf("adding track %q: %w", cfg.ID, err)
	}
	m := &Remote{track: u, observer: observer}
	m.home.Store(r.e.remotes.clock(cfg.Home))
	if !r.e.remotes.add(m) {
		u.close()
		return nil, fmt.Errorf("adding track %q: %w", cfg.ID, ErrClosed)
	}
	r.tracksChanged()
	return m, nil
}

// UpTrack is the track that Write feeds.
func (m *Remote) UpTrack() *UpTrack { return m.track }

// Write takes a packet of an encoding as packet.AppendRelayed wrote it, with its extended
// sequence number as of the home, at most 48 bits. arrivalNS is Engine.Now of its arrival. It is
// false for a packet that was dropped: a duplicate, or one that makes no sense. Subscribers get
// it with the next Engine.Flush. b may be overwritten after it returns.
func (m *Remote) Write(encoding int, ext uint64, b []byte, arrivalNS int64) bool {
	u := m.track
	e := u.router.e
	enc := m.encoding(encoding, "")
	if enc == nil || ext>>generationShift != 0 {
		e.drops.add(dropUnknownSSRC)
		return false
	}
	if u.muted.Load() {
		e.drops.add(dropMuted)
		return false
	}
	p := e.pool.Get()
	defer p.Release()
	if p.ParseRelayed(b, ext) != nil {
		e.drops.add(dropMalformed)
		return false
	}
	c := codec.ByPayloadType(p.PayloadType)
	if c.Name == 0 || c.Kind() != u.kind {
		e.drops.add(dropPayloadType)
		return false
	}
	p.ArrivalNS = arrivalNS
	p.ExtSeq |= m.generation.Load() << generationShift
	if p.AudioLevel != packet.NoAudioLevel {
		u.router.observe(u, p.AudioLevel, time.Duration(arrivalNS))
	}
	return enc.writePlaced(p, c)
}

// encoding returns the encoding at an index, making it on first use.
func (m *Remote) encoding(index int, rid string) *Encoding {
	if index < 0 || index >= maxEncodings {
		return nil
	}
	if enc := m.last[index].Load(); enc != nil {
		return enc
	}
	enc := m.track.encoding(index, rid, m)
	if enc != nil {
		enc.generation.Store(m.generation.Load())
		m.last[index].Store(enc)
	}
	return enc
}

// Describe says what encodings the track has, low to high, so that subscribers can choose among
// them before anything of them has come. Encodings that are there already stay as they are.
func (m *Remote) Describe(list []EncodingInfo) {
	changed := false
	for i, info := range list[:min(len(list), maxEncodings)] {
		if info.Codec.Name == 0 || info.Codec.Kind() != m.track.kind {
			continue
		}
		if enc := m.encoding(i, info.RID); enc != nil {
			changed = enc.expected(info) || changed
		}
	}
	if changed {
		m.track.layersChanged()
	}
}

// WriteReport takes a sender report of an encoding, in the time of the publisher's home.
func (m *Remote) WriteReport(encoding int, sr packet.SenderReport) {
	e := m.track.router.e
	enc := m.encoding(encoding, "")
	if enc == nil || sr.NTP == 0 {
		return
	}
	now := e.now()
	sr.ArrivalNS = now
	sr.NTP = m.home.Load().translate(sr.NTP, e.start.Add(time.Duration(now)))
	if !enc.writeReport(sr) {
		e.drops.add(dropReport)
	}
}

// Restart begins a new generation: the publisher has moved to another home, or has begun anew
// there. What comes next has other sequence numbers, timestamps and SSRCs; subscribers go on at its
// first keyframe. No Write of the generation before may be under way or follow.
func (m *Remote) Restart(home string) {
	m.home.Store(m.track.router.e.remotes.clock(home))
	generation := m.generation.Add(1)
	for _, enc := range m.track.Encodings() {
		enc.beginAnew(generation)
	}
}

// Close ends the track.
func (m *Remote) Close() {
	m.track.router.e.remotes.remove(m)
	m.track.close()
}

// requestKeyframe implements upstream.
func (m *Remote) requestKeyframe(enc *Encoding) {
	index := int(enc.index)
	m.track.router.e.notify.post(func() { m.observer.RequestKeyframe(index) })
}

// tick does what is due. It belongs to the clock.
func (m *Remote) tick(now int64) {
	for _, enc := range m.track.Encodings() {
		enc.tick(now)
	}
	if told, changed := m.track.updateInterest(now); changed {
		m.track.router.e.notify.post(func() { m.observer.Interest(int(told)) })
	}
}

// remotes are the remote tracks of an engine.
type remotes struct {
	mu     sync.Mutex // guards the fields below
	all    map[*Remote]struct{}
	clocks map[string]*remoteClock // by home
}

// add makes the clock look after a track; false when its router was closed meanwhile.
func (s *remotes) add(m *Remote) bool {
	// Nothing of it counts as wanted, as what it consists of is told by its home.
	d := &m.track.demand
	d.mu.Lock()
	d.tracker.Forget()
	d.told.Store(int32(interest.None))
	d.begun = true
	d.mu.Unlock()
	s.mu.Lock()
	if s.all == nil {
		s.all = map[*Remote]struct{}{}
	}
	s.all[m] = struct{}{}
	s.mu.Unlock()
	if m.track.closed.Load() {
		s.remove(m)
		return false
	}
	return true
}

func (s *remotes) remove(m *Remote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, m)
}

// list returns the tracks that are left, and forgets those whose router has closed them.
func (s *remotes) list() []*Remote {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.all, func(m *Remote, _ struct{}) bool { return m.track.closed.Load() })
	return slices.Collect(maps.Keys(s.all))
}

// clock is the one of all tracks of a home.
func (s *remotes) clock(home string) *remoteClock {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clocks[home]
	if c == nil {
		c = &remoteClock{}
		if s.clocks == nil {
			s.clocks = map[string]*remoteClock{}
		}
		s.clocks[home] = c
	}
	return c
}

// remoteClock translates a home's time to this node's, by one offset for all its publishers.
type remoteClock struct {
	mu    sync.Mutex // guards the field below
	clock reception.Clock
}

func (c *remoteClock) translate(ntp uint64, arrival time.Time) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock.Translate(ntp, arrival)
}
