package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/amphi-sfu/amphi/hls/wire"
)

func start() *wire.Start {
	return &wire.Start{
		EpochNS: 1_700_000_000_000_000_000, Width: 1280, Height: 720, FPS: 30, FirstTick: 30,
		GOPTicks: 60, PartTicks: 15, AudioBitrate: 128_000,
		Variants: []wire.Variant{{Name: "720p", Width: 1280, Height: 720, Bitrate: 2_500_000}},
	}
}

func addInput() *wire.AddInput {
	return &wire.AddInput{ID: 7, Kind: wire.Video, Sync: "p1", Formats: []wire.Format{{PayloadType: 96, Codec: wire.VP8, ClockRate: 90000}}}
}

func scene() *wire.Scene {
	return &wire.Scene{Background: "#102030", Tiles: []wire.Tile{{
		Input: 7, W: 640, H: 360, Fit: wire.Contain, Label: "Ada", Muted: true, Speaking: true,
		Placeholder: wire.Placeholder{Initials: "A", Colour: "#aabbcc", Always: true},
	}}}
}

// must unwraps an Append that can fail.
func must(t testing.TB) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// everything is one frame of each type, in order of type.
func everything(t testing.TB) []byte {
	ok := must(t)
	b := ok(wire.AppendStart(nil, start()))
	b = ok(wire.AppendAddInput(b, addInput()))
	b = wire.AppendRemoveInput(b, 7)
	b = ok(wire.AppendScene(b, scene()))
	b = ok(wire.AppendAudioMix(b, &wire.AudioMix{Inputs: []wire.Gain{{Input: 8, Gain: 1}}}))
	b = ok(wire.AppendRTP(b, 7, wire.RTPHeader{PayloadType: 96, Marker: true, SequenceNumber: 2, Timestamp: 3, SSRC: 4}, []byte("payload")))
	b = wire.AppendSenderReport(b, wire.SenderReport{Input: 7, SSRC: 4, NTP: 5 << 32, RTP: 6})
	b = wire.AppendForceKeyframe(b)
	b = ok(wire.AppendPicture(b, wire.Picture{Key: "wall@1", Data: []byte("png")}))
	b = wire.AppendIdle(b, 5)
	b = ok(wire.AppendReady(b, &wire.Ready{FirstTick: 30, AudioConfig: []byte{0x11, 0x90}}))
	b = ok(wire.AppendVideoAU(b, wire.VideoAU{Variant: 1, Key: true, Tick: 30, TimeNS: 9, Data: []byte{0, 0, 1, 0x65}}))
	b = ok(wire.AppendAudioAU(b, wire.AudioAU{Samples: -1024, TimeNS: 9, Data: []byte{1}}))
	b = ok(wire.AppendStats(b, &wire.Stats{Ticks: 3}))
	return wire.AppendKeyframeRequest(b, wire.KeyframeRequest{Input: 7, SSRC: 4})
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	b := everything(t)
	for name, r := range map[string]io.Reader{
		"whole":         bytes.NewReader(b),
		"byte by byte":  iotest.OneByteReader(bytes.NewReader(b)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []any
			rd := wire.NewReader(r)
			for {
				f, err := rd.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				v, err := body(f)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, v)
			}
			rtp := append([]byte{0x80, 0x80 | 96, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}, "payload"...)
			want := []any{
				start(), addInput(), uint32(7), scene(), &wire.AudioMix{Inputs: []wire.Gain{{Input: 8, Gain: 1}}},
				wire.RTP{Input: 7, Packet: rtp}, wire.SenderReport{Input: 7, SSRC: 4, NTP: 5 << 32, RTP: 6}, nil,
				wire.Picture{Key: "wall@1", Data: []byte("png")}, wire.Idle(5),
				&wire.Ready{FirstTick: 30, AudioConfig: []byte{0x11, 0x90}},
				wire.VideoAU{Variant: 1, Key: true, Tick: 30, TimeNS: 9, Data: []byte{0, 0, 1, 0x65}},
				wire.AudioAU{Samples: -1024, TimeNS: 9, Data: []byte{1}},
				&wire.Stats{Ticks: 3}, wire.KeyframeRequest{Input: 7, SSRC: 4},
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatal(d)
			}
		})
	}
}

