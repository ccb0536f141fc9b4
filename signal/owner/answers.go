package owner

import (
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// rememberFor is how long an answer can be repeated; replicas repeat a request for 10 s at most.
const rememberFor = 25 * time.Second

// answers remembers what a node's requests were answered, so that a repeated request is not executed again.
// Request ids of a node rise with time.
type answers struct {
	byID  map[uint64]*answer
	order []answered
	// forgotten is the highest id whose answer is remembered no longer.
	forgotten uint64
}

// answer is what a request came to; waiting: it is not to be told yet, as a durable value is being written.
type answer struct {
	resp    *amphiv1.RoomResponse
	waiting bool
}

type answered struct {
	id uint64
	at time.Time
}

// find answers a repeated request; old tells that its answer was forgotten, so that it must not be executed.
func (a *answers) find(id uint64) (known *answer, old bool) {
	if known = a.byID[id]; known != nil {
		return known, false
	}
	return nil, id <= a.forgotten
}

// add remembers an answer, or another one in its place, and forgets those that are old by now.
func (a *answers) add(now time.Time, resp *amphiv1.RoomResponse) *answer {
	if a.byID == nil {
		a.byID = map[uint64]*answer{}
	}
	n := 0
	for n < len(a.order) && now.Sub(a.order[n].at) > rememberFor {
		a.forgotten = max(a.forgotten, a.order[n].id)
		delete(a.byID, a.order[n].id)
		n++
	}
	if n > 0 {
		a.order = append(a.order[:0], a.order[n:]...)
	}
	if a.byID[resp.GetId()] == nil {
		a.order = append(a.order, answered{resp.GetId(), now})
	}
	known := &answer{resp: resp}
	a.byID[resp.GetId()] = known
	return known
}
