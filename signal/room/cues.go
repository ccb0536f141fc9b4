package room

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	gproto "google.golang.org/protobuf/proto"
)

// Limits of what goes into a stream beside picture and sound.
const (
	maxCueText      = 1024
	maxCueName      = 64
	maxCueAhead     = 10 * time.Minute
	maxCueLength    = 24 * time.Hour
	maxCaptions     = 32
	maxCaptionText  = 512
	maxCaptionLines = 4
	maxCaptionAge   = 2 * time.Minute
	maxCaption      = time.Minute
)

// streamCue checks and completes what is to go into a stream that runs. The room itself keeps nothing of it.
func (c *call) streamCue(q *pb.StreamCue) (*pb.Result, error) {
	if !c.may.GetAnnotateStream() {
		return nil, denied("put anything into the stream")
	}
	settings, err := streamSettings(&c.view, q.GetStream())
	if err != nil {
		return nil, err
	}
	if !running(c.streams[settings.GetName()]) {
		return nil, proto.Errorf(proto.NotFound, "the stream %q does not run", settings.GetName())
	}
	out := &pb.StreamCue{Stream: settings.GetName()}
	switch b := q.GetBody().(type) {
	case *pb.StreamCue_Metadata:
		m, err := c.timedMetadata(b.Metadata)
		if err != nil {
			return nil, err
		}
		out.Body = &pb.StreamCue_Metadata{Metadata: m}
	case *pb.StreamCue_Captions:
		captions, err := c.captions(b.Captions, settings)
		if err != nil {
			return nil, err
		}
		out.Body = &pb.StreamCue_Captions{Captions: captions}
	default:
		return nil, proto.Errorf(proto.InvalidArgument, "there is nothing for the stream")
	}
	return &pb.Result{Body: &pb.Result_StreamCue{StreamCue: &pb.StreamCueResult{Cue: out}}}, nil
}

func (c *call) timedMetadata(m *pb.TimedMetadata) (*pb.TimedMetadata, error) {
	out := gproto.CloneOf(m)
	if out == nil {
		out = &pb.TimedMetadata{}
	}
	out.Sender = c.peer.GetName()
	if out.GetTimeMs() == 0 {
		out.TimeMs = c.now.UnixMilli()
	}
	if out.GetId() == "" {
		// Events have other numbers, and what is decided at the same moment in the same state is the same.
		out.Id = "m" + strconv.FormatInt(c.now.UnixNano(), 36) + "." + strconv.FormatUint(c.seq, 36)
	}
	at := time.UnixMilli(out.GetTimeMs())
	switch {
	case len(out.GetId()) > maxCueName || strings.Trim(out.GetId(), typeCharacters) != "":
		return nil, proto.Errorf(proto.InvalidArgument, "the id is 1 to %d of a-z, A-Z, 0-9 and ._:-", maxCueName)
	case out.GetType() == "" || len(out.GetType()) > proto.MaxMessageType || strings.Trim(out.GetType(), typeCharacters) != "":
		return nil, proto.Errorf(proto.InvalidArgument, "the type is 1 to %d of a-z, A-Z, 0-9 and ._:-", proto.MaxMessageType)
	case len(out.GetText()) > maxCueText:
		return nil, proto.Errorf(proto.MessageTooLarge, "the text is longer than %d bytes", maxCueText)
	case !utf8.ValidString(out.GetText()):
		return nil, proto.Errorf(proto.InvalidArgument, "the text is not UTF-8")
	case at.After(c.now.Add(maxCueAhead)) || at.Before(c.now.Add(-maxCueAhead)):
		return nil, proto.Errorf(proto.InvalidArgument, "the time is more than %v away", maxCueAhead)
	case time.Duration(out.GetDurationMs())*time.Millisecond > maxCueLength:
		return nil, proto.Errorf(proto.InvalidArgument, "the duration is longer than %v", maxCueLength)
	}
	return out, nil
}

func (c *call) captions(q *pb.Captions, settings *pb.StreamSettings) (*pb.Captions, error) {
	languages := settings.GetCaptionLanguages()
	out := gproto.CloneOf(q)
	switch {
	case len(languages) == 0:
		return nil, proto.Errorf(proto.NotFound, "the template gives the stream %q no captions", settings.GetName())
	case out == nil || len(out.GetCaptions()) == 0 || len(out.GetCaptions()) > maxCaptions:
		return nil, proto.Errorf(proto.InvalidArgument, "1 to %d captions at a time are possible", maxCaptions)
	case out.GetLanguage() == "":
		out.Language = languages[0]
	case !slices.Contains(languages, out.GetLanguage()):
		return nil, proto.Errorf(proto.NotFound, "the stream has no captions in %q", clip(out.GetLanguage()))
	}
	for _, x := range out.GetCaptions() {
		start, end := time.UnixMilli(x.GetStartMs()), time.UnixMilli(x.GetEndMs())
		switch {
		case len(x.GetText()) > maxCaptionText || strings.Count(x.GetText(), "\n") >= maxCaptionLines:
			return nil, proto.Errorf(proto.MessageTooLarge, "a caption is longer than %d bytes or %d lines", maxCaptionText, maxCaptionLines)
		case strings.TrimSpace(x.GetText()) == "" || !utf8.ValidString(x.GetText()):
			return nil, proto.Errorf(proto.InvalidArgument, "a caption is empty or not UTF-8")
		case !end.After(start) || end.Sub(start) > maxCaption:
			return nil, proto.Errorf(proto.InvalidArgument, "a caption ends after it starts, within %v", maxCaption)
		case start.Before(c.now.Add(-maxCaptionAge)) || start.After(c.now.Add(maxCaption)):
			return nil, proto.Errorf(proto.InvalidArgument, "a caption starts at most %v ago and %v ahead", maxCaptionAge, maxCaption)
		}
	}
	return out, nil
}

// CueOf is a message as timed metadata of the streams that run and whose template wants its type; nil: of none.
func (s *State) CueOf(m *pb.Message) (cue *pb.TimedMetadata, streams []string) {
	if !broadcast(m.GetTo()) {
		return nil, nil
	}
	for _, st := range s.template.GetStreams() {
		if slices.Contains(st.GetMetadataTypes(), m.GetType()) && running(s.streams[st.GetName()]) {
			streams = append(streams, st.GetName())
		}
	}
	if streams == nil {
		return nil, nil
	}
	text := m.GetText()
	if len(text) > maxCueText {
		text = strings.ToValidUTF8(text[:maxCueText], "")
	}
	return &pb.TimedMetadata{
		Id: "e" + strconv.FormatUint(m.GetId(), 10), Type: m.GetType(), Text: text, TimeMs: m.GetTimeMs(), Sender: m.GetSenderName(),
	}, streams
}
