package webhook

import (
	"slices"
	"time"
)

// Query chooses kept events. Zero fields match everything.
type Query struct {
	IDs          []string
	Room         string
	Types        []string // as in Target.Events
	Since, Until time.Time
	// Undelivered: only those that some target has not taken.
	Undelivered bool
	// After is the number behind which a page begins; Limit 0 is no limit.
	After uint64
	Limit int
}

// Kept is an event of the outbox.
type Kept struct {
	Number         uint64
	ID, Type, Room string
	Time           time.Time
	Body           []byte
	// Waiting are the targets, by their shown URL, that have not taken it.
	Waiting []string
}

func (q *Query) matches(e *entry) bool {
	kinds := target{events: q.Types}
	return e.n > q.After && (len(q.IDs) == 0 || slices.Contains(q.IDs, e.id)) && (q.Room == "" || q.Room == e.room) && kinds.wants(e.kind) &&
		(q.Since.IsZero() || !e.at.Before(q.Since)) && (q.Until.IsZero() || e.at.Before(q.Until))
}

// List answers kept events, oldest first.
func (s *Sender) List(q Query) []Kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Kept
	for _, e := range s.entries {
		if !q.matches(e) {
			continue
		}
		k := Kept{Number: e.n, ID: e.id, Type: e.kind, Room: e.room, Time: e.at, Body: e.body}
		for _, t := range s.targets {
			if t.has(e) {
				k.Waiting = append(k.Waiting, t.shown)
			}
		}
		if q.Undelivered && len(k.Waiting) == 0 {
			continue
		}
		list = append(list, k)
		if q.Limit > 0 && len(list) == q.Limit {
			break
		}
	}
	return list
}

// Replay has kept events delivered once more to all targets that want them, behind what waits; it answers to how many
// deliveries that comes. Those that wait are not doubled.
func (s *Sender) Replay(q Query) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.entries {
		if !q.matches(e) {
			continue
		}
		for _, t := range s.targets {
			if t.wants(e.kind) && !t.has(e) {
				t.add(e)
				s.marks = append(s.marks, mark{Again: e.n, To: t.key})
				n++
			}
		}
	}
	s.nudge()
	return n
}

// TargetState is how a target does.
type TargetState struct {
	// URL is shown without user, password and query.
	URL       string
	Waiting   int
	Delivered uint64
	// Failure of the last attempt, and since when attempts fail; empty: they do not.
	Failure string
	Failing time.Time
}

// Targets tells how the targets do.
func (s *Sender) Targets() []TargetState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []TargetState
	for _, t := range s.targets {
		st := TargetState{URL: t.shown, Waiting: t.waiting(), Delivered: t.delivered, Failure: t.failure}
		if t.failure != "" {
			st.Failing = t.failingAt
		}
		list = append(list, st)
	}
	return list
}
