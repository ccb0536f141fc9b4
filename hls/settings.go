package hls

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/hls/layout"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/wire"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// Settings of a program. The zero value is 720p at 30 frames per second, one variant of
// 2.5 Mbit/s, parts of 0.5 s and segments of 2 s.
type Settings struct {
	// Width and Height of the canvas in pixels, even; default 1280×720. Height above width is portrait.
	Width, Height int
	// FPS is 10–60 and divides 48,000; default 30.
	FPS int
	// Variants are the rungs of the ladder, best first; default one of the canvas's size.
	Variants []packager.Variant
	// AudioBitrate in bit/s, 32,000–320,000; default 128,000.
	AudioBitrate int
	Layout       layout.Mode
	// Options of the layout; nil for the defaults. Not written to.
	Options    *amphiv1.LayoutOptions
	Background string // "#rrggbb"; default black
	HideNames  bool
	// Part is how long a part is, 200 ms–1 s; default 500 ms. Segment is how long a segment
	// is, 1–6 s, and a keyframe's distance; default four parts. Both are rounded to the grid.
	Part, Segment time.Duration
	// HoldBack is how far from the end players stay; default three parts.
	HoldBack time.Duration
	// Window is how many segments are listed; default 15.
	Window int
	// DVR is how far viewers can go back, at most 12 h; 0 is Window. Event lets them go back to the beginning, as far as DVR, whose
	// default then is 12 h.
	DVR   time.Duration
	Event bool
	// Captions are the languages of captions that may come.
	Captions []string
	// Encoder and Preset as in wire.Start, but that the default preset is superfast.
	Encoder, Preset string
}

// maxDVR bounds how far viewers can go back.
const maxDVR = 12 * time.Hour

const (
	defaultBitrate = 2_500_000
	// defaultPreset looks like veryfast for a quarter less CPU; DESIGN.md has the figures.
	defaultPreset = "superfast"
)

func (s Settings) withDefaults() (Settings, error) {
	if s.Width == 0 && s.Height == 0 {
		s.Width, s.Height = 1280, 720
	}
	if s.FPS == 0 {
		s.FPS = 30
	}
	if s.AudioBitrate == 0 {
		s.AudioBitrate = 128_000
	}
	if s.Preset == "" {
		s.Preset = defaultPreset
	}
	if s.Part == 0 {
		s.Part = 500 * time.Millisecond
	}
	if s.Segment == 0 {
		s.Segment = 4 * s.Part
	}
	if len(s.Variants) == 0 {
		s.Variants = []packager.Variant{{Bitrate: defaultBitrate}}
	}
	s.Variants = append([]packager.Variant(nil), s.Variants...)
	for i := range s.Variants {
		v := &s.Variants[i]
		if v.Width == 0 && v.Height == 0 {
			v.Width, v.Height = s.Width, s.Height
		}
		if v.Name == "" {
			v.Name = fmt.Sprintf("%dp", min(v.Width, v.Height))
		}
	}
	if s.Part < 200*time.Millisecond || s.Part > time.Second || s.Segment < time.Second || s.Segment > 6*time.Second || s.Segment < s.Part {
		return s, fmt.Errorf("parts of %v and segments of %v", s.Part, s.Segment)
	}
	if s.DVR < 0 || s.DVR > maxDVR {
		return s, fmt.Errorf("a window of %v", s.DVR)
	}
	if err := checkLook(s.Layout, s.Options); err != nil {
		return s, err
	}
	scene := wire.Scene{Background: s.Background}
	return s, scene.Validate()
}

// grid is the length of a part and of a segment in ticks.
func (s *Settings) grid() (part, segment int) {
	part = max(1, int(math.Round(s.Part.Seconds()*float64(s.FPS))))
	return part, part * max(1, int(math.Round(float64(s.Segment)/float64(s.Part))))
}

func (s *Settings) start() wire.Start {
	part, segment := s.grid()
	w := wire.Start{
		Width: s.Width, Height: s.Height, FPS: s.FPS, GOPTicks: segment, PartTicks: part,
		AudioBitrate: s.AudioBitrate, Encoder: s.Encoder, Preset: s.Preset,
	}
	for _, v := range s.Variants {
		w.Variants = append(w.Variants, wire.Variant{Name: v.Name, Width: v.Width, Height: v.Height, Bitrate: v.Bitrate})
	}
	return w
}

// SettingsOf reads what a template says about a stream.
func SettingsOf(p *amphiv1.StreamSettings) (Settings, error) {
	s := Settings{
		Width: int(p.GetWidth()), Height: int(p.GetHeight()), FPS: int(p.GetFramerate()),
		AudioBitrate: int(p.GetAudioBitrateKbps()) * 1000, Background: p.GetBackground(), HideNames: p.GetHideNames(),
		Part:    time.Duration(p.GetPartMs()) * time.Millisecond,
		Segment: time.Duration(p.GetSegmentMs()) * time.Millisecond,
		DVR:     time.Duration(p.GetDvrWindowS()) * time.Second, Event: p.GetEventPlaylist(), Captions: p.GetCaptionLanguages(),
		Layout:  LayoutOf(p.GetLayout()),
		Options: p.GetLayoutOptions(),
	}
	// Frame rates between the ones that divide the audio's rate are lowered to the next.
	for s.FPS > 10 && packager.AudioRate%s.FPS != 0 {
		s.FPS--
	}
	for _, v := range p.GetVariants() {
		s.Variants = append(s.Variants, packager.Variant{
			Name: strings.ToLower(v.GetName()), Width: int(v.GetWidth()), Height: int(v.GetHeight()), Bitrate: int(v.GetBitrateKbps()) * 1000,
		})
	}
	return s.withDefaults()
}

// LayoutOf translates the protocol's layout.
func LayoutOf(k amphiv1.LayoutKind) layout.Mode {
	switch k {
	case amphiv1.LayoutKind_LAYOUT_KIND_GRID:
		return layout.Grid
	case amphiv1.LayoutKind_LAYOUT_KIND_ACTIVE_SPEAKER:
		return layout.ActiveSpeaker
	case amphiv1.LayoutKind_LAYOUT_KIND_SCREEN:
		return layout.ScreenShare
	case amphiv1.LayoutKind_LAYOUT_KIND_SINGLE:
		return layout.Single
	case amphiv1.LayoutKind_LAYOUT_KIND_PICTURE_IN_PICTURE:
		return layout.PictureInPicture
	default:
		return layout.Auto
	}
}
