package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// Limits on what control frames may ask for.
const (
	MaxVariants   = 6
	MaxInputs     = 200 // video and audio inputs together
	MaxTiles      = 64
	MaxSide       = 3840 // pixels of a canvas or a variant
	MaxLabelBytes = 256
	MaxGain       = 4
)

// grown is what a text of MaxLabelBytes may have after JSON, which replaces each byte
// that isn't UTF-8 by three: a name that was cut inside a character is no error.
const grown = 3 * MaxLabelBytes

// Start describes the program. It comes once, before everything else.
type Start struct {
	// EpochNS is the wall-clock time of tick 0 and of audio sample 0, in UNIX nanoseconds.
	EpochNS int64 `json:"epoch_ns"`
	Width   int   `json:"width"` // canvas, even pixels
	Height  int   `json:"height"`
	FPS     int   `json:"fps"` // ticks a second, 10–60
	// FirstTick is the earliest tick that may be sent; the program starts on the
	// first multiple of PartTicks that is not before it and not in the past.
	FirstTick int64 `json:"first_tick"`
	// GOPTicks is the keyframe grid: every tick that is a multiple of it is an IDR.
	GOPTicks  int `json:"gop_ticks"`
	PartTicks int `json:"part_ticks"`
	// Variants are encoded from one canvas; VideoAU.Variant is the index here.
	Variants     []Variant `json:"variants"`
	AudioBitrate int       `json:"audio_bitrate"` // bits a second, 32,000–320,000; 48 kHz stereo
	// Encoder is "x264" (default) or "openh264".
	Encoder string `json:"encoder,omitempty"`
	// Preset is x264's: "ultrafast", "superfast", "veryfast" (default), "faster", "fast", "medium".
	Preset string `json:"preset,omitempty"`
}

// Variant is one rung of the ladder.
type Variant struct {
	Name    string `json:"name"`
	Width   int    `json:"width"` // even pixels
	Height  int    `json:"height"`
	Bitrate int    `json:"bitrate"` // bits a second
}

// Validate says what is wrong with s, as the compositor will.
func (s *Start) Validate() error {
	switch {
	case s.EpochNS <= 0:
		return errors.New("epoch is not a time")
	case !side(s.Width) || !side(s.Height):
		return fmt.Errorf("canvas of %d×%d", s.Width, s.Height)
	case s.FPS < 10 || s.FPS > 60:
		return fmt.Errorf("%d ticks a second", s.FPS)
	case s.FirstTick < 0:
		return errors.New("first tick below 0")
	case s.PartTicks < 1 || s.GOPTicks < s.PartTicks || s.GOPTicks%s.PartTicks != 0 || s.GOPTicks > 60*s.FPS:
		return fmt.Errorf("keyframe grid of %d ticks and parts of %d", s.GOPTicks, s.PartTicks)
	case len(s.Variants) < 1 || len(s.Variants) > MaxVariants:
		return fmt.Errorf("%d variants", len(s.Variants))
	case s.AudioBitrate < 32_000 || s.AudioBitrate > 320_000:
		return fmt.Errorf("audio of %d bit/s", s.AudioBitrate)
	}
	switch s.Encoder {
	case "", "x264", "openh264":
	default:
		return fmt.Errorf("unknown encoder %q", s.Encoder)
	}
	switch s.Preset {
	case "", "ultrafast", "superfast", "veryfast", "faster", "fast", "medium":
	default:
		return fmt.Errorf("unknown preset %q", s.Preset)
	}
	for _, v := range s.Variants {
		if !side(v.Width) || !side(v.Height) || v.Bitrate < 50_000 || v.Bitrate > 50_000_000 {
			return fmt.Errorf("variant %q of %d×%d at %d bit/s", v.Name, v.Width, v.Height, v.Bitrate)
		}
	}
	return nil
}

func side(n int) bool { return n >= 16 && n <= MaxSide && n%2 == 0 }

// Kind is what an input carries.
type Kind string

// Kinds of inputs.
const (
	Video Kind = "video"
	Audio Kind = "audio"
)

// Codec names a payload format.
type Codec string

// Codecs that the compositor decodes.
const (
	VP8  Codec = "vp8"
	VP9  Codec = "vp9"
	H264 Codec = "h264"
	AV1  Codec = "av1"
	Opus Codec = "opus"
)

// Format says what one RTP payload type carries.
type Format struct {
	PayloadType uint8  `json:"pt"`
	Codec       Codec  `json:"codec"`
	ClockRate   uint32 `json:"clock_rate"`
}

