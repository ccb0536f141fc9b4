package cascade

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphi-sfu/amphi/media"
	"github.com/amphi-sfu/amphi/media/packet"
)

const (
	// replayRate is how fast packets of the ring are sent to one node, in bits per second, unless its trunk carries less
	// than twice that.
	replayRate = 50_000_000
	// replayMost is how many packets are replayed at most: what a ring holds.
	replayMost = 512
	// replayFor is how long a replay may take, or wait for what this node does not have yet, before it is given up.
	replayFor = 2 * time.Second
	// keyframeRetry is how often a keyframe is asked for until one comes.
	keyframeRetry = 500 * time.Millisecond
)

// relay is a sink that sends an encoding to another node. What goes out is in order: while it catches up from the ring, what
// arrives waits there.
type relay struct {
	m           *Manager
	room, track string
	node        string
	label       uint32
	generation  uint64
	source      MediaTrack
	enc         Encoding
	encoding    int
	class       atomic.Uint32 // a Class
	audio       bool
	home        bool // the track is published here
	shed        atomic.Bool
	packets     atomic.Uint64
	bytes       atomic.Uint64
	rate        atomic.Uint64 // bits per second of the last second
	lastBytes   uint64        // guarded by the manager's mutex

	mu       sync.Mutex // guards the fields below; taken after the encoding's
	catching bool
	next     uint64 // while catching: what is to be sent next
	have     uint64 // what the other node had
	until    time.Duration
	floor    uint64 // nothing below it is sent
	waiting  bool   // for a keyframe
	quiet    bool   // the microphone is not one of the loudest, and nothing of it is sent
	asked    time.Duration
	buf      []byte
}

// attachLocked begins: after packet have, if the ring still has what follows, else with a keyframe.
func (r *relay) attachLocked(have uint64) {
	now := r.m.now()
	r.mu.Lock()
	highest := r.enc.Highest()
	start, ok := r.enc.StartFrom()
	switch {
	case have != 0 && have+replayMost > highest:
		r.catching, r.next, r.have, r.floor = true, have+1, have, have+1
	case r.audio:
		r.floor = highest
	case ok:
		r.catching, r.next, r.floor = true, start, start
	default:
		r.waiting, r.asked = true, now
	}
	r.until = now + replayFor
	catching, waiting := r.catching, r.waiting
	r.mu.Unlock()
	r.enc.Attach(r)
	if waiting {
		r.enc.RequestKeyframe()
	}
	if catching {
		r.m.catching[r] = struct{}{}
		r.m.wake()
	}
}

func (r *relay) detachLocked() {
	r.enc.Detach(r)
	r.m.out.remove(r)
	delete(r.m.catching, r)
	r.m.pending.forget(r)
}

// WriteRTP implements packet.Sink.
func (r *relay) WriteRTP(p *packet.Packet) {
	ext := media.WireSeq(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.audio && r.home && r.source.Quiet():
		r.quiet = true
		return
	case r.quiet:
		r.quiet = false
		r.speakLocked(ext)
	case r.catching && ext >= r.next, ext < r.floor:
		return
	case r.waiting && !p.Keyframe:
		return
	case r.waiting:
		r.waiting, r.floor = false, ext
		r.sendLocked(p, ext)
		r.sendOvertakersLocked(ext)
		return
	}
	r.sendLocked(p, ext)
}

// catchUpPackets is how many packets somebody who begins to speak had said before it was noticed.
const catchUpPackets = 5

// speakLocked begins again with a microphone, a little before packet ext. What was left out before is not to be had.
func (r *relay) speakLocked(ext uint64) {
	r.catching, r.floor = false, max(r.floor, ext-min(catchUpPackets, ext))
	for before := r.floor; before < ext; before++ {
		if p := r.enc.Packet(before); p != nil {
			r.sendLocked(p, before)
			p.Release()
		}
	}
}

// overtakersMost is how many packets may have come before the one that they follow.
const overtakersMost = 64

// sendOvertakersLocked sends what follows packet ext but came before it.
func (r *relay) sendOvertakersLocked(ext uint64) {
	for highest := min(r.enc.Highest(), ext+overtakersMost); ext < highest; {
		ext++
		if p := r.enc.Packet(ext); p != nil {
			r.sendLocked(p, ext)
			p.Release()
		}
	}
}

