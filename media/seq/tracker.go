package seq

// Verdict is what a Tracker or Timeline makes of a number.
type Verdict uint8

// Verdicts.
const (
	// Valid: it follows from those before.
	Valid Verdict = iota
	// Doubtful: it is far from all before; whether it is believed is up to those after it.
	Doubtful
	// Restarted: enough numbers agree that the sender has begun anew.
	Restarted
)

const (
	// maxAhead is how far a number may be ahead of the highest (MAX_DROPOUT of RFC 3550
	// appendix A.1): one or two seconds of high quality video that never came.
	maxAhead = 3000
	// farRun is how many numbers in a row make a restart; nearRun how many where they might
	// also be late packets that nobody waits for any more.
	farRun  = 2
	nearRun = 8
)

// Tracker unwraps sequence numbers as Unwrapper does, but lets no single number lead it
// astray (RFC 3550 appendix A.1): what is too far from all before is not believed until the
// numbers after it follow from it. The zero value is ready; not safe for concurrent use.
type Tracker struct {
	// Behind is how far a number may be behind the highest and still be merely late.
	Behind uint16

	highest uint64
	started bool
	fresh   bool   // the next number is believed, whatever it is
	next    uint16 // what would confirm the doubtful ones
	run     int    // doubtful numbers in a row
}

// Take extends the number of a packet that came. A number that is not Valid or Restarted must
// not be used. After Restarted all numbers are above those before, which never repeat.
func (t *Tracker) Take(s uint16) (uint64, Verdict) {
	if !t.started {
		t.started, t.fresh = true, false
		t.highest = 1<<16 | uint64(s) // room below, for packets that come before the first
		return t.highest, Valid
	}
	if t.fresh {
		return t.restart(s), Restarted
	}
	diff := int16(s - uint16(t.highest))
	if diff <= maxAhead && diff > -int16(min(t.Behind, 1<<15-1)) {
		t.run = 0
		ext := t.highest + uint64(int64(diff))
		if diff > 0 {
			t.highest = ext
		}
		return ext, Valid
	}
	if t.run == 0 || s != t.next {
		t.run = 0
	}
	t.run++
	t.next = s + 1
	need := farRun
	if diff < 0 && diff > -maxAhead {
		need = nearRun
	}
	if t.run < need {
		return 0, Doubtful
	}
	return t.restart(s), Restarted
}

// restart begins again with s, above all numbers given so far and those missing below.
func (t *Tracker) restart(s uint16) uint64 {
	floor := t.highest + maxAhead
	t.highest = floor + uint64(s-uint16(floor))
	t.run, t.fresh = 0, false
	return t.highest
}

// Place notes a number that somebody else has extended.
func (t *Tracker) Place(ext uint64) {
	t.highest, t.started = max(t.highest, ext), true
}

// Restart makes the tracker begin anew with s and returns its extended number.
func (t *Tracker) Restart(s uint16) uint64 { return t.restart(s) }

// Expect makes the tracker believe the next number whatever it is: another sender takes over.
func (t *Tracker) Expect() { t.fresh = t.started }

// Near extends the number of a packet that is sent again; it is false for one that was never
// near. It leads the tracker nowhere.
func (t *Tracker) Near(s uint16) (uint64, bool) {
	diff := int16(s - uint16(t.highest))
	if !t.started || t.fresh || diff > maxAhead || diff <= -int16(min(t.Behind, 1<<15-1)) {
		return 0, false
	}
	return t.highest + uint64(int64(diff)), true
}

// Highest returns the highest number believed, 0 before the first.
func (t *Tracker) Highest() uint64 { return t.highest }