// AddInput announces one track. Its packets may change SSRC and payload type at
// any time (another layer, another codec); the old picture stays until the new
// stream decodes.
type AddInput struct {
	ID      uint32   `json:"id"` // chosen by the node, not 0
	Kind    Kind     `json:"kind"`
	Formats []Format `json:"formats"`
	// Sync is the same for inputs that must play in step (audio and video of a
	// peer's camera; those of its screen share). Empty: on its own.
	Sync string `json:"sync,omitempty"`
	// Name is for statistics and logs only, such as the track id.
	Name string `json:"name,omitempty"`
}

// Validate says what is wrong with a.
func (a *AddInput) Validate() error {
	switch {
	case a.ID == 0:
		return errors.New("input 0")
	case a.Kind != Video && a.Kind != Audio:
		return fmt.Errorf("unknown kind %q", a.Kind)
	case len(a.Formats) < 1 || len(a.Formats) > 16:
		return fmt.Errorf("%d formats", len(a.Formats))
	case len(a.Sync) > grown || len(a.Name) > grown:
		return errors.New("name too long")
	}
	for _, f := range a.Formats {
		switch f.Codec {
		case VP8, VP9, H264, AV1:
			if a.Kind != Video {
				return fmt.Errorf("%s on an %s input", f.Codec, a.Kind)
			}
		case Opus:
			if a.Kind != Audio {
				return fmt.Errorf("%s on a %s input", f.Codec, a.Kind)
			}
		default:
			return fmt.Errorf("unknown codec %q", f.Codec)
		}
		if f.PayloadType > 127 || f.ClockRate < 8000 || f.ClockRate > 192_000 {
			return fmt.Errorf("payload type %d at %d Hz", f.PayloadType, f.ClockRate)
		}
	}
	return nil
}

// Fit says how a picture fills a tile of another shape.
type Fit string

// Fits. Cover crops, contain leaves bars.
const (
	Cover   Fit = "cover"
	Contain Fit = "contain"
)

// Scene is the whole picture. Tiles are painted in order, later ones on top.
type Scene struct {
	Background string `json:"background,omitempty"` // "#rrggbb"
	// Picture is the key of one that covers the background; until it has come there is only the colour.
	Picture   string `json:"picture,omitempty"`
	Logo      *Logo  `json:"logo,omitempty"`
	Highlight string `json:"highlight,omitempty"` // "#rrggbb" around who speaks; empty is green
	// FadeMS is how long this scene takes to replace the one before, where they differ; 0 is at once.
	FadeMS int    `json:"fade_ms,omitempty"`
	Tiles  []Tile `json:"tiles"`
}

// Tile is one peer's rectangle, in canvas pixels; odd values are rounded down to even ones.
type Tile struct {
	Input uint32 `json:"input"` // video input, 0 for none: the placeholder is shown
	X     int    `json:"x"`
	Y     int    `json:"y"`
	W     int    `json:"w"`
	H     int    `json:"h"`
	Fit   Fit    `json:"fit,omitempty"`   // Cover when empty
	Label string `json:"label,omitempty"` // UTF-8, drawn at the lower left
	// Muted draws a mute icon beside the label; Speaking a border.
	Muted    bool `json:"muted,omitempty"`
	Speaking bool `json:"speaking,omitempty"`
	// Placeholder is shown instead of video that is absent, muted or stale.
	Placeholder Placeholder `json:"placeholder"`
}

// Placeholder stands for a picture that isn't there.
type Placeholder struct {
	Initials string `json:"initials,omitempty"` // at most 8 bytes of UTF-8 make sense
	Colour   string `json:"colour,omitempty"`   // "#rrggbb"; derived from the initials when empty
	// Always shows the placeholder even while the input has frames (video muted).
	Always bool `json:"always,omitempty"`
}

