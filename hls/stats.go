package hls

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/serve"
	"github.com/amphi-sfu/amphi/hls/wire"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// ProgramStats is about one program.
type ProgramStats struct {
	Room, Stream string
	Path         string
	State        State
	Started      time.Time
	Settings     Settings
	Tiles        int
	CPU          float64 // cores, of the compositor lately
	Players      int     // of this node, about; those behind a cache are not seen
	// Latency is from the arrival of a picture on this node until the part with it is out,
	// as far as it is known: playout delay, composing and a whole part.
	Latency   time.Duration
	Composer  compose.Stats
	Packager  packager.Stats
	Malformed int64    // access units that the packager refused
	Expected  float64  // cores, when it was let in
	Idle      []string // variants that nobody has asked for lately
}

// Programs lists what is on, in order of room and stream.
func (o *Origin) Programs() []ProgramStats {
	o.mu.Lock()
	list := slices.Collect(maps.Values(o.programs))
	o.mu.Unlock()
	out := make([]ProgramStats, len(list))
	for i, p := range list {
		out[i] = p.stats()
	}
	slices.SortFunc(out, func(a, b ProgramStats) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Stream, b.Stream))
	})
	return out
}

// Requests counts HTTP requests by outcome.
func (o *Origin) Requests() serve.Stats { return o.handler.Stats() }

// playoutDelay is what the compositor holds every picture at least.
const playoutDelay = 120 * time.Millisecond

func (p *program) stats() ProgramStats {
	s := ProgramStats{
		Room: p.room, Stream: p.stream, Path: serve.Prefix + p.room + "/" + p.stream + "/index.m3u8",
		Started: p.started, Settings: p.settings, Composer: p.composer.Stats(), Packager: p.pack.Stats(), Malformed: p.malformed.Load(),
		Expected: p.expected,
	}
	part, _ := p.settings.grid()
	s.Latency = playoutDelay + s.Composer.MaxLatency + time.Duration(part)*time.Second/time.Duration(p.settings.FPS)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.State, s.Tiles, s.CPU, s.Players = p.state, p.usage.tiles, p.usage.cpu, p.usage.players
	for i, v := range p.settings.Variants {
		if p.usage.idle.Has(i) {
			s.Idle = append(s.Idle, v.Name)
		}
	}
	s.Settings.Layout, s.Settings.Options = p.mode, p.options
	return s
}

// Drops joins all drops under names that say where they happened.
func (s *ProgramStats) Drops() map[string]int64 {
	out := map[string]int64{}
	for k, n := range s.Composer.Drops {
		out["packet_"+string(k)] = n
	}
	for k, n := range s.Packager.Drops {
		out["program_"+string(k)] = n
	}
	if c := s.Composer.Compositor; c != nil {
		for k, n := range c.Drops {
			out["compositor_"+k] = n
		}
		for _, in := range c.Inputs {
			for k, n := range in.Drops {
				out["input_"+k] += n
			}
		}
	}
	return out
}

// Overloaded tells whether the compositor makes fewer pictures than it should, for lack of CPU.
func (s *ProgramStats) Overloaded() bool { return lacksCPU(s.Composer.Compositor) }

// Framerate is how many pictures a second are made now.
func (s *ProgramStats) Framerate() float64 {
	return float64(s.Settings.FPS) / float64(every(s.Composer.Compositor))
}

// every is how many ticks there are to a picture, by a compositor's word; nil: it has said nothing yet.
func every(c *wire.Stats) int {
	if c == nil {
		return 1
	}
	return max(1, c.Overload)
}

func lacksCPU(c *wire.Stats) bool { return every(c) > 1 }

// Status is s in the words of the management API.
func (s *ProgramStats) Status() *amphiv1.StreamStatus {
	states := map[State]amphiv1.StreamState{
		Starting: amphiv1.StreamState_STREAM_STATE_STARTING, Live: amphiv1.StreamState_STREAM_STATE_LIVE,
		Failed: amphiv1.StreamState_STREAM_STATE_FAILED, Stopped: amphiv1.StreamState_STREAM_STATE_STOPPED,
	}
	out := &amphiv1.StreamStatus{
		Room:      s.Room,
		Stream:    &amphiv1.Stream{Name: s.Stream, State: states[s.State], Url: s.Path, StartedMs: s.Started.UnixMilli()},
		LatencyMs: float64(s.Latency) / float64(time.Millisecond),
		CpuCores:  s.CPU,
		Restarts:  uint32(s.Composer.Exits),
		Frames:    uint64(s.Composer.Pictures),
		Drops:     map[string]uint64{},
		Tiles:     uint32(s.Tiles),
		Players:   uint32(max(0, s.Players)),

		IdleVariants:  s.Idle,
		ExpectedCores: s.Expected,
		Framerate:     s.Framerate(),
	}
	if s.State == Failed {
		out.Stream.Failure = s.Composer.LastExit
	}
	for k, n := range s.Drops() {
		out.Drops[k] = uint64(n)
	}
	for _, v := range s.Settings.Variants {
		out.Variants = append(out.Variants, &amphiv1.StreamVariant{
			Name: v.Name, Width: uint32(v.Width), Height: uint32(v.Height), BitrateKbps: uint32(v.Bitrate / 1000),
		})
	}
	out.WindowS, out.DiskBytes = s.Packager.DVR.Length.Seconds(), uint64(s.Packager.DVR.OnDisk)
	if err := s.Packager.DVR.Failure; err != nil {
		out.WindowFailure = err.Error()
	}
	if c := s.Composer.Compositor; c != nil {
		out.RssBytes, out.LateTicks = uint64(c.RSSBytes), uint64(c.Late)
	}
	return out
}
