package room

import (
	"slices"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// DefaultStream is the stream meant where none is named.
const DefaultStream = "main"

func (c *call) updateRoom(u *pb.UpdateRoomState) error {
	if !c.may.GetManageRoom() {
		return denied("manage the room")
	}
	if err := checkMetadata(u.GetMetadata()); err != nil {
		return err
	}
	now := &pb.RoomUpdated{Locked: c.locked, Metadata: c.metadata}
	set(&now.Locked, u.Locked)
	set(&now.Metadata, u.Metadata)
	if now.GetLocked() != c.locked || now.GetMetadata() != c.metadata {
		c.emit(&pb.Event{Body: &pb.Event_RoomUpdated{RoomUpdated: now}})
	}
	return nil
}

func (c *call) endRoom(e *pb.EndRoom) error {
	if !c.may.GetEndRoom() {
		return denied("end the session")
	}
	if len(e.GetReason()) > maxReason || !utf8.ValidString(e.GetReason()) {
		return proto.Errorf(proto.InvalidArgument, "the reason is longer than %d bytes or not UTF-8", maxReason)
	}
	if e.GetLock() && !c.locked {
		c.emit(&pb.Event{Body: &pb.Event_RoomUpdated{RoomUpdated: &pb.RoomUpdated{Locked: true, Metadata: c.metadata}}})
	}
	c.end(e.GetReason(), c.by())
	return nil
}

// Readable refuses, with encrypted_room, what would have to read the media of an end-to-end encrypted room.
func Readable(t *pb.Template) error {
	if t.GetEndToEndEncrypted() {
		return proto.Errorf(proto.EncryptedRoom, "this room is end-to-end encrypted: the server cannot read its media")
	}
	return nil
}

// controlStream notes what is wished for a stream; the node that composes it reports how it goes.
func (c *call) controlStream(w *pb.ControlStream) error {
	if !c.may.GetControlStream() {
		return denied("control the stream")
	}
	settings, err := streamSettings(&c.view, w.GetName())
	if err != nil {
		return err
	}
	if _, ok := pb.LayoutKind_name[int32(w.GetLayout())]; !ok {
		return proto.Errorf(proto.InvalidArgument, "the layout is unknown")
	}
	if err := proto.CheckLayout(w.GetLayoutOptions()); err != nil {
		return err
	}
	had := c.streams[settings.GetName()]
	s := wishedStream(had, settings)
	if w.GetLayout() != pb.LayoutKind_LAYOUT_KIND_UNSPECIFIED {
		s.Layout = w.GetLayout()
	}
	if w.GetLayoutOptions() != nil {
		s.LayoutOptions = gproto.Clone(w.GetLayoutOptions()).(*pb.LayoutOptions)
	}
	switch w.GetAction() {
	case pb.ControlStream_ACTION_START:
		if err := Readable(c.template); err != nil {
			return err
		}
		if !running(had) {
			if c.from.NoRoom != nil {
				return c.from.NoRoom
			}
			beginStream(c, s)
			autoStart(c, s.GetName())
			return nil
		}
	case pb.ControlStream_ACTION_STOP:
		if !running(had) {
			return nil
		}
		s.State, s.Layout, s.LayoutOptions = pb.StreamState_STREAM_STATE_STOPPED, had.GetLayout(), had.GetLayoutOptions()
		endOutputs(c, s.GetName(), "")
	case pb.ControlStream_ACTION_LAYOUT:
		if w.GetLayout() == pb.LayoutKind_LAYOUT_KIND_UNSPECIFIED && w.GetLayoutOptions() == nil {
			return proto.Errorf(proto.InvalidArgument, "the layout is missing")
		}
		if had == nil {
			s.State = pb.StreamState_STREAM_STATE_STOPPED
		}
	default:
		return proto.Errorf(proto.InvalidArgument, "the action is missing")
	}
	changeStream(c, s)
	return nil
}

// wishedStream is a stream as it was, or as the template has it.
func wishedStream(had *pb.Stream, settings *pb.StreamSettings) *pb.Stream {
	s := cloneStream(had)
	s.Name = settings.GetName()
	if s.GetLayout() == pb.LayoutKind_LAYOUT_KIND_UNSPECIFIED {
		s.Layout = settings.GetLayout()
	}
	if had == nil {
		s.LayoutOptions = settings.GetLayoutOptions()
	}
	return s
}

// startStream starts a stream if it does not run; what the template starts with it is left to the caller.
func startStream(c *call, settings *pb.StreamSettings) (started bool) {
	had := c.streams[settings.GetName()]
	if running(had) {
		return false
	}
	beginStream(c, wishedStream(had, settings))
	return true
}

func beginStream(c *call, s *pb.Stream) {
	s.State, s.StartedMs, s.StartedBy = pb.StreamState_STREAM_STATE_STARTING, c.now.UnixMilli(), c.by()
	s.Failure, s.Url = "", ""
	changeStream(c, s)
}

func streamSettings(v *view, name string) (*pb.StreamSettings, error) {
	if name == "" {
		name = DefaultStream
	}
	all := v.template.GetStreams()
	i := slices.IndexFunc(all, func(s *pb.StreamSettings) bool { return s.GetName() == name })
	if i < 0 {
		return nil, proto.Errorf(proto.NotFound, "this room has no stream %q", clip(name))
	}
	return all[i], nil
}

func running(s *pb.Stream) bool {
	return s.GetState() == pb.StreamState_STREAM_STATE_STARTING || s.GetState() == pb.StreamState_STREAM_STATE_LIVE
}

// streamReport takes a node's word how a stream does. Reports about a stream that was stopped since are too late.
func (c *call) streamReport(r *pb.StreamReport) (*pb.Result, error) {
	if c.from.Management || c.from.PeerID != "" || c.from.Node == "" {
		return nil, proto.Errorf(proto.PermissionDenied, "only nodes report streams")
	}
	settings, err := streamSettings(&c.view, r.GetStream().GetName())
	if err != nil {
		return nil, err
	}
	had := c.streams[settings.GetName()]
	if !running(had) {
		return nil, nil
	}
	s := cloneStream(had)
	s.State, s.Failure = r.GetStream().GetState(), r.GetStream().GetFailure()
	if u := r.GetStream().GetUrl(); u != "" {
		s.Url = u
	}
	if _, ok := pb.StreamState_name[int32(s.GetState())]; !ok || s.GetState() == pb.StreamState_STREAM_STATE_UNSPECIFIED {
		return nil, proto.Errorf(proto.InvalidArgument, "the state is unknown")
	}
	if !running(s) {
		endOutputs(c, s.GetName(), s.GetFailure())
	}
	changeStream(c, s)
	return nil, nil
}

func changeStream(c *call, s *pb.Stream) {
	if !gproto.Equal(s, c.streams[s.GetName()]) {
		c.emit(&pb.Event{Body: &pb.Event_StreamChanged{StreamChanged: &pb.StreamChanged{Stream: s}}})
	}
}

func cloneStream(s *pb.Stream) *pb.Stream {
	return &pb.Stream{
		Name: s.GetName(), State: s.GetState(), Url: s.GetUrl(), StartedMs: s.GetStartedMs(), StartedBy: s.GetStartedBy(),
		Failure: s.GetFailure(), Layout: s.GetLayout(), LayoutOptions: s.GetLayoutOptions(),
	}
}
