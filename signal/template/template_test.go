package template_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/proto"
	pb "github.com/amphi-sfu/amphi/proto/amphi/v1"
	"github.com/amphi-sfu/amphi/signal/template"
	gproto "google.golang.org/protobuf/proto"
)

func preset(t testing.TB, name string) *pb.Template {
	t.Helper()
	p, err := template.Preset(name)
	if err != nil {
		t.Fatalf("preset %s: %v", name, err)
	}
	return p
}

func TestPresetLevels(t *testing.T) {
	t.Parallel()
	want := map[string]map[string]uint32{
		"live-event":       {"host": 1, "speaker": 1, "audience": 2, "viewer": 3},
		"webinar":          {"host": 1, "panelist": 1, "attendee": 2, "overflow": 3},
		"video-conference": {"host": 1, "guest": 1},
		"audio-room":       {"host": 1, "speaker": 1, "listener": 2},
		"classroom":        {"teacher": 1, "assistant": 1, "student": 1, "observer": 2},
		"telehealth":       {"practitioner": 1, "patient": 1, "interpreter": 1, "waiting": 2},
	}
	names := template.PresetNames()
	if len(names) != len(want) {
		t.Errorf("presets %v", names)
	}
	for _, name := range names {
		p := preset(t, name)
		if p.GetName() != name {
			t.Errorf("%s is named %q", name, p.GetName())
		}
		got := map[string]uint32{}
		for _, r := range p.GetRoles() {
			got[r.GetName()] = r.GetLevel()
		}
		for role, level := range want[name] {
			if got[role] != level {
				t.Errorf("%s: role %s has level %d, want %d", name, role, got[role], level)
			}
		}
		if len(got) != len(want[name]) {
			t.Errorf("%s: roles %v", name, got)
		}
	}
	if _, err := template.Preset("../check"); proto.CodeOf(err) != proto.NotFound {
		t.Errorf("unknown preset: %v", err)
	}
}

// TestPresetsAreWhole says what every preset must have for its people to be able to use it.
func TestPresetsAreWhole(t *testing.T) {
	t.Parallel()
	for _, name := range template.PresetNames() {
		p := preset(t, name)
		roles := map[string]*pb.Role{}
		ends := 0
		for _, r := range p.GetRoles() {
			roles[r.GetName()] = r
			if r.GetPermissions().GetEndRoom() {
				ends++
			}
		}
		if ends != 1 {
			t.Errorf("%s: %d roles may end the room", name, ends)
		}
		for _, r := range p.GetRoles() {
			if s := r.GetStageRole(); s != "" && roles[s].GetLevel() != 1 {
				t.Errorf("%s: %s goes on stage as %s, which is not on stage", name, r.GetName(), s)
			}
			if s := r.GetOffStageRole(); s != "" && (r.GetLevel() != 1 || roles[s].GetLevel() == 1 || roles[s].GetStageRole() == "") {
				t.Errorf("%s: the way off stage of %s to %s and back is broken", name, r.GetName(), s)
			}
			if r.GetLevel() != 1 && r.GetStageRole() == "" {
				t.Errorf("%s: no way on stage from %s", name, r.GetName())
			}
		}
	}
}

func TestLiveEvent(t *testing.T) {
	t.Parallel()
	p := preset(t, "live-event")
	host := p.GetRoles()[0]
	perms := host.GetPermissions().ProtoReflect()
	for i := range perms.Descriptor().Fields().Len() {
		f := perms.Descriptor().Fields().Get(i)
		if !perms.Has(f) {
			t.Errorf("host lacks the permission %s", f.Name())
		}
	}
	s := p.GetStreams()[0]
	if s.GetName() != "main" || !slices.Equal(s.GetRoles(), []string{"host", "speaker"}) || s.GetPartMs() != 500 || s.GetSegmentMs() != 2000 {
		t.Errorf("stream %v", s)
	}
	for _, r := range p.GetRoles()[2:] {
		if r.GetStageRole() != "speaker" {
			t.Errorf("%s goes on stage as %q", r.GetName(), r.GetStageRole())
		}
	}
}

