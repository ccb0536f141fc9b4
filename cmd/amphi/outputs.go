package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/amphi-sfu/amphi/hls"
	"github.com/amphi-sfu/amphi/hls/push"
	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal"
)

// pushStop bounds how long the end of a push waits for its connection to close; it goes on closing by itself.
const pushStop = 3 * time.Second

// outputs joins rooms to recordings and pushes: it makes what rooms wish, tells them how that does, and counts.
type outputs struct {
	log        *slog.Logger
	origin     *hls.Origin
	server     *signal.Server
	recordings *recordings
	base       context.Context // of all pushes; ends with Run
	stop       context.CancelFunc
	// told tells another node, whose room it is, how an output does; nil: there is no other.
	told func(node, room string, o *amphiv1.Output)
	wg   sync.WaitGroup // pushes

	mu    sync.Mutex // guards the fields below
	made  map[string]*made
	sums  map[amphiv1.OutputKind]*outputSum // of what has ended
	ended bool
}

// made is an output that this node makes.
type made struct {
	room   string
	output *amphiv1.Output // as it began
	state  amphiv1.OutputState
	why    string
	since  time.Time
	// Of a push; nil for the rest.
	pusher *push.Pusher
	cancel context.CancelFunc
	over   chan struct{}
	// retired: the room has ended it, or has it made anew, and hears no more of this one.
	retired bool
	// by is the node whose room it is, where that is another one. stopping: it was told to end.
	by       string
	stopping bool
	// strayed is since when the stream goes on for another node than by.
	strayed time.Time
	// Of a recording: its id at the recorder, or what records tracks.
	recording string
	tracks    *trackRecorder
}

// outputSum adds up what outputs of a kind did.
type outputSum struct {
	bytes, retries uint64
	states         map[amphiv1.OutputState]uint64
}

func newOutputs(log *slog.Logger) *outputs {
	o := &outputs{log: log, made: map[string]*made{}, sums: map[amphiv1.OutputKind]*outputSum{}}
	o.base, o.stop = context.WithCancel(context.Background())
	return o
}

// attach gives the neighbours, which are made with parts of this one.
func (o *outputs) attach(origin *hls.Origin, server *signal.Server, r *recordings) {
	o.origin, o.server, o.recordings = origin, server, r
}

// Run ends all pushes when ctx ends, and waits for them.
func (o *outputs) Run(ctx context.Context) error {
	<-ctx.Done()
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	o.stop()
	o.wg.Wait()
	return nil
}

// CheckURL implements signal.Outputs.
func (o *outputs) CheckURL(url string) (string, error) {
	if err := push.CheckURL(url); err != nil {
		return "", proto.Errorf(proto.InvalidArgument, "%v", err)
	}
	return push.Redact(url), nil
}

// Start implements signal.Outputs.
func (o *outputs) Start(s signal.OutputStart) error { return o.startFor("", s) }

// startFor begins an output of a room that node by owns, empty: this one. One that is made already goes on, and by hears how it does.
func (o *outputs) startFor(by string, s signal.OutputStart) error {
	m := &made{room: s.Room, output: s.Output, state: amphiv1.OutputState_OUTPUT_STATE_STARTING, since: time.Now(), by: by}
	o.mu.Lock()
	if o.ended {
		o.mu.Unlock()
		return proto.Errorf(proto.Shutdown, "the node is shutting down")
	}
	if had := o.made[s.Output.GetId()]; had != nil && !had.retired && !had.stopping && (by != "" || had.by != "") {
		had.by = by
		state, why := had.state, had.why
		o.mu.Unlock()
		o.tell(by, s.Room, &amphiv1.Output{Id: s.Output.GetId(), State: state, Failure: why})
		return nil
	}
	o.made[s.Output.GetId()] = m
	o.mu.Unlock()
	var err error
	if s.Output.GetKind() == amphiv1.OutputKind_OUTPUT_KIND_PUSH {
		err = o.startPush(m, s)
	} else {
		err = o.recordings.start(m, s)
	}
	if err != nil {
		o.forget(s.Output.GetId(), m)
	}
	return err
}

// forget lets go of an output, unless another one has taken its place.
func (o *outputs) forget(id string, m *made) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.made[id] == m {
		delete(o.made, id)
	}
}

func (o *outputs) find(id string) *made {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.made[id]
}

// recorded is what makes a recording: its id at the recorder, or what records tracks.
func (o *outputs) recorded(m *made) (recording string, tracks *trackRecorder) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return m.recording, m.tracks
}

