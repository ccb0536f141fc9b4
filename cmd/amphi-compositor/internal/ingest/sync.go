package ingest

import (
	"sync"
	"time"
)

// Playout delay above the least observed network delay.
const (
	MinDelay = 120 * time.Millisecond
	MaxDelay = 250 * time.Millisecond

	delayStep   = 20 * time.Millisecond
	delayWindow = 5 * time.Second  // late frames are counted over it
	delayRelax  = 30 * time.Second // without a late frame before the delay shrinks
	delaySpare  = 60 * time.Millisecond
	// decodeTime is what is left for decoding when a missing packet has been waited for.
	decodeTime = 60 * time.Millisecond

	// apart is how far the least delays of two streams of one peer may differ before
	// the later one's sender reports are taken for nonsense.
	apart = int64(400 * time.Millisecond)
	// memberTTL is how long a silent stream counts.
	memberTTL = 10 * time.Second
)

// Sync is what the inputs of one peer have in common: one playout time for what
// was captured at one time. Safe for concurrent use.
type Sync struct {
	mu      sync.Mutex // guards the fields below
	members []*member
	base    follower // capture → playout, without delay
	delay   time.Duration

	from    time.Duration // start of the delay window
	frames  int
	late    int
	relaxed time.Duration // since when no frame was late
	spare   time.Duration // smallest since then
	jumps   int64
}

// member is one stream's part in a Sync.
type member struct {
	least  int64
	seen   time.Duration
	synced bool
	own    follower // for streams without (plausible) sender reports
}

// NewSync returns a Sync for the inputs of one peer.
func NewSync() *Sync { return &Sync{delay: MinDelay, spare: MaxDelay} }

// Delay is the present playout delay above the least observed network delay.
func (s *Sync) Delay() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delay
}

// hold is how long to wait for a missing packet.
func (s *Sync) hold() time.Duration { return s.Delay() - decodeTime }

// Jumps counts how often playout was moved at once rather than slowly.
func (s *Sync) Jumps() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jumps
}

func (s *Sync) join() *member {
	m := new(member)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = append(s.members, m)
	return m
}

func (s *Sync) leave(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, x := range s.members {
		if x == m {
			s.members = append(s.members[:i], s.members[i+1:]...)
			return
		}
	}
}

// observe takes a stream's least transit time (arrival − capture).
func (s *Sync) observe(m *member, least int64, synced bool, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if synced != m.synced {
		m.own = follower{}
	}
	m.least, m.seen, m.synced = least, now, synced
	if m.own.move(least, now) {
		s.jumps++
	}
	if !synced {
		return
	}
	smallest, ok := int64(0), false
	for _, x := range s.members {
		if x.synced && now-x.seen < memberTTL && (!ok || x.least < smallest) {
			smallest, ok = x.least, true
		}
	}
	if s.base.move(smallest, now) {
		s.jumps++
	}
}

// due is the playout time of what was captured at capture.
func (s *Sync) due(m *member, capture int64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	base := m.own.value
	if m.synced && m.least-s.base.value < apart {
		base = s.base.value
	}
	return time.Duration(capture+base) + s.delay
}

// missed tells that a packet which was given up came after all, so long after its successor. What costs the picture until a keyframe
// is worth a delay in which such packets come in time, if there is one.
func (s *Sync) missed(after, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after >= MaxDelay-decodeTime {
		return
	}
	s.relaxed, s.spare = now, MaxDelay
	if s.delay-decodeTime <= after {
		s.delay = min(s.delay+delayStep, MaxDelay)
	}
}

// arrived tells how long before its playout time a frame was complete, and
// adapts the delay: more when frames come too late, less after a quiet time.
func (s *Sync) arrived(spare, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames++
	s.spare = min(s.spare, spare)
	// A frame that is later than the greatest delay could help was stuck, not jittered.
	if spare < 10*time.Millisecond && spare > -MaxDelay {
		s.late++
		s.relaxed, s.spare = now, MaxDelay
	}
	if now-s.from >= delayWindow {
		if s.late*50 > s.frames {
			s.delay = min(s.delay+delayStep, MaxDelay)
		}
		s.from, s.frames, s.late = now, 0, 0
	}
	if now-s.relaxed >= delayRelax {
		if s.spare > delaySpare && s.delay > MinDelay {
			s.delay -= delayStep / 4
		}
		s.relaxed, s.spare = now, MaxDelay
	}
}
