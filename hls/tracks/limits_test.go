package tracks

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		cfg   Config
		kinds []codec.Kind
	}{
		{Config{Name: "x"}, []codec.Kind{codec.Audio}}, {Config{Dir: dir, Name: "../x"}, []codec.Kind{codec.Audio}}, {Config{Dir: dir}, []codec.Kind{codec.Audio}},
		{Config{Dir: dir, Name: "x"}, nil}, {Config{Dir: dir, Name: "x"}, []codec.Kind{codec.Audio, codec.Audio}},
	} {
		if _, err := New(c.cfg, c.kinds, nil); err == nil {
			t.Errorf("%+v %v was taken", c.cfg, c.kinds)
		}
	}
	if _, err := Complete(dir, "a/b"); err == nil {
		t.Error("a path is no name")
	}
}

// A disk that is slow costs packets, never the engine's time; taking a packet allocates nothing. Not parallel: it counts allocations.
func TestFullQueue(t *testing.T) {
	r, err := New(Config{Dir: t.TempDir(), Name: "x", Queue: 100}, []codec.Kind{codec.Audio}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var pool packet.Pool
	p := pool.Get()
	p.Payload = p.Buffer()[:50]
	for range 150 {
		r.Input(0).WriteRTP(p)
	}
	if s := r.Stats(); s.Overflow != 50 {
		t.Errorf("%+v", s)
	}
	p.Release()
	for range 100 {
		(<-r.events).packet.Release()
	}
	if n := pool.Live(); n != 0 {
		t.Errorf("%d packets were not released", n)
	}
	q := pool.Get()
	defer q.Release()
	if n := testing.AllocsPerRun(100, func() {
		r.Input(0).WriteRTP(q)
		(<-r.events).packet.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A directory that is gone is a failure that is told, and no more.
func TestNowhereToWrite(t *testing.T) {
	t.Parallel()
	s := newShow(t, codec.Audio)
	audio := newPublisher(t, &s.pool, codec.Opus, begin)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	s.play(all(audio, encoded(t, codec.Opus, ""), 0, soundTime))
	if _, err := s.stop(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if st := s.rec.Stats(); st.Failure == "" || st.Left == 0 {
		t.Errorf("%+v", st)
	}
}

// A picture whose fragments never end is given up at the limit, not when all memory holds them.
func TestEndlessFragments(t *testing.T) {
	t.Parallel()
	for name, fragment := range map[codec.Name][]byte{codec.H264: {0x7c, 0x05, 1}, codec.AV1: {0xc0, 1, 1}} {
		asm := newAssembler(name)
		var pool packet.Pool
		p := pool.Get()
		p.Payload = p.Buffer()[:1000]
		copy(p.Payload, fragment)
		p.StartOfFrame = true
		for range maxFrame/1000 + 2 {
			if _, ok := asm.push(p, 0); ok {
				t.Fatalf("%v: a frame", name)
			}
			p.StartOfFrame = false
		}
		if !asm.broken || asm.frame.data != nil {
			t.Errorf("%v: it goes on beyond %d bytes", name, maxFrame)
		}
		p.Release()
	}
}

// Whatever publishers send, what is written can be read.
func FuzzPackets(f *testing.F) {
	f.Add(uint8(96), []byte{0x90, 0x80, 1, 0x10, 0, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0}, []byte{0x10, 1}, true)
	f.Add(uint8(98), []byte{0x0c, 0x82, 0x49, 0x83, 0x42, 0, 0, 0xf0, 0, 0xf6}, []byte{4, 1}, true)
	f.Add(uint8(45), []byte{0x18, 0x0a, 0x0b, 0, 0, 0, 0x24, 0xcf, 0x7f, 0x0d, 0xbf, 0xff, 0x38}, []byte{0x10, 0x32, 1}, false)
	f.Add(uint8(102), []byte{0x67, 0x42, 0xc0, 0x1e, 0xda, 1, 0x40, 0x16, 0xe8}, []byte{0x65, 1, 2}, true)
	f.Fuzz(func(t *testing.T, pt uint8, first, second []byte, key bool) {
		name := codec.ByPayloadType(pt).Name
		if len(first) > 1000 || len(second) > 1000 {
			return
		}
		dir := t.TempDir()
		m := mux{dir: dir, name: "x", inputs: []*muxInput{{clock: clock{rate: 90000}}}}
		asm := newAssembler(name)
		var pool packet.Pool
		for i, payload := range [][]byte{first, second, first, second} {
			p := pool.Get()
			p.Payload = p.Buffer()[:copy(p.Buffer(), payload)]
			p.Timestamp, p.Marker, p.StartOfFrame, p.Keyframe = uint32(i/2)*3000, i%2 == 1, i%2 == 0, key && i%2 == 0
			if fr, ok := asm.push(p, 0); ok {
				m.add(0, fr, int64(i)*int64(time.Second))
			}
			p.Release()
		}
		m.end()
		files, err := Complete(dir, "x")
		if err != nil {
			t.Fatal(err)
		}
		left, _ := filepath.Glob(filepath.Join(dir, "*"))
		if len(left) != len(files) {
			t.Fatalf("%v beside %+v", left, files)
		}
	})
}

func BenchmarkWriteRTP(b *testing.B) {
	r, err := New(Config{Dir: b.TempDir(), Name: "x"}, []codec.Kind{codec.Audio}, nil)
	if err != nil {
		b.Fatal(err)
	}
	var pool packet.Pool
	p := pool.Get()
	b.ReportAllocs()
	for b.Loop() {
		r.Input(0).WriteRTP(p)
		(<-r.events).packet.Release()
	}
}
