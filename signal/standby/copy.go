package standby

import (
	"maps"
	"slices"
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

const (
	// rememberFor is how long an answer is kept, as at the owner.
	rememberFor = 25 * time.Second
	// tailLen is how many of the last events are kept for replicas that miss some.
	tailLen = 1024
)

// Copy is what the standby of a room knows: all that its owner has told anybody, and perhaps a little more. What it points
// to is shared and never changes.
type Copy struct {
	// Epoch is that of the owner whose copy this is.
	Epoch uint64
	// State is nil while no session runs.
	State *amphiv1.RoomState
	// Tail is the last events, without gaps, up to the state's.
	Tail []*amphiv1.Event
	// Epochs tells in which epochs the last events were decided, oldest first.
	Epochs []*amphiv1.EpochStart
	// Answers to requests that may be repeated, oldest first.
	Answers []Answer
	// Seats tells where each peer's client is, by peer id.
	Seats map[string]*amphiv1.StandbySeat
	// Plan is the owner's last relay plan; nil: none.
	Plan *amphiv1.RelayPlan
}

// Answer is what a request of a node was answered.
type Answer struct {
	Node     string
	Response *amphiv1.RoomResponse
	// At is when the standby learned of it.
	At time.Time
}

// mirror follows one epoch of a room's owner by its updates. Pure: no I/O, no clock; not safe for concurrent use.
type mirror struct {
	epoch   uint64
	number  uint64        // of the last update
	rep     *room.Replica // nil: no session
	tail    []*amphiv1.Event
	epochs  []*amphiv1.EpochStart
	answers []Answer
	seats   map[string]*amphiv1.StandbySeat
	plan    *amphiv1.RelayPlan
}

// update takes the next update of the epoch and answers what to acknowledge: the last update that is known, and that it
// cannot go on without what lies between.
func (m *mirror) update(now time.Time, u *amphiv1.StandbyUpdate) *amphiv1.StandbyAck {
	switch {
	case u.GetNumber() <= m.number && m.number > 0:
		return &amphiv1.StandbyAck{Number: m.number}
	case u.GetWhole():
		m.replace(u)
	case u.GetNumber() != m.number+1 || m.number == 0:
		return &amphiv1.StandbyAck{Number: m.number, WantWhole: true}
	default:
		for _, ev := range u.GetEvents() {
			if m.rep == nil || m.rep.Apply(ev) != nil {
				// It does not follow: as if nothing were known.
				*m = mirror{epoch: m.epoch}
				return &amphiv1.StandbyAck{WantWhole: true}
			}
			m.extend(ev)
		}
	}
	m.number = u.GetNumber()
	m.note(now, u)
	return &amphiv1.StandbyAck{Number: m.number}
}

// replace begins anew with a whole copy.
func (m *mirror) replace(u *amphiv1.StandbyUpdate) {
	*m = mirror{epoch: m.epoch, seats: map[string]*amphiv1.StandbySeat{}, epochs: u.GetEpochs()}
	if u.GetState() == nil {
		return
	}
	m.rep = room.NewReplica(u.GetState())
	m.tail = slices.Clip(u.GetEvents())
}

func (m *mirror) extend(ev *amphiv1.Event) {
	m.tail = append(m.tail, ev)
	if extra := len(m.tail) - tailLen; extra > tailLen {
		m.tail = slices.Clone(m.tail[extra:])
	}
}

// note takes what comes beside the events.
func (m *mirror) note(now time.Time, u *amphiv1.StandbyUpdate) {
	if u.GetPlan() != nil {
		m.plan = u.GetPlan()
	}
	for _, s := range u.GetSeats() {
		if s.GetNode() == "" {
			delete(m.seats, s.GetPeerId())
		} else {
			m.seats[s.GetPeerId()] = s
		}
	}
	old := 0
	for old < len(m.answers) && now.Sub(m.answers[old].At) > rememberFor {
		old++
	}
	m.answers = slices.Delete(m.answers, 0, old)
	for _, a := range u.GetAnswers() {
		m.answers = append(m.answers, Answer{a.GetNode(), a.GetResponse(), now})
	}
}

// copy is what is known.
func (m *mirror) copy() *Copy {
	c := &Copy{Epoch: m.epoch, Tail: m.tail, Epochs: m.epochs, Answers: m.answers, Seats: maps.Clone(m.seats), Plan: m.plan}
	if m.rep != nil && !m.rep.Ended() {
		c.State = m.rep.Snapshot()
	}
	return c
}
