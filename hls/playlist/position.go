package playlist

// Position is how far a playlist goes: all that it takes to decide about a blocking reload. It is what an edge learns of
// the playlist besides its text.
type Position struct {
	// Empty: nothing was ever listed. Ended: nothing will be added.
	Empty, Ended bool
	// OpenMSN is the segment that is being made and OpenParts how many parts it has; PrevParts how many the one before had.
	OpenMSN              uint64
	OpenParts, PrevParts int
	// AdvanceParts is how many parts ahead may be asked for.
	AdvanceParts int
}

// Position is where the snapshot ends.
func (s *Snapshot) Position() Position {
	return Position{Empty: s.empty, Ended: s.Ended, OpenMSN: s.OpenMSN, OpenParts: s.OpenParts, PrevParts: s.prevParts, AdvanceParts: s.advanceParts}
}

// Check decides about r against this snapshot.
func (s *Snapshot) Check(r Reload) Verdict { return s.Position().Check(r) }

// Has is that of the snapshot's position.
func (s *Snapshot) Has(msn uint64, part int) bool { return s.Position().Has(msn, part) }

// Check decides about r against a playlist that goes this far.
func (p Position) Check(r Reload) Verdict {
	if p.Ended {
		return Ready
	}
	if p.Empty {
		if r.Blocking && r.MSN > p.OpenMSN+1 {
			return TooFar
		}
		return Wait
	}
	if !r.Blocking || p.Has(r.MSN, r.Part) {
		return Ready
	}
	// The last part of the open segment may be asked for when it begins, as players do that play from further behind.
	if r.MSN > p.OpenMSN+1 || (r.MSN == p.OpenMSN && r.Part >= max(p.OpenParts+p.AdvanceParts, p.PrevParts)) ||
		(r.MSN > p.OpenMSN && r.Part > p.AdvanceParts) {
		return TooFar
	}
	return Wait
}

// Has says whether the playlist contains the part, or for part < 0 the whole segment,
// or something later. A part index beyond a finished segment means the next one's first part; one in a segment that never
// had parts means that segment.
func (p Position) Has(msn uint64, part int) bool {
	switch {
	case p.Empty || msn > p.OpenMSN:
		return false
	case msn == p.OpenMSN:
		return part >= 0 && part < p.OpenParts
	case msn+1 == p.OpenMSN && p.PrevParts > 0 && part >= p.PrevParts:
		return p.OpenParts > 0
	default:
		return true
	}
}