// Validate says what is wrong with s. A tile may reach beyond the canvas; it is
// clipped. An input that isn't (yet) known shows the placeholder.
func (s *Scene) Validate() error {
	if len(s.Tiles) > MaxTiles {
		return fmt.Errorf("%d tiles", len(s.Tiles))
	}
	if !colour(s.Background) {
		return fmt.Errorf("background %q", s.Background)
	}
	if err := s.validateLook(); err != nil {
		return err
	}
	for i := range s.Tiles {
		t := &s.Tiles[i]
		switch {
		case t.W < 2 || t.H < 2 || t.W > MaxSide || t.H > MaxSide,
			t.X < -MaxSide || t.X > MaxSide || t.Y < -MaxSide || t.Y > MaxSide:
			return fmt.Errorf("tile %d of %d×%d at %d,%d", i, t.W, t.H, t.X, t.Y)
		case t.Fit != "" && t.Fit != Cover && t.Fit != Contain:
			return fmt.Errorf("tile %d: unknown fit %q", i, t.Fit)
		case len(t.Label) > grown || len(t.Placeholder.Initials) > grown:
			return fmt.Errorf("tile %d: text too long", i)
		case !colour(t.Placeholder.Colour):
			return fmt.Errorf("tile %d: colour %q", i, t.Placeholder.Colour)
		}
	}
	return nil
}

// colour tells whether s is empty or "#rrggbb".
func colour(s string) bool {
	if s == "" {
		return true
	}
	if len(s) != 7 || s[0] != '#' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return true
}

// AudioMix lists the audio inputs that are heard; all others are silent.
type AudioMix struct {
	Inputs []Gain `json:"inputs"`
}

// Gain is the linear gain of an input, 0–MaxGain; 1 leaves it as it is.
type Gain struct {
	Input uint32  `json:"input"`
	Gain  float64 `json:"gain"`
}

// Validate says what is wrong with m.
func (m *AudioMix) Validate() error {
	if len(m.Inputs) > MaxInputs {
		return fmt.Errorf("%d inputs in the mix", len(m.Inputs))
	}
	for _, g := range m.Inputs {
		if !(g.Gain >= 0 && g.Gain <= MaxGain) {
			return fmt.Errorf("gain %v of input %d", g.Gain, g.Input)
		}
	}
	return nil
}

// AppendStart appends a Start frame to dst.
func AppendStart(dst []byte, s *Start) ([]byte, error) { return appendJSON(dst, TypeStart, s) }

// AppendAddInput appends an AddInput frame to dst.
func AppendAddInput(dst []byte, a *AddInput) ([]byte, error) {
	return appendJSON(dst, TypeAddInput, a)
}

// AppendScene appends a Scene frame to dst.
func AppendScene(dst []byte, s *Scene) ([]byte, error) { return appendJSON(dst, TypeScene, s) }

// AppendAudioMix appends an AudioMix frame to dst.
func AppendAudioMix(dst []byte, m *AudioMix) ([]byte, error) {
	return appendJSON(dst, TypeAudioMix, m)
}

// AppendRemoveInput appends a RemoveInput frame to dst.
func AppendRemoveInput(dst []byte, input uint32) []byte {
	from := len(dst)
	return seal(binary.BigEndian.AppendUint32(open(dst, TypeRemoveInput), input), from)
}

// AppendForceKeyframe appends a ForceKeyframe frame to dst.
func AppendForceKeyframe(dst []byte) []byte {
	return seal(open(dst, TypeForceKeyframe), len(dst))
}

// Start decodes and validates the body of a TypeStart frame.
func (f Frame) Start() (*Start, error) { return decode[Start](f, TypeStart) }

// AddInput decodes and validates the body of a TypeAddInput frame.
func (f Frame) AddInput() (*AddInput, error) { return decode[AddInput](f, TypeAddInput) }

// Scene decodes and validates the body of a TypeScene frame.
func (f Frame) Scene() (*Scene, error) { return decode[Scene](f, TypeScene) }

// AudioMix decodes and validates the body of a TypeAudioMix frame.
func (f Frame) AudioMix() (*AudioMix, error) { return decode[AudioMix](f, TypeAudioMix) }

// RemoveInput decodes the body of a TypeRemoveInput frame.
func (f Frame) RemoveInput() (input uint32, err error) {
	if f.Type != TypeRemoveInput || len(f.Body) != 4 {
		return 0, malformed(f.Type, "not an input")
	}
	return binary.BigEndian.Uint32(f.Body), nil
}

// validated is a pointer to T that can check itself.
type validated[T any] interface {
	*T
	Validate() error
}

func decode[T any, P validated[T]](f Frame, t Type) (*T, error) {
	v := new(T)
	if f.Type != t {
		return nil, malformed(f.Type, fmt.Sprintf("wanted type %d", t))
	}
	if err := json.Unmarshal(f.Body, v); err != nil {
		return nil, malformed(t, err.Error())
	}
	if err := P(v).Validate(); err != nil {
		return nil, malformed(t, err.Error())
	}
	return v, nil
}
