package clip

import (
	"bytes"
	"testing"

	"github.com/pion/rtp/codecs"
)

func TestBuiltinClipIsWhole(t *testing.T) {
	t.Parallel()
	c, err := Builtin(true)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Layers) != 3 || len(c.Audio) < 195 {
		t.Fatalf("%d layers, %d audio packets", len(c.Layers), len(c.Audio))
	}
	for i, want := range []struct {
		rid  string
		w, h int
	}{{"q", 160, 90}, {"h", 320, 180}, {"f", 640, 360}} {
		l := c.Layers[i]
		if l.RID != want.rid || l.Width != want.w || l.Height != want.h || len(l.Frames) != 120 {
			t.Errorf("layer %d: %q %dx%d, %d frames", i, l.RID, l.Width, l.Height, len(l.Frames))
		}
		for f, frame := range l.Frames {
			if frame[0].Key != (f == 0) {
				t.Errorf("layer %s: frame %d is key: %v", l.RID, f, frame[0].Key)
			}
		}
		t.Logf("layer %s: %d kbit/s", l.RID, l.BitrateKbps)
	}
	if found := float64(len(c.index)) / float64(c.Payloads); found < 0.95 {
		t.Errorf("only %.1f %% of the payloads can be recognised", 100*found)
	}
	one, err := Builtin(false)
	if err != nil || len(one.Layers) != 1 || one.Layers[0].RID != "" {
		t.Errorf("without simulcast: %v, %v", one, err)
	}
}

func TestSteadyIsTheTrafficOfTheComparison(t *testing.T) {
	t.Parallel()
	c := Steady(7)
	bytesPerSecond, packets := 0, 0
	for _, f := range c.Layers[0].Frames[:30] {
		for _, p := range f {
			packets++
			bytesPerSecond += len(p.Data) + descriptor
		}
	}
	if packets != 210 || bytesPerSecond != 210*MaxPayload {
		t.Errorf("%d packets, %d bytes per second", packets, bytesPerSecond)
	}
	if again := Steady(7); !bytes.Equal(again.Layers[0].Frames[3][2].Data, c.Layers[0].Frames[3][2].Data) {
		t.Error("the same seed gives other bytes")
	}
}

func TestPayloadsAreRecognisedBehindAnotherDescriptor(t *testing.T) {
	t.Parallel()
	c := Steady(1)
	var buf []byte
	for _, f := range c.Layers[0].Frames {
		for _, p := range f {
			buf = Describe(buf, 0x1234, p)
			var std codecs.VP8Packet
			body, err := std.Unmarshal(buf)
			if err != nil || !bytes.Equal(body, p.Data) || std.PictureID != 0x1234 || (std.S == 1) != p.First {
				t.Fatalf("descriptor: %v, %+v", err, std)
			}
			if StartsKeyframe(buf) != (p.Key && p.First) {
				t.Fatalf("payload %d: starts a keyframe: %v", p.Index, StartsKeyframe(buf))
			}
			// As an SFU may rewrite it: a 7-bit picture id.
			short := append([]byte{buf[0], 0x80, 0x05}, p.Data...)
			got, ok := c.Find(short)
			if !ok || got.Index != p.Index {
				t.Fatalf("payload %d found as %d, %v", p.Index, got.Index, ok)
			}
		}
	}
}

func FuzzFind(f *testing.F) {
	c := Steady(1)
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff})
	f.Add(Describe(nil, 1, c.Layers[0].Frames[0][0]))
	f.Fuzz(func(_ *testing.T, b []byte) {
		c.Find(b)
		StartsKeyframe(b)
	})
}

func BenchmarkFind(b *testing.B) {
	c := Steady(1)
	p := Describe(nil, 1, c.Layers[0].Frames[5][3])
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := c.Find(p); !ok {
			b.Fatal("not found")
		}
	}
}
