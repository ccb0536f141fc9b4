package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/room"
)

type streams struct {
	*services
	decoding chan struct{} // a picture is being decoded
}

// control notes a wish and answers the stream as it is then.
func (s streams) control(ctx context.Context, name string, cmd *amphiv1.ControlStream) (*connect.Response[amphiv1.Stream], error) {
	if _, err := s.call(ctx, name, &amphiv1.Command{Body: &amphiv1.Command_ControlStream{ControlStream: cmd}}); err != nil {
		return nil, err
	}
	stream := cmp.Or(cmd.GetName(), room.DefaultStream)
	list, err := s.list(ctx, name)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(st *amphiv1.Stream) bool { return st.GetName() == stream })
	if i < 0 {
		return nil, proto.Errorf(proto.NotFound, "the stream %q has not been started", stream)
	}
	return connect.NewResponse(list[i]), nil
}

func (s streams) list(ctx context.Context, name string) ([]*amphiv1.Stream, error) {
	var list []*amphiv1.Stream
	err := s.view(ctx, name, func(rep *room.Replica) error {
		list = rep.Streams()
		return nil
	})
	return list, err
}

// StartStream starts a stream of the room's template.
func (s streams) StartStream(ctx context.Context, req *connect.Request[amphiv1.StartStreamRequest]) (*connect.Response[amphiv1.Stream], error) {
	return s.control(ctx, req.Msg.GetRoom(), &amphiv1.ControlStream{
		Name: req.Msg.GetStream(), Action: amphiv1.ControlStream_ACTION_START, Layout: req.Msg.GetLayout(), LayoutOptions: req.Msg.GetLayoutOptions()})
}

// StopStream stops a stream.
func (s streams) StopStream(ctx context.Context, req *connect.Request[amphiv1.StopStreamRequest]) (*connect.Response[amphiv1.Stream], error) {
	return s.control(ctx, req.Msg.GetRoom(), &amphiv1.ControlStream{
		Name: req.Msg.GetStream(), Action: amphiv1.ControlStream_ACTION_STOP})
}

// SetLayout rearranges a stream.
func (s streams) SetLayout(ctx context.Context, req *connect.Request[amphiv1.SetLayoutRequest]) (*connect.Response[amphiv1.Stream], error) {
	return s.control(ctx, req.Msg.GetRoom(), &amphiv1.ControlStream{
		Name: req.Msg.GetStream(), Action: amphiv1.ControlStream_ACTION_LAYOUT, Layout: req.Msg.GetLayout(), LayoutOptions: req.Msg.GetLayoutOptions()})
}

// SendTimedMetadata puts something that happens into a stream.
func (s streams) SendTimedMetadata(ctx context.Context, req *connect.Request[amphiv1.SendTimedMetadataRequest]) (*connect.Response[amphiv1.TimedMetadata], error) {
	cue, err := s.cue(ctx, req.Msg.GetRoom(), &amphiv1.StreamCue{
		Stream: req.Msg.GetStream(), Body: &amphiv1.StreamCue_Metadata{Metadata: req.Msg.GetMetadata()}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(cue.GetMetadata()), nil
}

// AddCaptions puts captions into a stream.
func (s streams) AddCaptions(ctx context.Context, req *connect.Request[amphiv1.AddCaptionsRequest]) (*connect.Response[amphiv1.AddCaptionsResponse], error) {
	if _, err := s.cue(ctx, req.Msg.GetRoom(), &amphiv1.StreamCue{
		Stream: req.Msg.GetStream(), Body: &amphiv1.StreamCue_Captions{Captions: req.Msg.GetCaptions()}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.AddCaptionsResponse{}), nil
}

func (s streams) cue(ctx context.Context, name string, cue *amphiv1.StreamCue) (*amphiv1.StreamCue, error) {
	res, err := s.call(ctx, name, &amphiv1.Command{Body: &amphiv1.Command_StreamCue{StreamCue: cue}})
	if err != nil {
		return nil, err
	}
	return res.GetStreamCue().GetCue(), nil
}

// ListStreams answers the streams that were asked for in the session that runs.
func (s streams) ListStreams(ctx context.Context, req *connect.Request[amphiv1.ListStreamsRequest]) (*connect.Response[amphiv1.ListStreamsResponse], error) {
	list, err := s.list(ctx, req.Msg.GetRoom())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&amphiv1.ListStreamsResponse{Streams: list}), nil
}

// CreatePlaybackUrl makes a URL with a token for one viewer.
func (s streams) CreatePlaybackUrl(_ context.Context, req *connect.Request[amphiv1.CreatePlaybackUrlRequest]) (*connect.Response[amphiv1.Playback], error) {
	m := req.Msg
	p, err := s.Playback(m.GetRoom(), m.GetStream(), m.GetUserId(), time.Duration(m.GetTtlS())*time.Second)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(p), nil
}
