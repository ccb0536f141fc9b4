package hls

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/layout"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/spill"
	"github.com/amphi-sfu/amphi/hls/wire"
	"github.com/amphi-sfu/amphi/media/codec"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// State of a program.
type State string

// The states. A program stays Live while its compositor is started anew: players go on
// by themselves. Failed says that this does not succeed, though it is still tried.
const (
	Starting State = "starting"
	Live     State = "live"
	Failed   State = "failed"
	Stopped  State = "stopped"
)

// stepEvery is how often a program looks at its stage, its tracks and who speaks.
const stepEvery = 200 * time.Millisecond

// failedAfter is how many starts in a row without a picture make a program Failed.
const failedAfter = 4

// about is what never changes of a program.
type about struct {
	room, stream string
	settings     Settings
	epoch        uint64
	started      time.Time
}

// program is one composite of one room.
type program struct {
	about
	log       *slog.Logger
	source    Source
	pack      *packager.Packager
	composer  compose.Composer
	arranger  *layout.Arranger
	wake      chan struct{} // has a token when something was changed from outside
	cancel    context.CancelFunc
	done      chan struct{}                    // closed when it has ended and is listed no more
	onState   func(State, string)              // never called under a lock
	byInput   atomic.Pointer[map[uint32]*feed] // for keyframe requests
	begun     atomic.Int64                     // runs that began
	folder    *spill.Folder                    // of old segments; nil: none
	malformed atomic.Int64                     // access units that the packager refused
	taps      taps
	pictures  Pictures // may be nil
	idleAfter time.Duration
	budget    *budget
	expected  float64 // cores

	mu      sync.Mutex // guards the fields below
	stage   Stage
	mode    layout.Mode
	options *amphiv1.LayoutOptions // not written to
	state   State
	usage   usage
}

// usage is what a program costs and gives, as of lately.
type usage struct {
	tiles   int
	idle    wire.Idle
	cpu     float64 // cores
	players int
}

// loop is what the program's goroutine remembers between steps.
type loop struct {
	*program
	feeds   map[string]*feed // by track id
	early   bool             // the step under way comes between two of those that feeds count
	next    uint32           // input ids are never used again
	last    *wire.Stats      // at the last look at the CPU
	asked   int64            // reloads at the last look at the players
	askedAt time.Time
	begins  int64 // runs when last looked
	spawns  int64 // starts of the compositor then
	// Pictures that were not there.
	missing struct{ background, logo string }
}

// Margin is how long after its start a compositor can deliver; a little more costs less
// than to miss the grid by a little.
const startMargin = 250 * time.Millisecond

func (p *program) firstTick(now time.Time) int64 { return p.pack.NextTick(now, startMargin) }

// run composes until ctx ends. Then players are told that the program has.
func (p *program) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.composer.Run(ctx); err != nil {
			p.log.Error("composing ended", "err", err)
		}
	})
	l := loop{program: p, feeds: map[string]*feed{}}
	t := time.NewTicker(stepEvery)
	defer t.Stop()
	p.setState(Starting, "")
	ready := p.pack.Ready()
	for ctx.Err() == nil {
		l.step(time.Now())
		l.early = true
		select {
		case <-ctx.Done():
		case <-t.C:
			l.early = false
		case <-p.wake:
		case <-p.pack.Wanted():
		case <-ready: // to be known at once
			ready = nil
		}
	}
	for _, f := range l.feeds {
		f.close()
	}
	wg.Wait()
	p.taps.end()
	if err := p.pack.End(); err != nil {
		p.log.Error("ending the playlists", "err", err)
	}
	p.setState(Stopped, "")
}

// programTime is a time of the wall clock on the program's time line, which a clock that is set does not move.
func (p *program) programTime(now, at time.Time) time.Time {
	start := p.pack.Config().Start
	return start.Add(now.Sub(start) - now.Round(0).Sub(at.Round(0))).Round(0)
}

func (p *program) setStage(s Stage) {
	p.mu.Lock()
	p.stage = s.clone()
	p.mu.Unlock()
	p.poke()
}

func (p *program) setLayout(m layout.Mode, o *amphiv1.LayoutOptions) {
	p.mu.Lock()
	p.mode, p.options = m, o
	p.mu.Unlock()
	p.poke()
}

func (p *program) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *program) setState(s State, why string) {
	p.mu.Lock()
	changed := p.state != s
	p.state = s
	p.mu.Unlock()
	if changed && p.onState != nil {
		p.onState(s, why)
	}
}

