package rtmp

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/bluenviron/gortmplib/pkg/message"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
)

const (
	// patience is how long one kind of media waits for the other to say what it is.
	patience = time.Second
	// jump and back are steps of the encoder's time that are taken for a new beginning.
	jump = 5 * time.Second
	back = time.Second
	// pause is put in the place of such a step.
	pause = 100 * time.Millisecond
	// wrapped is where RTMP's composition times become negative (24 bits, in ms).
	wrapped = 1 << 23 * time.Millisecond
)

// demux takes messages apart and hands what is media to a publication.
type demux struct {
	to       Publication
	format   Format
	begun    bool
	waiting  bool // the first time has been seen
	first    time.Duration
	line     timeline
	scratch  []byte
	sps, pps []byte // as they are now
}

// take handles one message and says how many bytes of media it had.
func (d *demux) take(ctx context.Context, m message.Message) (int, error) {
	switch m := m.(type) {
	case *message.Video:
		return d.video(ctx, m)
	case *message.Audio:
		return d.audio(ctx, m)
	case *message.VideoExSequenceStart, *message.VideoExCodedFrames, *message.VideoExFramesX, *message.VideoExMultitrack,
		*message.AudioExSequenceStart, *message.AudioExCodedFrames, *message.AudioExMultitrack:
		return 0, errMedia
	}
	return 0, nil
}

func (d *demux) video(ctx context.Context, m *message.Video) (int, error) {
	if m.Codec != message.CodecH264 {
		return 0, errMedia
	}
	switch m.Type {
	case message.VideoTypeConfig:
		c := m.AVCConfig
		if c == nil || len(c.SequenceParameterSets) == 0 || len(c.PictureParameterSets) == 0 || c.LengthSizeMinusOne != 3 {
			return 0, errMedia
		}
		sps, pps := c.SequenceParameterSets[0].NALUnit, c.PictureParameterSets[0].NALUnit
		var parsed h264.SPS
		if len(sps) < 4 || len(pps) == 0 || parsed.Unmarshal(sps) != nil {
			return 0, errMedia
		}
		w, h := parsed.Width(), parsed.Height()
		if d.begun && (d.format.SPS == nil || sps[1] != d.format.SPS[1] || w != d.format.Width || h != d.format.Height) {
			return 0, errChanged
		}
		d.sps, d.pps, d.format.Width, d.format.Height = sps, pps, w, h
		return len(sps) + len(pps), nil
	case message.VideoTypeAU:
		at, ok, err := d.ready(ctx, m.DTS)
		if err != nil || !ok || d.format.SPS == nil || d.sps == nil {
			return len(m.AU), err
		}
		delta := m.PTSDelta
		if delta >= wrapped {
			delta -= 2 * wrapped
		}
		var key bool
		d.scratch, key, err = appendAnnexB(d.scratch[:0], m.AU, d.sps, d.pps)
		if err != nil {
			return len(m.AU), err
		}
		if len(d.scratch) > 0 {
			d.to.Video(max(at+delta, 0), key, d.scratch)
		}
		return len(m.AU), nil
	}
	return 0, nil
}

func (d *demux) audio(ctx context.Context, m *message.Audio) (int, error) {
	if m.Codec != message.CodecMPEG4Audio {
		return 0, errMedia
	}
	if m.AACType == message.AudioAACTypeConfig {
		if m.AACConfig == nil || d.format.AudioConfig != nil {
			return 0, nil // said again
		}
		b, err := m.AACConfig.Marshal()
		if err != nil {
			return 0, errMedia
		}
		if !d.begun {
			d.format.AudioConfig = b
		}
		return len(b), nil
	}
	at, ok, err := d.ready(ctx, m.DTS)
	if err == nil && ok && d.format.AudioConfig != nil && len(m.AU) > 0 {
		d.to.Audio(at, m.AU)
	}
	return len(m.AU), err
}

// ready begins the publication when it is known what it consists of, and says when a unit is.
func (d *demux) ready(ctx context.Context, dts time.Duration) (at time.Duration, ok bool, err error) {
	at = d.line.at(dts)
	if d.begun {
		return at, true, nil
	}
	if !d.waiting {
		d.waiting, d.first = true, at
	}
	both := d.sps != nil && d.format.AudioConfig != nil
	either := d.sps != nil || d.format.AudioConfig != nil
	if !both && (!either || at-d.first < patience) {
		return at, false, nil
	}
	d.format.SPS, d.format.PPS = d.sps, d.pps
	if err := d.to.Begin(ctx, d.format); err != nil {
		return at, false, err
	}
	d.begun = true
	return at, true, nil
}

// timeline turns the encoder's times into ones without steps.
type timeline struct {
	begun  bool
	last   time.Duration // that came
	offset time.Duration
}

func (l *timeline) at(t time.Duration) time.Duration {
	if !l.begun {
		l.begun, l.last, l.offset = true, t, -t
	}
	if d := t - l.last; d > jump || d < -back {
		l.offset = l.last + l.offset + pause - t
	}
	l.last = t
	return max(t+l.offset, 0)
}

// start begins a unit of the byte stream format (H.264 annex B).
const start = "\x00\x00\x00\x01"

// appendAnnexB appends an access unit whose units stand behind 4-byte lengths (ISO 14496-15) in the byte stream format. Before an
// IDR slice come the parameter sets, which encoders leave out. It returns nothing for an access unit without a slice.
func appendAnnexB(dst, au, sps, pps []byte) (out []byte, key bool, err error) {
	slices := 0
	for rest := au; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, false, errMedia
		}
		n := int64(binary.BigEndian.Uint32(rest))
		if n > int64(len(rest)-4) {
			return nil, false, errMedia
		}
		unit := rest[4 : 4+n]
		rest = rest[4+n:]
		if len(unit) == 0 {
			continue
		}
		switch unit[0] & 0x1f {
		case 5:
			if !key {
				dst = append(append(append(append(dst, start...), sps...), start...), pps...)
			}
			key = true
			slices++
		case 1:
			slices++
		case 6: // SEI
		default: // parameter sets come with each IDR; delimiters and filler serve nobody
			continue
		}
		dst = append(append(dst, start...), unit...)
	}
	if slices == 0 {
		return dst[:0], false, nil
	}
	return dst, key, nil
}
