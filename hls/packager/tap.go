package packager

import "time"

// Run is what one life of a compositor delivers. Another life's run of the same program has the same
// grid, so ticks and samples go on.
type Run struct {
	FPS         int
	Epoch       time.Time // of tick 0 and sample 0
	FirstTick   int64
	AudioConfig []byte // AudioSpecificConfig of the AAC access units
	Variants    []Variant
}

// Part is a part that was just published, as a recorder needs it. All its bytes are shared and must not be written to.
type Part struct {
	Media   string // name of the variant, or AudioName
	Variant int    // -1 for audio
	MSN     uint64 // of its segment
	Index   int    // in its segment
	// Life counts the compositors that delivered; a part of a greater one lies behind a discontinuity.
	Life        int
	Start       time.Time
	Duration    time.Duration
	Independent bool
	Init        []byte // the init section that it needs
	InitVersion int
	Data        []byte // moof and mdat
}

type tap struct {
	takes func(name string, variant int) bool
	f     func(*Part)
}

// Tap calls f with every part from now on of the variants that takes tells (name and index) and of the audio, one at a time and in
// order for each media playlist, and with nil when the program has ended. Both are called under the packager's lock: they must
// not block nor call the packager. After the returned function has returned, they are not called any more.
func (p *Packager) Tap(takes func(name string, variant int) bool, f func(*Part)) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		f(nil)
		return func() {}
	}
	t := &tap{takes, f}
	p.taps = append(p.taps, t)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, have := range p.taps {
			if have == t {
				p.taps = append(p.taps[:i:i], p.taps[i+1:]...)
			}
		}
	}
}

// takenLocked tells whether any tap takes a variant.
func (p *Packager) takenLocked(name string, variant int) bool {
	for _, t := range p.taps {
		if t.takes(name, variant) {
			return true
		}
	}
	return false
}

// tell gives a part that was published to the taps.
func (m *Media) tell(n Name, start, length time.Duration, independent bool, data []byte) {
	p := m.packager
	if len(p.taps) == 0 {
		return
	}
	variant := -1
	for i, v := range p.cfg.Variants {
		if v.Name == m.name {
			variant = i
		}
	}
	part := &Part{
		Media: m.name, Variant: variant, MSN: n.MSN, Index: n.Part, Life: p.runs,
		Start: m.cfg.Start.Add(start), Duration: length, Independent: independent,
		Init: m.init.Data, InitVersion: m.initVersion, Data: data,
	}
	for _, t := range p.taps {
		if variant < 0 || t.takes(m.name, variant) {
			t.f(part)
		}
	}
}