func (o *outputs) startPush(m *made, s signal.OutputStart) error {
	variant, err := o.variantOf(s.Room, s.Output)
	if err != nil {
		return err
	}
	pusher, err := push.New(push.Config{
		Logger: o.log.With("room", s.Room, "output", s.Output.GetId()), URL: s.URL, Variant: variant,
		// Peers don't get to try the doors of the node's own network.
		DenyPrivate: s.Output.GetStartedBy() != "" && s.Output.GetDestination() == "",
		OnState:     func(st push.State) { o.pushed(m, st) },
	})
	if err != nil {
		return proto.Errorf(proto.InvalidArgument, "%v", err)
	}
	remove, err := o.origin.Tap(s.Room, s.Output.GetStream(), pusher)
	if errors.Is(err, hls.ErrNotFound) {
		return proto.Errorf(proto.StreamFailed, "the stream does not run")
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(o.base)
	o.mu.Lock()
	m.pusher, m.cancel, m.over = pusher, cancel, make(chan struct{})
	o.mu.Unlock()
	o.wg.Go(func() {
		defer close(m.over)
		defer cancel()
		defer remove()
		// How it ended is its last state.
		_ = pusher.Run(ctx)
	})
	return nil
}

// variantOf is the number of an output's variant in its stream's ladder.
func (o *outputs) variantOf(room string, out *amphiv1.Output) (int, error) {
	if out.GetVariant() == "" {
		return 0, nil
	}
	if view := o.server.Stage(room); view != nil {
		for _, s := range view.Template.GetStreams() {
			if s.GetName() != out.GetStream() {
				continue
			}
			if i := slices.IndexFunc(s.GetVariants(), func(v *amphiv1.StreamVariant) bool { return strings.EqualFold(v.GetName(), out.GetVariant()) }); i >= 0 {
				return i, nil
			}
		}
	}
	return 0, proto.Errorf(proto.NotFound, "the stream has no variant %q", out.GetVariant())
}

// pushed takes a push's state to its room.
func (o *outputs) pushed(m *made, st push.State) {
	known := map[push.Phase]amphiv1.OutputState{
		push.Connecting: amphiv1.OutputState_OUTPUT_STATE_STARTING, push.Live: amphiv1.OutputState_OUTPUT_STATE_ACTIVE,
		push.Retrying: amphiv1.OutputState_OUTPUT_STATE_RETRYING, push.Failed: amphiv1.OutputState_OUTPUT_STATE_FAILED,
		push.Stopped: amphiv1.OutputState_OUTPUT_STATE_STOPPED,
	}
	o.report(m, known[st.Phase], st.Reason, uint64(st.Bytes), uint32(st.Retries))
}

// report notes an output's state and tells its room.
func (o *outputs) report(m *made, state amphiv1.OutputState, why string, bytes uint64, retries uint32) {
	if state == amphiv1.OutputState_OUTPUT_STATE_UNSPECIFIED {
		return
	}
	over := state == amphiv1.OutputState_OUTPUT_STATE_STOPPED || state == amphiv1.OutputState_OUTPUT_STATE_FAILED
	o.mu.Lock()
	if m.state != state {
		m.state, m.since = state, time.Now()
	}
	m.why = why
	if over {
		sum := o.sums[m.output.GetKind()]
		if sum == nil {
			sum = &outputSum{states: map[amphiv1.OutputState]uint64{}}
			o.sums[m.output.GetKind()] = sum
		}
		sum.bytes += bytes
		sum.retries += uint64(retries)
		sum.states[state]++
		if o.made[m.output.GetId()] == m {
			delete(o.made, m.output.GetId())
		}
	}
	retired, by := m.retired, m.by
	o.mu.Unlock()
	if retired {
		return
	}
	o.tell(by, m.room, &amphiv1.Output{Id: m.output.GetId(), State: state, Failure: why, Bytes: bytes, Retries: retries})
}

// tell tells the room how an output does.
func (o *outputs) tell(by, room string, out *amphiv1.Output) {
	if by != "" && o.told != nil {
		o.told(by, room, out)
		return
	}
	o.server.ReportOutput(room, out)
}

// retire ends an output, made for a room of node by, of which the room is to hear no more. It does not wait.
func (o *outputs) retire(by, id string) {
	o.mu.Lock()
	m := o.made[id]
	if m == nil || m.by != by {
		o.mu.Unlock()
		return
	}
	m.retired = true
	cancel := m.cancel
	o.mu.Unlock()
	if cancel != nil {
		cancel()
		o.forget(id, m)
		return
	}
	o.recordings.change(m, o.recordings.end)
}

// Pause implements signal.Outputs.
func (o *outputs) Pause(room, id string) {
	m := o.find(id)
	if m == nil {
		return
	}
	if _, t := o.recorded(m); t != nil {
		t.paused.Store(true)
		return
	}
	o.recordings.change(m, o.recordings.pause)
}

// Resume implements signal.Outputs.
func (o *outputs) Resume(room, id string) {
	m := o.find(id)
	if m == nil {
		return
	}
	if _, t := o.recorded(m); t != nil {
		t.paused.Store(false)
		o.report(m, amphiv1.OutputState_OUTPUT_STATE_ACTIVE, "", t.bytes.Load(), 0)
		return
	}
	o.recordings.change(m, o.recordings.resume)
}

// Stop implements signal.Outputs.
func (o *outputs) Stop(room, id string) { o.stopFor("", room, id) }

// stopFor ends an output that is made for a room of node by, empty: this one. Where another node owns the room by now, that one says
// when it ends.
func (o *outputs) stopFor(by, room, id string) {
	o.mu.Lock()
	m := o.made[id]
	if m != nil && m.by == by {
		m.stopping = true
	} else {
		m = nil
	}
	o.mu.Unlock()
	switch {
	case m == nil:
	case m.tracks != nil:
		m.tracks.cancel()
	case m.cancel != nil:
		o.mu.Lock()
		m.retired = true
		o.mu.Unlock()
		m.cancel()
		select {
		case <-m.over:
		case <-time.After(pushStop):
			o.log.Warn("a push is slow to end", "room", room, "output", id)
		}
		o.forget(id, m)
	default:
		o.recordings.change(m, o.recordings.end)
	}
}

// straying is how long an output goes on that its stream's owner has not asked for: a new owner asks for those of its room within seconds.
const straying = time.Minute

// owned ends outputs of a stream that by, empty: this node, has go on, if they were made for another owner and by never asked
// for them: that one died after the room had ended them and before it told this node. It does not wait.
func (o *outputs) owned(room, stream, by string, now time.Time) {
	type stray struct{ by, id string }
	var strays []stray
	o.mu.Lock()
	for id, m := range o.made {
		switch {
		case m.room != room || m.output.GetStream() != stream || m.retired || m.stopping:
		case m.by == by:
			m.strayed = time.Time{}
		case m.strayed.IsZero():
			m.strayed = now
		case now.Sub(m.strayed) > straying:
			strays = append(strays, stray{m.by, id})
		}
	}
	o.mu.Unlock()
	for _, s := range strays {
		o.log.Warn("nobody wants an output any more", "room", room, "output", s.id)
		o.retire(s.by, s.id)
	}
}

// chat notes a message in the recordings of its room.
func (o *outputs) chat(room string, m *amphiv1.Message) {
	o.mu.Lock()
	var ids []string
	for _, made := range o.made {
		if made.recording != "" && made.room == room {
			ids = append(ids, made.recording)
		}
	}
	o.mu.Unlock()
	for _, id := range ids {
		o.recordings.note(id, m)
	}
}

// status tells what this node makes, with the figures of now.
func (o *outputs) status() []*amphiv1.OutputStatus {
	o.mu.Lock()
	all := make([]*made, 0, len(o.made))
	states := make([]*amphiv1.OutputStatus, 0, len(o.made))
	for _, m := range o.made {
		all = append(all, m)
		states = append(states, &amphiv1.OutputStatus{Room: m.room, Output: &amphiv1.Output{
			Id: m.output.GetId(), Kind: m.output.GetKind(), Stream: m.output.GetStream(), Variant: m.output.GetVariant(), Url: m.output.GetUrl(),
			Destination: m.output.GetDestination(), Tracks: m.output.GetTracks(), StartedMs: m.output.GetStartedMs(), StartedBy: m.output.GetStartedBy(),
			State: m.state, StateMs: m.since.UnixMilli(), Failure: m.why,
		}})
	}
	o.mu.Unlock()
	for i, m := range all {
		out := states[i].Output
		switch {
		case m.pusher != nil:
			st := m.pusher.State()
			out.Bytes, out.Retries = uint64(st.Bytes), uint32(st.Retries)
			states[i].Frames, states[i].Dropped = uint64(st.Frames), uint64(st.Dropped)
		case m.tracks != nil:
			out.Bytes = m.tracks.bytes.Load()
		case m.recording != "":
			out.Bytes, states[i].Dropped = o.recordings.figures(m.recording)
		}
	}
	slices.SortFunc(states, func(a, b *amphiv1.OutputStatus) int { return int(a.Output.StartedMs - b.Output.StartedMs) })
	return states
}
