package signal

import (
	"context"
	"sync"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/replica"
)

// streams carries out what the rooms that this node owns want of their streams, one wish after the other, and
// holds the room's replica here while a stream runs, so that its stage can be watched.
type streams struct {
	server *Server
	wake   chan struct{}

	mu     sync.Mutex // guards the field below
	wishes []wish

	// held belongs to run.
	held map[string]map[string]*running // by room and stream
}

// running is a stream that was started here.
type running struct {
	room   *replica.Room
	layout amphiv1.LayoutKind
}

type wish struct {
	room     string
	template *amphiv1.Template
	stream   *amphiv1.Stream // nil: the session has ended
}

func newStreams(s *Server) *streams {
	return &streams{server: s, wake: make(chan struct{}, 1), held: map[string]map[string]*running{}}
}

// Changed implements owner.Streams. There are as many wishes as commands, which are bounded elsewhere.
func (s *streams) Changed(room string, template *amphiv1.Template, stream *amphiv1.Stream) {
	s.mu.Lock()
	s.wishes = append(s.wishes, wish{room, template, stream})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *streams) run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			for room := range s.held {
				s.carryOut(wish{room: room})
			}
			return
		}
		s.mu.Lock()
		wishes := s.wishes
		s.wishes = nil
		s.mu.Unlock()
		for _, w := range wishes {
			s.carryOut(w)
		}
	}
}

func (s *streams) carryOut(w wish) {
	if w.stream == nil {
		for name := range s.held[w.room] {
			s.stop(w.room, name)
		}
		return
	}
	name := w.stream.GetName()
	held := s.held[w.room][name]
	switch w.stream.GetState() {
	case amphiv1.StreamState_STREAM_STATE_STOPPED, amphiv1.StreamState_STREAM_STATE_FAILED:
		s.stop(w.room, name)
	case amphiv1.StreamState_STREAM_STATE_STARTING, amphiv1.StreamState_STREAM_STATE_LIVE:
		switch {
		case held == nil && w.stream.GetState() == amphiv1.StreamState_STREAM_STATE_STARTING:
			s.start(w)
		case held != nil && held.layout != w.stream.GetLayout():
			held.layout = w.stream.GetLayout()
			s.server.deps.Streams.SetLayout(w.room, name, held.layout)
		}
	}
}

func (s *streams) start(w wish) {
	err := error(proto.Errorf(proto.StreamFailed, "this node composes no streams"))
	if s.server.deps.Streams != nil {
		err = s.begin(w)
	}
	if err != nil {
		s.server.log.Error("stream not started", "room", w.room, "stream", w.stream.GetName(), "err", err)
		s.stop(w.room, w.stream.GetName())
		s.server.ReportStream(w.room, &amphiv1.Stream{Name: w.stream.GetName(),
			State: amphiv1.StreamState_STREAM_STATE_FAILED, Failure: proto.Wire(err).GetMessage()})
	}
}

func (s *streams) begin(w wish) error {
	settings := &amphiv1.StreamSettings{Name: w.stream.GetName()}
	for _, st := range w.template.GetStreams() {
		if st.GetName() == w.stream.GetName() {
			settings = st
		}
	}
	held, err := s.server.replicas.Open(w.room)
	if err != nil {
		return err
	}
	if s.held[w.room] == nil {
		s.held[w.room] = map[string]*running{}
	}
	s.held[w.room][w.stream.GetName()] = &running{held, w.stream.GetLayout()}
	return s.server.deps.Streams.Start(w.room, settings, w.stream)
}

func (s *streams) stop(room, name string) {
	held := s.held[room][name]
	if held == nil {
		return
	}
	s.server.deps.Streams.Stop(room, name)
	held.room.Release()
	delete(s.held[room], name)
	if len(s.held[room]) == 0 {
		delete(s.held, room)
	}
}

// ReportStream tells a room how one of its streams does; clients hear of it as StreamChanged. It does not wait.
func (s *Server) ReportStream(room string, stream *amphiv1.Stream) {
	r, err := s.replicas.Open(key(room))
	if err != nil {
		return
	}
	cmd := &amphiv1.Command{Body: &amphiv1.Command_StreamReport{StreamReport: &amphiv1.StreamReport{Stream: stream}}}
	err = r.Request("", cmd, func(res *amphiv1.Result) {
		if res.GetError() != nil {
			s.log.Warn("stream report refused", "room", room, "code", res.GetError().GetCode())
		}
		r.Release()
	})
	if err != nil {
		r.Release()
	}
}
