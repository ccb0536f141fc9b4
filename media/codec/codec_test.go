package codec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/amphi-sfu/amphi/media/packet"
	"github.com/pion/rtp/codecs"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, fmtp string
		rate       uint32
		want       string
	}{
		{"opus", "minptime=10;useinbandfec=1", 48000, "opus"},
		{"OPUS", "", 48000, "opus"},
		{"opus", "", 44100, ""},
		{"VP8", "", 90000, "VP8"},
		{"VP9", "profile-id=0", 90000, "VP9"},
		{"vp9", "", 90000, "VP9"},
		{"VP9", "profile-id=2", 90000, "VP9 profile-2"},
		{"VP9", "profile-id=1", 90000, ""},
		{"AV1", "level-idx=5;profile=0;tier=0", 90000, "AV1"},
		{"AV1", "level-idx=5;profile=1;tier=0", 90000, ""},
		{"AV1X", "", 90000, ""},
		{"H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 90000, "H264 constrained-baseline"},
		{"H264", "packetization-mode=1;profile-level-id=42001f", 90000, "H264 baseline"},
		{"H264", "packetization-mode=1; profile-level-id=4D001F", 90000, "H264 main"},
		{"h264", "packetization-mode=1;profile-level-id=640c1f", 90000, "H264 high"},
		{"H264", "packetization-mode=0;profile-level-id=42e01f", 90000, ""},
		{"H264", "packetization-mode=1;profile-level-id=zz", 90000, ""},
		{"H264", "packetization-mode=1", 90000, "H264 baseline"},
	} {
		got, ok := Match(c.name, c.rate, c.fmtp)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%s/%d %q: %v, %v; want %q", c.name, c.rate, c.fmtp, got, ok, c.want)
		}
	}
	seen := map[uint8]bool{}
	for _, c := range Supported() {
		if seen[c.PayloadType] {
			t.Errorf("payload type %d is used twice", c.PayloadType)
		}
		seen[c.PayloadType] = true
		if !c.Decodes(c) {
			t.Errorf("%v does not decode itself", c)
		}
	}
}

func TestVP8AgreesWithPion(t *testing.T) {
	t.Parallel()
	key := "10" + "b1" + "0102" // partition data of no keyframe
	for _, in := range []string{
		key, "90808005" + "01", "90e0ff01" + "22" + "4501", "9020a0" + "01", "80" + "80" + "7f" + "01",
		"90f0" + "8123" + "07" + "6101", "00" + "05",
	} {
		raw, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		var ref codecs.VP8Packet
		if _, err := ref.Unmarshal(raw); err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		v, err := ParseVP8(raw)
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		if v.Counters.PictureID != ref.PictureID || v.Counters.TL0PicIdx != ref.TL0PICIDX || v.Temporal != ref.TID || v.SwitchUp != (ref.Y == 1) {
			t.Errorf("%s: %+v, want %+v", in, v, ref)
		}
		if v.Start != (ref.S == 1 && ref.PID == 0) {
			t.Errorf("%s: start %v", in, v.Start)
		}
	}
}

func TestVP8KeyframeAndRewrite(t *testing.T) {
	t.Parallel()
	raw, _ := hex.DecodeString("90e0fffe" + "ff" + "20" + "d0cd01" + "9d012a" + "8002e001" + "00")
	v, err := ParseVP8(raw)
	if err != nil || !v.Keyframe || v.Size != (Size{640, 480}) {
		t.Fatalf("%+v, %v", v, err)
	}
	if v.Counters.PictureID != 0x7ffe || !v.Counters.LongID || v.Counters.TL0PicIdx != 255 || !v.SwitchUp {
		t.Fatalf("%+v", v)
	}
	copied := bytes.Clone(raw)
	RewriteCounters(copied, v.Counters, 3, 2)
	if q, err := ParseVP8(copied); err != nil || q.Counters.PictureID != 1 || q.Counters.TL0PicIdx != 1 {
		t.Fatalf("rewritten: %+v, %v", q, err)
	}
	if !bytes.Equal(copied[5:], raw[5:]) {
		t.Fatal("rewriting touched something else")
	}
	for n := range len(raw) - 1 {
		if v, err := ParseVP8(raw[:n]); err == nil && v.Keyframe {
			t.Fatalf("cut to %d bytes it is a keyframe", n)
		}
	}
}

