//go:build cgo

package av_test

import (
	"bytes"
	"errors"
	"image"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
)

func canvas(t testing.TB, w, h int) *av.Canvas {
	t.Helper()
	c, err := av.NewCanvas(w, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Free)
	return c
}

func encoder(t testing.TB, cfg av.VideoConfig) av.VideoEncoder {
	t.Helper()
	e, err := av.NewVideoEncoder("x264", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// nals splits Annex B into NAL units by type.
func nals(b []byte) map[byte][]byte {
	out := make(map[byte][]byte)
	for _, n := range bytes.Split(b, []byte{0, 0, 1}) {
		if n = bytes.TrimRight(n, "\x00"); len(n) > 0 {
			out[n[0]&31] = n
		}
	}
	return out
}

func similar(a, b av.YUV) bool {
	d := func(x, y uint8) bool { return max(x, y)-min(x, y) <= 4 }
	return d(a.Y, b.Y) && d(a.U, b.U) && d(a.V, b.V)
}

// TestMain keeps libav from talking.
func TestMain(m *testing.M) {
	av.Quiet()
	os.Exit(m.Run())
}

// A picture goes through encoder and decoder at once, with its colours and its time.
func TestRoundTripWithoutDelay(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"x264", "openh264"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := av.NewVideoEncoder(name, av.VideoConfig{W: 320, H: 180, FPS: 30, Bitrate: 500_000})
			if err != nil && name == "openh264" {
				t.Skipf("not in this build: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			roundTrip(t, e)
		})
	}
}

func roundTrip(t *testing.T, e av.VideoEncoder) {
	c := canvas(t, 320, 180)
	dec, err := av.NewDecoder("h264")
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	left, right := av.YUV{Y: 80, U: 90, V: 200}, av.YUV{Y: 160, U: 150, V: 60}
	for n := range int64(90) {
		c.Fill(image.Rect(0, 0, 160, 180), left)
		c.Fill(image.Rect(160, 0, 320, 180), right)
		c.Fill(image.Rect(int(n), 0, int(n)+8, 20), av.YUV{Y: 235, U: 128, V: 128})
		au, idr, err := e.Encode(c, n, n%30 == 0)
		if err != nil || len(au) == 0 {
			t.Fatalf("picture %d: %v", n, err)
		}
		if idr != (n%30 == 0) {
			t.Fatalf("picture %d: IDR %v", n, idr)
		}
		types := nals(au)
		if _, sps := types[7]; sps != idr {
			t.Fatalf("picture %d: SPS %v", n, sps)
		}
		f, err := dec.Decode(au, time.Duration(n)*time.Second)
		if err != nil || f == nil {
			t.Fatalf("picture %d does not decode at once: %v", n, err)
		}
		if f.Due() != time.Duration(n)*time.Second {
			t.Fatalf("picture %d is due at %v", n, f.Due())
		}
		if !similar(f.At(40, 150), left) || !similar(f.At(280, 150), right) {
			t.Fatalf("picture %d: %v and %v", n, f.At(40, 150), f.At(280, 150))
		}
		f.Free()
		f.Free() // twice is fine
	}
	if e.CPU() <= 0 || dec.CPU() <= 0 {
		t.Error("no CPU time")
	}
}

func TestUnknownCodecs(t *testing.T) {
	t.Parallel()
	if _, err := av.NewDecoder("nonsense"); err == nil {
		t.Error("decoder")
	}
	var f av.Fault
	if _, err := av.NewDecoder("nonsense"); !errors.As(err, &f) || !strings.Contains(err.Error(), "ecoder not found") {
		t.Errorf("error %v", err)
	}
	if _, err := av.NewVideoEncoder("nonsense", av.VideoConfig{W: 16, H: 16, FPS: 30, Bitrate: 1000}); err == nil {
		t.Error("encoder")
	}
	if _, err := av.NewVideoEncoder("x264", av.VideoConfig{W: 16, H: 16, FPS: 30, Bitrate: 100_000, Preset: "nonsense"}); err == nil {
		t.Error("preset")
	}
}

func TestPaint(t *testing.T) {
	t.Parallel()
	src, dst := canvas(t, 320, 180), canvas(t, 640, 360)
	ground, mark := av.YUV{Y: 60, U: 100, V: 140}, av.YUV{Y: 200, U: 80, V: 90}
	src.Fill(src.Bounds(), mark)
	var s av.Scaler
	defer s.Close()
	for _, to := range []image.Rectangle{image.Rect(0, 0, 320, 180), image.Rect(100, 60, 500, 300), image.Rect(630, 350, 640, 360), image.Rect(20, 20, 60, 40)} {
		dst.Fill(dst.Bounds(), ground)
		if err := s.Paint(dst, to, &src.Frame, src.Bounds()); err != nil {
			t.Fatal(err)
		}
		for y := 0; y < 360; y += 2 {
			for x := 0; x < 640; x += 2 {
				want := ground
				if image.Pt(x, y).In(to) {
					want = mark
				}
				if got := dst.At(x, y); !similar(got, want) {
					t.Fatalf("%v: %v at %d,%d, want %v", to, got, x, y, want)
				}
			}
		}
	}
	for _, bad := range []image.Rectangle{image.Rect(600, 0, 700, 90), image.Rect(-2, 0, 90, 90), image.Rect(0, 0, 1, 1), {}} {
		if err := s.Paint(dst, bad, &src.Frame, src.Bounds()); err == nil {
			t.Errorf("painted into %v", bad)
		}
	}
	if err := s.Paint(dst, dst.Bounds(), &src.Frame, image.Rect(0, 0, 322, 180)); err == nil {
		t.Error("read beyond the picture")
	}
}

// Half the size is the mean of four pixels, whatever rectangle it is cut from and put into, and nothing beside it is touched.
func TestHalf(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(2, 2))
	src, dst := canvas(t, 322, 182), canvas(t, 200, 120)
	b := av.NewBitmap(322, 182)
	for _, plane := range [][]uint8{b.Y, b.U, b.V} {
		for i := range plane {
			plane[i] = uint8(rng.IntN(256))
		}
	}
	for _, alpha := range [][]uint8{b.A, b.UVA} {
		for i := range alpha {
			alpha[i] = 255
		}
	}
	src.Blend(b, image.Point{}, src.Bounds())
	mean := func(plane []uint8, stride, x, y int) uint8 {
		i := 2*y*stride + 2*x
		return uint8((int(plane[i]) + int(plane[i+1]) + int(plane[i+stride]) + int(plane[i+stride+1]) + 2) / 4)
	}
	ground := av.YUV{Y: 60, U: 100, V: 140}
	var s av.Scaler
	defer s.Close()
	for _, c := range []struct{ from, to image.Rectangle }{
		{image.Rect(0, 0, 320, 180), image.Rect(20, 10, 180, 100)},
		{image.Rect(2, 2, 322, 182), image.Rect(40, 30, 200, 120)},
		{image.Rect(6, 4, 10, 8), image.Rect(4, 4, 6, 6)},
	} {
		dst.Fill(dst.Bounds(), ground)
		if err := s.Paint(dst, c.to, &src.Frame, c.from); err != nil {
			t.Fatal(err)
		}
		for y := range 120 {
			for x := range 200 {
				want := ground
				if image.Pt(x, y).In(c.to) {
					sx, sy := x-c.to.Min.X+c.from.Min.X/2, y-c.to.Min.Y+c.from.Min.Y/2
					cx, cy := x/2-c.to.Min.X/2, y/2-c.to.Min.Y/2
					shift := c.from.Min.Y/2*161 + c.from.Min.X/2
					want = av.YUV{Y: mean(b.Y, 322, sx, sy), U: mean(b.U[shift:], 161, cx, cy), V: mean(b.V[shift:], 161, cx, cy)}
				}
				if got := dst.At(x, y); got != want {
					t.Fatalf("%v: %v at %d,%d, want %v", c, got, x, y, want)
				}
			}
		}
	}
}

