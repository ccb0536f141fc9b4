package packager

import "time"

// Touch notes that somebody wants the playlist now; any goroutine.
func (m *Media) Touch(now time.Time) {
	m.touched.Store(int64(now.Sub(m.cfg.Start)))
	if m.idle.Load() && m.idle.CompareAndSwap(true, false) {
		select {
		case m.packager.wanted <- struct{}{}:
		default:
		}
	}
}

// Wanted has a token when a variant that idles is wanted again.
func (p *Packager) Wanted() <-chan struct{} { return p.wanted }

// Idle says which variants nobody has wanted since a time; those are told from the others until they are wanted, and Wanted tells
// when. Those whose parts a tap takes are wanted.
func (p *Packager) Idle(since time.Time) []bool {
	out := make([]bool, len(p.cfg.Variants))
	p.mu.Lock()
	for i := range out {
		out[i] = !p.takenLocked(p.cfg.Variants[i].Name, i)
	}
	p.mu.Unlock()
	for i := range out {
		m := p.medias[i]
		out[i] = out[i] && m.touched.Load() < int64(since.Sub(p.cfg.Start))
		m.idle.Store(out[i])
		if out[i] && m.touched.Load() >= int64(since.Sub(p.cfg.Start)) { // just now
			out[i] = false
			m.idle.Store(false)
		}
	}
	return out
}
