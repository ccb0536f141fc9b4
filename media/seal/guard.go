package seal

// guardWindow is how many indexes below the highest a Guard can tell apart.
const guardWindow = 1024

// Guard remembers which packet indexes of one SSRC were used, so that a bug in
// numbering drops a packet instead of reusing a nonce. The zero value is ready.
type Guard struct {
	highest uint64
	seen    [guardWindow / 64]uint64
}

// Use says whether index is new, and marks it as used. Indexes too old to tell
// are refused.
func (g *Guard) Use(index uint64) bool {
	switch {
	case index > g.highest:
		if index-g.highest >= guardWindow {
			clear(g.seen[:])
		} else {
			for i := g.highest + 1; i <= index; i++ {
				g.seen[i%guardWindow/64] &^= 1 << (i % 64)
			}
		}
		g.highest = index
	case g.highest-index >= guardWindow:
		return false
	}
	word, bit := &g.seen[index%guardWindow/64], uint64(1)<<(index%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// Near reads where the next index will be noted, to have it in the processor's cache. What it
// returns means nothing.
func (g *Guard) Near() uint64 { return g.seen[(g.highest+1)%guardWindow/64] }