// Publishers may send what no browser does: other subsampling, depth, range, odd sides.
func TestUnusualPictures(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("needs ffmpeg")
	}
	for _, c := range []struct{ format, size string }{
		{"yuv420p", "321x181"}, {"yuvj420p", "320x180"}, {"yuv422p", "320x180"}, {"yuv444p", "320x180"}, {"yuv420p10le", "320x180"}, {"gray", "320x180"}, {"yuv420p", "16x16"},
	} {
		name, args := "h264", []string{"-c:v", "libx264", "-tune", "zerolatency", "-f", "h264", "-"}
		if c.size == "321x181" { // H.264 crops 4:2:0 by two, VP8 by one
			name, args = "vp8", []string{"-c:v", "libvpx", "-b:v", "1M", "-f", "ivf", "-"}
		}
		cmd := exec.Command("ffmpeg", append([]string{"-v", "error", "-f", "lavfi", "-i", "color=c=#a08060:s=" + c.size + ":r=30", "-frames:v", "1", "-pix_fmt", c.format}, args...)...)
		au, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		if name == "vp8" {
			au = au[32+12:]
		}
		d, err := av.NewDecoder(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := d.Decode(au, 0)
		if err != nil || f == nil {
			t.Errorf("%v: %v", c, err)
			d.Close()
			continue
		}
		w, h := f.Size()
		dst := canvas(t, 256, 144)
		var s av.Scaler
		to := image.Rect(20, 20, 200, 120)
		if err := s.Paint(dst, to, f, image.Rect(0, 0, w, h)); err != nil {
			t.Errorf("%v: %v", c, err)
		}
		want := av.FromRGB(0xa0, 0x80, 0x60)
		if c.format == "gray" {
			want.U, want.V = 128, 128
		}
		if got := dst.At(100, 70); !similar(got, want) {
			t.Errorf("%v: %v, want %v", c, got, want)
		}
		if got := dst.At(10, 70); got != (av.YUV{Y: 16, U: 128, V: 128}) {
			t.Errorf("%v: %v beside it", c, got)
		}
		s.Close()
		f.Free()
		d.Close()
	}
}

