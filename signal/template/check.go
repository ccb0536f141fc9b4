package template

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Bounds on lists and texts.
const (
	maxRoles    = 32
	maxStreams  = 4
	maxVariants = 5
	maxPrefixes = 32
	maxName     = 64
	maxText     = 1024
	// Destinations of a template, and how many of them start by themselves.
	maxDestinations = 32
	maxAutoPushes   = 8
	maxAutoRecords  = 4
	// maxFilter bounds each list of a TrackFilter, as where it is used.
	maxFilter = 100
)

const (
	lowerDigits = "abcdefghijklmnopqrstuvwxyz0123456789-"
	nameLetters = lowerDigits + "ABCDEFGHIJKLMNOPQRSTUVWXYZ._"
)

// checker collects the first thing that is wrong, under the path of its field.
type checker struct {
	path string
	err  error
}

func (c *checker) failf(field, format string, args ...any) {
	if c.err == nil {
		c.err = proto.Errorf(proto.InvalidArgument, "%s: %s", strings.TrimPrefix(c.path+"."+field, "."), fmt.Sprintf(format, args...))
	}
}

// in runs checks of a part; its path goes before the fields.
func (c *checker) in(path string, check func()) {
	outer := c.path
	c.path = strings.TrimPrefix(outer+"."+path, ".")
	check()
	c.path = outer
}

func (c *checker) between(field string, v, least, most uint32) {
	if v < least || v > most {
		c.failf(field, "%d is not within %d to %d", v, least, most)
	}
}

func (c *checker) named(field, s, letters string, most int) {
	if s == "" || len(s) > most || strings.Trim(s, letters) != "" {
		c.failf(field, "%q is not 1 to %d of %s", clip(s), most, readable(letters))
	}
}

func (c *checker) text(field, s string, most int) {
	if len(s) > most || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		c.failf(field, "is longer than %d bytes or not readable text", most)
	}
}

func readable(letters string) string {
	if letters == lowerDigits {
		return "a-z, 0-9 and -"
	}
	return "a-z, A-Z, 0-9, ., _ and -"
}

func clip(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.ToValidUTF8(s, "")
}

// check tells what is wrong with a template whose defaults are filled in.
func check(t *pb.Template) error {
	c := &checker{}
	c.named("name", t.GetName(), nameLetters, maxName)
	c.text("description", t.GetDescription(), maxText)
	if n := len(t.GetRoles()); n == 0 || n > maxRoles {
		c.failf("roles", "%d roles; 1 to %d are possible", n, maxRoles)
	}
	if n := len(t.GetStreams()); n > maxStreams {
		c.failf("streams", "%d streams; at most %d are possible", n, maxStreams)
	}
	streams := map[string]bool{}
	for i, s := range t.GetStreams() {
		c.in(fmt.Sprintf("streams[%d]", i), func() { c.stream(t, s, streams) })
	}
	seen := map[string]bool{}
	for i, r := range t.GetRoles() {
		c.in(fmt.Sprintf("roles[%d]", i), func() { c.role(t, r, seen) })
	}
	c.destinations(t)
	c.in("limits", func() { c.limits(t.GetLimits()) })
	return c.err
}

func hasRole(t *pb.Template, name string) bool {
	return slices.ContainsFunc(t.GetRoles(), func(r *pb.Role) bool { return r.GetName() == name })
}

func (c *checker) roleNames(t *pb.Template, field string, names []string) {
	for i, n := range names {
		switch {
		case !hasRole(t, n):
			c.failf(field, "%q is not a role of this template", clip(n))
		case slices.Contains(names[:i], n):
			c.failf(field, "%q is named twice", n)
		}
	}
}

func (c *checker) role(t *pb.Template, r *pb.Role, seen map[string]bool) {
	c.named("name", r.GetName(), nameLetters, maxName)
	if seen[r.GetName()] {
		c.failf("name", "%q is taken by another role", clip(r.GetName()))
	}
	seen[r.GetName()] = true
	c.text("title", r.GetTitle(), maxName)
	c.between("priority", r.GetPriority(), 1, 5)
	c.between("max_peers", r.GetMaxPeers(), 0, 100000)
	p := r.GetPublish()
	if p.GetAudio() {
		c.between("publish.audio_params.bitrate_kbps", p.GetAudioParams().GetBitrateKbps(), 16, 320)
	}
	if p.GetVideo() {
		c.in("publish.video_params", func() { c.video(p.GetVideoParams()) })
	}
	if p.GetScreen() {
		c.in("publish.screen_params", func() { c.video(p.GetScreenParams()) })
	}
	c.in("subscribe", func() { c.subscribe(t, r) })
	c.otherRole(t, r, "stage_role", r.GetStageRole())
	c.otherRole(t, r, "off_stage_role", r.GetOffStageRole())
	prefixes := r.GetPermissions().GetWriteStore()
	if len(prefixes) > maxPrefixes {
		c.failf("permissions.write_store", "more than %d prefixes", maxPrefixes)
	}
	for _, prefix := range prefixes {
		c.text("permissions.write_store", prefix, proto.MaxStoreKey)
	}
}

