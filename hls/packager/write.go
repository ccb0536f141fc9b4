package packager

import (
	"fmt"

	"github.com/amphi-sfu/amphi/hls/fmp4"
)

// maxAhead is how far beyond the last one an access unit may be, in parts; beyond
// it the sender is broken, and would make us write gaps without end.
const maxAhead = 240

func (p *Packager) admitLocked(m *Media, at int64, size int) error {
	switch {
	case p.ended:
		return ErrEnded
	case !p.running:
		p.drops[DropNoRun]++
		return ErrNoRun
	case len(m.open.samples) > 0 && at <= m.open.last, m.indexOf(at, p.first) < m.open.index:
		p.drops[DropLate]++
		return ErrLate
	case m.indexOf(at, p.first) > m.open.index+maxAhead:
		p.drops[DropMalformed]++
		return fmt.Errorf("access unit of %s at %d is %d parts ahead", m.name, at, m.indexOf(at, p.first)-m.open.index)
	case m.open.bytes+size > m.maxBytes || len(m.open.samples) >= fmp4.MaxSamples:
		p.drops[DropTooLong]++
		return ErrTooLong
	}
	return nil
}

// writeVideoLocked adds a picture. When whole parts before it have none, a keyframe stands
// for each of them and then for itself; another picture stands for the first of them, the
// next picture for the second, and so on. Players stumble at gaps; a picture that is early by
// a moment is not seen.
func (p *Packager) writeVideoLocked(m *Media, tick int64, s fmp4.Sample) error {
	index := m.indexOf(tick, p.first)
	if len(m.open.samples) > 0 && m.open.index < index { // its last ticks did not come
		if err := m.closeOnGrid(); err != nil {
			return err
		}
		p.closedLocked(m)
	}
	for m.open.index < index {
		m.filled++
		if err := p.writeLocked(m, m.open.index*m.unitsPerPart, m.unitsPerPart, s); err != nil {
			return err
		}
		if !s.Key {
			return nil
		}
	}
	return p.writeLocked(m, tick, 1, s)
}

// fillAudioLocked adds silence up to a time.
func (p *Packager) fillAudioLocked(m *Media, until int64) error {
	for m.silence != nil && m.due+samplesPerAU <= until {
		m.filled++
		if err := p.writeLocked(m, m.due, samplesPerAU, fmp4.Sample{Data: m.silence, Duration: samplesPerAU, Key: true}); err != nil {
			return err
		}
	}
	return nil
}

// writeLocked adds a sample that lasts n units and closes what it completes.
func (p *Packager) writeLocked(m *Media, at, n int64, s fmp4.Sample) error {
	closed := false
	for index := m.indexOf(at, p.first); m.open.index < index; closed = true {
		if err := m.closeOnGrid(); err != nil {
			return err
		}
	}
	m.add(at, s)
	m.due = at + n
	if at+n >= (m.open.index+1)*m.unitsPerPart {
		if err := m.closeOnGrid(); err != nil {
			return err
		}
		closed = true
	}
	if closed {
		p.closedLocked(m)
	}
	return nil
}

// closeOnGrid ends the open part where the grid does.
func (m *Media) closeOnGrid() error { return m.closePart((m.open.index + 1) * m.unitsPerPart) }

// closedLocked lets everybody know of the parts that were closed.
func (p *Packager) closedLocked(m *Media) {
	p.parts++
	p.end = max(p.end, m.open.index)
	m.publish(p.medias)
	p.captionsLocked()
	p.checkReadyLocked()
}
