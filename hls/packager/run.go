package packager

import (
	"fmt"
	"time"
)

// Begin begins a run: from firstTick on a new compositor delivers. What the one before
// left open is cut, and the program goes on behind a discontinuity.
func (p *Packager) Begin(firstTick int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return ErrEnded
	}
	if firstTick < 0 || firstTick%int64(p.cfg.PartTicks) != 0 {
		return fmt.Errorf("beginning at tick %d: not on the grid of %d", firstTick, p.cfg.PartTicks)
	}
	if err := p.cutLocked(); err != nil {
		return err
	}
	index := firstTick / int64(p.cfg.PartTicks)
	if index < p.end {
		return fmt.Errorf("beginning at tick %d: %w", firstTick, ErrAnnounced)
	}
	p.first, p.running = index, true
	p.runs++
	for _, m := range p.medias {
		m.open = openPart{index: index}
		m.due = index * m.unitsPerPart
	}
	return nil
}

// Cut says that the compositor is gone: what it left open is finished as it is.
func (p *Packager) Cut() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cutLocked()
}

func (p *Packager) cutLocked() error {
	if !p.running {
		return nil
	}
	p.running = false
	if !p.startedLocked() {
		return nil
	}
	p.dropLoneStartsLocked()
	end := p.endLocked()
	lead := p.medias[0]
	for _, m := range p.medias {
		if m.isAudio() { // last, when it is known how long the pictures are
			if err := p.fillToEndLocked(m, lead); err != nil {
				return err
			}
		}
		p.end = max(p.end, m.open.index)
		if len(m.open.samples) > 0 {
			p.end = max(p.end, m.open.index+1)
		}
		if err := m.cut(end); err != nil {
			return err
		}
		if m.list.OpenMSN() > lead.list.OpenMSN() {
			lead = m
		}
	}
	for _, m := range p.medias {
		if err := m.follow(lead); err != nil {
			return err
		}
		m.list.Break()
	}
	p.captionsLocked()
	for _, t := range p.captions {
		t.list.Break()
	}
	p.publishAllLocked()
	return nil
}

// endLocked is where the pictures of the variant that has most end, in ticks: one that idles has none of the last ones.
func (p *Packager) endLocked() int64 {
	end := int64(0)
	for _, v := range p.medias {
		if v.isAudio() {
			continue
		}
		end = max(end, v.open.index*v.unitsPerPart)
		if len(v.open.samples) > 0 {
			end = max(end, v.open.last+1)
		}
	}
	return end
}

// dropLoneStartsLocked forgets samples that would begin a segment which another media
// playlist has nothing for and nobody has heard of: better none than one with gaps, at
// which players stumble.
func (p *Packager) dropLoneStartsLocked() {
	var msn uint64
	for _, m := range p.medias {
		if m.list.OpenParts() > 0 || len(m.open.samples) > 0 {
			msn = max(msn, m.list.OpenMSN())
		}
	}
	lone := false
	for _, m := range p.medias {
		if m.list.OpenMSN() > msn || m.list.OpenMSN() == msn && m.list.OpenParts() > 0 {
			return // it was announced
		}
		lone = lone || m.list.OpenMSN() < msn || len(m.open.samples) == 0
	}
	for _, m := range p.medias {
		if lone && m.list.OpenMSN() == msn {
			m.open.samples = nil
		}
	}
}

// fillToEndLocked makes the audio as long as the pictures.
func (p *Packager) fillToEndLocked(m, lead *Media) error {
	start, d, ok := lead.list.Segment(lead.list.OpenMSN() - 1)
	if !ok {
		return nil
	}
	end := start.Add(d).Sub(p.cfg.Start)
	return p.fillAudioLocked(m, int64(end/time.Second)*AudioRate+int64(end%time.Second)*AudioRate/int64(time.Second))
}

// startedLocked says whether any part or sample came in this run.
func (p *Packager) startedLocked() bool {
	for _, m := range p.medias {
		if m.open.index != p.first || len(m.open.samples) > 0 {
			return true
		}
	}
	return false
}

// End ends the program for good. Players play to the end of the playlist.
func (p *Packager) End() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil
	}
	err := p.cutLocked()
	p.ended, p.running = true, false
	for _, m := range p.medias {
		m.list.End()
	}
	for _, t := range p.captions {
		t.list.End()
		t.publish(nil)
	}
	p.publishAllLocked()
	for _, t := range p.taps {
		t.f(nil)
	}
	p.taps = nil
	return err
}

func (p *Packager) publishAllLocked() {
	for _, m := range p.medias {
		m.publish(p.medias)
	}
	p.checkReadyLocked()
}

func (p *Packager) checkReadyLocked() {
	if p.isReady {
		return
	}
	for _, m := range p.medias {
		if _, _, ok := m.published.Load().LastPart(); !ok {
			return
		}
	}
	p.isReady = true
	close(p.ready)
}
