// Package ice is the answering side of ICE (RFC 8445) for a server with public addresses:
// a controlled agent that gathers nothing and ignores the client's candidates. It answers
// checks, sends one of its own to every address that an authenticated check came from, and
// follows the client's nomination. It is a pure core: messages and the time come in,
// messages and states come out; sockets, clocks and locks are the caller's. DESIGN.md
// explains how.
package ice

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Bounds and periods.
const (
	maxPairs = 16
	// firstRetry is the time to the second check of a pair that has not answered; it
	// doubles with each further one, maxTries are sent at most per check from the client.
	firstRetry = 100 * time.Millisecond
	maxTries   = 7
	// quiet is after how long without a message from the client it is asked for a sign of
	// life, and askAgain how often then: a change of address without a new nomination, as
	// behind a NAT that forgot its mapping, is seen after that.
	quiet    = 2800 * time.Millisecond
	askAgain = 500 * time.Millisecond
	// doubtful is how long the selected pair may have been silent when checks arrive by
	// another one before it is asked for a sign of life out of turn.
	doubtful = time.Second
	// consentPeriod is how often consent is asked for (RFC 7675 section 5.1), with up to
	// a fifth less or more, and consentExpires when nothing more is sent without an answer:
	// a client's own checks are no consent, as somebody could replay them.
	consentPeriod  = 5 * time.Second
	consentExpires = 30 * time.Second
	// settling is how long after the nomination of a pair of UDP one of TCP does not replace
	// it: clients that nominate all they check mean the better of the two.
	settling = 2 * time.Second
	// keepGeneration is how long credentials from before a restart are good if the
	// restarted session never selects a pair.
	keepGeneration = 60 * time.Second
)

// Path is where a message came from or goes to: an address of the one UDP socket or,
// with Conn, a TCP connection. It is comparable.
type Path struct {
	Addr netip.AddrPort
	// Conn numbers the TCP connection, 0 is UDP.
	Conn uint64
}

// Credentials are a user name fragment and password (RFC 8445 section 5.3).
type Credentials struct {
	Ufrag, Pwd string
}

// State of an agent.
type State uint8

// States. Failed is final.
const (
	Connecting State = iota
	Connected
	Disconnected // nothing heard for a while; it may come back
	Failed
)

// Config of an Agent.
type Config struct {
	// ID is put into the transaction ids of the agent's checks, so that answers find it.
	ID uint32
	// Local and Remote are the first credentials.
	Local, Remote Credentials
	// DisconnectedAfter is how long a connected client may be silent, FailedAfter how much
	// longer it may then be. ConnectWithin is how long the first pair may take; 0: for ever.
	DisconnectedAfter, FailedAfter, ConnectWithin time.Duration
	// Random makes transaction ids; they must not be guessable.
	Random func() uint64
}

// Agent is the ICE agent of one endpoint. It is not safe for concurrent use. Times are
// of any monotonic clock, positive.
type Agent struct {
	cfg         Config
	state       State
	began       time.Duration
	heard       time.Duration // when anything authentic came last
	generations [2]generation // the current one first; the one before it while it is good
	pairs       []pair
	selected    Path
	hasSelected bool
	chosen      time.Duration // when the selected pair was nominated last
}

// generation is one ICE session (RFC 8445 section 9).
type generation struct {
	number        uint32
	local, remote Credentials
	until         time.Duration // the older one's end
}

// pair is a path that an authentic check came by.
type pair struct {
	path      Path
	session   uint32 // number of its generation
	valid     bool   // a check of ours was answered
	nominated bool   // by the client, to be selected once it is valid
	heard     time.Duration
	check     transaction // the check under way
	tries     uint8       // of it; 0: none under way
	sentAt    time.Duration
	answered  time.Duration // the last of our checks
	consentAt time.Duration // when to ask for consent, of the selected pair
}

// Send is a message to send.
type Send struct {
	To   Path
	Data []byte
}

// Output collects what an agent does. It may be shared by agents, one call after the other.
type Output struct {
	// Messages are valid until the next Reset.
	Messages []Send
	// New are paths by which an authentic check came for the first time, Valid those whose
	// client has proven that it receives there.
	New, Valid []Path
	// Gone are paths that the agent has given up.
	Gone []Path
	buf  []byte
}

// Reset empties o.
func (o *Output) Reset() {
	clear(o.Messages)
	o.Messages, o.New, o.Valid, o.Gone, o.buf = o.Messages[:0], o.New[:0], o.Valid[:0], o.Gone[:0], o.buf[:0]
}

// outputRoom is what the messages of one call need at most.
const outputRoom = 1024

// build makes a message in o's memory, which must not move while it holds any.
func (o *Output) build(to Path, f func(b []byte) []byte) {
	if cap(o.buf)-len(o.buf) < outputRoom/2 {
		o.buf = make([]byte, 0, max(8*outputRoom, 2*cap(o.buf)))
	}
	at := len(o.buf)
	o.buf = f(o.buf)
	o.Messages = append(o.Messages, Send{To: to, Data: o.buf[at:len(o.buf):len(o.buf)]})
}

