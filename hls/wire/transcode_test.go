package wire

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTranscodeFrames(t *testing.T) {
	t.Parallel()
	want := &Transcode{Video: true, MaxWidth: 1280, MaxHeight: 720, FPS: 30, Bitrate: 2_500_000, KeyframeEvery: 2 * time.Second,
		AudioConfig: []byte{0x11, 0x90}, AudioBitrate: 96_000}
	b, err := AppendTranscode(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	units := []struct {
		t Type
		u Unit
	}{
		{TypeSourceVideo, Unit{Time: 5, Data: []byte{1, 2}}}, {TypeSourceAudio, Unit{Time: 7, Data: []byte{3}}},
		{TypeTargetVideo, Unit{Time: 9, Key: true, Data: []byte{4}}}, {TypeTargetAudio, Unit{Time: time.Hour, Level: 33, Data: []byte{5}}},
	}
	for _, u := range units {
		if b, err = AppendUnit(b, u.t, u.u); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(bytes.NewReader(b))
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Transcode(); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, u := range units {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Unit(); err != nil || f.Type != u.t || !cmp.Equal(got, u.u) {
			t.Errorf("%d: %+v, %v", f.Type, got, err)
		}
	}
	for _, bad := range []*Transcode{{}, {Video: true}, {AudioConfig: make([]byte, 100)}, {AudioConfig: []byte{1}}} {
		b, err := AppendTranscode(nil, bad)
		if err != nil {
			t.Fatal(err)
		}
		f, err := NewReader(bytes.NewReader(b)).Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Transcode(); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	if _, err := AppendUnit(nil, TypeTargetAudio, Unit{Data: make([]byte, maxOpus+1)}); err == nil {
		t.Error("no bound")
	}
}

func FuzzUnit(f *testing.F) {
	f.Add(byte(TypeTargetAudio), []byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 2})
	f.Fuzz(func(_ *testing.T, typ byte, body []byte) {
		_, _ = Frame{Type: Type(typ), Body: body}.Unit()
		_, _ = Frame{Type: TypeTranscode, Body: body}.Transcode()
	})
}
