package turn

import "sync"

// remembered is how many checks of a client may wait for their answers: ICE sends one every 50 ms or so.
const remembered = 32

// pairs tells by which of its addresses a client thinks that a packet of the media socket comes. The client checks a
// pair for each of them, but media sees one: answers belong to the check that they answer, media to the address that
// media is sent to, and checks to any address that was checked. The zero value is ready. Safe for concurrent use.
type pairs struct {
	mu     sync.Mutex // guards the fields below
	checks [remembered]struct {
		id   [12]byte
		peer int
	}
	next  int
	last  int  // that was checked
	media int  // that media was sent to
	known bool // media was sent
}

// note sees a packet from the client to one of the addresses.
func (p *pairs) note(b []byte, peer int) {
	id, class, stun := check(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !stun:
		p.media, p.known = peer, true
	case class == 0:
		p.checks[p.next].id, p.checks[p.next].peer = id, peer
		p.next = (p.next + 1) % remembered
		p.last = peer
	}
}

// of is the address that a packet to the client comes from.
func (p *pairs) of(b []byte) int {
	id, class, stun := check(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !stun && p.known {
		return p.media
	}
	if stun && class&0x0100 != 0 {
		for i := range p.checks {
			if p.checks[i].id == id {
				return p.checks[i].peer
			}
		}
	}
	return p.last
}

// check is the transaction id and the class of a STUN message (RFC 8489 section 5), if b is one (RFC 7983).
func check(b []byte) (id [12]byte, class uint16, ok bool) {
	if len(b) < stunHeader || b[0] > 3 {
		return id, 0, false
	}
	return [12]byte(b[8:20]), (uint16(b[0])<<8 | uint16(b[1])) & 0x0110, true
}
