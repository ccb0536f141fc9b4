package media

import (
	"testing"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/descriptor/descriptortest"
	"github.com/amphi-sfu/amphi/media/layer"
)

// vp8Payload is the kth packet of a picture.
func vp8Payload(key bool, k int) []byte {
	switch {
	case k > 0:
		return []byte{0x00, 1, 2, 3}
	case key:
		return []byte{0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 1, 180, 0}
	}
	return []byte{0x10, 0x11, 0, 0}
}

// vp8 gives the DownTrack packet k of 3 of a source's picture, which has come now.
func (f *layeredPath) vp8(t *testing.T, s *layeredSource, picture int, key bool, k int) {
	t.Helper()
	c, _ := codec.Match("VP8", 90000, "")
	f.now += 1e6
	p := f.e.pool.Get()
	defer p.Release()
	p.Payload = p.Buffer()[:copy(p.Buffer(), vp8Payload(key, k))]
	p.Timestamp, p.ArrivalNS, p.Marker = uint32(90000+picture*3000), f.now, k == 2
	p.ExtSeq, p.PayloadType = uint64(70000+3*picture+k), c.PayloadType
	if err := s.inspect.Inspect(c, p); err != nil {
		t.Fatal(err)
	}
	s.enc.ring.Put(p)
	f.dt.write(s.enc, p, 0)
	f.e.workers[0].settle()
	f.dt.follow(f.now)
}

// TestLateKeyframe: the first packet of the keyframe of a higher encoding is lost, and comes again after two more pictures. The viewer
// goes over to it then, and gets what came meanwhile.
func TestLateKeyframe(t *testing.T) {
	t.Parallel()
	e, sink := newLayeredEngine(t)
	f := newLayered(t, e, sink, "room", []descriptortest.Mode{{Spatial: 1, Temporal: 1}, {Spatial: 1, Temporal: 1}})
	low, high := f.sources[0], f.sources[1]
	f.aim(layer.Layer{Spatial: 0})
	for k := range 3 {
		f.vp8(t, low, 0, true, k)
	}
	f.aim(layer.Layer{Spatial: 1})
	for k := 1; k < 3; k++ {
		f.vp8(t, high, 1, true, k)
	}
	for picture := 2; picture < 4; picture++ {
		for k := range 3 {
			f.vp8(t, high, picture, false, k)
		}
	}
	if f.dt.source != low.enc {
		t.Fatal("the viewer is not at the low encoding before the keyframe is whole")
	}
	if got := len(f.receive(t)); got != 3 {
		t.Fatalf("%d packets before the keyframe, want 3", got)
	}
	clear(f.asked)
	f.vp8(t, high, 1, true, 0)
	if f.dt.source != high.enc || len(f.asked) != 0 {
		t.Fatalf("the viewer has not gone over to the keyframe; asked for: %v", f.asked)
	}
	for k := range 3 {
		f.vp8(t, high, 4, false, k)
	}
	got := f.receive(t)
	if len(got) != 12 {
		t.Fatalf("%d packets of the high encoding, want 12", len(got))
	}
	for i, p := range got[1:] {
		if p.SequenceNumber != got[i].SequenceNumber+1 {
			t.Errorf("packet %d follows %d", p.SequenceNumber, got[i].SequenceNumber)
		}
	}
	if n := f.e.drops[dropReuse].Load(); n != 0 {
		t.Errorf("%d numbers used twice", n)
	}
}
