package owner

import (
	"time"

	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/exchange"
)

const (
	// resendAfter is when updates are sent again that the standby has not acknowledged.
	resendAfter = 250 * time.Millisecond
	// askEvery is how often the directory is asked for going on without a silent standby.
	askEvery = 3 * time.Second
	// checkEvery is how often a standby is asked whether it has the copy still, when there is nothing to tell.
	checkEvery = 5 * time.Second
	// Bounds of what waits for the standby; beyond them requests are refused.
	maxHeld      = 1 << 15
	maxHeldBytes = 64 << 20
	// maxUnacked bounds what is sent again; beyond it the whole copy takes less.
	maxUnacked, maxUnackedBytes = 512, 4 << 20
	// tailSent is how many of the last events go with a whole copy.
	tailSent = 256
)

// mirror keeps the room's standby up to date, and holds back what nobody may hear before the standby knows it.
type mirror struct {
	node        string // the standby; empty: none
	sent, acked uint64 // numbers of updates
	// whole: the next update is the whole copy; next is what came since the last update, nil: nothing.
	whole bool
	next  *amphiv1.StandbyUpdate
	// unacked are the updates after acked.
	unacked      []update
	unackedBytes int
	held         []held
	heldBytes    int
	// since is when the standby was heard last, or when the first unacknowledged update was sent.
	since, resent, asked time.Time
	// cut is since when nothing can be sent to the standby; zero: it can.
	cut time.Time
}

type update struct {
	number uint64
	msg    []byte
}

// held is something to be said, or done, when the standby has acknowledged the update of this number.
type held struct {
	number uint64
	to     string // a node, for msg
	msg    []byte
	// firm: an answer that somebody may rely on.
	firm bool
	// session is that of a state or event.
	session string
	// ev is an event to follow; from and id are the request that caused it.
	ev   *amphiv1.Event
	from string
	id   uint64
}

// dirty tells whether the standby misses something that was not sent yet.
func (m *mirror) dirty() bool { return m.whole || m.next != nil }

func (m *mirror) full() bool { return len(m.held) > maxHeld || m.heldBytes > maxHeldBytes }

// silent tells for how long the standby owes an acknowledgement.
func (m *mirror) silent(now time.Time) time.Duration {
	if len(m.unacked) == 0 {
		return 0
	}
	return now.Sub(m.since)
}

// sending notes whether an update could be sent.
func (m *mirror) sending(now time.Time, sent bool) {
	switch {
	case sent:
		m.cut = time.Time{}
	case m.cut.IsZero():
		m.cut = now
	}
}

// deadline is when a standby is given up that owes acknowledgements: after its silence, or half of it in which there was not
// even a connection to it.
func (m *mirror) deadline(silence time.Duration) time.Time {
	due := m.since.Add(silence)
	if !m.cut.IsZero() {
		due = earlier(due, m.cut.Add(silence/2))
	}
	return due
}

// added is the update that is being made; nil where there is no standby, or where it gets everything anyway.
func (m *mirror) added() *amphiv1.StandbyUpdate {
	if m.node == "" || m.whole {
		return nil
	}
	if m.next == nil {
		m.next = &amphiv1.StandbyUpdate{}
	}
	return m.next
}

// follow makes another node the standby, or none.
func (m *mirror) follow(node string) {
	m.node, m.unacked, m.unackedBytes, m.next, m.cut = node, nil, 0, nil, time.Time{}
	m.whole = node != ""
	if node == "" {
		m.acked = m.sent
	}
}

// acknowledge notes what the standby knows; true: it has to get everything.
func (m *mirror) acknowledge(now time.Time, a *amphiv1.StandbyAck) (everything bool) {
	if a.GetNumber() > m.sent {
		return false
	}
	m.since = now
	if a.GetNumber() > m.acked {
		m.acked = a.GetNumber()
		n := 0
		for n < len(m.unacked) && m.unacked[n].number <= m.acked {
			m.unackedBytes -= len(m.unacked[n].msg)
			n++
		}
		m.unacked = append(m.unacked[:0], m.unacked[n:]...)
	}
	// What was asked for may be on its way.
	if !a.GetWantWhole() || now.Sub(m.resent) < resendAfter {
		return false
	}
	return len(m.unacked) == 0 || a.GetNumber()+1 != m.unacked[0].number
}

// may tells whether h may be said now.
func (r *owned) may(h *held) bool {
	m := &r.mirror
	switch {
	case h.firm && !r.leased:
		return false
	case m.node == "" || h.number <= m.acked:
		return true
	}
	// Without a lease nobody can name another standby: who comes and goes is told, promises wait.
	return !h.firm && !r.leased && r.lax
}

// say says h as soon as it may be said, after what was held back before.
func (r *owned) say(h held) {
	m := &r.mirror
	h.number = m.sent
	if m.dirty() {
		h.number++
	}
	if len(m.held) == 0 && r.may(&h) {
		r.utter(&h)
		return
	}
	m.held = append(m.held, h)
	m.heldBytes += len(h.msg)
}

