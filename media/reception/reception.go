// Package reception keeps what RTCP tells a sender about how its stream is received
// (RFC 3550 section 6.4), and translates the sender's clock to the node's.
package reception

import (
	"time"

	"github.com/pion/rtcp"

	"github.com/amphi-sfu/amphi/media/seq"
)

// State is that of one received stream. The zero value is ready; not safe for
// concurrent use. Times are nanoseconds of the node's monotonic clock.
type State struct {
	numbers                      seq.Tracker
	base, received               uint64
	expectedPrior, receivedPrior uint64
	transit                      uint32
	jitter                       uint32 // scaled by 16
	hasTransit                   bool
	lastReport                   uint32 // middle 32 bits of the NTP time of the last sender report
	lastReportAt                 int64
}

// behind is how late a packet may be and still count, in sequence numbers.
const behind = 3000

// maxTransit bounds what one timestamp that lies does to the jitter, in units of the clock.
const maxTransit = 10 * 90000

// Note takes the numbers of a packet that arrived. One whose sequence number is far from all
// others does not count; when the sender has begun a new sequence so do the reports.
func (s *State) Note(sequence uint16, timestamp uint32, now int64, clockRate uint32) {
	s.numbers.Behind = behind
	ext, verdict := s.numbers.Take(sequence)
	switch {
	case verdict == seq.Doubtful:
		return
	case s.base == 0:
		s.base = ext
	case verdict == seq.Restarted:
		s.base, s.received, s.expectedPrior, s.receivedPrior, s.hasTransit = ext, 0, 0, 0, false
	}
	s.received++
	arrival := uint32(now / 1000 * int64(clockRate) / 1e6)
	transit := arrival - timestamp
	if s.hasTransit {
		d := int64(int32(transit - s.transit))
		if d < 0 {
			d = -d
		}
		s.jitter = uint32(int64(s.jitter) + min(d, maxTransit) - (int64(s.jitter)+8)>>4)
	}
	s.transit, s.hasTransit = transit, true
}

// SenderReport notes when the sender's report with this NTP time came.
func (s *State) SenderReport(ntp uint64, now int64) {
	s.lastReport, s.lastReportAt = uint32(ntp>>16), now
}

// Started says that a packet has come.
func (s *State) Started() bool { return s.base != 0 }

// Report makes a reception report block and begins a new interval (RFC 3550 appendix A.3).
func (s *State) Report(ssrc uint32, now int64) rtcp.ReceptionReport {
	expected := s.numbers.Highest() - s.base + 1
	lost := int64(expected) - int64(s.received)
	lostNow := int64(expected-s.expectedPrior) - int64(s.received-s.receivedPrior)
	fraction := uint8(0)
	if d := expected - s.expectedPrior; d > 0 && lostNow > 0 {
		fraction = uint8(min(lostNow*256/int64(d), 255))
	}
	s.expectedPrior, s.receivedPrior = expected, s.received
	block := rtcp.ReceptionReport{
		SSRC: ssrc, FractionLost: fraction, TotalLost: uint32(min(max(lost, 0), 1<<23-1)),
		LastSequenceNumber: uint32(s.numbers.Highest() - 1<<16), Jitter: s.jitter >> 4,
	}
	if s.lastReportAt != 0 {
		block.LastSenderReport = s.lastReport
		block.Delay = uint32((now - s.lastReportAt) << 16 / int64(time.Second))
	}
	return block
}

// Clock translates a publisher's NTP times to the node's wall clock by one fixed
// offset, so that its tracks stay synchronised with each other, and nearly so with
// those of other publishers. The zero value is ready.
type Clock struct {
	offset uint64
	set    bool
}

// maxClockError is how far a translated time may be from the arrival: more is no delay of the
// network but a sender whose clock was set.
const maxClockError = int64(10 * time.Second)

// Translate returns the node's time for ntp, which arrived at the time given. The offset changes
// when the sender's clock was set, so that no sender is ever far from the node's time.
func (c *Clock) Translate(ntp uint64, arrival time.Time) uint64 {
	at := NTP(arrival)
	if off := Between(ntp+c.offset, at); !c.set || off > maxClockError || off < -maxClockError {
		c.offset, c.set = at-ntp, true
	}
	return ntp + c.offset
}

// NTP converts to the 64-bit format of RFC 3550 section 4.
func NTP(t time.Time) uint64 {
	const unixToNTP = 2208988800
	sec := uint64(t.Unix() + unixToNTP)
	return sec<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// Between returns a-b in nanoseconds for two 64-bit NTP times less than 68 years apart.
func Between(a, b uint64) int64 {
	d := int64(a - b)
	return d>>32*int64(time.Second) + (d&0xffffffff)*int64(time.Second)>>32
}
