package record

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Messages notes what all peers of a room sent, were told, and got. It may be used from several goroutines.
type Messages struct {
	mu      sync.Mutex // guards the fields below
	sent    map[string]sending
	got     map[string][]receipt // by receiver
	present map[string]time.Time // since when a receiver is in the room without having been lost
	lives   map[string]int
}

type sending struct {
	at    time.Time
	acked time.Time // zero: not yet
	id    uint64
}

type receipt struct {
	text string
	id   uint64
	live bool // as an event, not in a snapshot
	life int  // the receiver's, counted from its first join
}

// NewMessages makes an empty record.
func NewMessages() *Messages {
	return &Messages{sent: map[string]sending{}, got: map[string][]receipt{}, present: map[string]time.Time{}, lives: map[string]int{}}
}

// Joined notes that a receiver is a member from now on, as a new peer: it is owed what is sent later, and
// nothing is said about the order of what came before and after.
func (m *Messages) Joined(receiver string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.present[receiver] = at
	m.lives[receiver]++
}

// Sent notes that a text, which nobody else sends, was sent.
func (m *Messages) Sent(text string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent[text] = sending{at: at}
}

// Acked notes that its sender was told the message's number.
func (m *Messages) Acked(text string, id uint64, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sent[text]
	s.acked, s.id = at, id
	m.sent[text] = s
}

// Got notes that a receiver got a message, as an event or within a snapshot of the room.
func (m *Messages) Got(receiver, text string, id uint64, live bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got[receiver] = append(m.got[receiver], receipt{text: text, id: id, live: live, life: m.lives[receiver]})
}

// Verdict is what is to be said of all messages.
type Verdict struct {
	Sent, Acked int
	// Lost were acknowledged and did not come to a receiver that was owed them, one for each such receiver.
	Lost int
	// Reordered came after one with a higher number, or have another number elsewhere.
	Reordered int
	// Repeated came twice as events to the same receiver.
	Repeated int
	// Examples name some of the above.
	Examples []string `json:",omitempty"`
}

const maxExamples = 8

func (v *Verdict) example(format string, args ...any) {
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

// Verdict judges by the receivers that are still there; what was acknowledged after a time may be on its way.
func (m *Messages) Verdict(receivers []string, until time.Time) Verdict {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := Verdict{Sent: len(m.sent)}
	numbers := map[string]uint64{}
	for text, s := range m.sent {
		if !s.acked.IsZero() {
			v.Acked++
			numbers[text] = s.id
		}
	}
	for _, r := range receivers {
		m.judge(&v, r, numbers, until)
	}
	slices.SortFunc(v.Examples, cmp.Compare[string])
	return v
}

// judge adds what is to be said of one receiver. It is called with mu held.
func (m *Messages) judge(v *Verdict, receiver string, numbers map[string]uint64, until time.Time) {
	live, any := map[string]bool{}, map[string]bool{}
	highest, life := uint64(0), 0
	for _, g := range m.got[receiver] {
		any[g.text] = true
		if g.life != life {
			life, highest = g.life, 0
			clear(live)
		}
		if known, ok := numbers[g.text]; ok && known != g.id {
			v.Reordered++
			v.example("%s: %q has number %d, elsewhere %d", receiver, g.text, g.id, known)
		}
		numbers[g.text] = g.id
		if !g.live {
			continue
		}
		if live[g.text] {
			v.Repeated++
			v.example("%s: %q came twice", receiver, g.text)
			continue
		}
		live[g.text] = true
		if g.id <= highest {
			v.Reordered++
			v.example("%s: %q with number %d came after %d", receiver, g.text, g.id, highest)
		}
		highest = max(highest, g.id)
	}
	since, member := m.present[receiver]
	for text, s := range m.sent {
		if member && !s.acked.IsZero() && s.acked.Before(until) && s.at.After(since) && !any[text] {
			v.Lost++
			v.example("%s: %q, acknowledged as %d, did not come", receiver, text, s.id)
		}
	}
}

// AckedSince tells whether a message that was sent after a time has been acknowledged.
func (m *Messages) AckedSince(at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sent {
		if !s.acked.IsZero() && s.at.After(at) {
			return true
		}
	}
	return false
}
