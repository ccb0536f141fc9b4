package api

import (
	"testing"

	"github.com/amphi-sfu/amphi/proto"
	amphiv1 "github.com/amphi-sfu/amphi/proto/amphi/v1"
)

// progressive is a grey progressive JPEG with n scans after the first, which say nothing new.
func progressive(w, h, n int) []byte {
	b := []byte{0xff, 0xd8, 0xff, 0xc2, 0, 11, 8, byte(h >> 8), byte(h), byte(w >> 8), byte(w), 1, 1, 0x11, 0}
	b = append(append(b, 0xff, 0xdb, 0, 67, 0), make([]byte, 64)...)
	// A DC and an AC table of one code of one bit each: "no difference", and "2^14 blocks or more have ended".
	for class, value := range []byte{0x00, 0xe0} {
		b = append(append(append(b, 0xff, 0xc4, 0, 20, byte(class<<4), 1), make([]byte, 15)...), value)
	}
	blocks := (w + 7) / 8 * ((h + 7) / 8)
	b = append(append(b, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0), make([]byte, (blocks+7)/8)...)
	runs := (blocks + 1<<14 - 1) >> 14
	for range n {
		b = append(append(b, 0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0), make([]byte, (15*runs+7)/8)...)
	}
	return append(b, 0xff, 0xd9)
}

// A JPEG of 2 MiB may have 80,000 scans, each of which goes over the whole picture: more than an hour.
func TestJPEGOfManyScansIsRefused(t *testing.T) {
	t.Parallel()
	s := streams{decoding: make(chan struct{}, 1)}
	p := &amphiv1.Picture{Data: progressive(640, 360, 12)}
	if err := s.decode(t.Context(), p); err != nil || p.GetWidth() != 640 {
		t.Fatalf("13 scans: %v, %v pixels wide", err, p.GetWidth())
	}
	if err := s.decode(t.Context(), &amphiv1.Picture{Data: progressive(64, 64, maxScans)}); proto.CodeOf(err) != proto.InvalidArgument {
		t.Errorf("%d scans: %v", maxScans+1, err)
	}
}
