//go:build cgo

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const (
	clipFrames  = 120 // 4 s at 30 a second, then it begins anew
	clipPackets = 200 // of 20 ms
	clipGOP     = 30
	barcodeBits = 7
)

// clip is one peer's content: a barcode of the frame number on a ground of one
// colour, and a beep of 60 ms on each second.
type clip struct {
	codec string
	w, h  int
	video [][]byte // access units
	audio [][]byte // Opus packets
}

// look is what tells one clip from another.
type look struct {
	y, u, v byte    // ground
	beep    float64 // Hz
}

// makeClip encodes a clip with ffmpeg.
func makeClip(t testing.TB, codec string, w, h int, l look) *clip {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("needs ffmpeg")
	}
	c := &clip{codec: codec, w: w, h: h}
	dir := t.TempDir()
	in := []string{"-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", fmt.Sprintf("%dx%d", w, h), "-r", "30", "-i", "-"}
	gop := []string{"-g", fmt.Sprint(clipGOP), "-b:v", "500k"}
	switch codec {
	case "vp8":
		out := filepath.Join(dir, "v.ivf")
		ffmpeg(t, pictures(w, h, l), append(append(in, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0"), append(gop, out)...))
		c.video = readIVF(t, out)
	case "vp9":
		out := filepath.Join(dir, "v.ivf")
		ffmpeg(t, pictures(w, h, l), append(append(in, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"), append(gop, out)...))
		c.video = readIVF(t, out)
	case "av1":
		out := filepath.Join(dir, "v.ivf")
		ffmpeg(t, pictures(w, h, l), append(append(in, "-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"), append(gop, out)...))
		c.video = readIVF(t, out)
	case "h264":
		out := filepath.Join(dir, "v.264")
		ffmpeg(t, pictures(w, h, l), append(append(in, "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline", "-sc_threshold", "0",
			"-x264-params", "repeat-headers=1:slices=1:threads=1:sliced-threads=0"), append(gop, out)...))
		c.video = readAnnexB(t, out)
	}
	out := filepath.Join(dir, "a.ogg")
	ffmpeg(t, beeps(l.beep), []string{"-f", "f32le", "-ar", "48000", "-ac", "2", "-i", "-", "-c:a", "libopus", "-b:a", "48k", "-application", "lowdelay", "-frame_duration", "20", out})
	c.audio = readOgg(t, out)
	if len(c.video) != clipFrames || len(c.audio) < clipPackets {
		t.Fatalf("%s clip with %d pictures and %d packets", codec, len(c.video), len(c.audio))
	}
	c.audio = c.audio[:clipPackets]
	return c
}

func ffmpeg(t testing.TB, stdin []byte, args []string) {
	t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-v", "error", "-y"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, out)
	}
}

// pictures are raw frames. The barcode fills the middle third: a white bar, then
// the frame number's bits, lowest first.
func pictures(w, h int, l look) []byte {
	var out []byte
	for n := range clipFrames {
		row := make([]byte, w)
		for x := range row {
			row[x] = l.y
			if k := x * (barcodeBits + 3) / w; k == 1 || k >= 2 && k < 2+barcodeBits && n>>(k-2)&1 == 1 {
				row[x] = 235
			} else if k >= 2 && k < 2+barcodeBits {
				row[x] = 16
			}
		}
		plain := bytes.Repeat([]byte{l.y}, w)
		for y := range h {
			if y >= h/3 && y < 2*h/3 {
				out = append(out, row...)
			} else {
				out = append(out, plain...)
			}
		}
		out = append(out, bytes.Repeat([]byte{l.u}, w*h/4)...)
		out = append(out, bytes.Repeat([]byte{l.v}, w*h/4)...)
	}
	return out
}

// beeps is 4 s of stereo.
func beeps(hz float64) []byte {
	const n = clipPackets * 960
	out := make([]byte, 0, n*8)
	for i := range n {
		v := 0.0
		if i%48000 < 48000*60/1000 {
			v = 0.35 * math.Sin(2*math.Pi*hz*float64(i%48000)/48000)
		}
		b := math.Float32bits(float32(v))
		out = binary.LittleEndian.AppendUint32(out, b)
		out = binary.LittleEndian.AppendUint32(out, b)
	}
	return out
}

func readIVF(t testing.TB, path string) (frames [][]byte) {
	b, err := os.ReadFile(path)
	if err != nil || len(b) < 32 {
		t.Fatalf("reading %s: %v", path, err)
	}
	for b = b[32:]; len(b) >= 12; {
		n := int(binary.LittleEndian.Uint32(b))
		frames = append(frames, b[12:12+n])
		b = b[12+n:]
	}
	return frames
}

// readAnnexB splits a stream of one slice per picture into access units.
func readAnnexB(t testing.TB, path string) (aus [][]byte) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := 0
	slice := false
	for i := 0; i+3 < len(b); i++ {
		if b[i] != 0 || b[i+1] != 0 || b[i+2] != 1 {
			continue
		}
		begin := i
		if begin > 0 && b[begin-1] == 0 {
			begin--
		}
		if slice {
			aus = append(aus, b[start:begin])
			start = begin
		}
		typ := b[i+3] & 31
		slice = typ == 1 || typ == 5
		i += 3
	}
	return append(aus, b[start:])
}

// readOgg returns the packets of an Ogg file after its two headers.
func readOgg(t testing.TB, path string) (packets [][]byte) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cur []byte
	for n := 0; len(b) >= 27; {
		lacing := b[27 : 27+int(b[26])]
		b = b[27+len(lacing):]
		for _, s := range lacing {
			cur = append(cur, b[:s]...)
			b = b[s:]
			if s < 255 {
				if n++; n > 2 {
					packets = append(packets, cur)
				}
				cur = nil
			}
		}
	}
	return packets
}
