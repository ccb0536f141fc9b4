package livekit

import (
	"bytes"
	"testing"
)

func TestMessagesAreCodedAsProtobuf(t *testing.T) {
	t.Parallel()
	m := message(nil).text(1, "cam").number(4, 1280).part(13, message(nil).number(1, 1)).part(13, nil)
	// By the encoding's rules: tag and length, "cam"; tag, 1280 in two groups of seven bits; a message of one field, an empty one.
	want := []byte{0x0a, 3, 'c', 'a', 'm', 0x20, 0x80, 0x0a, 0x6a, 2, 0x08, 1, 0x6a, 0}
	if !bytes.Equal(m, want) {
		t.Fatalf("coded as %x, want %x", []byte(m), want)
	}
	f, err := parse(m)
	if err != nil {
		t.Fatal(err)
	}
	if f.text(1) != "cam" || f.numbers[4] != 1280 || len(f.parts(13)) != 2 || f.parts(13)[0].numbers[1] != 1 || f.has(2) || f.part(2).text(1) != "" {
		t.Errorf("read as %v", f)
	}
}

func TestUnknownAndBrokenFields(t *testing.T) {
	t.Parallel()
	// Fixed-size numbers are skipped.
	f, err := parse([]byte{0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4, 0x18, 7})
	if err != nil || f.numbers[3] != 7 {
		t.Errorf("%v, %v", f, err)
	}
	for _, bad := range [][]byte{{0x0a}, {0x0a, 5, 'x'}, {0x08}, {0x08, 0x80}, {0x09, 1}, {0x00}, {0x0f}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%x was read", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(message(nil).text(1, "x").number(2, 3).part(4, message(nil).number(1, 1))))
	f.Fuzz(func(_ *testing.T, b []byte) {
		fields, _ := parse(b)
		for n := range fields.bytes {
			fields.part(n)
		}
	})
}

func TestCandidatesGoIntoTheFirstSection(t *testing.T) {
	t.Parallel()
	const a, b = "v=0\r\nm=audio 9\r\na=mid:0\r\n", "m=video 9\r\na=mid:1\r\n"
	for sdp, want := range map[string]string{
		a + b:     a + "a=candidate:1\r\n" + b,
		a:         a + "a=candidate:1\r\n",
		"v=0\r\n": "v=0\r\n",
	} {
		if got := withCandidates(sdp, "a=candidate:1\r\n"); got != want {
			t.Errorf("%q became %q, want %q", sdp, got, want)
		}
	}
}
