package red

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// TestByHand reads a packet put together from RFC 2198 section 3: two earlier frames of
// payload type 111, 1920 and 960 units back, and the newest.
func TestByHand(t *testing.T) {
	t.Parallel()
	b, err := hex.DecodeString("ef1e0003" + "ef0f0002" + "6f" + "aabbcc" + "ddee" + "0102")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b, nil)
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	for i, want := range []Block{{111, 1920, []byte{0xaa, 0xbb, 0xcc}}, {111, 960, []byte{0xdd, 0xee}}, {111, 0, []byte{1, 2}}} {
		if g := got[i]; g.PayloadType != want.PayloadType || g.Offset != want.Offset || !bytes.Equal(g.Data, want.Data) {
			t.Errorf("block %d: %+v, want %+v", i, g, want)
		}
	}
	if again := Append(nil, got); !bytes.Equal(again, b) {
		t.Errorf("written again: %x", again)
	}
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		blocks := make([]Block, rapid.IntRange(1, MaxBlocks).Draw(t, "blocks"))
		for i := range blocks {
			b := &blocks[i]
			b.PayloadType = rapid.Uint8Range(0, 127).Draw(t, "pt")
			most := 1300
			if i < len(blocks)-1 {
				b.Offset, most = rapid.Uint16Range(0, MaxOffset).Draw(t, "offset"), MaxFrame
			}
			b.Data = rapid.SliceOfN(rapid.Byte(), 0, most).Draw(t, "data")
		}
		prefix := []byte{1, 2, 3}
		raw := Append(bytes.Clone(prefix), blocks)
		got, err := Parse(raw[len(prefix):], make([]Block, 1, 2))
		if err != nil || !bytes.HasPrefix(raw, prefix) || len(got) != 1+len(blocks) {
			t.Fatalf("%v, %v", got, err)
		}
		for i, want := range blocks {
			if g := got[i+1]; g.PayloadType != want.PayloadType || g.Offset != want.Offset || !bytes.Equal(g.Data, want.Data) {
				t.Fatalf("block %d: %+v, want %+v", i, g, want)
			}
		}
		headers := len(raw) - len(prefix)
		for _, b := range blocks {
			headers -= len(b.Data)
		}
		for n := range headers { // cut within the headers it is refused
			if _, err := Parse(raw[len(prefix):][:n], nil); !errors.Is(err, ErrMalformed) {
				t.Fatalf("cut to %d bytes: %v", n, err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0xef, 0x1e, 0, 3, 0x6f, 1, 2, 3, 4})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Add([]byte{0x6f})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		blocks, err := Parse(b, nil)
		if err != nil {
			if len(blocks) != 0 {
				t.Fatal("blocks of what was refused")
			}
			return
		}
		if again := Append(nil, blocks); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func TestParseAllocatesNothing(t *testing.T) {
	b := Append(nil, []Block{{111, 1920, make([]byte, 80)}, {111, 960, make([]byte, 80)}, {111, 0, make([]byte, 80)}})
	blocks, out := make([]Block, 0, MaxBlocks), make([]byte, 0, 1500)
	if n := testing.AllocsPerRun(100, func() {
		got, _ := Parse(b, blocks)
		out = Append(out[:0], got)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	payload := Append(nil, []Block{{111, 1920, make([]byte, 80)}, {111, 960, make([]byte, 80)}, {111, 0, make([]byte, 80)}})
	blocks := make([]Block, 0, MaxBlocks)
	for b.Loop() {
		blocks, _ = Parse(payload, blocks[:0])
	}
}