// New makes an agent at time now.
func New(cfg Config, now time.Duration) *Agent {
	return &Agent{
		cfg: cfg, began: now, heard: now,
		generations: [2]generation{{number: 1, local: cfg.Local, remote: cfg.Remote}},
	}
}

// State returns the agent's state.
func (a *Agent) State() State { return a.state }

// Selected is the path of the nominated pair; false before there is one.
func (a *Agent) Selected() (Path, bool) { return a.selected, a.hasSelected }

// Usable is the path for what cannot wait for a nomination (RFC 8445 section 12.1): the
// selected one, else the one that was proven last; false when there is none.
func (a *Agent) Usable() (Path, bool) {
	if a.hasSelected {
		return a.selected, true
	}
	var best *pair
	for i := range a.pairs {
		if p := &a.pairs[i]; p.valid && (best == nil || p.heard > best.heard) {
			best = p
		}
	}
	if best == nil {
		return Path{}, false
	}
	return best.path, true
}

// Paths calls f with every path by which an authentic check came.
func (a *Agent) Paths(f func(Path)) {
	for i := range a.pairs {
		f(a.pairs[i].path)
	}
}

// Restart begins a new session (RFC 8445 section 9). The credentials before it stay good,
// and so does the selected pair, until a pair of the new session is selected. It is asked
// for a sign of life at once: the client sees whether it lives, and so do we.
func (a *Agent) Restart(local, remote Credentials, now time.Duration) {
	if s := a.find(a.selected); a.hasSelected && s != nil {
		s.consentAt = now
	}
	old := a.generations[0]
	old.until = now + keepGeneration
	a.generations = [2]generation{{number: old.number + 1, local: local, remote: remote}, old}
}

// Lost tells the agent that a path is gone, as of a TCP connection that was closed.
func (a *Agent) Lost(p Path) {
	for i := range a.pairs {
		if a.pairs[i].path == p {
			a.pairs = append(a.pairs[:i], a.pairs[i+1:]...)
			break
		}
	}
	if a.hasSelected && a.selected == p {
		a.selected, a.hasSelected = Path{}, false
	}
}

// Handle takes a message that came by a path, and adds what is to be done to o. It
// returns why the message was dropped, DropNone when it was not. Nothing that is not
// authentic changes anything.
func (a *Agent) Handle(m *Message, from Path, now time.Duration, o *Output) Drop {
	if a.state == Failed {
		return DropUnknownUfrag
	}
	switch m.kind {
	case bindingRequest:
		return a.request(m, from, now, o)
	case bindingSuccess, bindingError:
		return a.response(m, from, now, o)
	case bindingIndication:
		return DropNone // a keepalive (RFC 8445 section 11); not authentic, so no sign of life
	}
	return DropMethod
}

func (a *Agent) request(m *Message, from Path, now time.Duration, o *Output) Drop {
	local := localPart(m.username)
	var g *generation
	for i := range a.generations {
		if c := &a.generations[i]; c.number != 0 && (c.until == 0 || now < c.until) && c.local.Ufrag == string(local) {
			g = c
			break
		}
	}
	switch {
	case g == nil:
		return DropUnknownUfrag
	case !m.authentic(g.local.Pwd):
		return DropUnauthentic
	case m.unknowns > 0:
		o.build(from, func(b []byte) []byte { return refuse(b, m, g.local.Pwd, codeUnknownAttribute, "Unknown Attribute") })
		return DropNone
	case m.controlled:
		// We are always the controlled side: the client made the offer (RFC 8445 section 7.3.1.1).
		o.build(from, func(b []byte) []byte { return refuse(b, m, g.local.Pwd, codeRoleConflict, "Role Conflict") })
		return DropNone
	}
	a.hear(now)
	p := a.admit(from, g, now, o)
	o.build(from, func(b []byte) []byte {
		answer := begin(b, bindingSuccess, m.id)
		answer.addAddress(from.Addr)
		return answer.finish(g.local.Pwd)
	})
	if m.useCandidate {
		p.nominated = true
	}
	switch {
	case !p.valid && (p.tries == 0 || now-p.sentAt >= firstRetry/2):
		p.tries = 0
		a.sendCheck(p, now, o)
	case p.valid && m.useCandidate:
		a.choose(p, now, o)
	case p.valid && a.hasSelected && a.selected != from:
		a.doubt(now, o)
	}
	return DropNone
}

// admit finds or makes the pair of a path and puts it into a session.
func (a *Agent) admit(from Path, g *generation, now time.Duration, o *Output) *pair {
	p := a.find(from)
	if p == nil {
		if len(a.pairs) >= maxPairs {
			a.evict(o)
		}
		a.pairs = append(a.pairs, pair{path: from})
		o.New = append(o.New, from)
		p = &a.pairs[len(a.pairs)-1]
	}
	if p.session < g.number {
		// What was proven stays proven, but the new session has to nominate again.
		p.session, p.nominated, p.tries = g.number, false, 0
	}
	p.heard = now
	return p
}