// step brings compositor and tracks in line with the stage.
func (l *loop) step(now time.Time) {
	l.mu.Lock()
	stage, mode, options := l.stage, l.mode, l.options
	l.mu.Unlock()
	tiles := l.arranger.Arrange(now, stage.arranged(mode, options))
	wanted := l.wanted(&stage, tiles)
	l.follow(wanted)
	d := l.desired(&stage, tiles, options)
	d.Idle = l.idle(now)
	l.composer.Set(d)
	l.mu.Lock()
	l.usage.tiles, l.usage.idle = len(tiles), d.Idle
	l.mu.Unlock()
	l.countPlayers(now)
	l.observe()
}

// want is a track that is needed now.
type want struct {
	id   string
	kind wire.Kind
	sync string
	w, h int // of the tile
}

// wanted lists the tracks that are seen or heard.
func (l *loop) wanted(stage *Stage, tiles []layout.Tile) []want {
	var out []want
	for _, t := range tiles {
		p := stage.peer(t.Peer)
		track, sync := p.Video, p.ID
		if t.Source == layout.Screen {
			track, sync = p.Screen, p.ID+"/screen"
		}
		if track.on() {
			out = append(out, want{track.ID, wire.Video, sync, t.W, t.H})
		}
	}
	for _, p := range stage.Peers {
		if p.Audio.on() {
			out = append(out, want{p.Audio.ID, wire.Audio, p.ID, 0, 0})
		}
		if p.ScreenAudio.on() {
			out = append(out, want{p.ScreenAudio.ID, wire.Audio, p.ID + "/screen", 0, 0})
		}
	}
	return out
}

// follow makes feeds for new tracks, lets go of old ones, and chooses encodings.
func (l *loop) follow(wanted []want) {
	keep := make(map[string]bool, len(wanted))
	changed := false
	for _, w := range wanted {
		track, ok := l.source.Track(l.room, w.id)
		if !ok || keep[w.id] {
			continue
		}
		keep[w.id] = true
		f := l.feeds[w.id]
		if f == nil {
			f = l.newFeed(w)
			l.feeds[w.id] = f
			changed = true
		}
		if l.early && f.of != nil && w.w == f.w && w.h == f.h {
			continue // it measures time in steps
		}
		f.step(track, w.w, w.h)
	}
	for id, f := range l.feeds {
		if !keep[id] {
			f.close()
			delete(l.feeds, id)
			changed = true
		}
	}
	if changed {
		byInput := make(map[uint32]*feed, len(l.feeds))
		for _, f := range l.feeds {
			byInput[f.in.ID] = f
		}
		l.byInput.Store(&byInput)
	}
}

func (l *loop) newFeed(w want) *feed {
	l.next++
	kind := codec.Audio
	if w.kind == wire.Video {
		kind = codec.Video
	}
	return &feed{
		in:    wire.AddInput{ID: l.next, Kind: w.kind, Formats: formats(kind), Sync: bounded(w.sync), Name: bounded(w.id)},
		track: w.id, to: l.composer, video: kind == codec.Video, failed: map[Encoding]int{},
	}
}

