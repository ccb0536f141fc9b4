package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

// stopTimeout bounds how long the end of a stream waits for its compositor.
const stopTimeout = 5 * time.Second

// streams joins rooms to the origin: it starts and stops programs as rooms wish, keeps each
// program's stage like its room's, and tells rooms how their streams do.
type streams struct {
	origin *hls.Origin
	server *signal.Server
	log    *slog.Logger
	// current says whether the stream is to be made here; nil: always.
	current func(room, stream string) bool

	staging sync.Mutex // held while a room's newest stage is given to its programs; taken before mu

	mu      sync.Mutex                      // guards the field below
	running map[string]map[string]*composed // by room and stream
}

// composed is what a running stream shows.
type composed struct {
	roles []string
	state *amphiv1.Stream
}

func newStreams(log *slog.Logger) *streams {
	return &streams{log: log, running: map[string]map[string]*composed{}}
}

// attach gives the neighbours, which are made with parts of this one.
func (s *streams) attach(origin *hls.Origin, server *signal.Server) {
	s.origin, s.server = origin, server
	server.Watch(s.staged)
}

// Start implements signal.Streams, for a node that is alone.
func (s *streams) Start(room string, settings *amphiv1.StreamSettings, stream *amphiv1.Stream) error {
	_, err := s.run(room, settings, stream, hls.After{})
	return err
}

// run starts a stream here.
func (s *streams) run(room string, settings *amphiv1.StreamSettings, stream *amphiv1.Stream, after hls.After) (hls.Info, error) {
	options, err := hls.SettingsOf(settings)
	if err != nil {
		return hls.Info{}, proto.Errorf(proto.StreamFailed, "the template's settings of stream %q: %v", stream.GetName(), err)
	}
	if stream.GetLayout() != amphiv1.LayoutKind_LAYOUT_KIND_UNSPECIFIED {
		options.Layout = hls.LayoutOf(stream.GetLayout())
	}
	if stream.GetLayoutOptions() != nil {
		options.Options = stream.GetLayoutOptions()
	}
	c := &composed{roles: settings.GetRoles(), state: &amphiv1.Stream{Name: stream.GetName(), StartedMs: time.Now().UnixMilli()}}
	s.mu.Lock()
	if s.running[room][stream.GetName()] != nil { // and goes on
		s.mu.Unlock()
		return hls.Info{}, s.refusal(room, hls.ErrRunning)
	}
	if s.running[room] == nil {
		s.running[room] = map[string]*composed{}
	}
	s.running[room][stream.GetName()] = c
	s.mu.Unlock()
	info, err := s.origin.Start(context.Background(), hls.StartRequest{
		Room: room, Stream: stream.GetName(), Settings: options, Stage: stageOf(s.server.Stage(room), c.roles), After: after})
	if err != nil {
		s.forget(room, stream.GetName())
		return info, s.refusal(room, err)
	}
	s.mu.Lock()
	st := protobuf.Clone(c.state).(*amphiv1.Stream) // the one so far may have been told already
	st.Url = info.Path
	c.state = st
	s.mu.Unlock()
	// The room may have changed between the look at it and the start.
	s.staged(room, nil)
	return info, nil
}

// Admit implements owner.Admitter: a stream that this node has no room for is refused before anything is started.
func (s *streams) Admit(room string, settings *amphiv1.StreamSettings) error {
	options, err := hls.SettingsOf(settings)
	if err != nil || s.origin == nil {
		return nil // Start tells what is wrong with them
	}
	if err := s.origin.Admit(options); err != nil {
		return s.refusal(room, err)
	}
	return nil
}

// refusal is an origin's error in words for the room.
func (s *streams) refusal(room string, err error) error {
	var full *hls.NoRoomError
	switch {
	case errors.As(err, &full):
		e := proto.Errorf(proto.StreamFailed, "%v", full)
		e.Details = map[string]string{
			"needs_cores": fmt.Sprintf("%.2f", full.Needs), "taken_cores": fmt.Sprintf("%.2f", full.Taken),
			"cores": fmt.Sprintf("%.2f", full.Cores), "streams": fmt.Sprint(full.Programs), "overloaded_streams": fmt.Sprint(full.Overloaded),
		}
		return e
	case errors.Is(err, hls.ErrTooMany):
		return proto.Errorf(proto.StreamFailed, "this node composes as many streams as it can")
	case errors.Is(err, hls.ErrRunning):
		return proto.Errorf(proto.Conflict, "the stream is running already")
	case errors.Is(err, hls.ErrClosed):
		return proto.Errorf(proto.Shutdown, "the node is shutting down")
	case errors.Is(err, hls.ErrBadRequest):
		return proto.Errorf(proto.StreamFailed, "%v", err)
	}
	return fmt.Errorf("starting a stream of room %s: %w", room, err)
}

// SetLayout implements signal.Streams.
func (s *streams) SetLayout(room string, stream *amphiv1.Stream) {
	err := s.origin.SetLayout(room, stream.GetName(), hls.LayoutOf(stream.GetLayout()), stream.GetLayoutOptions())
	if err != nil {
		s.log.Warn("setting a layout", "room", room, "stream", stream.GetName(), "err", err)
	}
}

