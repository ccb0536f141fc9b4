package api

import (
	"context"
	"slices"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

type (
	recordings struct{ *services }
	pushes     struct{ *services }
)

// control notes a wish about outputs and answers them as they are then.
func (s *services) control(ctx context.Context, name string, cmd *amphiv1.ControlOutput) ([]*amphiv1.Output, error) {
	res, err := s.call(ctx, name, &amphiv1.Command{Body: &amphiv1.Command_ControlOutput{ControlOutput: cmd}})
	if err != nil {
		return nil, err
	}
	return res.GetControlOutput().GetOutputs(), nil
}

func (s *services) startOutput(ctx context.Context, name string, cmd *amphiv1.ControlOutput) (*connect.Response[amphiv1.Output], error) {
	cmd.Action = amphiv1.ControlOutput_ACTION_START
	outputs, err := s.control(ctx, name, cmd)
	if err != nil {
		return nil, err
	}
	if len(outputs) != 1 {
		return nil, proto.Errorf(proto.Internal, "%d outputs were started", len(outputs))
	}
	return connect.NewResponse(outputs[0]), nil
}

// change does what one action asks of one output, or of all of a kind.
func (s *services) change(ctx context.Context, m *amphiv1.OutputRequest, kind amphiv1.OutputKind, action amphiv1.ControlOutput_Action) (*connect.Response[amphiv1.OutputsResponse], error) {
	outputs, err := s.control(ctx, m.GetRoom(), &amphiv1.ControlOutput{Action: action, Kind: kind, Id: m.GetId(), Stream: m.GetStream()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.OutputsResponse{Outputs: outputs}), nil
}

func (s *services) outputs(ctx context.Context, m *amphiv1.ListOutputsRequest, of func(amphiv1.OutputKind) bool) (*connect.Response[amphiv1.OutputsResponse], error) {
	res := &amphiv1.OutputsResponse{}
	err := s.view(ctx, m.GetRoom(), func(rep *room.Replica) error {
		res.Outputs = slices.DeleteFunc(rep.Outputs(), func(o *amphiv1.Output) bool {
			return !of(o.GetKind()) || m.GetActiveOnly() && !room.Working(o)
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func isPush(k amphiv1.OutputKind) bool { return k == amphiv1.OutputKind_OUTPUT_KIND_PUSH }

// StartRecording starts the recording of a stream, or of tracks.
func (s recordings) StartRecording(ctx context.Context, req *connect.Request[amphiv1.StartRecordingRequest]) (*connect.Response[amphiv1.Output], error) {
	m := req.Msg
	kind := amphiv1.OutputKind_OUTPUT_KIND_RECORDING
	if m.GetTracks() {
		kind = amphiv1.OutputKind_OUTPUT_KIND_TRACKS
	}
	return s.startOutput(ctx, m.GetRoom(), &amphiv1.ControlOutput{Kind: kind, Stream: m.GetStream(), Variant: m.GetVariant(),
		Tracks: m.GetFilter(), Destination: m.GetDestination()})
}

// StopRecording ends one recording, or all.
func (s recordings) StopRecording(ctx context.Context, req *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
	return s.change(ctx, req.Msg, amphiv1.OutputKind_OUTPUT_KIND_RECORDING, amphiv1.ControlOutput_ACTION_STOP)
}

// PauseRecording leaves out what happens from now on.
func (s recordings) PauseRecording(ctx context.Context, req *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
	return s.change(ctx, req.Msg, amphiv1.OutputKind_OUTPUT_KIND_RECORDING, amphiv1.ControlOutput_ACTION_PAUSE)
}

// ResumeRecording goes on with a paused recording.
func (s recordings) ResumeRecording(ctx context.Context, req *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
	return s.change(ctx, req.Msg, amphiv1.OutputKind_OUTPUT_KIND_RECORDING, amphiv1.ControlOutput_ACTION_RESUME)
}

// ListRecordings answers the recordings of the session that runs.
func (s recordings) ListRecordings(ctx context.Context, req *connect.Request[amphiv1.ListOutputsRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
	return s.outputs(ctx, req.Msg, func(k amphiv1.OutputKind) bool { return !isPush(k) })
}

// AddPush begins to push a stream to a server.
func (s pushes) AddPush(ctx context.Context, req *connect.Request[amphiv1.AddPushRequest]) (*connect.Response[amphiv1.Output], error) {
	m := req.Msg
	return s.startOutput(ctx, m.GetRoom(), &amphiv1.ControlOutput{Kind: amphiv1.OutputKind_OUTPUT_KIND_PUSH, Stream: m.GetStream(), Url: m.GetUrl(),
		Variant: m.GetVariant(), Destination: m.GetDestination()})
}

// RemovePush ends one push, or all.
func (s pushes) RemovePush(ctx context.Context, req *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
	return s.change(ctx, req.Msg, amphiv1.OutputKind_OUTPUT_KIND_PUSH, amphiv1.ControlOutput_ACTION_STOP)
}

// RetryPush tries a push at once that waits for its next try, or has failed.
func (s pushes) RetryPush(ctx context.Context, req *connect.Request[amphiv1.OutputRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
	return s.change(ctx, req.Msg, amphiv1.OutputKind_OUTPUT_KIND_PUSH, amphiv1.ControlOutput_ACTION_RETRY)
}

// ListPushes answers the pushes of the session that runs.
func (s pushes) ListPushes(ctx context.Context, req *connect.Request[amphiv1.ListOutputsRequest]) (*connect.Response[amphiv1.OutputsResponse], error) {
	return s.outputs(ctx, req.Msg, isPush)
}
