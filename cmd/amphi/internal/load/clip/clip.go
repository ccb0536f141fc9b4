// Package clip holds what the load generator publishes: encoded frames cut into RTP payloads, made
// ahead, and an index by which a receiver recognises each payload again.
package clip

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/pion/webrtc/v4/pkg/media/ivfreader"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"
)

// MaxPayload is the longest payload without the VP8 descriptor, in bytes.
const MaxPayload = 1100

// AudioInterval is the length of one audio frame.
const AudioInterval = 20 * time.Millisecond

// Payload is one packet's worth of an encoded frame.
type Payload struct {
	Data []byte
	// Index is the payload's place among all of the clip.
	Index int
	// First and Last in its frame; Key if that is a keyframe.
	First, Last, Key bool
}

// Layer is one simulcast encoding; its first frame, and it alone, is a keyframe.
type Layer struct {
	RID           string
	Width, Height int
	BitrateKbps   int
	Frames        [][]Payload
}

// Clip is a video of one or more layers, lowest first, and audio, to be played in a loop. It is
// read-only once made.
type Clip struct {
	FrameInterval time.Duration
	Layers        []Layer
	// Audio holds Opus packets.
	Audio [][]byte
	// Payloads is how many video payloads there are in all layers.
	Payloads int

	index map[key]Payload
}

//go:embed f.ivf
var full []byte

//go:embed h.ivf
var half []byte

//go:embed q.ivf
var quarter []byte

//go:embed a.ogg
var audio []byte

// Builtin is the clip in the binary: 4 s of VP8 at 30 frames/s in three layers (640x360, 320x180, 160x90) and Opus.
// Only the best layer is kept when simulcast is false.
func Builtin(simulcast bool) (*Clip, error) {
	c := &Clip{FrameInterval: time.Second / 30}
	sources := []struct {
		rid  string
		data []byte
	}{{"q", quarter}, {"h", half}, {"f", full}}
	if !simulcast {
		sources = sources[2:]
		sources[0].rid = ""
	}
	for _, src := range sources {
		l, err := readLayer(src.rid, src.data)
		if err != nil {
			return nil, fmt.Errorf("reading the built-in clip: %w", err)
		}
		c.Layers = append(c.Layers, l)
	}
	var err error
	if c.Audio, err = readOgg(audio); err != nil {
		return nil, fmt.Errorf("reading the built-in clip: %w", err)
	}
	c.number()
	return c, nil
}

// Steady is not decodable, but the traffic with which forwarding is compared: each second 30 frames of
// 7 packets of 1,100 bytes, and 50 audio packets of 100 bytes. It is the same for the same seed.
func Steady(seed uint64) *Clip {
	const packets, seconds, rate = 7, 4, 30
	rng := rand.New(rand.NewPCG(seed, 1))
	l := Layer{Width: 1280, Height: 720, BitrateKbps: rate * packets * MaxPayload * 8 / 1000}
	for f := range seconds * rate {
		frame := make([]byte, packets*(MaxPayload-descriptor))
		fill(rng, frame)
		header(frame, f == 0, l.Width, l.Height)
		l.Frames = append(l.Frames, cut(frame, MaxPayload-descriptor, f == 0))
	}
	c := &Clip{FrameInterval: time.Second / rate, Layers: []Layer{l}}
	for range seconds * 50 {
		p := make([]byte, 100)
		fill(rng, p)
		p[0] = 0x78 // CELT, 20 ms, mono, one frame
		c.Audio = append(c.Audio, p)
	}
	c.number()
	return c
}

func fill(rng *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

func readLayer(rid string, data []byte) (Layer, error) {
	r, head, err := ivfreader.NewWith(bytes.NewReader(data))
	if err != nil {
		return Layer{}, err
	}
	l := Layer{RID: rid, Width: int(head.Width), Height: int(head.Height)}
	total := 0
	for {
		frame, _, err := r.ParseNextFrame()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Layer{}, err
		}
		total += len(frame)
		l.Frames = append(l.Frames, cut(frame, MaxPayload, keyframe(frame)))
	}
	if len(l.Frames) == 0 || !l.Frames[0][0].Key {
		return Layer{}, errors.New("the first frame is no keyframe")
	}
	l.BitrateKbps = total * 8 * 30 / len(l.Frames) / 1000
	return l, nil
}

func readOgg(data []byte) ([][]byte, error) {
	r, _, err := oggreader.NewWith(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for {
		page, head, err := r.ParseNextPage()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if head.GranulePosition == 0 || bytes.HasPrefix(page, []byte("OpusTags")) {
			continue
		}
		out = append(out, page)
	}
}

// cut divides a frame into payloads of at most size bytes, as equal as they can be.
func cut(frame []byte, size int, isKey bool) []Payload {
	n := max(1, (len(frame)+size-1)/size)
	out := make([]Payload, n)
	for i := range n {
		out[i] = Payload{
			Data:  frame[i*len(frame)/n : (i+1)*len(frame)/n],
			First: i == 0, Last: i == n-1, Key: isKey,
		}
	}
	return out
}

// key is the end of a payload, which no SFU changes, and its length.
type key struct {
	a, b uint64
	n    int
}

const tail = 16

func keyOf(payload []byte) (key, bool) {
	if len(payload) < tail {
		return key{}, false
	}
	t := payload[len(payload)-tail:]
	return key{binary.LittleEndian.Uint64(t), binary.LittleEndian.Uint64(t[8:]), len(payload)}, true
}

// number gives every payload its index and remembers those that can be told apart.
func (c *Clip) number() {
	c.index = make(map[key]Payload)
	var twice []key
	for _, l := range c.Layers {
		for _, f := range l.Frames {
			for i := range f {
				f[i].Index = c.Payloads
				c.Payloads++
				k, ok := keyOf(f[i].Data)
				if !ok {
					continue
				}
				if _, dup := c.index[k]; dup {
					twice = append(twice, k)
				}
				c.index[k] = f[i]
			}
		}
	}
	for _, k := range twice {
		delete(c.index, k)
	}
}

// Find recognises the payload of a received VP8 packet, descriptor included.
func (c *Clip) Find(vp8 []byte) (Payload, bool) {
	n, _, ok := parse(vp8)
	if !ok {
		return Payload{}, false
	}
	k, ok := keyOf(vp8[n:])
	if !ok {
		return Payload{}, false
	}
	p, ok := c.index[k]
	return p, ok
}
