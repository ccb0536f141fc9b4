//go:build cgo

package transcode

import (
	"image"
	"math"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/hls/wire"
)

func rect(w, h int) image.Rectangle { return image.Rect(0, 0, w, h) }

const sampleRate = 48000

// drift is how far sound may be from its announced time: RTMP's times are whole milliseconds, and encoders round them
// as they like. Beyond it there was a gap.
const drift = 60 * time.Millisecond

// audio makes Opus of AAC. Its time counts samples.
type audio struct {
	send    func(wire.Type, wire.Unit) error
	config  []byte
	decoder *av.AACDecoder
	encoder *av.OpusEncoder
	faults  int
	started bool
	next    int64     // sample that pending begins with
	pending []float32 // interleaved
}

func newAudio(cfg *wire.Transcode, send func(wire.Type, wire.Unit) error) (*audio, error) {
	a := &audio{send: send, config: cfg.AudioConfig}
	var err error
	if a.decoder, err = av.NewAACDecoder(cfg.AudioConfig); err != nil {
		return nil, err
	}
	if a.encoder, err = av.NewOpusEncoder(cfg.AudioBitrate); err != nil {
		a.decoder.Close()
		return nil, err
	}
	return a, nil
}

func (a *audio) close() {
	a.decoder.Close()
	a.encoder.Close()
}

// take decodes an access unit and sends the packets that are full.
func (a *audio) take(u wire.Unit) error {
	samples, err := a.decoder.Decode(u.Data)
	if err != nil {
		return a.fault()
	}
	a.faults = 0
	at := int64(u.Time)/int64(time.Second)*sampleRate + int64(u.Time)%int64(time.Second)*sampleRate/int64(time.Second)
	expected := a.next + int64(len(a.pending)/2)
	if d := at - expected; !a.started || d > samplesOf(drift) || d < -samplesOf(drift) {
		a.started, a.next, a.pending = true, at, a.pending[:0]
	}
	a.pending = append(a.pending, samples...)
	for len(a.pending) >= 2*av.OpusFrame {
		frame := a.pending[:2*av.OpusFrame]
		packet, err := a.encoder.Encode(frame)
		if err != nil {
			return err
		}
		t := time.Duration(a.next/sampleRate)*time.Second + time.Duration(a.next%sampleRate)*time.Second/sampleRate
		if err := a.send(wire.TypeTargetAudio, wire.Unit{Time: max(t, 0), Level: level(frame), Data: packet}); err != nil {
			return err
		}
		a.next += av.OpusFrame
		a.pending = a.pending[:copy(a.pending, a.pending[2*av.OpusFrame:])]
	}
	return nil
}

// fault makes a new decoder after too many access units in a row that made no sense.
func (a *audio) fault() error {
	if a.faults++; a.faults < maxFaults {
		return nil
	}
	a.faults = 0
	fresh, err := av.NewAACDecoder(a.config)
	if err != nil {
		return err
	}
	a.decoder.Close()
	a.decoder = fresh
	return nil
}

func samplesOf(d time.Duration) int64 { return int64(d) * sampleRate / int64(time.Second) }

// level is the loudness of samples in −dBov, 0 to 127 (RFC 6464).
func level(samples []float32) uint8 {
	var sum float64
	for _, s := range samples {
		sum += float64(s) * float64(s)
	}
	rms := math.Sqrt(sum / float64(len(samples)))
	if rms < 1e-6 {
		return 127
	}
	return uint8(min(max(-20*math.Log10(rms), 0), 127))
}
