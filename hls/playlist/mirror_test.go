package playlist

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"
)

// unpack checks what is compressed by a reader of somebody else's.
func unpack(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// Whoever follows a playlist by its deltas has it byte by byte, compressed too, under the same tag: over discontinuities, gaps, new
// init sections, cues, missed versions, any window and from any begin.
func TestMirror(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			m := media(t, Config{FirstMSN: rnd.Uint64N(3 * chunkLen), Window: 6 + rnd.IntN(3*chunkLen)})
			if seed%3 > 0 {
				m.SetMap("a.mp4")
			}
			var mirror Mirror
			known, missed := false, 0
			for i := range 1600 {
				change(t, m, rnd, i)
				s := m.Render([]Report{{URI: "../a.m3u8", MSN: uint64(i), Part: 1}})
				if rnd.IntN(4) == 0 { // this version never arrives
					missed++
					continue
				}
				full, delta := s.Form(SkipNone), s.Form(SkipSegments)
				got, err := mirror.Delta(delta.Bytes())
				if errors.Is(err, ErrUnknownPast) && !known {
					got, err = mirror.Whole(full.Bytes(), delta.Bytes())
				}
				if err != nil {
					t.Fatalf("part %d: %v", i, err)
				}
				known = true
				if !bytes.Equal(got.Bytes(), full.Bytes()) || got.Tag() != full.Tag() {
					t.Fatalf("part %d: tag %s, want %s, and\n%s\nnot\n%s", i, got.Tag(), full.Tag(), got.Bytes(), full.Bytes())
				}
				if got.Size() != len(full.Bytes()) || full.Size() != got.Size() {
					t.Fatalf("part %d: sizes %d and %d of %d", i, got.Size(), full.Size(), len(full.Bytes()))
				}
				if i%50 == 0 && (!bytes.Equal(got.Gzip(), full.Gzip()) || !bytes.Equal(unpack(t, got.Gzip()), full.Bytes())) {
					t.Fatalf("part %d: compressed it is something else", i)
				}
			}
			if missed == 0 {
				t.Error("nothing was missed")
			}
		})
	}
}

// change does to a playlist what happens to it until its next version.
func change(t testing.TB, m *Media, rnd *rand.Rand, i int) {
	t.Helper()
	if !m.isOpen() {
		switch rnd.IntN(12) {
		case 0:
			m.Break()
			m.SetMap(fmt.Sprintf("%d.mp4", i))
		case 1:
			m.SetMap(fmt.Sprintf("%d.mp4", i))
		case 2:
			if err := m.FinishGap("gap", time.Unix(int64(i), 0), 2*time.Second); err != nil {
				t.Fatal(err)
			}
		case 3:
			at := time.Unix(int64(m.OpenMSN())*2, 0)
			if err := m.AddDateRange(DateRange{ID: fmt.Sprint(i), Start: at, Attrs: map[string]string{"A": "b"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	grow(t, m, 1)
	if m.isOpen() && rnd.IntN(40) == 0 { // the compositor died
		if err := m.Finish("short", false); err != nil {
			t.Fatal(err)
		}
	}
}

// What is no playlist, or does not fit what is known, is an error and nothing worse.
func TestMirrorRefuses(t *testing.T) {
	t.Parallel()
	m := media(t, Config{Window: 40})
	m.SetMap("a.mp4")
	grow(t, m, 100)
	s := m.Render(nil)
	full, delta := s.Form(SkipNone).Bytes(), s.Form(SkipSegments).Bytes()
	for name, c := range map[string]struct{ full, delta []byte }{
		"another whole":         {bytes.Replace(full, []byte("\ns\n"), []byte("\ns\ns\n"), 1), delta},
		"another tail":          {append(bytes.Clone(full), "#EXT-X-ENDLIST\n"...), delta},
		"no whole":              {nil, delta},
		"a number that is none": {full, bytes.Replace(delta, []byte("SKIPPED-SEGMENTS="), []byte("SKIPPED-SEGMENTS=x"), 1)},
		"too many":              {full, bytes.Replace(delta, []byte("SKIPPED-SEGMENTS="), []byte("SKIPPED-SEGMENTS=9999999"), 1)},
	} {
		var x Mirror
		if _, err := x.Whole(c.full, c.delta); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	var x Mirror
	if _, err := x.Delta(delta); !errors.Is(err, ErrUnknownPast) {
		t.Errorf("a delta without anything before: %v", err)
	}
	if _, err := x.Whole(full, delta); err != nil {
		t.Fatal(err)
	}
	grow(t, m, 60) // twice what deltas list: segments in between were never seen
	if _, err := x.Delta(m.Render(nil).Form(SkipSegments).Bytes()); !errors.Is(err, ErrUnknownPast) {
		t.Errorf("a delta too late: %v", err)
	}
	if _, err := x.Delta(m.Render(nil).Form(SkipSegments).Bytes()); !errors.Is(err, ErrUnknownPast) {
		t.Errorf("the next one: %v", err)
	}
}

func FuzzMirror(f *testing.F) {
	m := media(f, Config{Window: 40})
	m.SetMap("a.mp4")
	grow(f, m, 100)
	s := m.Render(nil)
	full, delta := s.Form(SkipNone).Bytes(), s.Form(SkipSegments).Bytes()
	f.Add(full, delta, delta)
	f.Add(full, full, delta)
	f.Add([]byte("#EXTM3U\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\na\n"), []byte("#EXTM3U\n#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n"), []byte{})
	f.Fuzz(func(t *testing.T, full, delta, next []byte) {
		var x Mirror
		for _, take := range []func() (*Form, error){
			func() (*Form, error) { return x.Whole(full, delta) },
			func() (*Form, error) { return x.Delta(next) },
		} {
			if got, err := take(); err == nil && !bytes.Equal(unpack(t, got.Gzip()), got.Bytes()) {
				t.Fatal("compressed it is something else")
			}
		}
	})
}

// A version of a playlist with a window of 12 h: written, and given as delta; then whole too.
func BenchmarkLongWindow(b *testing.B) {
	for _, window := range []int{15, 1800, 12 * 1800} {
		for name, use := range map[string]func(*Snapshot){
			"delta": func(s *Snapshot) { s.Form(SkipSegments).Gzip() },
			"whole": func(s *Snapshot) { s.Form(SkipSegments).Gzip(); s.Form(SkipNone).Gzip() },
		} {
			b.Run(fmt.Sprintf("%d segments/%s", window, name), func(b *testing.B) {
				m := media(b, Config{Window: window})
				m.SetMap("1764000000000000000-init0.mp4")
				grow(b, m, 4*window)
				use(m.Render(nil))
				b.ReportAllocs()
				for b.Loop() {
					grow(b, m, 1)
					use(m.Render(nil))
				}
			})
		}
	}
}
