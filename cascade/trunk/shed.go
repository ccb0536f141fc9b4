package trunk

import (
	"cmp"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/cascade/record"
)

const (
	// rateSlot and rateSlots say over which time a label's bit rate is measured.
	rateSlot  = int64(100 * time.Millisecond)
	rateSlots = 5
	// packetOverhead is what a packet takes on the wire beyond its own bytes.
	packetOverhead = record.Overhead + 28
	// keepShare is the share of the budget that may be in use, so that frames do not queue up:
	// rates vary. restoreShare is that with a label restored, and
	// restoreAfter how long it stays away at least: every restoring costs a keyframe. A label
	// that is shed again within restoreProof stays away twice as long, up to restoreMost.
	keepShare    = 0.95
	restoreShare = 0.88
	restoreAfter = int64(time.Second)
	restoreProof = int64(5 * time.Second)
	restoreMost  = int64(4 * time.Second)
	// needFor is after how long the most that a shed label was offered at meanwhile counts instead of what
	// it was when it was shed, if that is less than half.
	needFor = int64(5 * time.Second)
)

// outLabel is a label of the other end's that we send.
type outLabel struct {
	label   uint32
	class   Class
	born    uint64 // running number: of one class the youngest is shed first
	heard   int64
	bytes   int64 // offered in the present slot
	slots   [rateSlots]int64
	filled  int
	rate    int64 // offered, in bits per second, with overhead
	need    int64 // what rate was when it was shed, as who sends it may stop then; while it is offered at less than half, the most of needFor
	most    int64 // of rate since needAt
	needAt  int64
	shed    bool
	shedAt  int64
	away    int64 // how long it stays away
	backAt  int64 // when it was restored last; 0 for never
	skipped bool  // first..last of gap were not sent, and the other end does not know
	gap     gone
}

// change is a label that is shed or restored.
type change struct {
	label uint32
	shed  bool
}

// shedder decides which labels are sent: all, or those that the budget carries, in the order
// of their classes. The zero value is ready.
type shedder struct {
	labels  map[uint32]*outLabel
	order   []*outLabel // by class and age
	sorted  bool
	births  uint64
	rolled  int64
	changes []change
	offered int64 // bits per second, of all labels
	wanted  int64 // of those sent and the next one
	kept    int64 // of those sent
	count   int   // labels shed now
}

// offer notes a packet about to be sent and returns its label.
func (s *shedder) offer(label uint32, class Class, size int, now int64) *outLabel {
	l := s.labels[label]
	if l == nil {
		if s.labels == nil {
			s.labels = map[uint32]*outLabel{}
		}
		s.births++
		l = &outLabel{label: label, class: class, born: s.births}
		s.labels[label] = l
		s.order = append(s.order, l)
		s.sorted = false
	}
	if l.class != class {
		l.class, s.sorted = class, false
	}
	l.heard = now
	l.bytes += int64(size + packetOverhead)
	return l
}

// roll ends the slot when it is over; it says whether it did.
func (s *shedder) roll(now int64) bool {
	if s.rolled == 0 {
		s.rolled = now
	}
	passed := now - s.rolled
	if passed < rateSlot {
		return false
	}
	s.rolled = now
	s.offered = 0
	for _, l := range s.order {
		l.slots[l.filled%rateSlots] = l.bytes * 8 * int64(time.Second) / passed
		l.filled++
		l.bytes = 0
		sum := int64(0)
		for _, v := range l.slots {
			sum += v
		}
		l.rate = sum / int64(min(l.filled, rateSlots))
		s.offered += l.rate
		if l.shed && l.rate > 0 {
			if l.most = max(l.most, l.rate); now-l.needAt >= needFor {
				if l.most < l.need/2 { // small changes are no reason to try it sooner
					l.need = l.most
				}
				l.most, l.needAt = 0, now
			}
		}
	}
	return true
}

// decide sheds and restores labels for a budget in bits per second.
func (s *shedder) decide(budget, now int64) {
	s.sort()
	var total int64
	full := false
	s.kept, s.wanted = 0, 0
	for _, l := range s.order {
		if l.rate == 0 && !l.shed {
			continue
		}
		limit := int64(keepShare * float64(budget))
		if l.shed {
			limit = int64(restoreShare * float64(budget))
		}
		rate := l.rate
		if l.shed {
			rate = max(rate, l.need)
		}
		fits := !full && total+rate <= limit && (!l.shed || now-l.shedAt >= l.away)
		if l.class == Audio || fits {
			total += rate
			s.set(l, false, now)
			continue
		}
		if !full {
			full, s.wanted = true, total+rate
		}
		s.set(l, true, now)
	}
	s.kept = total
	if !full {
		s.wanted = total
	}
}

// sending is the rate at which the labels that are not shed have been offered in the present
// slot or before, whichever is more, in bits per second.
func (s *shedder) sending() int64 {
	var now, before int64
	for _, l := range s.order {
		if !l.shed {
			now += l.bytes
			before += l.rate
		}
	}
	return max(now*8*int64(time.Second)/rateSlot, before)
}

// shedNext sheds the label that is next in turn and has sent something lately; nil when there
// is none but audio.
func (s *shedder) shedNext(now int64) *outLabel {
	s.sort()
	for _, l := range slices.Backward(s.order) {
		if l.class != Audio && !l.shed && (l.rate > 0 || l.bytes > 0) {
			s.set(l, true, now)
			return l
		}
	}
	return nil
}

func (s *shedder) set(l *outLabel, shed bool, now int64) {
	if l.shed == shed {
		return
	}
	l.shed = shed
	if shed {
		l.shedAt, l.need, l.most, l.needAt = now, l.rate, 0, now
		if l.backAt != 0 && now-l.backAt < restoreProof {
			l.away = min(2*l.away, restoreMost)
		} else {
			l.away = restoreAfter
		}
		s.count++
	} else {
		l.backAt = now
		s.count--
	}
	s.changes = append(s.changes, change{l.label, shed})
}

func (s *shedder) sort() {
	if s.sorted {
		return
	}
	s.sorted = true
	slices.SortFunc(s.order, func(a, b *outLabel) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.born, b.born))
	})
}

// forget lets go of labels that are no longer sent.
func (s *shedder) forget(now int64) {
	s.order = slices.DeleteFunc(s.order, func(l *outLabel) bool {
		if now-l.heard <= labelIdle {
			return false
		}
		if l.shed {
			s.count--
		}
		delete(s.labels, l.label)
		return true
	})
}

// skip notes that packet ext of l is not sent.
func (l *outLabel) skip(ext uint64) {
	if l.gap.label == l.label && l.skipped {
		l.gap.first, l.gap.last = min(l.gap.first, ext), max(l.gap.last, ext)
		return
	}
	l.gap, l.skipped = gone{l.label, ext, ext}, true
}

// left says whether packet ext was left out, as far as that is remembered.
func (l *outLabel) left(ext uint64) bool {
	return l.gap.last != 0 && ext >= l.gap.first && ext <= l.gap.last
}