func TestEncryptedTemplateTravels(t *testing.T) {
	t.Parallel()
	p := preset(t, "video-conference")
	p.EndToEndEncrypted = true
	data, err := template.Export(p)
	if err != nil || !strings.Contains(string(data), `"endToEndEncrypted"`) {
		t.Fatalf("exported %s, %v", data, err)
	}
	if back, err := template.Import(data); err != nil || !back.GetEndToEndEncrypted() {
		t.Errorf("comes back as %v, %v", back, err)
	}
}

func TestExportImport(t *testing.T) {
	t.Parallel()
	for _, name := range template.PresetNames() {
		p := preset(t, name)
		data, err := template.Export(p)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), `"level"`) || !json.Valid(data) {
			t.Errorf("%s: exported %s", name, data)
		}
		back, err := template.Import(data)
		if err != nil || !gproto.Equal(back, p) {
			t.Errorf("%s: comes back as %v, %v", name, back, err)
		}
	}
}

func minimal() *pb.Template {
	return &pb.Template{Name: "t", Roles: []*pb.Role{
		{Name: "a", Publish: &pb.PublishParams{Audio: true, Video: true, Screen: true},
			Subscribe: &pb.SubscribeParams{Delivery: pb.Delivery_DELIVERY_WEBRTC, Roles: []string{"a"}}},
		{Name: "b", Subscribe: &pb.SubscribeParams{Delivery: pb.Delivery_DELIVERY_HLS}},
		{Name: "c"},
	}, Streams: []*pb.StreamSettings{{Roles: []string{"a"}}}}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	in := minimal()
	before := gproto.Clone(in)
	got, err := template.Complete(in)
	if err != nil {
		t.Fatal(err)
	}
	if !gproto.Equal(in, before) {
		t.Error("the argument was changed")
	}
	if levels := []uint32{got.Roles[0].GetLevel(), got.Roles[1].GetLevel(), got.Roles[2].GetLevel()}; !slices.Equal(levels, []uint32{1, 3, 2}) {
		t.Errorf("levels %v", levels)
	}
	v := got.GetRoles()[0].GetPublish().GetVideoParams()
	if v.GetWidth() != 1280 || v.GetBitrateKbps() != 1500 || len(v.GetCodecs()) != 2 {
		t.Errorf("video %v", v)
	}
	if s := got.GetStreams()[0]; s.GetName() != "main" || s.GetVariants()[0].GetName() != "720p" || s.GetPartMs() != 500 {
		t.Errorf("stream %v", s)
	}
	if got.GetRoles()[1].GetSubscribe().GetStream() != "main" || got.GetLimits().GetMaxStoreKeys() != 100 {
		t.Errorf("got %v", got)
	}
	again, err := template.Complete(got)
	if err != nil || !gproto.Equal(again, got) {
		t.Errorf("completing twice: %v, %v", again, err)
	}
}