// release says what may be said by now. Promises that have to wait longer than the rest keep their order.
func (r *owned) release() {
	m := &r.mirror
	kept := m.held[:0]
	blocked := false
	for i := range m.held {
		h := m.held[i]
		if may := r.may(&h); may && !blocked {
			m.heldBytes -= len(h.msg)
			r.utter(&h)
			continue
		} else if !may && !h.firm {
			blocked = true
		}
		kept = append(kept, h)
	}
	clear(m.held[len(kept):])
	m.held = kept
	if len(kept) == 0 {
		m.held = nil
	}
}

func (r *owned) utter(h *held) {
	if h.ev != nil {
		r.follow(h)
		return
	}
	r.sendBytes(h.to, h.msg)
}

// flush sends the standby what was decided since the last time.
func (r *owned) flush(now time.Time) {
	m := &r.mirror
	if m.node == "" || !m.dirty() {
		return
	}
	u := m.next
	if m.whole {
		u = r.everything()
		m.unacked, m.unackedBytes = nil, 0
	}
	m.sent++
	u.Number = m.sent
	m.next, m.whole = nil, false
	b, err := exchange.Encode(&amphiv1.RoomMessage{Room: r.name, Epoch: r.epoch, Body: &amphiv1.RoomMessage_StandbyUpdate{StandbyUpdate: u}})
	if err != nil {
		r.log.Error("update of the standby lost", "err", err)
		m.whole = true
		return
	}
	if len(m.unacked) == 0 {
		m.since = now
	}
	if u.GetWhole() {
		m.resent = now
	}
	m.unacked = append(m.unacked, update{m.sent, b})
	m.unackedBytes += len(b)
	m.sending(now, r.sendBytes(m.node, b))
}

// everything is the whole copy as it is now.
func (r *owned) everything() *amphiv1.StandbyUpdate {
	u := &amphiv1.StandbyUpdate{Whole: true, Plan: r.plan.plan}
	if r.state != nil {
		u.State = r.snapshot()
		u.Events = r.tail[max(0, len(r.tail)-tailSent):]
		u.Epochs = r.epochs
	}
	for name, n := range r.nodes {
		for _, a := range n.answers.order {
			u.Answers = append(u.Answers, &amphiv1.StandbyAnswer{Node: name, Response: n.answers.byID[a.id].resp})
		}
	}
	for peer, s := range r.seats {
		u.Seats = append(u.Seats, &amphiv1.StandbySeat{PeerId: peer, Node: s.node, Connected: s.connected})
	}
	return u
}

// acked takes the standby's word.
func (r *owned) acked(now time.Time, from string, a *amphiv1.StandbyAck) {
	m := &r.mirror
	if from != m.node {
		r.owner.stats.stale.Add(1)
		return
	}
	if everything := m.acknowledge(now, a); everything {
		m.whole, m.next = true, nil
	} else if a.GetWantWhole() {
		r.resend(now)
	}
	r.release()
}

// resend sends again what was not acknowledged; it has come in order or not at all.
func (r *owned) resend(now time.Time) {
	m := &r.mirror
	if now.Sub(m.resent) < resendAfter || len(m.unacked) == 0 {
		return
	}
	m.resent = now
	if len(m.unacked) > maxUnacked || len(m.unacked) > 1 && m.unackedBytes > maxUnackedBytes {
		m.whole, m.next = true, nil
		return
	}
	for _, u := range m.unacked {
		m.sending(now, r.sendBytes(m.node, u.msg))
	}
}

// nudge looks after a standby that is silent and answers when to come again.
func (r *owned) nudge(now time.Time) (next time.Time, ok bool) {
	m := &r.mirror
	if len(m.unacked) == 0 {
		r.lax = false
		if m.node == "" {
			return time.Time{}, false
		}
		if due := m.since.Add(checkEvery); now.Before(due) {
			return due, true
		}
		m.added()
		return now.Add(resendAfter), true
	}
	next = now.Add(resendAfter)
	if m.silent(now) >= resendAfter {
		r.resend(now)
	}
	if due := m.deadline(r.owner.cfg.StandbySilence); !now.Before(due) {
		if r.leased && now.Sub(m.asked) >= askEvery {
			m.asked = now
			r.log.Warn("the standby is silent", "standby", m.node)
			r.keep(&amphiv1.RegistryCommand{Body: &amphiv1.RegistryCommand_PlaceRoom{PlaceRoom: &amphiv1.PlaceRoom{
				Room: r.name, Node: r.owner.cfg.Node, IfEpoch: r.epoch}}})
		}
		if !r.leased && !r.lax {
			r.lax = true
			r.release()
		}
	} else {
		r.lax = false
		next = earlier(next, due)
	}
	return next, true
}