func TestBlend(t *testing.T) {
	t.Parallel()
	c := canvas(t, 64, 64)
	ground := av.YUV{Y: 100, U: 100, V: 100}
	img := image.NewNRGBA(image.Rect(0, 0, 16, 16))
	for i := 0; i < len(img.Pix); i += 4 {
		x := i / 4 % 16
		copy(img.Pix[i:], []uint8{255, 255, 255, []uint8{0, 255}[x/8]})
	}
	b := av.FromPicture(img)
	white := av.FromRGB(255, 255, 255)
	if white != (av.YUV{Y: 235, U: 128, V: 128}) {
		t.Fatalf("white is %v", white)
	}
	for _, p := range []image.Point{{0, 0}, {24, 24}, {-8, -8}, {56, 56}, {200, 200}, {-200, 0}} {
		c.Fill(c.Bounds(), ground)
		clip := image.Rect(0, 0, 60, 60)
		c.Blend(b, p, clip)
		for y := range 64 {
			for x := range 64 {
				want := ground
				if q := image.Pt(x, y); q.In(clip) && q.In(image.Rect(p.X+8, p.Y, p.X+16, p.Y+16)) {
					want = white
				}
				if got := c.At(x, y); got != want {
					t.Fatalf("at %v: %v at %d,%d, want %v", p, got, x, y, want)
				}
			}
		}
	}
	c.Blend(av.NewBitmap(0, 0), image.Point{}, c.Bounds())
	c.Fill(image.Rect(-10, -10, 100, 100), ground) // clipped
}

func TestOpusAndAAC(t *testing.T) {
	t.Parallel()
	o, err := av.NewOpus()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	out := make([]float32, 2*av.MaxOpusSamples)
	silence := []byte{0xfc, 0xff, 0xfe} // 20 ms of stereo CELT
	if n, err := o.Decode(silence, out); err != nil || n != 960 {
		t.Fatalf("%d samples: %v", n, err)
	}
	if n, err := o.Conceal(out, 960); err != nil || n != 960 {
		t.Fatalf("%d samples made up: %v", n, err)
	}
	if n, err := o.Recover(silence, out, 960); err != nil || n != 960 {
		t.Fatalf("%d samples recovered: %v", n, err)
	}
	if n, err := o.Decode(nil, out); err != nil || n != 0 {
		t.Fatalf("%d samples of nothing: %v", n, err)
	}
	if _, err := o.Decode([]byte{0xff, 0xff, 0xff, 0xff}, out); err == nil {
		t.Error("decodes nonsense")
	}
	a, err := av.NewAAC(128_000)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if c := a.Config(); len(c) < 2 || c[0]>>3 != 2 || (c[0]&7)<<1|c[1]>>7 != 3 || c[1]>>3&15 != 2 {
		t.Fatalf("AudioSpecificConfig %x is not AAC-LC at 48 kHz stereo", c)
	}
	l := make([]float32, av.AACSamples)
	next, bytes := int64(math.MinInt64), 0
	for k := range int64(100) {
		for i := range l {
			l[i] = float32(0.3 * math.Sin(float64(k*1024+int64(i))/20))
		}
		au, at, err := a.Encode(l, l, k*1024)
		if err != nil {
			t.Fatal(err)
		}
		if au == nil {
			continue
		}
		bytes += len(au)
		if next != math.MinInt64 && at != next || at%1024 != 0 || at > k*1024 {
			t.Fatalf("block %d gives sample %d after %d", k, at, next-1024)
		}
		next = at + 1024
	}
	if bytes < 10_000 {
		t.Fatalf("%d bytes in two seconds", bytes)
	}
}