// body decodes any frame, copying what aliases it.
func body(f wire.Frame) (any, error) {
	switch f.Type {
	case wire.TypeStart:
		return f.Start()
	case wire.TypeAddInput:
		return f.AddInput()
	case wire.TypeRemoveInput:
		return f.RemoveInput()
	case wire.TypeScene:
		return f.Scene()
	case wire.TypeAudioMix:
		return f.AudioMix()
	case wire.TypeRTP:
		p, err := f.RTP()
		p.Packet = bytes.Clone(p.Packet)
		return p, err
	case wire.TypeSenderReport:
		return f.SenderReport()
	case wire.TypePicture:
		p, err := f.Picture()
		p.Data = bytes.Clone(p.Data)
		return p, err
	case wire.TypeIdle:
		return f.Idle()
	case wire.TypeReady:
		return f.Ready()
	case wire.TypeVideoAU:
		au, err := f.VideoAU()
		au.Data = bytes.Clone(au.Data)
		return au, err
	case wire.TypeAudioAU:
		au, err := f.AudioAU()
		au.Data = bytes.Clone(au.Data)
		return au, err
	case wire.TypeStats:
		return f.Stats()
	case wire.TypeKeyframeRequest:
		return f.KeyframeRequest()
	}
	return nil, nil
}

func TestBufferGrowsOnlyToLimits(t *testing.T) {
	t.Parallel()
	big := must(t)(wire.AppendVideoAU(nil, wire.VideoAU{Data: make([]byte, 4<<20)}))
	r := wire.NewReader(io.MultiReader(bytes.NewReader(everything(t)), bytes.NewReader(big), bytes.NewReader(everything(t))))
	n := 0
	for ; ; n++ {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 15 && len(f.Body) != 18+4<<20 {
			t.Fatalf("access unit frame of %d bytes", len(f.Body))
		}
	}
	if n != 31 {
		t.Fatalf("%d frames", n)
	}
	if _, err := wire.AppendVideoAU(nil, wire.VideoAU{Data: make([]byte, 4<<20+1)}); !errors.Is(err, wire.ErrMalformed) {
		t.Fatalf("access unit above the limit: %v", err)
	}
	if _, err := wire.AppendRTP(nil, 1, wire.RTPHeader{}, make([]byte, 1489)); err == nil {
		t.Fatal("packet above the limit")
	}
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	head := func(n uint32, typ byte) []byte { return append(binary.BigEndian.AppendUint32(nil, n), typ) }
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"unknown type":    {head(1, 200), wire.ErrUnknownType},
		"length 0":        {head(0, 1), wire.ErrTooLong},
		"4 GiB":           {head(1<<32-1, byte(wire.TypeVideoAU)), wire.ErrTooLong},
		"long control":    {head(wire.MaxControl+2, byte(wire.TypeScene)), wire.ErrTooLong},
		"long force":      {head(2, byte(wire.TypeForceKeyframe)), wire.ErrTooLong},
		"ends in head":    {head(1, 1)[:3], io.ErrUnexpectedEOF},
		"ends in body":    {head(5, byte(wire.TypeRemoveInput)), io.ErrUnexpectedEOF},
		"ends in nothing": {nil, io.EOF},
	} {
		_, err := wire.NewReader(bytes.NewReader(c.in)).Next()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(*wire.Start){
		"no epoch":        func(s *wire.Start) { s.EpochNS = 0 },
		"odd width":       func(s *wire.Start) { s.Width = 1281 },
		"huge":            func(s *wire.Start) { s.Height = 8000 },
		"slow":            func(s *wire.Start) { s.FPS = 1 },
		"GOP not a grid":  func(s *wire.Start) { s.GOPTicks = 50 },
		"no part":         func(s *wire.Start) { s.PartTicks = 0 },
		"no variant":      func(s *wire.Start) { s.Variants = nil },
		"variant bitrate": func(s *wire.Start) { s.Variants[0].Bitrate = 1 },
		"encoder":         func(s *wire.Start) { s.Encoder = "mpeg2video" },
		"preset":          func(s *wire.Start) { s.Preset = "placebo" },
		"negative tick":   func(s *wire.Start) { s.FirstTick = -1 },
		"audio":           func(s *wire.Start) { s.AudioBitrate = 1 },
	} {
		s := start()
		f(s)
		refused(t, name, must(t)(wire.AppendStart(nil, s)))
	}
	for name, f := range map[string]func(*wire.AddInput){
		"no id":        func(a *wire.AddInput) { a.ID = 0 },
		"kind":         func(a *wire.AddInput) { a.Kind = "data" },
		"wrong kind":   func(a *wire.AddInput) { a.Kind = wire.Audio },
		"codec":        func(a *wire.AddInput) { a.Formats[0].Codec = "theora" },
		"no format":    func(a *wire.AddInput) { a.Formats = nil },
		"clock":        func(a *wire.AddInput) { a.Formats[0].ClockRate = 0 },
		"payload type": func(a *wire.AddInput) { a.Formats[0].PayloadType = 200 },
		"name":         func(a *wire.AddInput) { a.Name = strings.Repeat("x", 800) },
	} {
		a := addInput()
		f(a)
		refused(t, name, must(t)(wire.AppendAddInput(nil, a)))
	}
	for name, f := range map[string]func(*wire.Scene){
		"many tiles": func(s *wire.Scene) { s.Tiles = make([]wire.Tile, 65) },
		"flat tile":  func(s *wire.Scene) { s.Tiles[0].H = 0 },
		"far tile":   func(s *wire.Scene) { s.Tiles[0].X = 1 << 30 },
		"fit":        func(s *wire.Scene) { s.Tiles[0].Fit = "fill" },
		"label":      func(s *wire.Scene) { s.Tiles[0].Label = strings.Repeat("x", 800) },
		"colour":     func(s *wire.Scene) { s.Background = "#12345g" },
	} {
		s := scene()
		f(s)
		refused(t, name, must(t)(wire.AppendScene(nil, s)))
	}
	refused(t, "gain", must(t)(wire.AppendAudioMix(nil, &wire.AudioMix{Inputs: []wire.Gain{{Input: 1, Gain: 5}}})))
	refused(t, "not JSON", []byte{0, 0, 0, 2, byte(wire.TypeScene), '{'})
}