// mistakes are changes to the minimal template and the field that each makes wrong.
func mistakes() []mistake {
	return []mistake{
		{"name", func(t *pb.Template) { t.Name = "" }},
		{"name", func(t *pb.Template) { t.Name = "a/b" }},
		{"description", func(t *pb.Template) { t.Description = "a\nb" }},
		{"roles", func(t *pb.Template) { t.Roles = nil }},
		{"roles", func(t *pb.Template) {
			for range 40 {
				t.Roles = append(t.Roles, &pb.Role{Name: "x"})
			}
		}},
		{"roles[1].name", func(t *pb.Template) { t.Roles[1].Name = "a" }},
		{"roles[2].name", func(t *pb.Template) { t.Roles[2].Name = "" }},
		{"roles[0].priority", func(t *pb.Template) { t.Roles[0].Priority = 6 }},
		{"roles[0].publish.audio_params.bitrate_kbps", func(t *pb.Template) {
			t.Roles[0].Publish.AudioParams = &pb.AudioParams{BitrateKbps: 5}
		}},
		{"roles[0].publish.video_params.width", func(t *pb.Template) {
			t.Roles[0].Publish.VideoParams = &pb.VideoParams{Width: 8000}
		}},
		{"roles[0].publish.video_params.codecs", func(t *pb.Template) {
			t.Roles[0].Publish.VideoParams = &pb.VideoParams{Codecs: []string{"h261"}}
		}},
		{"roles[0].publish.screen_params.layers[0].rid", func(t *pb.Template) {
			t.Roles[0].Publish.ScreenParams = &pb.VideoParams{Layers: []*pb.SimulcastLayer{{Rid: "x"}}}
		}},
		{"roles[0].publish.video_params.layers[1].scale_down_by", func(t *pb.Template) {
			t.Roles[0].Publish.VideoParams = &pb.VideoParams{Layers: []*pb.SimulcastLayer{{Rid: "f"}, {Rid: "h"}}}
		}},
		{"roles[0].publish.video_params.layers[0].scale_down_by", func(t *pb.Template) {
			t.Roles[0].Publish.VideoParams = &pb.VideoParams{Layers: []*pb.SimulcastLayer{{Rid: "f", ScaleDownBy: math.NaN()}}}
		}},
		{"roles[0].subscribe.roles", func(t *pb.Template) { t.Roles[0].Subscribe.Roles = []string{"nobody"} }},
		{"roles[0].subscribe.roles", func(t *pb.Template) { t.Roles[0].Subscribe.Roles = []string{"a", "a"} }},
		{"roles[0].subscribe.delivery", func(t *pb.Template) {
			t.Roles[0].Subscribe = &pb.SubscribeParams{Delivery: pb.Delivery_DELIVERY_HLS}
		}},
		{"roles[1].subscribe.stream", func(t *pb.Template) { t.Roles[1].Subscribe.Stream = "other" }},
		{"roles[1].subscribe.roles", func(t *pb.Template) { t.Roles[1].Subscribe.Roles = []string{"a"} }},
		{"roles[2].subscribe.delivery", func(t *pb.Template) { t.Roles[2].Subscribe = &pb.SubscribeParams{Delivery: 9} }},
		{"roles[2].subscribe.roles", func(t *pb.Template) { t.Roles[2].Subscribe = &pb.SubscribeParams{Roles: []string{"a"}} }},
		{"roles[2].stage_role", func(t *pb.Template) { t.Roles[2].StageRole = "c" }},
		{"roles[0].off_stage_role", func(t *pb.Template) { t.Roles[0].OffStageRole = "z" }},
		{"roles[2].permissions.write_store", func(t *pb.Template) {
			t.Roles[2].Permissions = &pb.Permissions{WriteStore: []string{strings.Repeat("k", 200)}}
		}},
		{"streams[0].name", func(t *pb.Template) { t.Streams[0].Name = "Main" }},
		{"streams[1].name", func(t *pb.Template) {
			t.Streams = append(t.Streams, &pb.StreamSettings{Roles: []string{"a"}})
		}},
		{"streams[0].roles", func(t *pb.Template) { t.Streams[0].Roles = nil }},
		{"streams[0].width", func(t *pb.Template) { t.Streams[0].Width = 641 }},
		{"streams[0].framerate", func(t *pb.Template) { t.Streams[0].Framerate = 60 }},
		{"streams[0].segment_ms", func(t *pb.Template) { t.Streams[0].PartMs = 700 }},
		{"streams[0].dvr_window_s", func(t *pb.Template) { t.Streams[0].DvrWindowS = 43201 }},
		{"streams[0].metadata_types", func(t *pb.Template) { t.Streams[0].MetadataTypes = []string{"chat", "a b"} }},
		{"streams[0].metadata_types", func(t *pb.Template) { t.Streams[0].MetadataTypes = make([]string, 17) }},
		{"streams[0].caption_languages", func(t *pb.Template) { t.Streams[0].CaptionLanguages = []string{"en", "en"} }},
		{"streams[0].caption_languages", func(t *pb.Template) { t.Streams[0].CaptionLanguages = []string{"../x"} }},
		{"streams[0].background", func(t *pb.Template) { t.Streams[0].Background = "black" }},
		{"streams[0].layout", func(t *pb.Template) { t.Streams[0].Layout = 99 }},
		{"streams[0].variants[0].width", func(t *pb.Template) {
			t.Streams[0].Variants = []*pb.StreamVariant{{Name: "x", Width: 1920, Height: 1080}}
		}},
		{"streams[0].variants[1].name", func(t *pb.Template) {
			t.Streams[0].Variants = []*pb.StreamVariant{{Name: "x"}, {Name: "x"}}
		}},
		{"destinations[0].name", func(t *pb.Template) { t.Destinations = []*pb.Destination{{Kind: pb.OutputKind_OUTPUT_KIND_RECORDING}} }},
		{"destinations[0].tracks", func(t *pb.Template) {
			t.Destinations = []*pb.Destination{{Name: "x", Kind: pb.OutputKind_OUTPUT_KIND_TRACKS, Tracks: &pb.TrackFilter{Sources: make([]string, 101)}}}
		}},
		{"destinations[0].kind", func(t *pb.Template) { t.Destinations = []*pb.Destination{{Name: "x"}} }},
		{"destinations[0].stream", func(t *pb.Template) {
			t.Destinations = []*pb.Destination{{Name: "x", Kind: pb.OutputKind_OUTPUT_KIND_RECORDING, Stream: "other"}}
		}},
		{"destinations[0].variant", func(t *pb.Template) {
			t.Destinations = []*pb.Destination{{Name: "x", Kind: pb.OutputKind_OUTPUT_KIND_RECORDING, Variant: "4k"}}
		}},
		{"destinations[0].url", func(t *pb.Template) {
			t.Destinations = []*pb.Destination{{Name: "x", Kind: pb.OutputKind_OUTPUT_KIND_PUSH, Url: "http://x"}}
		}},
		{"destinations[0].url", func(t *pb.Template) {
			t.Destinations = []*pb.Destination{{Name: "x", Kind: pb.OutputKind_OUTPUT_KIND_RECORDING, Url: "rtmp://x"}}
		}},
		{"destinations[0].tracks.roles", func(t *pb.Template) {
			t.Destinations = []*pb.Destination{{Name: "x", Kind: pb.OutputKind_OUTPUT_KIND_TRACKS, Tracks: &pb.TrackFilter{Roles: []string{"z"}}}}
		}},
		{"destinations[1].name", func(t *pb.Template) {
			d := &pb.Destination{Name: "x", Kind: pb.OutputKind_OUTPUT_KIND_PUSH, Url: "srt://x:9000"}
			t.Destinations = []*pb.Destination{d, d}
		}},
		{"destinations", func(t *pb.Template) {
			for i := range 5 {
				t.Destinations = append(t.Destinations, &pb.Destination{Name: fmt.Sprint("x", i), Kind: pb.OutputKind_OUTPUT_KIND_RECORDING, AutoStart: true})
			}
		}},
		{"limits.message_history", func(t *pb.Template) { t.Limits = &pb.RoomLimits{MessageHistory: 201} }},
		{"limits.max_store_bytes", func(t *pb.Template) { t.Limits = &pb.RoomLimits{MaxStoreBytes: 1 << 30} }},
	}
}