// otherRole checks that a way on or off stage leads to another role, where there is one.
func (c *checker) otherRole(t *pb.Template, r *pb.Role, field, name string) {
	if name != "" && (!hasRole(t, name) || name == r.GetName()) {
		c.failf(field, "%q is not another role of this template", clip(name))
	}
}

func (c *checker) subscribe(t *pb.Template, r *pb.Role) {
	s := r.GetSubscribe()
	c.between("max_bitrate_kbps", s.GetMaxBitrateKbps(), 0, 1000000)
	switch s.GetDelivery() {
	case pb.Delivery_DELIVERY_NONE:
		if len(s.GetRoles()) > 0 {
			c.failf("roles", "a role without delivery receives no roles")
		}
	case pb.Delivery_DELIVERY_WEBRTC:
		c.roleNames(t, "roles", s.GetRoles())
	case pb.Delivery_DELIVERY_HLS:
		if len(s.GetRoles()) > 0 {
			c.failf("roles", "over HLS a role receives a stream, not roles")
		}
		if proto.Level(r) == 1 {
			c.failf("delivery", "a role that publishes receives over WebRTC")
		}
		if !slices.ContainsFunc(t.GetStreams(), func(x *pb.StreamSettings) bool { return x.GetName() == s.GetStream() }) {
			c.failf("stream", "%q is not a stream of this template", clip(s.GetStream()))
		}
	default:
		c.failf("delivery", "is unknown")
	}
}

func (c *checker) video(v *pb.VideoParams) {
	c.between("bitrate_kbps", v.GetBitrateKbps(), 30, 8000)
	c.between("framerate", v.GetFramerate(), 1, 60)
	c.between("width", v.GetWidth(), 16, 3840)
	c.between("height", v.GetHeight(), 16, 3840)
	for i, codec := range v.GetCodecs() {
		if !slices.Contains([]string{"vp8", "h264", "vp9", "av1"}, codec) || slices.Contains(v.GetCodecs()[:i], codec) {
			c.failf("codecs", "%q is unknown or named twice; there are vp8, h264, vp9 and av1", clip(codec))
		}
	}
	c.layers(v.GetLayers())
}

// layers are f, h, q, best first, each smaller than the one before.
func (c *checker) layers(layers []*pb.SimulcastLayer) {
	if len(layers) > 3 {
		c.failf("layers", "%d layers; at most 3 are possible", len(layers))
		return
	}
	for i, l := range layers {
		field := fmt.Sprintf("layers[%d]", i)
		if want := string("fhq"[i]); l.GetRid() != want {
			c.failf(field+".rid", "%q is not %q", clip(l.GetRid()), want)
		}
		scale := l.GetScaleDownBy()
		if !(scale >= 1 && scale <= 12) {
			c.failf(field+".scale_down_by", "%g is not within 1 to 12", scale)
		}
		if i > 0 && !(scale > layers[i-1].GetScaleDownBy()) {
			c.failf(field+".scale_down_by", "%g is not more than the layer before", scale)
		}
		if l.GetMaxBitrateKbps() != 0 {
			c.between(field+".max_bitrate_kbps", l.GetMaxBitrateKbps(), 30, 8000)
		}
		c.between(field+".max_framerate", l.GetMaxFramerate(), 0, 60)
	}
}

