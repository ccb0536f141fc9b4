package descriptor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// captured returns the descriptors of a stream that Chromium sent: one packet per line,
// number, timestamp, marker, descriptor and the beginning of the payload.
func captured(t testing.TB, path string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		raw, err := hex.DecodeString(f[3])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, raw)
	}
	return list
}

func captures(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/chromium/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("captures %v, %v", files, err)
	}
	return files
}

// word describes a frame to each target as the specification writes it.
func (t targets) word(n int) string {
	b := make([]byte, n)
	for i := range b {
		bit := uint32(1) << i
		switch {
		case t.Switch&bit != 0:
			b[i] = 'S'
		case t.Required&bit != 0:
			b[i] = 'R'
		case t.Present&bit != 0:
			b[i] = 'D'
		default:
			b[i] = '-'
		}
	}
	return string(b)
}

// TestChromium reads what Chromium sends in each scalability mode, and compares with what
// a person found to be right once (REWRITE=1 writes it anew).
func TestChromium(t *testing.T) {
	t.Parallel()
	for _, path := range captures(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			var s State
			var out strings.Builder
			var known *Structure
			for _, raw := range captured(t, path) {
				var f Frame
				if err := s.Parse(raw, &f); err != nil {
					t.Fatalf("%x: %v", raw, err)
				}
				if f.Structure != known {
					known = f.Structure
					fmt.Fprintf(&out, "structure: offset %d, %d templates, targets %v, sizes %v, chains %v\n",
						known.Offset(), known.Templates(), known.Targets, known.Sizes, known.ProtectedBy)
				}
				edges := map[bool]string{true: "first"}[f.First] + map[bool]string{true: " last"}[f.Last]
				fmt.Fprintf(&out, "%d S%dT%d %s active %b needs %v %s\n", f.Number&0xffff, f.Spatial, f.Temporal,
					f.word(len(known.Targets)), f.Active, f.Diffs[:f.Count], edges)
			}
			golden := strings.TrimSuffix(path, ".txt") + ".golden"
			if os.Getenv("REWRITE") != "" {
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != out.String() {
				t.Fatalf("%v; got\n%s", err, out.String())
			}
		})
	}
}

