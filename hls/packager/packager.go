package packager

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/playlist"
)

// videoUnit is a tick in the timescale of video, which is FPS × videoUnit: 90 kHz at 30 fps.
const videoUnit = 3000

// Errors that a caller branches on. An access unit that is refused is counted, and
// the program goes on.
var (
	ErrNoRun     = errors.New("no compositor run has begun")
	ErrEnded     = errors.New("program has ended")
	ErrLate      = errors.New("access unit is not after the last one")
	ErrVariant   = errors.New("no such variant")
	ErrTooLong   = errors.New("part grows too long")
	ErrAnnounced = errors.New("tick is not beyond what was announced")
)

// Drop is the reason why an access unit did not get into the program.
type Drop string

// The reasons.
const (
	DropNoRun     Drop = "no_run"
	DropLate      Drop = "late"
	DropMalformed Drop = "malformed"
	DropTooLong   Drop = "too_long"
	DropNoKey     Drop = "no_keyframe_yet"
)

// Packager packages one program. Safe for concurrent use.
type Packager struct {
	cfg      Config
	medias   []*Media // variants, then audio
	captions []*captions
	ready    chan struct{}
	wanted   chan struct{} // has a token when a variant that idles is wanted

	mu      sync.Mutex // guards the fields below and what Media does not share
	running bool
	ended   bool
	first   int64 // grid index of the run's first part
	end     int64 // grid index after the last part of all runs
	drops   map[Drop]int64
	parts   int64
	isReady bool
	runs    int // that began
	taps    []*tap
	cues    uint32 // so far
	window  window
}

// New makes a packager; nothing is published until Begin and the first access units.
func New(cfg Config) (*Packager, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configuring a packager: %w", err)
	}
	p := &Packager{cfg: cfg, ready: make(chan struct{}), wanted: make(chan struct{}, 1), drops: map[Drop]int64{},
		window: window{segments: cfg.Window, event: cfg.Event, failure: cfg.WindowFailure}}
	part := cfg.ticks(int64(cfg.PartTicks))
	for _, v := range cfg.Variants {
		if err := p.addMedia(v.Name, int64(cfg.PartTicks), part, v.Bitrate); err != nil {
			return nil, err
		}
	}
	units := int64(cfg.PartTicks) * int64(AudioRate/cfg.FPS)
	longest := samples((units + samplesPerAU - 1) / samplesPerAU * samplesPerAU)
	if err := p.addMedia(AudioName, units, longest, cfg.AudioBitrate); err != nil {
		return nil, err
	}
	for _, l := range cfg.Captions {
		if err := p.addCaptions(l); err != nil {
			return nil, err
		}
	}
	for _, m := range p.medias {
		m.publish(nil)
	}
	for _, t := range p.captions {
		t.publish(nil)
	}
	return p, nil
}

func (p *Packager) addMedia(name string, units int64, partTarget time.Duration, bitrate int) error {
	holdBack := p.cfg.PartHoldBack
	if holdBack != 0 {
		holdBack = max(holdBack, 3*partTarget)
	}
	list, err := playlist.New(playlist.Config{
		SegmentTarget: p.cfg.ticks(int64(p.cfg.SegmentTicks)), PartTarget: partTarget, PartHoldBack: holdBack,
		Window: p.cfg.Window, Event: p.cfg.Event, FirstMSN: p.cfg.FirstMSN, FirstDiscontinuity: p.cfg.FirstDiscontinuity,
	})
	if err != nil {
		return fmt.Errorf("making the playlist %s: %w", name, err)
	}
	if p.cfg.Continues {
		list.Break()
	}
	p.medias = append(p.medias, &Media{
		packager: p, name: name, uri: "../" + name + "/index.m3u8", cfg: &p.cfg, list: list, store: newStore(name, p.cfg.Disk),
		unitsPerPart: units, partTarget: partTarget,
		// Eight times what the bit rate gives, and room for one great keyframe.
		maxBytes: 1<<20 + int(8*float64(bitrate)/8*partTarget.Seconds()),
	})
	return nil
}