// WritePadding implements packet.RelaySink.
func (r *relay) WritePadding(p *packet.Packet) { r.WriteRTP(p) }

// WriteSenderReport implements packet.Sink. Those of another home are passed on as they came.
func (r *relay) WriteSenderReport(sr packet.SenderReport) {
	if r.home {
		r.queueReport(sr.NTP, sr.RTP)
	}
}

func (r *relay) sendLocked(p *packet.Packet, ext uint64) {
	r.buf = p.AppendRelayed(r.buf[:0])
	r.packets.Add(1)
	r.bytes.Add(uint64(len(r.buf)))
	r.m.trunks.Send(r.node, r.label, ext, Class(r.class.Load()), r.buf)
}

// again appends a packet to dst, unless it was meant to be left out.
func (r *relay) again(ext uint64, dst []byte) []byte {
	r.mu.Lock()
	left := ext < r.floor || r.quiet
	r.mu.Unlock()
	if left {
		return dst
	}
	p := r.enc.Packet(ext)
	if p == nil {
		return dst
	}
	defer p.Release()
	return p.AppendRelayed(dst)
}

// catchUp sends packets of the ring for as long as budget, in bytes, lasts. It returns what is left of that, and whether
// the relay has caught up.
func (r *relay) catchUp(budget int, now time.Duration) (left int, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for budget > 0 {
		if !r.catching {
			return budget, true
		}
		highest := r.enc.Highest()
		if r.next > highest {
			if highest < r.have && now < r.until {
				return budget, false // it is on its way here
			}
			r.catching = false
			return budget, true
		}
		if now >= r.until || highest-r.next > replayMost {
			r.giveUpLocked(now)
			return budget, true
		}
		if p := r.enc.Packet(r.next); p != nil {
			r.sendLocked(p, r.next)
			budget -= len(r.buf)
			p.Release()
		}
		r.next++
	}
	return budget, false
}

// giveUpLocked goes on with what comes now: from a keyframe on, where there are any.
func (r *relay) giveUpLocked(now time.Duration) {
	r.catching = false
	if !r.audio {
		r.waiting, r.asked = true, now-keyframeRetry
	}
}

// askAgain asks for a keyframe that has been waited for for long.
func (r *relay) askAgain(now time.Duration) {
	r.mu.Lock()
	due := r.waiting && now-r.asked >= keyframeRetry
	if due {
		r.asked = now
	}
	r.mu.Unlock()
	if due {
		r.enc.RequestKeyframe()
	}
}

// paceLocked sends what relays have to catch up with, audio first, at the pace that their trunks carry.
func (m *Manager) paceLocked(now time.Duration) {
	if len(m.catching) == 0 {
		return
	}
	list := make([]*relay, 0, len(m.catching))
	for r := range m.catching {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *relay) int {
		return cmp.Or(cmp.Compare(a.class.Load(), b.class.Load()), cmp.Compare(a.label, b.label))
	})
	budgets := map[string]int{}
	for _, r := range list {
		left, ok := budgets[r.node]
		if !ok {
			rate := int64(replayRate)
			if n := m.nodes[r.node]; n != nil && n.budget > 0 {
				rate = min(rate, n.budget/2)
			}
			left = int(rate / 8 * int64(pacePeriod) / int64(time.Second))
		}
		left, done := r.catchUp(left, now)
		budgets[r.node] = left
		if done {
			delete(m.catching, r)
		}
	}
}

// pendingReports are sender reports about to be sent. Taken after an encoding's lock.
type pendingReports struct {
	mu     sync.Mutex // guards the field below
	relays map[*relay]report
}

// report is of a sender report what nodes tell each other.
type report struct {
	ntp uint64
	rtp uint32
}

func (r *relay) queueReport(ntp uint64, rtp uint32) {
	p := &r.m.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.relays == nil {
		p.relays = map[*relay]report{}
	}
	p.relays[r] = report{ntp, rtp}
}

func (p *pendingReports) forget(r *relay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.relays, r)
}

// take returns what is pending by node.
func (p *pendingReports) take() map[*relay]report {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.relays
	p.relays = nil
	return all
}
