package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// Frames between a node and a transcoder: amphi-compositor started with --transcode, which makes what a publisher
// sends into what a room carries.
const (
	TypeTranscode   Type = 20 // Transcode, JSON; first and once
	TypeSourceVideo Type = 21 // i64 time in ns, H.264 Annex B, in decoding order
	TypeSourceAudio Type = 22 // i64 time in ns, AAC raw data block
	TypeTargetVideo Type = 80 // u8 flags (1 = IDR), i64 time in ns, H.264 constrained baseline, Annex B
	TypeTargetAudio Type = 81 // u8 level in −dBov (RFC 6464), i64 time in ns, Opus packet of 20 ms
)

const (
	sourceHead = 8
	targetHead = 9
	maxOpus    = 1500
)

// Transcode says what comes and what is to be made of it.
type Transcode struct {
	// Video: access units come. The picture becomes at most MaxWidth × MaxHeight at FPS, in Bitrate bit/s, with a keyframe
	// at least every KeyframeEvery and whenever ForceKeyframe asks.
	Video               bool
	MaxWidth, MaxHeight int
	FPS, Bitrate        int
	KeyframeEvery       time.Duration
	// AudioConfig is the AudioSpecificConfig (ISO 14496-3) of the AAC that comes, nil when none does; AudioBitrate is that of
	// the Opus stream in bit/s.
	AudioConfig  []byte
	AudioBitrate int
}

// Unit is an access unit of a publisher, or what a transcoder made of it. Data aliases the frame.
type Unit struct {
	Time  time.Duration // on the publisher's time line: when it is shown or heard
	Key   bool          // TypeTargetVideo only
	Level uint8         // TypeTargetAudio only
	Data  []byte
}

// AppendTranscode appends a Transcode frame to dst.
func AppendTranscode(dst []byte, t *Transcode) ([]byte, error) {
	return appendJSON(dst, TypeTranscode, t)
}

// Transcode decodes and checks the body of a TypeTranscode frame.
func (f Frame) Transcode() (*Transcode, error) {
	if f.Type != TypeTranscode {
		return nil, malformed(f.Type, "not a transcode")
	}
	t := new(Transcode)
	if err := json.Unmarshal(f.Body, t); err != nil {
		return nil, fmt.Errorf("decoding frame type %d: %w: %w", f.Type, ErrMalformed, err)
	}
	switch {
	case !t.Video && len(t.AudioConfig) == 0:
		return nil, malformed(f.Type, "nothing to transcode")
	case t.Video && (t.MaxWidth < 16 || t.MaxHeight < 16 || t.MaxWidth > 4096 || t.MaxHeight > 4096):
		return nil, malformed(f.Type, "size")
	case t.Video && (t.FPS < 5 || t.FPS > 60 || t.Bitrate < 30_000 || t.Bitrate > 50_000_000 || t.KeyframeEvery <= 0):
		return nil, malformed(f.Type, "rate")
	case len(t.AudioConfig) > 64 || len(t.AudioConfig) > 0 && (t.AudioBitrate < 6000 || t.AudioBitrate > 510_000):
		return nil, malformed(f.Type, "audio")
	}
	return t, nil
}

// AppendUnit appends a unit as a frame of type t, which is one of the four above, to dst.
func AppendUnit(dst []byte, t Type, u Unit) ([]byte, error) {
	most, ok := limit(t)
	head := unitHead(t)
	if !ok || head == 0 || head+len(u.Data) > most {
		return dst, fmt.Errorf("encoding frame type %d of %d bytes: %w", t, len(u.Data), ErrTooLong)
	}
	from := len(dst)
	dst = open(dst, t)
	switch {
	case t == TypeTargetAudio:
		dst = append(dst, u.Level)
	case t == TypeTargetVideo && u.Key:
		dst = append(dst, 1)
	case t == TypeTargetVideo:
		dst = append(dst, 0)
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(u.Time))
	return seal(append(dst, u.Data...), from), nil
}

func unitHead(t Type) int {
	switch t {
	case TypeSourceVideo, TypeSourceAudio:
		return sourceHead
	case TypeTargetVideo, TypeTargetAudio:
		return targetHead
	}
	return 0
}

// Unit decodes the body of one of the four frames that carry units.
func (f Frame) Unit() (Unit, error) {
	head := unitHead(f.Type)
	if head == 0 || len(f.Body) <= head {
		return Unit{}, malformed(f.Type, "no unit")
	}
	u := Unit{Time: time.Duration(binary.BigEndian.Uint64(f.Body[head-8:])), Data: f.Body[head:]}
	switch {
	case f.Type == TypeTargetAudio:
		if u.Level = f.Body[0]; u.Level > 127 {
			return Unit{}, malformed(f.Type, "level")
		}
	case f.Type == TypeTargetVideo:
		if u.Key = f.Body[0] == 1; f.Body[0] > 1 {
			return Unit{}, malformed(f.Type, "flags")
		}
	}
	if u.Time < 0 {
		return Unit{}, malformed(f.Type, "time")
	}
	return u, nil
}
