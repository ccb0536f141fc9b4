package trunk

import (
	"encoding/binary"
	"time"

	"github.com/amphi-sfu/amphi/media/bwe"
)

const (
	// arrivals is how many packet numbers an arrivals ring tells apart.
	arrivalsHeld = 8192
	// reportEvery is the pause between reports while anything comes that asks for them.
	reportEvery = int64(25 * time.Millisecond)
	// reportStatuses is how many packets one report speaks of: it fits any MTU at worst.
	reportStatuses = 512
	// lateReport is how far below what has been reported a late packet makes it reported again.
	lateReport = 512
)

// Of a report: an RTCP packet of transport-wide feedback, as media/bwe reads it.
const (
	reportHeader = 20
	reportTick   = int64(250 * time.Microsecond)
	reportUnit   = int64(64 * time.Millisecond)
)

// arrivals notes which records came, and when, until they have been reported.
type arrivals struct {
	at      []int64 // by packet number; 0 for missing
	next    uint64  // the first to report
	highest uint64
	started bool
	due     bool // something came that wants a report
	told    int64
	count   uint8
}

// take notes a record; wanted says that it asks for a report (reports themselves do not, or
// two ends would report each other's reports for ever).
func (a *arrivals) take(number uint64, now int64, wanted bool) {
	if a.at == nil {
		a.at = make([]int64, arrivalsHeld)
	}
	slot := func(n uint64) *int64 { return &a.at[n%arrivalsHeld] }
	switch {
	case !a.started:
		a.started, a.next, a.highest = true, number, number
	case number > a.highest:
		for n := a.highest + 1; n < number && n < a.highest+arrivalsHeld; n++ {
			*slot(n) = 0
		}
		if number-a.highest >= arrivalsHeld {
			clear(a.at)
		}
		a.highest = number
		if a.highest-a.next >= arrivalsHeld {
			a.next = a.highest - arrivalsHeld + 1
		}
	case a.highest-number >= arrivalsHeld:
		return
	case number < a.next && a.next-number <= lateReport:
		a.next = number
	}
	*slot(number) = now
	a.due = a.due || wanted
}

// ready says whether a report should leave now, and if not, when.
func (a *arrivals) ready(now int64) (bool, int64) {
	if !a.due || a.next > a.highest {
		return false, never
	}
	return now >= a.told+reportEvery, a.told + reportEvery
}

// report appends one report to dst and says whether there is more to report.
func (a *arrivals) report(dst []byte, now int64) ([]byte, bool) {
	last := min(a.highest, a.next+reportStatuses-1)
	dst = a.encode(dst, a.next, last)
	a.next = last + 1
	a.count++
	more := a.next <= a.highest
	if !more {
		a.told, a.due = now, false
	}
	return dst, more
}

// Symbols of draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.1.
const (
	symbolLost  = 0
	symbolSmall = 1
	symbolLarge = 2
)

// encode appends the report of first..last.
func (a *arrivals) encode(dst []byte, first, last uint64) []byte {
	var symbols [reportStatuses]byte
	var deltas [2 * reportStatuses]byte
	reference, at, size := int64(0), int64(-1), 0
	n := int(last - first + 1)
	for i := range n {
		t := a.at[(first+uint64(i))%arrivalsHeld]
		if t == 0 {
			symbols[i] = symbolLost
			continue
		}
		if at < 0 {
			reference = t / reportUnit
			at = reference * reportUnit
		}
		d := (t - at) / reportTick
		if d >= 0 && d < 256 {
			symbols[i], deltas[size] = symbolSmall, byte(d)
			size++
		} else {
			d = min(max(d, -1<<15), 1<<15-1)
			symbols[i] = symbolLarge
			binary.BigEndian.PutUint16(deltas[size:], uint16(int16(d)))
			size += 2
		}
		at += d * reportTick
	}
	start := len(dst)
	dst = append(dst, 2<<6|15, 205, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(first))
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	dst = append(dst, byte(reference>>16), byte(reference>>8), byte(reference), a.count)
	dst = appendChunks(dst, symbols[:n])
	dst = append(dst, deltas[:size]...)
	for (len(dst)-start)%4 != 0 {
		dst = append(dst, 0)
	}
	binary.BigEndian.PutUint16(dst[start+2:], uint16((len(dst)-start)/4-1))
	return dst
}

// appendChunks writes runs of 7 and more as such, else 7 symbols of two bits at a time.
func appendChunks(dst, symbols []byte) []byte {
	for len(symbols) > 0 {
		run := 1
		for run < len(symbols) && symbols[run] == symbols[0] {
			run++
		}
		if run >= 7 {
			dst = binary.BigEndian.AppendUint16(dst, uint16(symbols[0])<<13|uint16(run))
			symbols = symbols[run:]
			continue
		}
		chunk := uint16(3 << 14)
		k := min(7, len(symbols))
		for i := range k {
			chunk |= uint16(symbols[i]) << (12 - 2*i)
		}
		dst = binary.BigEndian.AppendUint16(dst, chunk)
		symbols = symbols[k:]
	}
	return dst
}

// A report must not speak of more packets than its reader takes.
const _ = uint(bwe.MaxStatuses - reportStatuses)