// Config is the configuration with its defaults.
func (p *Packager) Config() Config { return p.cfg }

// Media finds a media playlist by the name of a variant, or AudioName.
func (p *Packager) Media(name string) (*Media, bool) {
	for _, m := range p.medias {
		if m.name == name {
			return m, true
		}
	}
	for _, t := range p.captions {
		if t.name == name {
			return t.Media, true
		}
	}
	return nil, false
}

// Ready is closed when every media playlist has its first part.
func (p *Packager) Ready() <-chan struct{} { return p.ready }

// NextTick is the first tick that a compositor which can send from now + margin on
// may begin with: on the grid, and beyond every part announced.
func (p *Packager) NextTick(now time.Time, margin time.Duration) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.cfg.ticks(int64(p.cfg.PartTicks))
	index := int64((now.Add(margin).Sub(p.cfg.Start) + part - 1) / part)
	return max(0, index, p.end) * int64(p.cfg.PartTicks)
}

// WriteVideo takes the access unit (Annex B) of one tick of one variant. The bytes
// may be reused after the call.
func (p *Packager) WriteVideo(variant int, tick int64, annexB []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if variant < 0 || variant >= len(p.cfg.Variants) {
		return fmt.Errorf("variant %d: %w", variant, ErrVariant)
	}
	m := p.medias[variant]
	if err := p.admitLocked(m, tick, len(annexB)); err != nil {
		return err
	}
	au, err := fmp4.ParseAnnexB(annexB)
	if err != nil {
		p.drops[DropMalformed]++
		return fmt.Errorf("reading a picture of %s: %w", m.name, err)
	}
	if au.Key {
		if err := p.videoInitLocked(m, variant, &au); err != nil {
			p.drops[DropMalformed]++
			return err
		}
	}
	if !au.Key && m.open.index == p.first && len(m.open.samples) == 0 {
		p.drops[DropNoKey]++ // a run begins with a keyframe, or players show rubbish
		return nil
	}
	return p.writeVideoLocked(m, tick, fmp4.Sample{Data: au.Data, Duration: videoUnit, Key: au.Key})
}

// videoInitLocked makes a new init section when the parameter sets have changed.
func (p *Packager) videoInitLocked(m *Media, variant int, au *fmp4.AccessUnit) error {
	key := string(au.SPS) + string(au.PPS)
	if m.initKey != "" && (key == "" || key == m.initKey) {
		return nil
	}
	init, err := fmp4.VideoInit(au.SPS, au.PPS, uint32(p.cfg.FPS)*videoUnit, p.cfg.Variants[variant].Bitrate)
	if err != nil {
		return fmt.Errorf("making the init section of %s: %w", m.name, err)
	}
	m.setInit(key, init)
	return nil
}

// SetAudioConfig takes the AudioSpecificConfig of what WriteAudio gets from now on.
func (p *Packager) SetAudioConfig(asc []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.medias[len(p.medias)-1]
	if string(asc) == m.initKey {
		return nil
	}
	init, err := fmp4.AudioInit(asc, p.cfg.AudioBitrate)
	if err != nil {
		return fmt.Errorf("making the audio's init section: %w", err)
	}
	if init.Timescale != AudioRate {
		return fmt.Errorf("making the audio's init section: %d Hz instead of %d", init.Timescale, AudioRate)
	}
	m.setInit(string(asc), init)
	m.silence = fmp4.SilentAAC(asc)
	return nil
}

// WriteAudio takes one AAC access unit of 1,024 samples; at counts samples since the
// program's start. The bytes may be reused after the call.
func (p *Packager) WriteAudio(at int64, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.medias[len(p.medias)-1]
	if err := p.admitLocked(m, at, len(data)); err != nil {
		return err
	}
	if m.initKey == "" || len(data) == 0 {
		p.drops[DropMalformed]++
		return errors.New("audio without configuration or data")
	}
	if err := p.fillAudioLocked(m, at); err != nil {
		return err
	}
	return p.writeLocked(m, at, samplesPerAU, fmp4.Sample{Data: append([]byte(nil), data...), Duration: samplesPerAU, Key: true})
}
