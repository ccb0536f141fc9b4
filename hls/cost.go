package hls

import (
	"fmt"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls/packager"
)

// What a program takes, in cores, on the machine that the table of TestCostIsWhatWasMeasured is from; nodes learn how much faster or
// slower they are. Encoding goes with the pixels (1080p 0.37,
// 720p 0.17, 480p 0.076, 360p 0.044 at 30 fps and veryfast), and so do decoding and painting, because every tile is fed the
// encoding that fits it.
const (
	costProgram = 0.05 // ingest, sound, sockets, packaging
	costEncode  = 0.18 // of 720p30
	costPicture = 0.04 // decoding and painting a whole canvas of 720p30
	costScale   = 0.011
	costPeer    = 0.012
	costIdle    = 0.08 // share of a variant that idles
	usualPeers  = 4

	pixels720 = 1280 * 720 * 30
)

// presetCost is what x264's presets take, measured against veryfast.
func presetCost(encoder, preset string) float64 {
	if encoder == "openh264" {
		return 0.35
	}
	switch preset {
	case "ultrafast":
		return 0.45
	case "superfast":
		return 0.7
	case "faster":
		return 1.9
	case "fast":
		return 3.5
	case "medium":
		return 4
	}
	return 1
}

// cost is what a program with so many peers should take by the table.
func (s *Settings) cost(peers int, idle func(variant int) bool) float64 {
	size := func(w, h int) float64 { return float64(w*h*s.FPS) / pixels720 }
	c := costProgram + costPicture*size(s.Width, s.Height) + costPeer*float64(peers)
	for i, v := range s.Variants {
		share := 1.0
		if idle != nil && idle(i) {
			share = costIdle
		}
		c += share * costEncode * presetCost(s.Encoder, s.Preset) * size(v.Width, v.Height)
		if v != (packager.Variant{Name: v.Name, Width: s.Width, Height: s.Height, Bitrate: v.Bitrate}) {
			c += share * costScale
		}
	}
	return c
}

// NoRoomError says that a node has no room for one more program, with the numbers, all in cores.
type NoRoomError struct {
	Needs, Taken, Cores float64
	Programs            int
	// Overloaded are those of the programs that lack CPU already.
	Overloaded int
}

// Error implements error.
func (e *NoRoomError) Error() string {
	text := fmt.Sprintf("the stream needs about %.2f cores, %d others take %.2f, and this node gives %.2f to streams", e.Needs, e.Programs, e.Taken, e.Cores)
	if e.Overloaded > 0 {
		text += fmt.Sprintf("; %d of them lack CPU already", e.Overloaded)
	}
	return text
}

// budget is how much CPU this node has for programs, and what it learned of its own speed.
type budget struct {
	cores float64 // 0: no bound

	mu     sync.Mutex // guards the field below
	factor float64    // what programs take here of what the table says; 0 before the first figure
}

const (
	learn       = 0.05 // how much one figure of the last second counts
	leastFactor = 0.5
	learnFrom   = 10 * time.Second // of a compositor's life
	mostFactor  = 4
)

// learned takes what a program took lately against what the table says of it.
func (b *budget) learned(took, table float64) {
	if took <= 0 || table <= 0 {
		return
	}
	f := min(max(took/table, leastFactor), mostFactor)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.factor == 0 {
		b.factor = 1
	}
	b.factor += learn * (f - b.factor)
}

// expect is what a program will take here, by the table and what was learned.
func (b *budget) expect(table float64) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.factor == 0 {
		return table
	}
	return table * b.factor
}

// Admit tells whether there is room for one more program; if not the error is a *NoRoomError, or ErrTooMany or ErrBadRequest, wrapped.
func (o *Origin) Admit(s Settings) error {
	s, err := s.withDefaults()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.admitLocked(&s)
}

// admitLocked tells whether there is room. That a program lacks CPU is no reason to refuse one: something else may have taken it for a
// moment.
func (o *Origin) admitLocked(s *Settings) error {
	if len(o.programs) >= o.cfg.MaxPrograms {
		return ErrTooMany
	}
	if o.budget.cores <= 0 {
		return nil
	}
	e := NoRoomError{Needs: o.budget.expect(s.cost(usualPeers, nil)), Cores: o.budget.cores, Programs: len(o.programs)}
	for _, p := range o.programs {
		takes, overloaded := p.takes()
		e.Taken += takes
		if overloaded {
			e.Overloaded++
		}
	}
	if e.Taken+e.Needs > e.Cores {
		return &e
	}
	return nil
}

// takes is what a program takes with all its variants running, or what it really took lately if that is more; and whether it lacks CPU.
func (p *program) takes() (cores float64, overloaded bool) {
	p.mu.Lock()
	tiles, cpu := p.usage.tiles, p.usage.cpu
	p.mu.Unlock()
	return max(cpu, p.budget.expect(p.settings.cost(max(tiles, usualPeers), nil))), lacksCPU(p.composer.Stats().Compositor)
}
