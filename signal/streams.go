package signal

import (
	"context"
	"sync"

	protobuf "google.golang.org/protobuf/proto"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/owner"
	"github.com/amphi-sfu/amphi/signal/replica"
)

// streams carries out what the rooms that this node owns want of their streams and outputs: one wish after the other for each
// stream and what is made of it, so that a stream that hangs delays no other. While something runs it holds the room's replica
// here, so that its stage can be watched.
type streams struct {
	server *Server
	wg     sync.WaitGroup // one for each stream at work

	mu     sync.Mutex                  // guards the fields below, and the wishes of each task
	tasks  map[string]map[string]*task // by room and stream
	closed bool
}

// task is one stream that runs or is wanted here, and its outputs; that without a name has the outputs of no stream.
type task struct {
	name string
	// wishes wait; working: somebody carries them out.
	wishes  []wish
	working bool
	// What follows belongs to who works. held is nil while nothing runs; outputs are those made here, by id, with the last state
	// that the room gave them.
	held    *replica.Room
	running bool
	layout  *amphiv1.Stream // of which kind and options are in force
	outputs map[string]amphiv1.OutputState
}

type wish struct {
	room     string
	template *amphiv1.Template
	stream   *amphiv1.Stream // nil, and no output: the session has ended
	output   *amphiv1.Output
	// Of an output.
	session string
	sealed  []byte
}

func newStreams(s *Server) *streams {
	return &streams{server: s, tasks: map[string]map[string]*task{}}
}

// Changed implements owner.Streams. There are as many wishes as commands, which are bounded elsewhere.
func (s *streams) Changed(room string, template *amphiv1.Template, stream *amphiv1.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	w := wish{room: room, template: template, stream: stream}
	if stream == nil {
		for _, t := range s.tasks[room] {
			s.addLocked(t, w)
		}
		return
	}
	s.addLocked(s.taskLocked(room, stream.GetName()), w)
}

func (s *streams) taskLocked(room, stream string) *task {
	t := s.tasks[room][stream]
	if t == nil {
		t = &task{name: stream, outputs: map[string]amphiv1.OutputState{}}
		if s.tasks[room] == nil {
			s.tasks[room] = map[string]*task{}
		}
		s.tasks[room][stream] = t
	}
	return t
}

func (s *streams) addLocked(t *task, w wish) {
	t.wishes = append(t.wishes, w)
	if !t.working {
		t.working = true
		s.wg.Go(func() { s.work(w.room, t) })
	}
}

// Admit implements owner.Admitter.
func (s *streams) Admit(room string, settings *amphiv1.StreamSettings) error {
	if a, ok := s.server.deps.Streams.(owner.Admitter); ok {
		return a.Admit(room, settings)
	}
	return nil
}

// run stops all streams when ctx ends, and waits for them.
func (s *streams) run(ctx context.Context) {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	for room, tasks := range s.tasks {
		for _, t := range tasks {
			s.addLocked(t, wish{room: room})
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// work carries out the wishes of one stream until there are none.
func (s *streams) work(room string, t *task) {
	for {
		s.mu.Lock()
		wishes := t.wishes
		t.wishes = nil
		if len(wishes) == 0 {
			t.working = false
			if t.held == nil {
				s.forgetLocked(room, t.name)
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for _, w := range wishes {
			s.carryOut(t, w)
		}
	}
}

func (s *streams) forgetLocked(room, name string) {
	delete(s.tasks[room], name)
	if len(s.tasks[room]) == 0 {
		delete(s.tasks, room)
	}
}

func (s *streams) carryOut(t *task, w wish) {
	if w.output != nil {
		s.carryOutput(t, w)
		return
	}
	switch w.stream.GetState() {
	case amphiv1.StreamState_STREAM_STATE_STARTING, amphiv1.StreamState_STREAM_STATE_LIVE:
		switch {
		case !t.running && w.stream.GetState() == amphiv1.StreamState_STREAM_STATE_STARTING:
			s.start(t, w)
		case t.running && !sameLayout(t.layout, w.stream):
			t.layout = w.stream
			s.server.deps.Streams.SetLayout(w.room, w.stream)
		}
	case amphiv1.StreamState_STREAM_STATE_STOPPED, amphiv1.StreamState_STREAM_STATE_FAILED:
		s.stop(t, w.room)
	default:
		if w.stream == nil {
			s.stop(t, w.room)
		}
	}
}

func sameLayout(a, b *amphiv1.Stream) bool {
	return a.GetLayout() == b.GetLayout() && protobuf.Equal(a.GetLayoutOptions(), b.GetLayoutOptions())
}

func (s *streams) start(t *task, w wish) {
	err := error(proto.Errorf(proto.StreamFailed, "this node composes no streams"))
	if s.server.deps.Streams != nil {
		err = s.begin(t, w)
	}
	if err != nil {
		s.server.log.Error("stream not started", "room", w.room, "stream", t.name, "err", err)
		s.stop(t, w.room)
		s.server.ReportStream(w.room, &amphiv1.Stream{Name: t.name,
			State: amphiv1.StreamState_STREAM_STATE_FAILED, Failure: proto.Wire(err).GetMessage()})
	}
}

func (s *streams) begin(t *task, w wish) error {
	settings := &amphiv1.StreamSettings{Name: t.name}
	for _, st := range w.template.GetStreams() {
		if st.GetName() == t.name {
			settings = st
		}
	}
	if err := s.hold(t, w.room); err != nil {
		return err
	}
	t.running, t.layout = true, w.stream
	return s.server.deps.Streams.Start(w.room, settings, w.stream)
}

// stop ends the outputs, then the stream.
func (s *streams) stop(t *task, room string) {
	for id := range t.outputs {
		s.server.deps.Outputs.Stop(room, id)
	}
	clear(t.outputs)
	if t.running {
		t.running = false
		s.server.deps.Streams.Stop(room, t.name)
	}
	s.let(t)
}

// Cue implements owner.Streams. The stream may have ended a moment ago.
func (s *streams) Cue(room string, cue *amphiv1.StreamCue) {
	if s.server.deps.Streams != nil {
		s.server.deps.Streams.Cue(room, cue.GetStream(), cue)
	}
}

// hold keeps the room's replica here until let finds that nothing runs any more.
func (s *streams) hold(t *task, room string) error {
	if t.held != nil {
		return nil
	}
	held, err := s.server.replicas.Open(room)
	if err == nil {
		t.held = held
	}
	return err
}

func (s *streams) let(t *task) {
	if t.held != nil && !t.running && len(t.outputs) == 0 {
		t.held.Release()
		t.held = nil
	}
}

// ReportStream tells a room how one of its streams does; clients hear of it as StreamChanged. It does not wait.
func (s *Server) ReportStream(room string, stream *amphiv1.Stream) {
	s.report(room, &amphiv1.Command{Body: &amphiv1.Command_StreamReport{StreamReport: &amphiv1.StreamReport{Stream: stream}}})
}
