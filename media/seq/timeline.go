package seq

import "time"

// maxTimeJump is how far RTP timestamps may run ahead of the time that passed, and
// maxTimeBack how far they may go back, before they count as those of another clock.
const (
	maxTimeJump = int64(10 * time.Second)
	maxTimeBack = int64(time.Second)
)

// Timeline watches the RTP timestamps of packets in order. The zero value is ready; not safe
// for concurrent use.
type Timeline struct {
	started bool
	doubted bool
	last    uint32
	doubt   uint32
	at      int64
}

// Take judges the timestamp of the packet with the highest sequence number, which came at now,
// in nanoseconds. rate is that of the clock, in Hz.
func (t *Timeline) Take(timestamp uint32, now int64, rate uint32) Verdict {
	if !t.started || t.follows(t.last, timestamp, now, rate) {
		t.started, t.doubted = true, false
		t.last, t.at = timestamp, now
		return Valid
	}
	if !t.doubted || !t.follows(t.doubt, timestamp, now, rate) {
		t.doubted, t.doubt = true, timestamp
		return Doubtful
	}
	t.doubted = false
	t.last, t.at = timestamp, now
	return Restarted
}

// Expect makes the timeline believe the next timestamp whatever it is.
func (t *Timeline) Expect() { t.started, t.doubted = false, false }

// Off is how far a timestamp is from where the clock should stand at now, in nanoseconds; 0
// before the first.
func (t *Timeline) Off(timestamp uint32, now int64, rate uint32) int64 {
	if !t.started || rate == 0 {
		return 0
	}
	return between(t.last, timestamp, rate) - (now - t.at)
}

// follows is false before a time that passed is known to be too short, or where the clock went
// back. A clock that stood still meanwhile is nothing unusual.
func (t *Timeline) follows(last, timestamp uint32, now int64, rate uint32) bool {
	if last == timestamp || rate == 0 {
		return true
	}
	passed := between(last, timestamp, rate)
	return passed >= -maxTimeBack && passed <= now-t.at+maxTimeJump
}

// between is the time from one timestamp to another, in nanoseconds.
func between(from, to uint32, rate uint32) int64 {
	return int64(int32(to-from)) * int64(time.Second) / int64(rate)
}