// Cue implements signal.Streams.
func (s *streams) Cue(room, stream string, cue *amphiv1.StreamCue) {
	for _, c := range cue.GetCaptions().GetCaptions() {
		err := s.origin.AddCaption(room, stream, cue.GetCaptions().GetLanguage(), packager.Caption{
			Start: time.UnixMilli(c.GetStartMs()), End: time.UnixMilli(c.GetEndMs()), Text: c.GetText()})
		if err != nil && !errors.Is(err, hls.ErrNotFound) {
			s.log.Warn("putting a caption into a stream", "room", room, "stream", stream, "err", err)
		}
	}
	m := cue.GetMetadata()
	if m == nil {
		return
	}
	err := s.origin.AddCue(room, stream, packager.Cue{
		ID: m.GetId(), Type: m.GetType(), Text: m.GetText(), Sender: m.GetSender(),
		At: time.UnixMilli(m.GetTimeMs()), Duration: time.Duration(m.GetDurationMs()) * time.Millisecond,
	})
	if err != nil && !errors.Is(err, hls.ErrNotFound) {
		s.log.Warn("putting a cue into a stream", "room", room, "stream", stream, "err", err)
	}
}

// Stop implements signal.Streams.
func (s *streams) Stop(room, stream string) {
	s.forget(room, stream)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := s.origin.Stop(ctx, room, stream); err != nil && !errors.Is(err, hls.ErrNotFound) {
		s.log.Warn("stopping a stream", "room", room, "stream", stream, "err", err)
	}
}

func (s *streams) forget(room, stream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running[room], stream)
	if len(s.running[room]) == 0 {
		delete(s.running, room)
	}
}

// staged keeps the programs of a room like its stage. It looks for the newest one itself: calls come from the room and from a
// start, and an older view must not come after a newer one.
func (s *streams) staged(room string, _ *signal.StageView) {
	s.staging.Lock()
	defer s.staging.Unlock()
	view := s.server.Stage(room)
	type change struct {
		stream string
		stage  hls.Stage
	}
	var changes []change
	s.mu.Lock()
	for name, c := range s.running[room] {
		changes = append(changes, change{name, stageOf(view, c.roles)})
	}
	s.mu.Unlock()
	for _, c := range changes {
		if err := s.origin.SetStage(room, c.stream, c.stage); err != nil && !errors.Is(err, hls.ErrNotFound) {
			s.log.Warn("updating a stage", "room", room, "stream", c.stream, "err", err)
		}
	}
}

// reported takes a program's state to its room.
func (s *streams) reported(room, stream string, state hls.State, reason string) {
	known := map[hls.State]amphiv1.StreamState{
		hls.Starting: amphiv1.StreamState_STREAM_STATE_STARTING, hls.Live: amphiv1.StreamState_STREAM_STATE_LIVE,
		hls.Failed: amphiv1.StreamState_STREAM_STATE_FAILED,
	}
	s.mu.Lock()
	c := s.running[room][stream]
	var report *amphiv1.Stream
	if c != nil && known[state] != amphiv1.StreamState_STREAM_STATE_UNSPECIFIED {
		c.state = &amphiv1.Stream{Name: stream, State: known[state], Url: c.state.GetUrl(), StartedMs: c.state.GetStartedMs(), Failure: reason}
		report = c.state
	}
	s.mu.Unlock()
	// A stop is the room's own wish, which it knows of; of a program that another one has replaced it wants to know nothing.
	if report != nil && (s.current == nil || s.current(room, stream)) {
		s.server.ReportStream(room, report)
	}
}

// state is how a stream that runs here does; nil: it does not.
func (s *streams) state(room, stream string) *amphiv1.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.running[room][stream]; c != nil {
		return c.state
	}
	return nil
}

// next is the first media sequence number that a stream which runs here has not used.
func (s *streams) next(room, stream string) uint64 { return s.origin.NextMSN(room, stream) }

// stageOf is what a program that composes these roles shows of a room.
func stageOf(view *signal.StageView, roles []string) hls.Stage {
	var stage hls.Stage
	if view == nil {
		return stage
	}
	for _, p := range view.Peers {
		if !slices.Contains(roles, p.GetRole()) || p.GetLost() {
			continue
		}
		peer := hls.StagePeer{ID: p.GetId(), Name: p.GetName()}
		for _, t := range p.GetTracks() {
			track := hls.StageTrack{ID: t.GetId(), Muted: t.GetMuted()}
			switch t.GetSource() {
			case "mic":
				peer.Audio = track
			case "camera":
				peer.Video = track
			case "screen":
				peer.Screen = track
			case "screen-audio":
				peer.ScreenAudio = track
			}
		}
		stage.Peers = append(stage.Peers, peer)
	}
	for _, speaker := range view.Speakers {
		stage.Speakers = append(stage.Speakers, speaker.GetPeerId())
	}
	return stage
}