type mistake struct {
	field  string
	change func(*pb.Template)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range mistakes() {
		in := minimal()
		c.change(in)
		_, err := template.Complete(in)
		if proto.CodeOf(err) != proto.InvalidArgument || !strings.Contains(err.Error(), " "+c.field+": ") {
			t.Errorf("%s: got %v", c.field, err)
		}
	}
	if _, err := template.Complete(nil); proto.CodeOf(err) != proto.InvalidArgument {
		t.Errorf("nil: %v", err)
	}
	if _, err := template.Import(make([]byte, template.MaxJSON+1)); proto.CodeOf(err) != proto.MessageTooLarge {
		t.Errorf("too long: %v", err)
	}
	if _, err := template.Import([]byte(`{"name":"x","rolls":[]}`)); proto.CodeOf(err) != proto.InvalidArgument {
		t.Errorf("unknown field: %v", err)
	}
}

func FuzzImport(f *testing.F) {
	for _, name := range template.PresetNames() {
		data, err := template.Export(preset(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"name":"t","roles":[{"name":"a","publish":{"video":true,"videoParams":{"layers":[{"scaleDownBy":"NaN"}]}}}]}`))
	f.Add([]byte(`{"name":"t","roles":[{"name":"a"}],"streams":[{"roles":["a"]}],"destinations":[{"name":"x","kind":"OUTPUT_KIND_PUSH","url":"rtmp://x/a/b"},null]}`))
	f.Add([]byte(`{"roles":[null],"streams":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := template.Import(data)
		if err != nil {
			if c := proto.CodeOf(err); c != proto.InvalidArgument && c != proto.MessageTooLarge {
				t.Fatalf("code %q: %v", c, err)
			}
			return
		}
		again, err := template.Complete(got)
		if err != nil || !gproto.Equal(again, got) {
			t.Fatalf("what was accepted is not once more: %v", err)
		}
	})
}
