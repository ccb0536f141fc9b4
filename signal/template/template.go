// Package template checks and completes room templates: roles, streams and limits as data. It holds the
// presets that Amphi brings along. Nothing in Amphi knows a role by its name.
package template

import (
	"fmt"
	"strings"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"
)

// MaxJSON is the longest template that Import reads, in bytes.
const MaxJSON = 256 << 10

// DefaultMicrophones is how many microphones are forwarded where a template does not say.
const DefaultMicrophones = 5

// Defaults of what a template leaves at 0.
const (
	defaultPriority      = 3
	defaultAudioKbps     = 32
	defaultFramerate     = 30
	defaultWidth         = 1280
	defaultHeight        = 720
	defaultScreenRate    = 15
	defaultStreamRate    = 30
	defaultStreamAudio   = 128
	defaultPartMS        = 500
	defaultSegmentMS     = 2000
	defaultMaxPeers      = 20000
	defaultMaxDuration   = 12 * 3600
	defaultStoreKeys     = 100
	defaultStoreValue    = 1 << 10
	defaultStoreBytes    = 64 << 10
	defaultFullPresence  = 200
	defaultStreamName    = "main"
	defaultBackground    = "#101418"
	defaultStreamBitrate = 2500
)

// Complete checks a template and answers a copy with all defaults and every role's level filled in.
// Errors are a proto.Error, invalid_argument, that names the field and what is wrong with it.
func Complete(t *pb.Template) (*pb.Template, error) {
	if t == nil {
		return nil, proto.Errorf(proto.InvalidArgument, "the template is missing")
	}
	t = gproto.Clone(t).(*pb.Template)
	fill(t)
	if err := check(t); err != nil {
		return nil, err
	}
	return t, nil
}

// Import reads a template from JSON (protojson, unknown fields refused) and completes it.
func Import(data []byte) (*pb.Template, error) {
	if len(data) > MaxJSON {
		return nil, proto.Errorf(proto.MessageTooLarge, "a template has at most %d bytes", MaxJSON)
	}
	var t pb.Template
	if err := protojson.Unmarshal(data, &t); err != nil {
		return nil, proto.Errorf(proto.InvalidArgument, "reading the template: %s", plain(err))
	}
	return Complete(&t)
}

// plain takes out of protojson's errors what changes from build to build.
func plain(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimSpace(strings.TrimPrefix(s, "proto:"))
}

// Export writes a template as JSON for people, without what the server derives.
func Export(t *pb.Template) ([]byte, error) {
	t = gproto.Clone(t).(*pb.Template)
	t.Revision = 0
	for _, r := range t.GetRoles() {
		r.Level = 0
	}
	b, err := protojson.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("writing the template: %w", err)
	}
	return append(b, '\n'), nil
}

// fill puts defaults where the template says nothing. Lists of roles and permissions have none.
func fill(t *pb.Template) {
	for _, r := range t.GetRoles() {
		fillRole(r)
	}
	for _, s := range t.GetStreams() {
		fillStream(s)
	}
	if t.Limits == nil {
		t.Limits = &pb.RoomLimits{}
	}
	l := t.GetLimits()
	or(&l.MaxPeers, defaultMaxPeers)
	or(&l.MaxDurationS, defaultMaxDuration)
	or(&l.MaxStoreKeys, defaultStoreKeys)
	or(&l.MaxStoreValueBytes, defaultStoreValue)
	or(&l.MaxStoreBytes, defaultStoreBytes)
	or(&l.FullPresencePeers, defaultFullPresence)
	if l.LoudestMicrophones == nil {
		l.LoudestMicrophones = new(uint32(DefaultMicrophones))
	}
}

func fillRole(r *pb.Role) {
	if r.Publish == nil {
		r.Publish = &pb.PublishParams{}
	}
	p := r.GetPublish()
	if p.GetAudio() {
		if p.AudioParams == nil {
			p.AudioParams = &pb.AudioParams{}
		}
		or(&p.AudioParams.BitrateKbps, defaultAudioKbps)
	}
	if p.GetVideo() {
		p.VideoParams = fillVideo(p.GetVideoParams(), defaultWidth, defaultHeight, defaultFramerate)
	}
	if p.GetScreen() {
		p.ScreenParams = fillVideo(p.GetScreenParams(), 1920, 1080, defaultScreenRate)
	}
	if r.Subscribe == nil {
		r.Subscribe = &pb.SubscribeParams{}
	}
	s := r.GetSubscribe()
	if s.GetDelivery() == pb.Delivery_DELIVERY_UNSPECIFIED {
		s.Delivery = pb.Delivery_DELIVERY_NONE
	}
	if s.GetDelivery() == pb.Delivery_DELIVERY_HLS && s.GetStream() == "" {
		s.Stream = defaultStreamName
	}
	or(&r.Priority, defaultPriority)
	if r.Permissions == nil {
		r.Permissions = &pb.Permissions{}
	}
	if r.GetTitle() == "" {
		r.Title = r.GetName()
	}
	r.Level = proto.Level(r)
}

func fillVideo(v *pb.VideoParams, width, height, framerate uint32) *pb.VideoParams {
	if v == nil {
		v = &pb.VideoParams{}
	}
	or(&v.Width, width)
	or(&v.Height, height)
	or(&v.Framerate, framerate)
	or(&v.BitrateKbps, bitrateFor(v.GetWidth(), v.GetHeight()))
	if len(v.GetCodecs()) == 0 {
		v.Codecs = []string{"vp8", "h264"}
	}
	for _, l := range v.GetLayers() {
		if l.GetScaleDownBy() == 0 {
			l.ScaleDownBy = 1
		}
	}
	return v
}

// bitrateFor is a video's default bit rate for its size, in kbit/s.
func bitrateFor(width, height uint32) uint32 {
	switch pixels := uint64(width) * uint64(height); {
	case pixels <= 320*180:
		return 150
	case pixels <= 640*360:
		return 500
	case pixels <= 854*480:
		return 800
	case pixels <= 1280*720:
		return 1500
	}
	return 3000
}

func fillStream(s *pb.StreamSettings) {
	if s.GetName() == "" {
		s.Name = defaultStreamName
	}
	or(&s.Width, defaultWidth)
	or(&s.Height, defaultHeight)
	or(&s.Framerate, defaultStreamRate)
	or(&s.AudioBitrateKbps, defaultStreamAudio)
	or(&s.PartMs, defaultPartMS)
	or(&s.SegmentMs, defaultSegmentMS)
	if s.GetLayout() == pb.LayoutKind_LAYOUT_KIND_UNSPECIFIED {
		s.Layout = pb.LayoutKind_LAYOUT_KIND_AUTO
	}
	if s.GetBackground() == "" {
		s.Background = defaultBackground
	}
	if len(s.GetVariants()) == 0 {
		s.Variants = []*pb.StreamVariant{{Name: fmt.Sprintf("%dp", min(s.GetWidth(), s.GetHeight()))}}
	}
	for _, v := range s.GetVariants() {
		or(&v.Width, s.GetWidth())
		or(&v.Height, s.GetHeight())
		or(&v.BitrateKbps, defaultStreamBitrate)
	}
}

func or(field *uint32, otherwise uint32) {
	if *field == 0 {
		*field = otherwise
	}
}
