package packager

import (
	"maps"

	"github.com/amphi-sfu/amphi/hls/playlist"
)

// peakFactor is how far above its bit rate a playlist may go before anything was measured: the encoder's buffer is
// a second, a segment two, and boxes come on top.
const peakFactor = 1.25

// Multivariant is the multivariant playlist. ok is false
// until every media playlist has begun, because the codecs are not known before.
func (p *Packager) Multivariant() (b []byte, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isReady {
		return nil, false
	}
	var variants []playlist.Variant
	for i, v := range p.cfg.Variants {
		m := p.medias[i]
		average, peak := m.rate.bandwidth(v.Bitrate)
		variants = append(variants, playlist.Variant{
			URI: v.Name + "/index.m3u8", Codecs: m.init.Codecs, Width: m.init.Width, Height: m.init.Height,
			FrameRate: float64(p.cfg.FPS), Bitrate: average, Peak: peak,
		})
	}
	var texts []playlist.Text
	for _, t := range p.captions {
		texts = append(texts, playlist.Text{URI: t.name + "/index.m3u8", Language: t.language})
	}
	m := p.medias[len(p.cfg.Variants)]
	average, peak := m.rate.bandwidth(p.cfg.AudioBitrate)
	return playlist.Multivariant(variants, &playlist.Audio{
		URI: AudioName + "/index.m3u8", Codecs: m.init.Codecs, Channels: m.init.Channels, Bitrate: average, Peak: peak,
	}, texts), true
}

// Stats is what happened so far.
type Stats struct {
	Parts   int64          // published, of all media playlists
	Gaps    int64          // parts and segments that had nothing in them
	Filled  int64          // pictures that stand for a whole part, access units of silence
	Drops   map[Drop]int64 // refused access units by reason
	Objects int            // in memory
	Bytes   int64          // in memory
	DVR     DVR
	Reloads int64 // of variants' playlists given to players
	// NextMSN and Discontinuity are where a program that follows this one begins.
	NextMSN       uint64
	Discontinuity uint64
}

// Stats is a snapshot.
func (p *Packager) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Parts: p.parts, Drops: maps.Clone(p.drops), DVR: p.dvrLocked()}
	for _, m := range p.medias {
		n, b, _ := m.store.size()
		s.Objects += n
		s.Bytes += b
		s.Gaps += m.gaps
		s.Filled += m.filled
		if !m.isAudio() {
			s.Reloads += m.reloads.Load()
		}
		next := m.list.OpenMSN()
		if m.list.OpenParts() > 0 {
			next++
		}
		s.NextMSN = max(s.NextMSN, next)
		s.Discontinuity = max(s.Discontinuity, m.list.DiscontinuitySequence())
	}
	return s
}