func (c *checker) stream(t *pb.Template, s *pb.StreamSettings, seen map[string]bool) {
	c.named("name", s.GetName(), lowerDigits, 32)
	if seen[s.GetName()] {
		c.failf("name", "%q is taken by another stream", clip(s.GetName()))
	}
	seen[s.GetName()] = true
	if len(s.GetRoles()) == 0 {
		c.failf("roles", "a stream composes at least one role")
	}
	c.roleNames(t, "roles", s.GetRoles())
	c.canvas(s.GetWidth(), s.GetHeight())
	c.between("framerate", s.GetFramerate(), 15, 30)
	c.between("audio_bitrate_kbps", s.GetAudioBitrateKbps(), 32, 320)
	c.between("part_ms", s.GetPartMs(), 200, 1000)
	c.between("segment_ms", s.GetSegmentMs(), 1000, 6000)
	if s.GetPartMs() != 0 && s.GetSegmentMs()%s.GetPartMs() != 0 {
		c.failf("segment_ms", "%d is not a multiple of part_ms", s.GetSegmentMs())
	}
	if _, ok := pb.LayoutKind_name[int32(s.GetLayout())]; !ok {
		c.failf("layout", "is unknown")
	}
	if err := proto.CheckLayout(s.GetLayoutOptions()); err != nil {
		c.failf("layout_options", "%s", proto.Wire(err).GetMessage())
	}
	if b := s.GetBackground(); len(b) != 7 || b[0] != '#' || strings.Trim(b[1:], "0123456789abcdefABCDEF") != "" {
		c.failf("background", "%q is not #rrggbb", clip(b))
	}
	if n := len(s.GetVariants()); n > maxVariants {
		c.failf("variants", "%d variants; at most %d are possible", n, maxVariants)
	}
	c.delivery(s)
	names := map[string]bool{}
	for i, v := range s.GetVariants() {
		c.in(fmt.Sprintf("variants[%d]", i), func() {
			c.named("name", v.GetName(), lowerDigits, 32)
			if names[v.GetName()] {
				c.failf("name", "%q is taken by another variant", clip(v.GetName()))
			}
			names[v.GetName()] = true
			c.canvas(v.GetWidth(), v.GetHeight())
			c.between("bitrate_kbps", v.GetBitrateKbps(), 100, 12000)
			if v.GetWidth() > s.GetWidth() || v.GetHeight() > s.GetHeight() {
				c.failf("width", "the variant is larger than the stream")
			}
		})
	}
}

// Limits of what a stream delivers beside its variants.
const (
	maxWindow    = 12 * 3600
	maxTypes     = 16
	maxLanguages = 8
)

// delivery checks how far back viewers can go, and what comes with the picture.
func (c *checker) delivery(s *pb.StreamSettings) {
	c.between("dvr_window_s", s.GetDvrWindowS(), 0, maxWindow)
	if n := len(s.GetMetadataTypes()); n > maxTypes {
		c.failf("metadata_types", "%d types; at most %d are possible", n, maxTypes)
	}
	for _, t := range s.GetMetadataTypes() {
		if t == "" || len(t) > 64 || strings.Trim(t, lowerDigits+"ABCDEFGHIJKLMNOPQRSTUVWXYZ._:") != "" {
			c.failf("metadata_types", "%q is no type of messages", clip(t))
		}
	}
	if n := len(s.GetCaptionLanguages()); n > maxLanguages {
		c.failf("caption_languages", "%d languages; at most %d are possible", n, maxLanguages)
	}
	for i, l := range s.GetCaptionLanguages() {
		if len(l) < 2 || len(l) > 16 || strings.Trim(l, lowerDigits+"ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || slices.Contains(s.GetCaptionLanguages()[:i], l) {
			c.failf("caption_languages", "%q is no language tag, or stands twice", clip(l))
		}
	}
}

// canvas checks a composed picture's size: encoders want even numbers.
func (c *checker) canvas(width, height uint32) {
	c.between("width", width, 144, 1920)
	c.between("height", height, 144, 1920)
	if width%2 != 0 || height%2 != 0 {
		c.failf("width", "%d x %d: both must be even", width, height)
	}
}

func (c *checker) limits(l *pb.RoomLimits) {
	c.between("max_peers", l.GetMaxPeers(), 1, 100000)
	c.between("max_duration_s", l.GetMaxDurationS(), 60, 7*24*3600)
	c.between("message_history", l.GetMessageHistory(), 0, 200)
	c.between("max_store_keys", l.GetMaxStoreKeys(), 1, 1000)
	c.between("max_store_value_bytes", l.GetMaxStoreValueBytes(), 1, 16<<10)
	c.between("max_store_bytes", l.GetMaxStoreBytes(), 1, 1<<20)
	c.between("full_presence_peers", l.GetFullPresencePeers(), 1, 2000)
	c.between("loudest_microphones", l.GetLoudestMicrophones(), 0, 100)
}