// evict makes room: the pair not heard of for the longest time goes.
func (a *Agent) evict(o *Output) {
	worst := -1
	for i := range a.pairs {
		if a.hasSelected && a.pairs[i].path == a.selected {
			continue
		}
		if worst < 0 || a.pairs[i].heard < a.pairs[worst].heard {
			worst = i
		}
	}
	o.Gone = append(o.Gone, a.pairs[worst].path)
	a.pairs = append(a.pairs[:worst], a.pairs[worst+1:]...)
}

func (a *Agent) find(path Path) *pair {
	for i := range a.pairs {
		if a.pairs[i].path == path {
			return &a.pairs[i]
		}
	}
	return nil
}

// doubt asks the selected pair for a sign of life when the client checks another one: it
// may have moved without saying so.
func (a *Agent) doubt(now time.Duration, o *Output) {
	if s := a.find(a.selected); s != nil && s.tries == 0 && now-s.heard >= doubtful {
		a.sendCheck(s, now, o)
	}
}

func (a *Agent) sendCheck(p *pair, now time.Duration, o *Output) {
	if p.tries == 0 {
		binary.BigEndian.PutUint32(p.check[:], a.cfg.ID)
		binary.BigEndian.PutUint64(p.check[4:], a.cfg.Random())
	}
	p.tries++
	p.sentAt = now
	g := a.session(p)
	o.build(p.path, func(b []byte) []byte {
		m := begin(b, bindingRequest, p.check)
		m.add(attrUsername, len(g.remote.Ufrag)+1+len(g.local.Ufrag))
		m.b = append(append(append(m.b, g.remote.Ufrag...), ':'), g.local.Ufrag...)
		m.pad()
		m.add(attrPriority, 4)
		m.b = binary.BigEndian.AppendUint32(m.b, 110<<24|65535<<8|255) // peer-reflexive (RFC 8445 section 7.1.1)
		m.add(attrControlled, 8)
		m.b = binary.BigEndian.AppendUint64(m.b, 0) // lowest tie-breaker: we never want to control
		return m.finish(g.remote.Pwd)
	})
}

// session is the generation of a pair; the current one when its own is gone.
func (a *Agent) session(p *pair) *generation {
	if p.session == a.generations[1].number {
		return &a.generations[1]
	}
	return &a.generations[0]
}

func (a *Agent) response(m *Message, from Path, now time.Duration, o *Output) Drop {
	p := a.find(from)
	if p == nil || p.check != m.id || p.tries == 0 && p.answered == 0 {
		return DropUnexpected
	}
	if p.tries == 0 {
		return DropNone // the answer to a check that was sent again
	}
	if !m.authentic(a.session(p).remote.Pwd) {
		return DropUnauthentic
	}
	if m.kind == bindingError {
		p.tries = 0 // asked again when the client sends its next check
		return DropNone
	}
	p.tries, p.heard, p.answered = 0, now, now
	a.hear(now)
	if !p.valid {
		p.valid = true
		o.Valid = append(o.Valid, from)
	}
	p.consentAt = now + a.consentAfter()
	if p.nominated {
		a.choose(p, now, o)
	}
	return DropNone
}

// choose selects a valid pair that the client nominated. A session before the selected
// pair's does not nominate any more; those before p's session end.
func (a *Agent) choose(p *pair, now time.Duration, o *Output) {
	p.nominated = false
	if s := a.find(a.selected); a.hasSelected && s != nil && (s.session > p.session || a.settled(s, p, now)) {
		return
	}
	a.chosen = now
	if !a.hasSelected || a.selected != p.path {
		a.selected, a.hasSelected = p.path, true
		p.consentAt = now + a.consentAfter()
	}
	a.state = Connected
	if p.session != a.generations[0].number {
		return
	}
	a.generations[1] = generation{}
	current := a.pairs[:0]
	for _, q := range a.pairs {
		if q.session == a.generations[0].number {
			current = append(current, q)
		} else {
			o.Gone = append(o.Gone, q.path)
		}
	}
	a.pairs = current
}

// settled says that s, of UDP and alive, stays selected although p, of TCP, is nominated too.
func (a *Agent) settled(s, p *pair, now time.Duration) bool {
	return s.session == p.session && s.path.Conn == 0 && p.path.Conn != 0 && now-a.chosen < settling && now-s.heard < settling
}

func (a *Agent) hear(now time.Duration) {
	a.heard = now
	if a.state == Disconnected && a.hasSelected {
		a.state = Connected
	}
}

func (a *Agent) consentAfter() time.Duration {
	fifth := uint64(consentPeriod / 5)
	return consentPeriod - consentPeriod/5 + time.Duration(a.cfg.Random()%(2*fifth))
}