// The parameter set of a 1280x720 constrained baseline stream made by x264.
const sps720 = "6742c01fd900500" + "5bb011000000300100000030320f1831960"

func TestH264(t *testing.T) {
	t.Parallel()
	sps, err := hex.DecodeString(sps720)
	if err != nil {
		t.Fatal(err)
	}
	var in Inspector
	c, _ := Match("H264", 90000, "packetization-mode=1;profile-level-id=42e01f")
	step := func(name string, ext uint64, ts uint32, payload []byte, key, start bool) {
		t.Helper()
		p := &packet.Packet{Payload: payload, ExtSeq: ext, Timestamp: ts}
		if err := in.Inspect(c, p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Keyframe != key || p.StartOfFrame != start {
			t.Fatalf("%s: keyframe %v, start %v", name, p.Keyframe, p.StartOfFrame)
		}
	}
	step("slice", 1, 0, []byte{0x41, 1}, false, true)
	step("sps", 2, 3000, sps, true, true)
	step("pps", 3, 3000, []byte{0x68, 1}, false, false)
	step("idr fu-a", 4, 3000, []byte{0x7c, 0x85, 1}, false, false)
	step("idr fu-a middle", 5, 3000, []byte{0x7c, 0x05, 1}, false, false)
	step("p", 6, 6000, []byte{0x41, 1}, false, true)
	stap := append([]byte{0x78, 0, byte(len(sps))}, sps...)
	stap = append(stap, 0, 2, 0x68, 1, 0, 2, 0x65, 1)
	step("stap-a", 7, 9000, stap, true, true)
	step("idr alone", 8, 12000, []byte{0x65, 1}, true, true)
	if in.Size(0) != (Size{1280, 720}) {
		t.Fatalf("size %v", in.Size(0))
	}
	for _, bad := range [][]byte{nil, {0x41}, {0x78, 0}, {0x78, 0, 0}, {0x78, 0, 9, 1}, {0x1e, 1}} {
		if _, err := ParseH264(bad); !errors.Is(err, ErrPayload) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	sps, _ := hex.DecodeString(sps720)
	f.Add(uint8(1), sps, []byte(nil))
	f.Add(uint8(1), []byte{0x78, 0, 2, 0x67, 0x42}, []byte(nil))
	f.Add(uint8(0), []byte{0x90, 0xe0, 0xff, 0xfe, 0xff, 0x20, 0xd0, 0xcd, 1, 0x9d, 1, 0x2a, 0x80, 2, 0xe0, 1}, []byte(nil))
	for name, which := range map[string]uint8{"vp8_h": 0, "h264_f": 1, "vp9_L3T3": 3, "vp9_S3T3": 3, "av1_L3T3": 4, "av1_L1T3": 4} {
		for _, p := range captured(f, name)[:8] {
			f.Add(which, p.Payload, p.Descriptor)
			f.Add(which, p.Payload, []byte(nil))
		}
	}
	list := []Codec{{Name: VP8, ClockRate: 90000}, {Name: H264, ClockRate: 90000}, {Name: Opus}, {Name: VP9, ClockRate: 90000}, {Name: AV1, ClockRate: 90000}}
	f.Fuzz(func(t *testing.T, which uint8, b, described []byte) {
		var in Inspector
		c := list[int(which)%len(list)]
		for n := range uint64(2) {
			p := &packet.Packet{Payload: b, ExtSeq: 1 + n, Descriptor: described}
			if in.Inspect(c, p) != nil {
				return
			}
			RewriteCounters(bytes.Clone(b), p.Counters, 1, 1)
			if st := p.Frame.Structure; (st == nil) != (c.Name == Opus) || st != nil && (int(p.Frame.Spatial) >= int(st.Spatial) || p.Frame.Required&^p.Frame.Present != 0) {
				t.Fatalf("%+v", p.Frame)
			}
			if s := in.Shape(); s.Lowest < 0 || s.Highest < s.Lowest || s.Spatial <= s.Highest {
				t.Fatalf("%+v", s)
			}
		}
	})
}
