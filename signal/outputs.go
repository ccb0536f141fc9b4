package signal

import (
	"cmp"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/auth"
)

// seal takes a push's secrets out of a command before it goes to the room's owner.
func (s *Server) seal(cmd *amphiv1.Command) (*amphiv1.Command, error) {
	w := cmd.GetControlOutput()
	if w == nil {
		return cmd, nil
	}
	out := &amphiv1.ControlOutput{Action: w.GetAction(), Id: w.GetId(), Kind: w.GetKind(), Stream: w.GetStream(),
		Variant: w.GetVariant(), Tracks: w.GetTracks(), Destination: w.GetDestination()}
	if w.GetAction() == amphiv1.ControlOutput_ACTION_START && w.GetUrl() != "" {
		var err error
		if out.SealedUrl, out.Url, err = s.sealURL(w.GetUrl()); err != nil {
			return nil, err
		}
	}
	return &amphiv1.Command{Body: &amphiv1.Command_ControlOutput{ControlOutput: out}}, nil
}

// sealURL checks where a push is to go, and answers the URL encrypted, and without its secrets.
func (s *Server) sealURL(url string) (sealed []byte, redacted string, err error) {
	switch {
	case len(url) > proto.MaxPushURL:
		return nil, "", proto.Errorf(proto.InvalidArgument, "the URL is longer than %d bytes", proto.MaxPushURL)
	case s.deps.Outputs == nil:
		return nil, "", proto.Errorf(proto.Unavailable, "this node makes no recordings and pushes")
	}
	if redacted, err = s.deps.Outputs.CheckURL(url); err != nil {
		return nil, "", err
	}
	sealed, err = auth.SealURL(s.records.secret(), url)
	return sealed, redacted, err
}

func (s *Server) openURL(sealed []byte) (string, error) {
	return auth.OpenURL(s.records.secret(), sealed)
}

// Output implements owner.Streams: an output is carried out in turn with its stream.
func (s *streams) Output(room, session string, o *amphiv1.Output, sealedURL []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.addLocked(s.taskLocked(room, o.GetStream()), wish{room: room, output: o, session: session, sealed: sealedURL})
	}
}

// carryOutput does for an output what its state asks for. States that come from reports change nothing here.
func (s *streams) carryOutput(t *task, w wish) {
	o := w.output
	was, here := t.outputs[o.GetId()]
	switch o.GetState() {
	case amphiv1.OutputState_OUTPUT_STATE_STARTING:
		switch {
		case !here:
			s.startOutput(t, w)
		case was == amphiv1.OutputState_OUTPUT_STATE_PAUSED:
			s.server.deps.Outputs.Resume(w.room, o.GetId())
		case was == amphiv1.OutputState_OUTPUT_STATE_RETRYING:
			s.server.deps.Outputs.Stop(w.room, o.GetId())
			s.startOutput(t, w)
		}
	case amphiv1.OutputState_OUTPUT_STATE_PAUSED:
		if !here && !s.startOutput(t, w) {
			return
		}
		if was != amphiv1.OutputState_OUTPUT_STATE_PAUSED {
			s.server.deps.Outputs.Pause(w.room, o.GetId())
		}
	case amphiv1.OutputState_OUTPUT_STATE_STOPPED, amphiv1.OutputState_OUTPUT_STATE_FAILED:
		if here {
			s.server.deps.Outputs.Stop(w.room, o.GetId())
			delete(t.outputs, o.GetId())
			s.let(t)
		}
		return
	}
	if _, here := t.outputs[o.GetId()]; here {
		t.outputs[o.GetId()] = o.GetState()
	}
}

// startOutput answers whether the output is being made. Nothing is made of a stream that could not be started: the room
// hears of that from the stream.
func (s *streams) startOutput(t *task, w wish) bool {
	if w.output.GetStream() != "" && !t.running {
		return false
	}
	err := s.beginOutput(t, w)
	if err == nil {
		t.outputs[w.output.GetId()] = w.output.GetState()
		return true
	}
	s.server.log.Error("output not started", "room", w.room, "output", w.output.GetId(), "kind", w.output.GetKind(), "err", err)
	delete(t.outputs, w.output.GetId())
	s.let(t)
	s.server.ReportOutput(w.room, &amphiv1.Output{Id: w.output.GetId(), State: amphiv1.OutputState_OUTPUT_STATE_FAILED,
		Failure: proto.Wire(err).GetMessage()})
	return false
}

func (s *streams) beginOutput(t *task, w wish) error {
	if s.server.deps.Outputs == nil {
		return proto.Errorf(proto.Unavailable, "this node makes no recordings and pushes")
	}
	start := OutputStart{Room: w.room, Session: w.session, Output: w.output}
	if w.output.GetKind() == amphiv1.OutputKind_OUTPUT_KIND_PUSH {
		var err error
		if start.URL, err = s.server.openURL(w.sealed); err != nil {
			return err
		}
	}
	if err := s.hold(t, w.room); err != nil {
		return err
	}
	return s.server.deps.Outputs.Start(start)
}

// ReportOutput tells a room how one of its outputs does: id, state, failure, bytes and retries; clients hear of it as
// OutputChanged. It does not wait. What the room does not know any more is ignored.
func (s *Server) ReportOutput(room string, o *amphiv1.Output) {
	s.report(room, &amphiv1.Command{Body: &amphiv1.Command_OutputReport{OutputReport: &amphiv1.OutputReport{Output: o}}})
}

// report gives a node's report to the room's owner.
func (s *Server) report(room string, cmd *amphiv1.Command) {
	r, err := s.replicas.Open(key(room))
	if err != nil {
		return
	}
	err = r.Request("", cmd, func(res *amphiv1.Result) {
		if code := cmp.Or(res.GetError().GetCode(), string(proto.NotFound)); code != string(proto.NotFound) {
			s.log.Warn("report refused", "room", room, "code", code)
		}
		r.Release()
	})
	if err != nil {
		r.Release()
	}
}
