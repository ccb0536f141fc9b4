// Package hlstest has what tests of hls need and nothing else uses: a short
// encoded clip that loops, and a fake compositor that speaks hls/wire and sends
// the clip in time.
package hlstest

import (
	"bytes"
	_ "embed"
	"errors"
)

//go:embed testdata/clip.h264
var clipH264 []byte

//go:embed testdata/clip.aac
var clipAAC []byte

// The clip: 2 s, made with
//
//	ffmpeg -f lavfi -i testsrc2=size=320x180:rate=30 -frames:v 60 -c:v libx264 -preset veryfast -tune zerolatency
//	  -x264-params keyint=60:scenecut=0:aud=1:repeat-headers=1 -f h264 clip.h264
//	ffmpeg -f lavfi -i sine=frequency=440:sample_rate=48000:duration=2 -ac 2 -c:a aac -b:a 64k -f adts clip.aac
const (
	Width, Height = 320, 180
	FPS           = 30
	Frames        = 60 // the first is an IDR with SPS and PPS, the others are P
)

// AudioConfig is the AudioSpecificConfig of the clip: AAC-LC, 48 kHz, stereo.
func AudioConfig() []byte { return []byte{0x11, 0x90} }

// Clip is the encoded clip. Its slices must not be written to.
type Clip struct {
	Video [][]byte // access units, Annex B
	Audio [][]byte // raw data blocks of 1,024 samples
}

// Load splits the clip into access units.
func Load() (*Clip, error) {
	c := &Clip{}
	delimiter := []byte{0, 0, 0, 1, 9}
	for rest := clipH264; len(rest) > 0; {
		next := bytes.Index(rest[1:], delimiter)
		if next < 0 {
			c.Video = append(c.Video, rest)
			break
		}
		c.Video = append(c.Video, rest[:next+1])
		rest = rest[next+1:]
	}
	for rest := clipAAC; len(rest) >= 7; {
		n := int(rest[3]&3)<<11 | int(rest[4])<<3 | int(rest[5])>>5
		if n < 7 || n > len(rest) {
			return nil, errors.New("clip.aac is not ADTS")
		}
		c.Audio = append(c.Audio, rest[7:n])
		rest = rest[n:]
	}
	if len(c.Video) != Frames || len(c.Audio) < 90 {
		return nil, errors.New("clip has the wrong length")
	}
	return c, nil
}
