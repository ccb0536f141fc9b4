package room

import (
	"container/heap"
	"slices"
	"time"

	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"google.golang.org/protobuf/proto"
)

// what a timer waits for.
type what uint8

const (
	untilLost what = iota
	untilExpired
	untilForgotten
	untilOver
)

// timer is a time at which something may be due; it is checked against the state when it fires, so nobody
// needs to cancel it.
type timer struct {
	ms   int64
	what what
	id   string
}

type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].ms < t[j].ms }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

// Deadline is when Tick should be called next; false: nothing is waiting.
func (s *State) Deadline() (time.Time, bool) {
	for len(s.timers) > 0 {
		if s.live(s.timers[0]) {
			return time.UnixMilli(s.timers[0].ms), true
		}
		heap.Pop(&s.timers)
	}
	return time.Time{}, false
}

// Tick gives up what has waited long enough: peers that stay away, requests without an answer, the session.
func (s *State) Tick(now time.Time) []*pb.Event {
	s.advance(now)
	for len(s.timers) > 0 && s.timers[0].ms <= s.now.UnixMilli() {
		t := heap.Pop(&s.timers).(timer)
		if s.live(t) {
			s.fire(t)
		}
	}
	return s.flush()
}

func (s *State) after(ms int64, d time.Duration, w what, id string) {
	heap.Push(&s.timers, timer{ms: ms + d.Milliseconds(), what: w, id: id})
}

// live tells whether what a timer waits for is still due at its time.
func (s *State) live(t timer) bool {
	if s.ended {
		return false
	}
	switch t.what {
	case untilLost:
		ms, ok := s.gone[t.id]
		return ok && ms+LostAfter.Milliseconds() == t.ms && !s.peers[t.id].GetLost()
	case untilExpired:
		ms, ok := s.lost[t.id]
		return ok && ms+(HoldFor-LostAfter).Milliseconds() == t.ms
	case untilForgotten:
		return request(&s.view, t.id) != nil
	}
	return true
}

func (s *State) fire(t timer) {
	switch t.what {
	case untilLost:
		s.loseNow(t.id)
	case untilExpired:
		s.depart(&pb.PeerLeft{PeerId: t.id, Reason: pb.LeaveReason_LEAVE_REASON_EXPIRED})
	case untilForgotten:
		s.expireRequest(request(&s.view, t.id))
	case untilOver:
		s.end("max_duration", "")
	}
}

// restoreTimers sets the timers that a snapshot implies.
func (s *State) restoreTimers() {
	if s.started == 0 {
		return
	}
	for id, ms := range s.lost {
		s.after(ms, HoldFor-LostAfter, untilExpired, id)
	}
	for _, r := range s.pending {
		s.after(r.GetTimeMs(), RequestFor, untilForgotten, r.GetRequestId())
	}
	s.limitDuration()
}

func (s *State) limitDuration() {
	if d := s.template.GetLimits().GetMaxDurationS(); d > 0 {
		s.after(s.started, time.Duration(d)*time.Second, untilOver, "")
	}
}

// end ends the session for everybody.
func (s *State) end(reason, by string) {
	s.emit(&pb.Event{Body: &pb.Event_RoomEnded{RoomEnded: &pb.RoomEnded{Reason: reason, By: by}}})
	clear(s.gone)
	clear(s.home)
	clear(s.held)
}

// Bounds of the attendance list.
const (
	maxAttendance   = 50000
	maxAttendeeRole = 32
)

// record keeps the session's attendance.
type record struct {
	list  []*pb.Attendance
	at    map[string]int
	peak  uint32
	ended int64
}

func newRecord(v *view) record {
	r := record{at: map[string]int{}}
	for _, p := range v.snapshot().GetPeers() {
		r.joined(p)
		r.peak++
	}
	return r
}

// resume takes over the attendance of an earlier record of the same session. Who is not here any more left meanwhile.
func (r *record) resume(old *pb.Session, v *view, now int64) {
	if old == nil || old.GetId() != v.sessionID {
		return
	}
	present := r.list
	*r = record{at: map[string]int{}, peak: max(r.peak, old.GetPeakPeers())}
	for _, a := range old.GetAttendance() {
		a = proto.Clone(a).(*pb.Attendance)
		r.at[a.GetPeerId()] = len(r.list)
		r.list = append(r.list, a)
		switch p := v.peers[a.GetPeerId()]; {
		case p == nil:
			r.left(a, now, pb.LeaveReason_LEAVE_REASON_LEFT)
		case p.GetLost():
			r.left(a, v.lost[p.GetId()], pb.LeaveReason_LEAVE_REASON_LOST)
		default:
			a.LeftMs, a.Reason = 0, 0
		}
	}
	for _, a := range present {
		if r.of(a.GetPeerId()) == nil && len(r.list) < maxAttendance {
			r.at[a.GetPeerId()] = len(r.list)
			r.list = append(r.list, a)
		}
	}
}

func (r *record) joined(p *pb.Peer) {
	if a := r.of(p.GetId()); a != nil {
		a.LeftMs, a.Reason = 0, 0
		return
	}
	if len(r.list) >= maxAttendance {
		return
	}
	r.at[p.GetId()] = len(r.list)
	r.list = append(r.list, &pb.Attendance{
		PeerId: p.GetId(), UserId: p.GetUserId(), Name: p.GetName(), Roles: []string{p.GetRole()}, JoinedMs: p.GetJoinedMs(),
	})
}

func (r *record) of(id string) *pb.Attendance {
	if i, ok := r.at[id]; ok {
		return r.list[i]
	}
	return nil
}

// note records an event that is about to be applied to the view.
func (r *record) note(v *view, ev *pb.Event) {
	switch b := ev.GetBody().(type) {
	case *pb.Event_PeerJoined:
		r.joined(b.PeerJoined.GetPeer())
		r.peak = max(r.peak, uint32(len(v.peers)-len(v.lost)+1))
	case *pb.Event_PeerUpdated:
		p := b.PeerUpdated.GetPeer()
		a := r.of(p.GetId())
		if a == nil {
			return
		}
		a.Name = p.GetName()
		if n := len(a.Roles); n == 0 || a.Roles[n-1] != p.GetRole() && n < maxAttendeeRole {
			a.Roles = append(a.Roles, p.GetRole())
		}
	case *pb.Event_PeerLeft:
		r.left(r.of(b.PeerLeft.GetPeerId()), ev.GetTimeMs(), b.PeerLeft.GetReason())
	case *pb.Event_RoomEnded:
		r.ended = ev.GetTimeMs()
		for _, a := range r.list {
			r.left(a, ev.GetTimeMs(), pb.LeaveReason_LEAVE_REASON_ROOM_ENDED)
		}
	}
}

// left notes the first time that a peer left and did not come back.
func (r *record) left(a *pb.Attendance, ms int64, why pb.LeaveReason) {
	if a != nil && a.GetLeftMs() == 0 {
		a.LeftMs, a.Reason = ms, why
	}
}

func (r *record) snapshot(v *view) *pb.Session {
	s := &pb.Session{
		Id: v.sessionID, Room: v.room, Template: v.template.GetName(),
		StartedMs: v.started, EndedMs: r.ended, PeakPeers: r.peak,
	}
	s.Attendance = slices.Grow(s.Attendance, len(r.list))
	for _, a := range r.list {
		s.Attendance = append(s.Attendance, proto.Clone(a).(*pb.Attendance))
	}
	return s
}
