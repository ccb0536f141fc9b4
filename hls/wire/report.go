package wire

import "errors"

// Ready answers Start once the encoders stand.
type Ready struct {
	FirstTick   int64  `json:"first_tick"`   // of the first VideoAU, an IDR in every variant
	FirstSample int64  `json:"first_sample"` // of the first AudioAU
	AudioConfig []byte `json:"audio_config"` // AudioSpecificConfig (ISO 14496-3)
	Encoder     string `json:"encoder"`
	Version     string `json:"version"` // of the program and its libraries
}

// Validate says what is wrong with r.
func (r *Ready) Validate() error {
	if r.FirstTick < 0 || len(r.AudioConfig) < 2 {
		return errors.New("no first tick or audio configuration")
	}
	return nil
}

// Stats is what the compositor did since it started; counters only grow.
type Stats struct {
	UptimeNS int64            `json:"uptime_ns"`
	CPUNS    int64            `json:"cpu_ns"` // user and system time of the process
	RSSBytes int64            `json:"rss_bytes"`
	Tick     int64            `json:"tick"` // the newest
	Ticks    int64            `json:"ticks"`
	Late     int64            `json:"late"`  // ticks that began more than one tick too late
	Drops    map[string]int64 `json:"drops"` // by reason, what the program as a whole lost
	// Overload says how many ticks there are to a picture while the machine is too slow for one on every tick; 0: it is not.
	Overload int            `json:"overload"`
	Variants []VariantStats `json:"variants"`
	Inputs   []InputStats   `json:"inputs"`
	// CPU of the stages, in nanoseconds.
	PaintNS int64 `json:"paint_ns"`
	MixNS   int64 `json:"mix_ns"`
	AACNS   int64 `json:"aac_ns"`
}

// VariantStats is about one encoder.
type VariantStats struct {
	Name     string `json:"name"`
	Frames   int64  `json:"frames"`
	Keys     int64  `json:"keys"`
	Bytes    int64  `json:"bytes"`
	EncodeNS int64  `json:"encode_ns"` // CPU
	Preset   string `json:"preset"`
	// LatencyNS is the longest time from tick to access unit in the last second.
	LatencyNS int64 `json:"latency_ns"`
}

// InputStats is about one input.
type InputStats struct {
	Input      uint32           `json:"input"`
	Name       string           `json:"name,omitempty"`
	Codec      Codec            `json:"codec,omitempty"`
	Packets    int64            `json:"packets"`
	Lost       int64            `json:"lost"`
	Frames     int64            `json:"frames"` // decoded
	Keys       int64            `json:"keys"`
	Concealed  int64            `json:"concealed"` // audio samples made up
	Drops      map[string]int64 `json:"drops,omitempty"`
	DecodeNS   int64            `json:"decode_ns"` // CPU
	Width      int              `json:"width,omitempty"`
	Height     int              `json:"height,omitempty"`
	DelayNS    int64            `json:"delay_ns"` // playout delay above the least observed
	KeyframeRq int64            `json:"keyframe_requests"`
	Synced     bool             `json:"synced"` // by sender reports
}

// Validate accepts all statistics: they inform and decide nothing.
func (s *Stats) Validate() error { return nil }

// AppendReady appends a Ready frame to dst.
func AppendReady(dst []byte, r *Ready) ([]byte, error) { return appendJSON(dst, TypeReady, r) }

// AppendStats appends a Stats frame to dst.
func AppendStats(dst []byte, s *Stats) ([]byte, error) { return appendJSON(dst, TypeStats, s) }

// Ready decodes the body of a TypeReady frame.
func (f Frame) Ready() (*Ready, error) { return decode[Ready](f, TypeReady) }

// Stats decodes the body of a TypeStats frame.
func (f Frame) Stats() (*Stats, error) { return decode[Stats](f, TypeStats) }
