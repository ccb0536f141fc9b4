package seq

import (
	"testing"

	"pgregory.net/rapid"
)

func TestUnwrapAcrossTheWrapBothWays(t *testing.T) {
	t.Parallel()
	var u Unwrapper
	base := u.Unwrap(65534)
	for i, s := range []uint16{65535, 0, 1, 65533, 2} {
		want := []uint64{base + 1, base + 2, base + 3, base - 1, base + 4}[i]
		if got := u.Unwrap(s); got != want || uint16(got) != s {
			t.Fatalf("step %d: %d, want %d", i, got, want)
		}
	}
	if u.Highest() != base+4 {
		t.Fatalf("highest %d", u.Highest())
	}
}

func TestUnwrapAbove(t *testing.T) {
	t.Parallel()
	for _, s := range []uint16{0, 9, 10, 11, 65535} {
		var u Unwrapper
		before := u.Unwrap(10)
		got := u.Above(s)
		if got <= before || got > before+1<<16 || uint16(got) != s || u.Unwrap(s+1) != got+1 {
			t.Fatalf("%d above %d is %d", s, before, got)
		}
	}
}

func TestMapSkipsCloseUp(t *testing.T) {
	t.Parallel()
	m := NewMap(100)
	m.Switch(1000, Meta{Source: 1})
	check := func(ext, want uint64, wantOK bool) {
		t.Helper()
		out, _, ok := m.Forward(ext)
		if ok != wantOK || ok && out != want {
			t.Fatalf("Forward(%d) = %d, %v; want %d, %v", ext, out, ok, want, wantOK)
		}
	}
	check(999, 0, false)
	check(1000, 100, true)
	m.Skip(1001, 1, 0)
	m.Skip(1002, 0, 0)
	check(1003, 101, true)
	check(1001, 0, false)
	m.Skip(1006, 1, 0) // 1004 and 1005 are missing: their numbers are kept
	check(1007, 104, true)
	check(1005, 103, true)
	check(1004, 102, true)
	if _, meta, _ := m.Forward(1008); meta.Picture != ^uint16(1) {
		t.Fatalf("picture delta %d, want -2", int16(meta.Picture))
	}
	m.Switch(50, Meta{Source: 2, Timestamp: 9})
	check(49, 0, false)
	check(50, 106, true)
	src, meta, ok := m.Lookup(103)
	if !ok || src != 1005 || meta.Source != 1 {
		t.Fatalf("Lookup(103) = %d, %+v, %v", src, meta, ok)
	}
	if _, _, ok := m.Lookup(99); ok {
		t.Fatal("found a number from before the start")
	}
	if _, _, ok := m.Lookup(2000); ok {
		t.Fatal("found a number that was never sent")
	}
}

func TestMapChange(t *testing.T) {
	t.Parallel()
	m := NewMap(10)
	if m.Change(5, Meta{}) {
		t.Fatal("changed before the first source")
	}
	m.Switch(100, Meta{Source: 1})
	if !m.Change(100, Meta{Source: 1, Spatial: 2}) {
		t.Fatal("not changed at the first packet")
	}
	m.Forward(100)
	if m.Change(100, Meta{Source: 1}) {
		t.Fatal("changed what was sent")
	}
	if !m.Change(103, Meta{Source: 1, Spatial: 1}) || m.Next() != 13 {
		t.Fatalf("not changed after a gap: next %d", m.Next())
	}
	for _, c := range []struct {
		ext, out uint64
		spatial  uint8
	}{{103, 13, 1}, {101, 11, 2}, {104, 14, 1}, {100, 10, 2}, {102, 12, 2}} {
		if out, meta, ok := m.Forward(c.ext); !ok || out != c.out || meta.Spatial != c.spatial {
			t.Fatalf("Forward(%d) = %d, %+v, %v", c.ext, out, meta, ok)
		}
		if src, meta, ok := m.Lookup(uint16(c.out)); !ok || src != c.ext || meta.Spatial != c.spatial {
			t.Fatalf("Lookup(%d) = %d, %+v, %v", c.out, src, meta, ok)
		}
	}
}

// TestMapProperties: whatever arrives, in whatever order, no two packets share an output
// number, numbers leave no gap beyond the packets that are really missing, and
// every forwarded packet is found again.
func TestMapProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := NewMap(rapid.Uint64Range(0, 1<<15).Draw(t, "start"))
		type origin struct {
			source uint32
			ext    uint64
		}
		owner := map[uint64]origin{}
		sent := []uint64{}
		source, pos := uint32(0), uint64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch action := rapid.IntRange(0, 9).Draw(t, "action"); {
			case action == 0 || source == 0:
				source++
				pos = rapid.Uint64Range(1<<16, 1<<20).Draw(t, "first")
				m.Switch(pos, Meta{Source: source})
			case action <= 2:
				m.Skip(pos, 1, 0)
				pos++
				continue
			case action == 4:
				meta := m.Meta()
				meta.Targets = rapid.Uint32().Draw(t, "targets")
				if m.Change(pos, meta) && m.Meta() != meta {
					t.Fatalf("changed to %+v, is %+v", meta, m.Meta())
				}
			case action == 3:
				pos += rapid.Uint64Range(1, 5).Draw(t, "lost")
			}
			ext := pos
			if rapid.IntRange(0, 9).Draw(t, "late") == 0 && ext > 3 {
				ext -= rapid.Uint64Range(0, 3).Draw(t, "by")
			} else {
				pos++
			}
			out, meta, ok := m.Forward(ext)
			if !ok {
				continue
			}
			if meta.Source != source {
				t.Fatalf("packet of source %d mapped with %d", source, meta.Source)
			}
			me := origin{source, ext}
			if was, taken := owner[out]; taken && was != me {
				t.Fatalf("output %d used by %+v and %+v", out, was, me)
			}
			owner[out] = me
			sent = append(sent, out)
			if len(sent) > 20 {
				sent = sent[1:]
			}
			for _, o := range sent {
				src, _, found := m.Lookup(uint16(o))
				if found && src != owner[o].ext {
					t.Fatalf("Lookup(%d) = %d, want %d", o, src, owner[o].ext)
				}
			}
			if src, _, found := m.Lookup(uint16(out)); !found || src != ext {
				t.Fatalf("packet just sent is not found: %d %v", src, found)
			}
		}
	})
}

func BenchmarkForward(b *testing.B) {
	m := NewMap(1)
	m.Switch(1<<16, Meta{Source: 1})
	b.ReportAllocs()
	ext := uint64(1 << 16)
	for b.Loop() {
		m.Forward(ext)
		ext++
	}
}