// A name that was cut inside a character grows in JSON; it still passes.
func TestCutName(t *testing.T) {
	t.Parallel()
	s := scene()
	s.Tiles[0].Label = strings.Repeat("\U0001F600", 100)[:wire.MaxLabelBytes-1]
	f, err := wire.NewReader(bytes.NewReader(must(t)(wire.AppendScene(nil, s)))).Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Scene(); err != nil {
		t.Error(err)
	}
}

func refused(t *testing.T, name string, frame []byte) {
	t.Helper()
	f, err := wire.NewReader(bytes.NewReader(frame)).Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := body(f); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("%s: %v", name, err)
	}
}

func TestMediaDoesNotAllocate(t *testing.T) {
	payload := make([]byte, 1200)
	buf := make([]byte, 0, 4096)
	stream := must(t)(wire.AppendRTP(nil, 1, wire.RTPHeader{}, payload))
	src := bytes.NewReader(stream)
	r := wire.NewReader(src)
	if n := testing.AllocsPerRun(100, func() {
		buf, _ = wire.AppendRTP(buf[:0], 1, wire.RTPHeader{SequenceNumber: 1}, payload)
		buf, _ = wire.AppendVideoAU(buf[:0], wire.VideoAU{Data: payload})
		src.Reset(stream)
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.RTP(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations a frame", n)
	}
}

func TestPair(t *testing.T) {
	t.Parallel()
	conn, child, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(wire.AppendForceKeyframe(nil)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	r := wire.NewReader(child)
	if f, err := r.Next(); err != nil || f.Type != wire.TypeForceKeyframe {
		t.Fatalf("%v %v", f, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the node's end: %v", err)
	}
	if err := child.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkRTP(b *testing.B) {
	payload := make([]byte, 1100)
	stream := must(b)(wire.AppendRTP(nil, 1, wire.RTPHeader{}, payload))
	src := bytes.NewReader(stream)
	r := wire.NewReader(src)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = wire.AppendRTP(buf[:0], 1, wire.RTPHeader{SequenceNumber: 1}, payload)
		src.Reset(stream)
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(everything(f))
	f.Add([]byte{0, 0, 0, 1, 8, 0, 0, 0, 5, 3, 0, 0, 0, 1})
	f.Add([]byte{255, 255, 255, 255, 66})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewReader(bytes.NewReader(b))
		used := 0
		for {
			fr, err := r.Next()
			if err != nil {
				return
			}
			used += 5 + len(fr.Body)
			if used > len(b) {
				t.Fatal("more frames than bytes")
			}
			v, err := body(fr)
			if err != nil && !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("error without a name: %v", err)
			}
			if s, ok := v.(*wire.Scene); ok && err == nil && len(s.Tiles) > wire.MaxTiles {
				t.Fatal("scene above its limit")
			}
		}
	})
}
