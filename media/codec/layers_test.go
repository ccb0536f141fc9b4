package codec

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pion/rtp/codecs"

	"github.com/amphi-sfu/amphi/media/packet"
)

// captured returns packets that Chromium sent, with the beginnings of their payloads.
func captured(t testing.TB, name string) []*packet.Packet {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "descriptor", "testdata", "chromium", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	var list []*packet.Packet
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		n, _ := strconv.ParseUint(f[0], 10, 64)
		ts, _ := strconv.ParseUint(f[1], 10, 32)
		d, err1 := hex.DecodeString(f[3])
		b, err2 := hex.DecodeString(f[4])
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		list = append(list, &packet.Packet{ExtSeq: n + 1, Timestamp: uint32(ts), Marker: f[2] == "1", Descriptor: d, Payload: b})
	}
	return list
}

func named(n Name) Codec {
	for _, c := range supported {
		if c.Name == n {
			return c
		}
	}
	return Codec{}
}

// TestPayloadAgreesWithDescriptor: what is read from payloads of VP9 says of layers
// what the descriptor says, and never that a frame can be left out which cannot.
func TestPayloadAgreesWithDescriptor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Codec{
		"vp9_L3T3": named(VP9), "vp9_L3T3_KEY": named(VP9), "vp9_sim_h": named(VP9), "vp9_L2T3h": named(VP9),
	} {
		var described, plain Inspector
		for i, p := range captured(t, name) {
			q := &packet.Packet{ExtSeq: p.ExtSeq, Timestamp: p.Timestamp, Marker: p.Marker, Payload: p.Payload}
			if err := described.Inspect(c, p); err != nil {
				t.Fatalf("%s: packet %d: %v", name, i, err)
			}
			if err := plain.Inspect(c, q); err != nil {
				t.Fatalf("%s: packet %d: %v", name, i, err)
			}
			if p.Keyframe != q.Keyframe || p.StartOfFrame != q.StartOfFrame || p.Counters != q.Counters ||
				p.Frame.Spatial != q.Frame.Spatial || p.Frame.Temporal != q.Frame.Temporal || p.Frame.Last != q.Frame.Last {
				t.Fatalf("%s: packet %d: %+v, %+v", name, i, p, q)
			}
			for a, x := range p.Frame.Structure.Targets {
				for b, y := range q.Frame.Structure.Targets {
					if x == y && p.Frame.Present&(1<<a) != 0 && q.Frame.Present&(1<<b) == 0 {
						t.Fatalf("%s: packet %d is left out of %v: %b", name, i, x, q.Frame.Present)
					}
				}
			}
			if p.Counters.PictureIDAt == 0 {
				t.Fatalf("%s: packet %d: no picture id", name, i)
			}
		}
		if a, b := described.Size(3), plain.Size(3); a != b {
			t.Errorf("%s: size %v by descriptor, %v by payload", name, a, b)
		}
	}
}

func TestVP9AgreesWithPion(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"vp9_L3T3", "vp9_L3T3_KEY", "vp9_S3T3", "vp9_sim_q"} {
		for i, p := range captured(t, name) {
			var ref codecs.VP9Packet
			if _, err := ref.Unmarshal(p.Payload); err != nil {
				t.Fatalf("%s: packet %d: %v", name, i, err)
			}
			v, err := ParseVP9(p.Payload)
			if err != nil || v.Counters.PictureID != ref.PictureID || v.Counters.TL0PicIdx != ref.TL0PICIDX || v.Temporal != ref.TID ||
				v.Spatial != ref.SID || v.Inter != ref.P || v.Start != ref.B || v.End != ref.E || v.SwitchUp != ref.U || v.NotForUpper != ref.Z {
				t.Fatalf("%s: packet %d: %+v, %v, want %+v", name, i, v, err, ref)
			}
			if ref.V && (int(v.Layers) != int(ref.NS)+1 || v.Sizes[0].Width != int(ref.Width[0])) {
				t.Fatalf("%s: packet %d: structure %+v, want %+v", name, i, v, ref)
			}
			moved := append([]byte(nil), p.Payload...)
			RewriteCounters(moved, v.Counters, 5, 3)
			w, err := ParseVP9(moved)
			if err != nil || w.Counters.PictureID != (v.Counters.PictureID+5)&0x7fff || w.Counters.TL0At != 0 && w.Counters.TL0PicIdx != v.Counters.TL0PicIdx+3 {
				t.Fatalf("%s: packet %d: rewritten %+v, %v", name, i, w, err)
			}
		}
	}
}

// TestAV1Payload: a stream without descriptors begins at its sequences, with its size.
func TestAV1Payload(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Size{"av1_L1T3": {640, 360}} {
		var described, plain Inspector
		for i, p := range captured(t, name) {
			q := &packet.Packet{ExtSeq: p.ExtSeq, Timestamp: p.Timestamp, Marker: p.Marker, Payload: p.Payload}
			if err := described.Inspect(named(AV1), p); err != nil {
				t.Fatalf("%s: packet %d: %v", name, i, err)
			}
			if err := plain.Inspect(named(AV1), q); err != nil || p.Keyframe != q.Keyframe {
				t.Fatalf("%s: packet %d: keyframe %v, by payload %v, %v", name, i, p.Keyframe, q.Keyframe, err)
			}
			if i == 0 && (described.Size(3) != want || plain.Size(3) != want) {
				t.Fatalf("%s: size %v by descriptor, %v by payload, want %v", name, described.Size(3), plain.Size(3), want)
			}
		}
	}
	for _, bad := range [][]byte{nil, {0x08}, {0x88, 1}, {0x08, 0x7f, 1}} {
		if v, err := ParseAV1(bad); err == nil {
			t.Errorf("%x: %+v", bad, v)
		}
	}
}

// TestEncryptedPayload: with a descriptor nothing depends on what the payload is.
func TestEncryptedPayload(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]Name{"av1_L3T3": AV1, "h264_f": H264, "vp9_L3T3_KEY": VP9, "vp8_h": VP8} {
		var clear, secret Inspector
		for i, p := range captured(t, name) {
			q := &packet.Packet{ExtSeq: p.ExtSeq, Timestamp: p.Timestamp, Marker: p.Marker, Descriptor: p.Descriptor, Payload: []byte{0xff, 0xff, 0xff}}
			if err := clear.Inspect(named(n), p); err != nil {
				t.Fatal(err)
			}
			if err := secret.Inspect(named(n), q); err != nil || q.Keyframe != p.Keyframe || q.StartOfFrame != p.StartOfFrame ||
				q.Frame.Present != p.Frame.Present || q.Frame.Number != p.Frame.Number {
				t.Fatalf("%s: packet %d: %v, %+v, want %+v", name, i, err, q.Frame, p.Frame)
			}
		}
	}
}
