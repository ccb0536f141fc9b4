package tracks

import (
	"bytes"
	"fmt"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/vp9"
	mp4 "github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4/seekablebuffer"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mp4/codecs"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/movie"
	"github.com/amphi-sfu/amphi/hls/webm"
	"github.com/amphi-sfu/amphi/media/codec"
)

const (
	videoRate = 90_000
	audioRate = 48_000
	channels  = 2 // whatever a packet has, decoders give as many as they are asked for
)

// describe makes a WebM track of a keyframe.
func describe(f *frame) (webm.Track, error) {
	switch f.codec {
	case codec.Opus:
		return webm.Track{Codec: webm.Opus, Private: webm.OpusHead(channels), Channels: channels}, nil
	case codec.VP8:
		b := f.data
		if len(b) < 10 || !bytes.Equal(b[3:6], []byte{0x9d, 0x01, 0x2a}) {
			return webm.Track{}, fmt.Errorf("VP8 keyframe of %d bytes without a size", len(b))
		}
		return webm.Track{Codec: webm.VP8, Width: int(b[6]) | int(b[7]&0x3f)<<8, Height: int(b[8]) | int(b[9]&0x3f)<<8}, nil
	case codec.VP9:
		var h vp9.Header
		if err := h.Unmarshal(f.data); err != nil || h.FrameSize == nil {
			return webm.Track{}, fmt.Errorf("VP9 keyframe without a size: %w", err)
		}
		return webm.Track{Codec: webm.VP9, Width: int(h.FrameSize.FrameWidthMinus1) + 1, Height: int(h.FrameSize.FrameHeightMinus1) + 1}, nil
	case codec.AV1:
		return describeAV1(f.data)
	}
	return webm.Track{}, errCodec
}

// describeAV1 finds the sequence header, which CodecPrivate repeats (AV1 in ISOBMFF, section 2.3.3).
func describeAV1(b []byte) (webm.Track, error) {
	for len(b) > 1 {
		start := b
		kind, extended := b[0]>>3&15, b[0]&4 != 0
		b = b[1:]
		if extended {
			b = b[1:]
		}
		var size av1.LEB128
		n, err := size.Unmarshal(b)
		if err != nil || int(size) > len(b)-n {
			break
		}
		body := b[n : n+int(size)]
		b = b[n+int(size):]
		if kind != 1 { // a sequence header
			continue
		}
		var h av1.SequenceHeader
		if err := h.Unmarshal(append([]byte{start[0] &^ 2}, body...)); err != nil || len(h.SeqLevelIdx) == 0 {
			return webm.Track{}, fmt.Errorf("AV1 sequence header: %w", err)
		}
		c := &h.ColorConfig
		flags := bit(len(h.SeqTier) > 0 && h.SeqTier[0], 7) | bit(c.HighBitDepth, 6) | bit(c.BitDepth == 12, 5) | bit(c.MonoChrome, 4) |
			bit(c.SubsamplingX, 3) | bit(c.SubsamplingY, 2) | byte(c.ChromaSamplePosition)&3
		private := append([]byte{0x81, h.SeqProfile<<5 | h.SeqLevelIdx[0], flags, 0}, start[:len(start)-len(b)]...)
		return webm.Track{Codec: webm.AV1, Private: private, Width: int(h.MaxFrameWidthMinus1) + 1, Height: int(h.MaxFrameHeightMinus1) + 1}, nil
	}
	return webm.Track{}, fmt.Errorf("AV1 keyframe without a sequence header")
}

func bit(v bool, at int) byte {
	if v {
		return 1 << at
	}
	return 0
}

// opusEntry makes the MP4 track of Opus.
func opusEntry() (movie.Track, error) {
	init := mp4.Init{Tracks: []*mp4.InitTrack{{ID: 1, TimeScale: audioRate, Codec: &codecs.Opus{ChannelCount: channels}}}}
	var b seekablebuffer.Buffer
	if err := init.Marshal(&b); err != nil {
		return movie.Track{}, fmt.Errorf("describing Opus: %w", err)
	}
	return single(b.Bytes())
}

// h264Entry makes the MP4 track of an H.264 keyframe.
func h264Entry(sps, pps []byte) (movie.Track, error) {
	init, err := fmp4.VideoInit(sps, pps, videoRate, 1)
	if err != nil {
		return movie.Track{}, err
	}
	return single(init.Data)
}

func single(init []byte) (movie.Track, error) {
	tracks, err := movie.ParseInit(init)
	if err != nil {
		return movie.Track{}, err
	}
	return tracks[0], nil
}