// TestAppend: what is written reads as what was read, with the numbers moved, for whoever
// begins at a keyframe.
func TestAppend(t *testing.T) {
	t.Parallel()
	edits := []Edit{{}, {Number: 65000}, {Number: 7, Templates: 40}, {Active: 1}, {Number: 1, Templates: 63, Active: 1}}
	for _, path := range captures(t) {
		for _, e := range edits {
			var s, got State
			for i, raw := range captured(t, path) {
				var f, g Frame
				if err := s.Parse(raw, &f); err != nil {
					t.Fatal(err)
				}
				out := f.Append([]byte("before"), raw, e)[6:]
				if e == (Edit{}) && f.HasStructure() && !bytes.Equal(out, raw) {
					t.Fatalf("%s: packet %d: %x, want %x", path, i, out, raw)
				}
				if err := got.Parse(out, &g); err != nil {
					t.Fatalf("%s, %+v: packet %d: %x from %x: %v", path, e, i, out, raw, err)
				}
				if uint16(g.Number) != uint16(f.Number)+e.Number || g.targets != f.targets || g.deps != f.deps ||
					g.Spatial != f.Spatial || g.Temporal != f.Temporal || g.First != f.First || g.Last != f.Last {
					t.Fatalf("%s, %+v: packet %d: %+v, want %+v", path, e, i, g, f)
				}
				if f.First && f.Independent() != g.HasStructure() {
					t.Fatalf("%s, %+v: packet %d: structure %v", path, e, i, g.HasStructure())
				}
				if want := f.Active & (e.Active | -b2u(e.Active == 0)); g.Active != want {
					t.Fatalf("%s, %+v: packet %d: active %b of %b", path, e, i, g.Active, f.Active)
				}
				if !g.Structure.Equal(f.Structure) || g.Structure.Offset() != (f.Structure.Offset()+e.Templates)%64 {
					t.Fatalf("%s, %+v: packet %d: structure %+v", path, e, i, g.Structure)
				}
			}
		}
	}
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// keyframe is the first packet of an AV1 stream of two spatial and three temporal layers.
const keyframe = "c10001800514853abfaaa18f04304302a02a006001001b934515e082704608c0c787004321651111543276809f8059813f80b380"

func decode(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestErrors(t *testing.T) {
	t.Parallel()
	key := decode(t, keyframe)
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"empty":          {nil, ErrShort},
		"two bytes":      {[]byte{0, 0}, ErrShort},
		"too long":       {make([]byte, MaxSize+1), ErrLong},
		"no structure":   {[]byte{0xc1, 0, 1}, ErrStructure},
		"many layers":    {append([]byte{0xc0, 0, 1, 0x80, 0, 0x20}, bytes.Repeat([]byte{0xaa}, 20)...), ErrTemplate},
		"many templates": {append([]byte{0xc0, 0, 1, 0x80, 0, 0x20}, make([]byte, 40)...), ErrTemplate},
		"layers cut":     {[]byte{0xc0, 0, 1, 0x80, 0, 0x20, 0}, ErrShort},
		"unknown in it":  {append([]byte{0xff}, key[1:]...), ErrTemplate},
	} {
		var s State
		var f Frame
		if err := s.Parse(c.raw, &f); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for n := 4; n < len(key)-1; n++ {
		var s State
		var f Frame
		if err := s.Parse(key[:n], &f); err == nil {
			t.Errorf("cut to %d bytes of %d it is read", n, len(key))
		}
	}
	var s State
	var f Frame
	if err := s.Parse(key, &f); err != nil {
		t.Fatal(err)
	}
	if err := s.Parse([]byte{0xff, 0, 2}, &f); !errors.Is(err, ErrTemplate) {
		t.Errorf("template outside the structure: %v", err)
	}
}

// TestOldStructure: a packet that was under way when the structure changed means the old one.
func TestOldStructure(t *testing.T) {
	t.Parallel()
	var s State
	var f Frame
	key := decode(t, keyframe)
	if err := s.Parse(key, &f); err != nil {
		t.Fatal(err)
	}
	first := f.Structure
	moved := f.Append(nil, key, Edit{Number: 9, Templates: 30}) // frame 10
	if err := s.Parse(moved, &f); err != nil || f.Structure == first || f.Structure.Offset() != 31-1 {
		t.Fatalf("%v, offset %d", err, f.Structure.Offset())
	}
	if err := s.Parse([]byte{0xc3, 0, 9}, &f); err != nil || f.Structure != first || f.Number&0xffff != 9 {
		t.Fatalf("late: %v, %+v", err, f)
	}
	if err := s.Parse([]byte{0xc3 + 30, 0, 11}, &f); err != nil || f.Structure == first {
		t.Fatalf("new: %v, %+v", err, f)
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	var s State
	var f Frame
	key, delta := decode(t, keyframe), []byte{0xc3, 0, 3}
	buf := make([]byte, 0, 256)
	if err := s.Parse(key, &f); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		for _, raw := range [][]byte{key, delta} {
			if err := s.Parse(raw, &f); err != nil {
				t.Fatal(err)
			}
			buf = f.Append(buf[:0], raw, Edit{Number: 1, Templates: 2, Active: 7})
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, path := range captures(f) {
		for i, raw := range captured(f, path) {
			if len(raw) > 3 || i < 8 {
				f.Add(raw, []byte{0xc3, 0, 3}, uint16(i), uint8(i), uint32(i))
			}
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte, number uint16, templates uint8, active uint32) {
		var s, again State
		for _, raw := range [][]byte{first, second} {
			var x, y Frame
			if s.Parse(raw, &x) != nil {
				continue
			}
			out := x.Append(nil, raw, Edit{Number: number, Templates: templates & 63, Active: active})
			if len(out) > MaxSize {
				t.Fatalf("%d bytes", len(out))
			}
			if again.Parse(out, &y) != nil {
				continue // a structure too long to be put in, or one that the first had
			}
			if y.targets != x.targets || y.deps != x.deps || uint16(y.Number) != uint16(x.Number)+number {
				t.Fatalf("%x became %x: %+v, %+v", raw, out, x, y)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	var s State
	var f Frame
	key, delta := decode(b, keyframe), []byte{0xc3, 0, 3}
	if err := s.Parse(key, &f); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Parse(delta, &f); err != nil {
			b.Fatal(err)
		}
	}
}