// bounded cuts a name to what the compositor accepts, at the beginning of a character.
func bounded(s string) string {
	if len(s) <= wire.MaxLabelBytes {
		return s
	}
	n := wire.MaxLabelBytes
	for n > wire.MaxLabelBytes-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// desired is what the compositor shall have and show.
func (l *loop) desired(stage *Stage, tiles []layout.Tile, options *amphiv1.LayoutOptions) compose.Desired {
	d := compose.Desired{Scene: wire.Scene{Tiles: make([]wire.Tile, 0, len(tiles))}}
	l.dress(&d, options)
	for _, f := range l.feeds {
		d.Inputs = append(d.Inputs, f.in)
	}
	// In one order, so that what has not changed compares equal.
	slices.SortFunc(d.Inputs, func(a, b wire.AddInput) int { return cmp.Compare(a.ID, b.ID) })
	for _, t := range tiles {
		tile := l.tile(stage.peer(t.Peer), t)
		if !l.settings.names(options) {
			tile.Label = ""
		}
		tile.Speaking = tile.Speaking && options.GetHighlight() != noHighlight
		d.Scene.Tiles = append(d.Scene.Tiles, tile)
	}
	for _, in := range d.Inputs {
		if in.Kind == wire.Audio {
			d.Mix.Inputs = append(d.Mix.Inputs, wire.Gain{Input: in.ID, Gain: 1})
		}
	}
	return d
}

func (l *loop) tile(p *StagePeer, t layout.Tile) wire.Tile {
	track := p.Video
	if t.Source == layout.Screen {
		track = p.Screen
	}
	out := wire.Tile{
		X: t.X, Y: t.Y, W: t.W, H: t.H, Fit: wire.Cover, Label: t.Label, Muted: t.Muted, Speaking: t.Speaking,
		Placeholder: wire.Placeholder{Initials: t.Initials, Colour: t.Colour, Always: !track.on()},
	}
	if t.Contain {
		out.Fit = wire.Contain
	}
	if f := l.feeds[track.ID]; f != nil && track.on() {
		out.Input = f.in.ID
	}
	return out
}

// countEvery is how long reloads are counted for the number of players.
const countEvery = 3 * time.Second

// countPlayers estimates the players: each reloads one variant's playlist once a part.
func (l *loop) countPlayers(now time.Time) {
	d := now.Sub(l.askedAt)
	if d < countEvery {
		return
	}
	n := l.pack.Stats().Reloads
	part, _ := l.settings.grid()
	l.mu.Lock()
	l.usage.players = int(math.Round(float64(n-l.asked) * float64(part) / float64(l.settings.FPS) / d.Seconds()))
	l.mu.Unlock()
	l.asked, l.askedAt = n, now
}

// observe follows the compositor's life and its use of the CPU.
func (l *loop) observe() {
	s := l.composer.Stats()
	if u := s.Compositor; u != nil && u != l.last {
		if now := lacksCPU(u); now != lacksCPU(l.last) {
			l.overload(now)
		}
		if old := l.last; old != nil && u.UptimeNS > old.UptimeNS && u.CPUNS >= old.CPUNS {
			l.mu.Lock()
			l.usage.cpu = float64(u.CPUNS-old.CPUNS) / float64(u.UptimeNS-old.UptimeNS)
			cpu, usage := l.usage.cpu, l.usage
			l.mu.Unlock()
			if u.Overload == 0 && old.UptimeNS > int64(learnFrom) {
				l.budget.learned(cpu, l.settings.cost(usage.tiles, usage.idle.Has))
			}
		}
		l.last = u
	}
	if n := l.program.begun.Load(); n != l.begins {
		l.begins, l.spawns = n, s.Spawns
	}
	select {
	case <-l.pack.Ready():
		if s.State == compose.Running {
			l.setState(Live, "")
			return
		}
	default:
	}
	if s.Spawns-l.spawns >= failedAfter {
		l.setState(Failed, s.LastExit)
	}
}

// overload notes that the compositor makes fewer pictures from now on, for lack of CPU, or all again.
func (l *loop) overload(lacks bool) {
	if lacks {
		l.log.Warn("too little CPU for a stream: it has fewer pictures", "fps", l.settings.FPS)
	} else {
		l.log.Info("a stream has all its pictures again", "fps", l.settings.FPS)
	}
}

// output is the compositor's way into the packager.
type output struct{ p *program }

// Begin implements compose.Output.
func (o output) Begin(r *wire.Ready) error {
	if err := o.p.pack.SetAudioConfig(r.AudioConfig); err != nil {
		return err
	}
	if err := o.p.pack.Begin(r.FirstTick); err != nil {
		return fmt.Errorf("continuing the program: %w", err)
	}
	o.p.begun.Add(1)
	cfg := o.p.pack.Config()
	o.p.taps.begin(packager.Run{FPS: cfg.FPS, Epoch: cfg.Start, FirstTick: r.FirstTick, AudioConfig: r.AudioConfig, Variants: cfg.Variants})
	if m := o.p.byInput.Load(); m != nil { // a new compositor knows no picture yet
		for _, f := range *m {
			f.requestKeyframe()
		}
	}
	return nil
}

// Video implements compose.Output.
func (o output) Video(au wire.VideoAU) {
	o.p.taps.video(au.Variant, au.Tick, au.Data)
	if err := o.p.pack.WriteVideo(au.Variant, au.Tick, au.Data); err != nil {
		o.p.malformed.Add(1)
	}
}

// Audio implements compose.Output.
func (o output) Audio(au wire.AudioAU) {
	o.p.taps.audio(au.Samples, au.Data)
	if err := o.p.pack.WriteAudio(au.Samples, au.Data); err != nil {
		o.p.malformed.Add(1)
	}
}

// KeyframeRequest implements compose.Output.
func (o output) KeyframeRequest(input uint32) {
	if m := o.p.byInput.Load(); m != nil && (*m)[input] != nil {
		(*m)[input].requestKeyframe()
	}
}

// Gone implements compose.Output.
func (o output) Gone() {
	if err := o.p.pack.Cut(); err != nil {
		o.p.log.Error("cutting the program", "err", err)
	}
}