// Whatever comes, decoders answer: hostile publishers choose these bytes.
func FuzzDecoders(f *testing.F) {
	c, err := av.NewCanvas(64, 64)
	if err != nil {
		f.Fatal(err)
	}
	e, err := av.NewVideoEncoder("x264", av.VideoConfig{W: 64, H: 64, FPS: 30, Bitrate: 100_000})
	if err != nil {
		f.Fatal(err)
	}
	au, _, err := e.Encode(c, 0, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(au), uint8(0))
	e.Close()
	c.Free()
	f.Add([]byte{0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x00, 0x40, 0x00, 0, 7, 8, 9}, uint8(1))
	f.Add([]byte{0x82, 0x49, 0x83, 0x42, 0, 3, 0xf0, 3, 0xf0}, uint8(2))
	f.Add([]byte{0xfc, 0xff, 0xfe}, uint8(4))
	av.Quiet()
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		if which%5 == 4 {
			o, err := av.NewOpus()
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			out := make([]float32, 2*av.MaxOpusSamples)
			if n, err := o.Decode(b, out); err == nil && n > av.MaxOpusSamples {
				t.Fatal(n)
			}
			return
		}
		d, err := av.NewDecoder([]string{"h264", "vp8", "vp9", "libdav1d"}[which%5])
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		c, err := av.NewCanvas(64, 64)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Free()
		var s av.Scaler
		defer s.Close()
		for range 2 {
			p, err := d.Decode(b, 0)
			if err != nil || p == nil {
				continue
			}
			w, h := p.Size()
			if w*h > av.MaxPixels {
				t.Fatalf("%d×%d", w, h)
			}
			_ = s.Paint(c, c.Bounds(), p, image.Rect(0, 0, w, h))
			p.Free()
		}
	})
}

// noisy is a canvas that gives an encoder something to do.
func noisy(b *testing.B, w, h int) *av.Canvas {
	c := canvas(b, w, h)
	rng := rand.New(rand.NewPCG(1, 1))
	for y := 0; y < h; y += 16 {
		for x := 0; x < w; x += 16 {
			c.Fill(image.Rect(x, y, x+16, y+16), av.YUV{Y: uint8(16 + rng.IntN(200)), U: uint8(rng.IntN(255)), V: uint8(rng.IntN(255))})
		}
	}
	return c
}

// BenchmarkEncode is one 720p picture; "repeated" is the one before again, "moved" has an eighth of the blocks changed.
func BenchmarkEncode(b *testing.B) {
	for _, preset := range []string{"veryfast", "superfast"} {
		for _, moved := range []bool{true, false} {
			name := preset + "/repeated"
			if moved {
				name = preset + "/moved"
			}
			b.Run(name, func(b *testing.B) {
				c := noisy(b, 1280, 720)
				e := encoder(b, av.VideoConfig{W: 1280, H: 720, FPS: 30, Bitrate: 2_500_000, Preset: preset})
				tick := int64(0)
				rng := rand.New(rand.NewPCG(1, 1))
				for b.Loop() {
					if moved {
						for range 450 {
							x, y := rng.IntN(80)*16, rng.IntN(45)*16
							c.Fill(image.Rect(x, y, x+16, y+16), av.YUV{Y: uint8(16 + rng.IntN(200)), U: 128, V: 128})
						}
					}
					if _, _, err := e.Encode(c, tick, tick%60 == 0); err != nil {
						b.Fatal(err)
					}
					tick++
				}
				b.ReportMetric(float64(e.CPU().Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

func BenchmarkPaint(b *testing.B) {
	for name, c := range map[string]struct {
		src, to image.Rectangle
	}{
		"360p to 640x360":  {image.Rect(0, 0, 640, 360), image.Rect(0, 0, 640, 360)},
		"360p to 1280x720": {image.Rect(0, 0, 640, 360), image.Rect(0, 0, 1280, 720)},
		"360p to 424x240":  {image.Rect(0, 0, 640, 360), image.Rect(0, 0, 424, 240)},
		"720p to 640x360":  {image.Rect(0, 0, 1280, 720), image.Rect(0, 0, 640, 360)},
		"720p to 854x480":  {image.Rect(0, 0, 1280, 720), image.Rect(0, 0, 854, 480)},
	} {
		b.Run(name, func(b *testing.B) {
			src, dst := noisy(b, c.src.Dx(), c.src.Dy()), canvas(b, 1280, 720)
			var s av.Scaler
			defer s.Close()
			for b.Loop() {
				if err := s.Paint(dst, c.to, &src.Frame, src.Bounds()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestVersionAndLicence(t *testing.T) {
	t.Parallel()
	if v := av.Version(); !strings.Contains(v, "libavcodec 59.") || !strings.Contains(v, "libopus") {
		t.Error(v)
	}
	if l := av.Licence(); !strings.Contains(l, "GPL") {
		t.Error(l)
	}
}
