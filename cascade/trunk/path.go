package trunk

import (
	"time"

	"github.com/amphi-sfu/amphi/media/bwe"
)

const (
	// stretchSpan is how long packets' arrivals are compared with their departures at least,
	// stretchLeast and stretchShare by how much they must have spread to tell of a queue that grows.
	stretchSpan  = 60 * time.Millisecond
	stretchLeast = 15 * time.Millisecond
	stretchShare = 8
	// lossyShare of a window lost says that the path is not just longer.
	lossyShare = 8
	// jumpFor is how long a path that became longer at once explains the delay seen.
	jumpFor = int64(2 * time.Second)
	// doubtFor is how long a lower estimate may be doubted, and limitedShare the share of it that must
	// not be in use for that: then nothing has shown that the path carries less.
	doubtFor     = int64(400 * time.Millisecond)
	limitedShare = 0.8
)

// path tells one that is full from one that has become longer, or whose ends were held up for a moment: only on the
// first do packets arrive further and further apart than they left. What a lower estimate says of a path
// that carried far less than it could is doubted until that is known. The zero value is ready.
type path struct {
	sentAt [1 << 13]int64 // by packet number

	from, at  time.Duration // departure and arrival of the packet that began the window
	begun     bool
	got, lost int
	stretched bool          // the last window was
	full      bool          // the last two were, or much was lost
	closed    int64         // when the last window ended
	jump      time.Duration // what the path became longer by within one window
	jumped    int64

	before int64         // the estimate that counts while a lower one is doubted; 0: none
	since  int64         // when that began
	longer time.Duration // what is known to be the path's own of its delay
}

// sent notes when a record leaves.
func (p *path) sent(number uint16, now int64) { p.sentAt[number%uint16(len(p.sentAt))] = now }

// take looks at a report.
func (p *path) take(r *bwe.Report, now int64) {
	for i, s := range r.Statuses {
		if !s.Received {
			p.lost++
			continue
		}
		p.got++
		left := time.Duration(p.sentAt[(r.Base+uint16(i))%uint16(len(p.sentAt))])
		at := r.Reference + s.Arrival
		switch {
		case !p.begun || at < p.at:
			p.begin(left, at)
		case at-p.at >= stretchSpan && left > p.from:
			p.close(left, at, now)
		}
	}
}

func (p *path) begin(left, at time.Duration) {
	p.from, p.at, p.begun = left, at, true
	p.got, p.lost = 0, 0
}

func (p *path) close(left, at time.Duration, now int64) {
	span := at - p.at
	grown := span - (left - p.from)
	stretched := grown > max(stretchLeast, span/stretchShare)
	p.full = stretched && p.stretched || p.lost > 2 && p.lost > (p.got+p.lost)/lossyShare
	switch {
	case stretched && !p.stretched:
		p.jump, p.jumped = grown, now
	case stretched:
		p.jumped = 0
	}
	p.stretched, p.closed = stretched, now
	p.begin(left, at)
}

// doubt is called when the estimate has become lower than it was before, with little in use.
func (p *path) doubt(before, now int64) {
	if p.before == 0 {
		p.before, p.since = before, now
	}
}

// judge says whether what was doubted is wrong, and with what estimate to go on then; queue is what packets take longer
// than the least seen.
func (p *path) judge(queue time.Duration, now int64) (estimate int64) {
	p.longer = max(min(p.longer, queue), 0)
	if p.before == 0 {
		return 0
	}
	own := queue - p.longer
	if p.jumped != 0 && now-p.jumped < jumpFor {
		own -= p.jump
	}
	switch {
	case p.full, now-p.since > doubtFor:
		p.before = 0
	case p.closed <= p.since, p.stretched: // it is not known yet
	case own > longPath:
		p.before = 0
	default:
		estimate, p.before = p.before, 0
		p.longer = max(queue, 0)
	}
	return estimate
}
