package packet

import (
	"bytes"
	"testing"

	"github.com/pion/rtp"
)

func TestPoolRecyclesAfterLastRelease(t *testing.T) {
	t.Parallel()
	var pool Pool
	p := pool.Get()
	p.ExtSeq, p.Keyframe = 7, true
	p.Retain()
	p.Release()
	if pool.Live() != 1 || p.ExtSeq != 7 {
		t.Fatalf("packet recycled while a reference was held: live %d, seq %d", pool.Live(), p.ExtSeq)
	}
	p.Release()
	if pool.Live() != 0 {
		t.Fatalf("live = %d after the last release", pool.Live())
	}
	q := pool.Get()
	if q.ExtSeq != 0 || q.Keyframe || q.AudioLevel != NoAudioLevel {
		t.Fatalf("recycled packet is not clean: %+v", q.ExtSeq)
	}
	q.Release()
	defer func() {
		if recover() == nil {
			t.Fatal("releasing twice did not panic")
		}
	}()
	q.refs.Store(0)
	q.Release()
}

func TestParseHeaderAgreesWithPion(t *testing.T) {
	t.Parallel()
	for _, profile := range []uint16{0, rtp.ExtensionProfileOneByte, rtp.ExtensionProfileTwoByte} {
		in := rtp.Packet{Header: rtp.Header{
			Version: 2, Marker: true, PayloadType: 96, SequenceNumber: 65535, Timestamp: 1 << 31, SSRC: 42,
			CSRC: []uint32{1, 2},
		}, Payload: []byte("payload")}
		if profile != 0 {
			in.Extension, in.ExtensionProfile = true, profile
			for id, v := range map[uint8]string{1: "mid", 3: "x", 5: "level"} {
				if err := in.SetExtension(id, []byte(v)); err != nil {
					t.Fatal(err)
				}
			}
		}
		raw, err := in.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseHeader(raw)
		if err != nil {
			t.Fatal(err)
		}
		body, err := h.Body(raw)
		if err != nil || !bytes.Equal(body, in.Payload) {
			t.Fatalf("body %q, %v", body, err)
		}
		if h.SSRC != 42 || !h.Marker || h.SequenceNumber != 65535 || h.Timestamp != 1<<31 || h.PayloadType != 96 {
			t.Fatalf("header %+v", h)
		}
		for _, id := range []uint8{0, 1, 2, 3, 5} {
			if got, want := h.Extension(id), in.GetExtension(id); profile != 0 && id != 0 && !bytes.Equal(got, want) {
				t.Fatalf("extension %d: %q, want %q", id, got, want)
			}
		}
	}
}

func TestParseHeaderRefusesJunk(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"empty":          nil,
		"short":          make([]byte, 11),
		"version":        make([]byte, 12),
		"csrc missing":   {0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"ext missing":    {0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"ext cut":        {0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 1},
		"ext too long":   append([]byte{0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 129}, make([]byte, 516)...),
		"padding absent": {0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"padding long":   {0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2},
		"padding zero":   {0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		h, err := ParseHeader(b)
		if err == nil {
			_, err = h.Body(b)
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestPoolForgets: a packet that was dropped before its descriptor was read leaves it to nobody.
func TestPoolForgets(t *testing.T) {
	t.Parallel()
	var pool Pool
	p := pool.Get()
	p.Descriptor, p.Frame.First = p.Buffer()[:3], true
	p.Release()
	if p.Descriptor != nil || p.Frame.First {
		t.Fatalf("descriptor %x, frame %+v", p.Descriptor, p.Frame)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	var pool Pool
	raw := make([]byte, 100)
	raw[0] = 0x80
	if n := testing.AllocsPerRun(1000, func() {
		p := pool.Get()
		h, err := ParseHeader(raw)
		if err != nil || h.Extension(1) != nil {
			t.Fatal("parse")
		}
		p.Release()
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte{0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xde, 0, 1, 0x10, 1, 0, 0})
	f.Add([]byte{0xb1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 1, 2, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		if h.Size > len(b) {
			t.Fatalf("header of %d bytes in a packet of %d", h.Size, len(b))
		}
		for id := range 256 {
			h.Extension(uint8(id))
		}
		body, err := h.Body(b)
		if err == nil && len(body) > len(b)-h.Size {
			t.Fatal("body longer than the packet")
		}
	})
}
