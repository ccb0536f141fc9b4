// Package fmp4 makes CMAF (ISO 23000-19) init sections and chunks for H.264 and
// AAC: one track per file, one moof+mdat per part; a segment is the concatenation
// of its parts. Pure: bytes in, bytes out.
package fmp4

import (
	"errors"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	mp4 "github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4/seekablebuffer"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"
)

// trackID of the only track; players join tracks by playlist, not by this.
const trackID = 1

// MaxSamples is the most samples of one part; far beyond a second of anything.
const MaxSamples = 1000

// ErrNoParameterSets is returned for an IDR whose SPS and PPS are nowhere.
var ErrNoParameterSets = errors.New("no SPS or PPS")

// AccessUnit is an H.264 access unit taken apart.
type AccessUnit struct {
	// SPS and PPS are nil when the access unit has none. They alias the input.
	SPS, PPS []byte
	// Data are the slices, each behind a 4-byte length (ISO 14496-15), without
	// parameter sets, delimiters and SEI. It is a copy.
	Data []byte
	// Key says that there is an IDR slice.
	Key bool
}

// ParseAnnexB takes an access unit in Annex B format apart.
func ParseAnnexB(b []byte) (AccessUnit, error) {
	var nalus h264.AnnexB
	if err := nalus.Unmarshal(b); err != nil {
		return AccessUnit{}, fmt.Errorf("splitting an access unit: %w", err)
	}
	var au AccessUnit
	slices := nalus[:0]
	for _, n := range nalus {
		switch h264.NALUType(n[0] & 0x1f) {
		case h264.NALUTypeSPS:
			au.SPS = n
		case h264.NALUTypePPS:
			au.PPS = n
		case h264.NALUTypeIDR:
			au.Key = true
			slices = append(slices, n)
		case h264.NALUTypeNonIDR, h264.NALUTypeDataPartitionA, h264.NALUTypeDataPartitionB, h264.NALUTypeDataPartitionC:
			slices = append(slices, n)
		}
	}
	if len(slices) == 0 {
		return AccessUnit{}, errors.New("access unit without a slice")
	}
	data, err := h264.AVCC(slices).Marshal()
	if err != nil {
		return AccessUnit{}, fmt.Errorf("joining slices: %w", err)
	}
	au.Data = data
	return au, nil
}

// Init is an init section and what the multivariant playlist says about it.
type Init struct {
	Data   []byte
	Codecs string // RFC 6381
	// Width and Height of the picture; 0 for audio.
	Width, Height int
	// Channels of audio.
	Channels int
	// Timescale is the ticks per second of the track's times.
	Timescale uint32
}

// VideoInit makes the init section of an H.264 track.
func VideoInit(sps, pps []byte, timescale uint32, bitrate int) (Init, error) {
	if len(sps) < 4 || len(pps) == 0 {
		return Init{}, ErrNoParameterSets
	}
	var parsed h264.SPS
	if err := parsed.Unmarshal(sps); err != nil {
		return Init{}, fmt.Errorf("parsing the SPS: %w", err)
	}
	data, err := marshalInit(timescale, bitrate, &codecs.H264{SPS: sps, PPS: pps})
	if err != nil {
		return Init{}, err
	}
	return Init{
		Data:   data,
		Codecs: fmt.Sprintf("avc1.%02x%02x%02x", sps[1], sps[2], sps[3]),
		Width:  parsed.Width(), Height: parsed.Height(),
		Timescale: timescale,
	}, nil
}

// AudioInit makes the init section of an AAC track from its AudioSpecificConfig
// (ISO 14496-3). The timescale is the sample rate.
func AudioInit(config []byte, bitrate int) (Init, error) {
	var asc mpeg4audio.AudioSpecificConfig
	if err := asc.Unmarshal(config); err != nil {
		return Init{}, fmt.Errorf("parsing the audio configuration: %w", err)
	}
	if asc.SampleRate <= 0 {
		return Init{}, errors.New("audio configuration without a sample rate")
	}
	data, err := marshalInit(uint32(asc.SampleRate), bitrate, &codecs.MPEG4Audio{Config: asc})
	if err != nil {
		return Init{}, err
	}
	return Init{Data: data, Codecs: fmt.Sprintf("mp4a.40.%d", asc.Type), Channels: channels(asc.ChannelConfig), Timescale: uint32(asc.SampleRate)}, nil
}

// channels of a channel configuration (ISO 14496-3); one that says nothing is stereo.
func channels(config uint8) int {
	switch {
	case config >= 1 && config <= 6:
		return int(config)
	case config == 7:
		return 8
	default:
		return 2
	}
}

func marshalInit(timescale uint32, bitrate int, c codecs.Codec) ([]byte, error) {
	if timescale == 0 || bitrate <= 0 {
		return nil, fmt.Errorf("timescale %d, bit rate %d", timescale, bitrate)
	}
	init := mp4.Init{Tracks: []*mp4.InitTrack{{
		ID: trackID, TimeScale: timescale, Codec: c, AvgBitrate: uint32(bitrate), MaxBitrate: uint32(bitrate),
	}}}
	var b seekablebuffer.Buffer
	if err := init.Marshal(&b); err != nil {
		return nil, fmt.Errorf("writing an init section: %w", err)
	}
	return b.Bytes(), nil
}

// Sample is one access unit on its way into a part.
type Sample struct {
	Data     []byte // AVCC slices or an AAC raw data block
	Duration uint32 // in the track's timescale
	Key      bool   // decodes by itself; always true for audio
}

// Part makes a moof+mdat. sequence counts parts from 1; baseTime is the time of the
// first sample in the track's timescale.
func Part(sequence uint32, baseTime uint64, samples []Sample) ([]byte, error) {
	if len(samples) == 0 || len(samples) > MaxSamples {
		return nil, fmt.Errorf("part of %d samples", len(samples))
	}
	list := make([]mp4.Sample, len(samples))
	refs := make([]*mp4.Sample, len(samples))
	for i, s := range samples {
		list[i] = mp4.Sample{Duration: s.Duration, IsNonSyncSample: !s.Key, Payload: s.Data}
		refs[i] = &list[i]
	}
	part := mp4.Part{SequenceNumber: sequence, Tracks: []*mp4.PartTrack{{ID: trackID, BaseTime: baseTime, Samples: refs}}}
	var b seekablebuffer.Buffer
	if err := part.Marshal(&b); err != nil {
		return nil, fmt.Errorf("writing a part: %w", err)
	}
	return b.Bytes(), nil
}

// SilentAAC returns an AAC-LC access unit of silence for an AudioSpecificConfig, as any
// encoder makes one of zeros; nil when the configuration is not mono or stereo AAC-LC.
func SilentAAC(config []byte) []byte {
	var asc mpeg4audio.AudioSpecificConfig
	if err := asc.Unmarshal(config); err != nil || asc.Type != mpeg4audio.ObjectTypeAACLC || asc.FrameLengthFlag {
		return nil
	}
	switch asc.ChannelConfig {
	case 1: // a single channel element with no spectrum
		return []byte{0x01, 0x18, 0x20, 0x07}
	case 2: // a channel pair element with no spectrum
		return []byte{0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c}
	default:
		return nil
	}
}
