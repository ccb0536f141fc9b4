package layer

import (
	"testing"

	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/descriptor/descriptortest"
)

// directed makes the packets of a stream one picture after the other, each frame in two.
type directed struct {
	t      *testing.T
	stream *descriptortest.Stream
	state  descriptor.State
	ts     uint32
}

// picture makes the next picture: the two packets of each of its frames.
func (d *directed) picture(key bool) [][2]Packet {
	d.t.Helper()
	d.ts += 3000
	var list [][2]Packet
	for _, f := range d.stream.Picture(key) {
		var pair [2]Packet
		for i := range pair {
			structure := key && f.Spatial == 0 && i == 0
			got := &descriptor.Frame{}
			if err := d.state.Parse(f.Descriptor(i == 0, i == 1, structure, false), got); err != nil {
				d.t.Fatal(err)
			}
			pair[i] = Packet{Keyframe: structure, Timestamp: d.ts, Frame: got}
		}
		list = append(list, pair)
	}
	return list
}

// feed selects packets and says whether the last of them goes on.
func feed(s *Selector, packets ...Packet) bool {
	sent := false
	for _, p := range packets {
		a := s.Select(p)
		sent = a == Forward || a == Switch || a == Turn
	}
	return sent
}

// TestFrameBeforeTheFirst: a frame of a key picture that did not come before the first one
// forwarded can never be sent, so neither can what needs it.
func TestFrameBeforeTheFirst(t *testing.T) {
	t.Parallel()
	for _, number := range []uint16{0, 7, 65530, 65535} {
		for temporal := 1; temporal <= 3; temporal++ {
			d := &directed{t: t, stream: descriptortest.New(descriptortest.Mode{Spatial: 3, Temporal: temporal, Simulcast: true}, number, 0)}
			var s Selector
			s.SetTarget(0, Layer{Top, Top})
			key := d.picture(true)
			feed(&s, key[0][:]...) // that of S1 is late
			if !feed(&s, key[2][:]...) {
				t.Fatal("S2 is not forwarded")
			}
			s.SetTarget(0, Layer{1, Top})
			for i := range 4 {
				for sp, pair := range d.picture(false) {
					if sent := feed(&s, pair[:]...); sent != (sp == 2) {
						t.Fatalf("number %d, T%d, picture %d: a frame of S%d: forwarded %v", number, temporal, i, sp, sent)
					}
				}
				if i == 1 && feed(&s, key[1][:]...) {
					t.Fatal("what comes from before the first frame is forwarded")
				}
			}
			if _, waiting := s.Waiting(); !waiting {
				t.Fatal("S1 waits for no keyframe")
			}
			for sp, pair := range d.picture(true) {
				if sent := feed(&s, pair[:]...); sent != (sp == 1) {
					t.Fatalf("at a keyframe: a frame of S%d: forwarded %v", sp, sent)
				}
			}
		}
	}
}

// TestLateFrameLeftOut: a frame that comes late and is left out counts as left out for the
// layers that need it.
func TestLateFrameLeftOut(t *testing.T) {
	t.Parallel()
	d := &directed{t: t, stream: descriptortest.New(descriptortest.Mode{Spatial: 3, Temporal: 1, Simulcast: true}, 65531, 0)}
	var s Selector
	s.SetTarget(0, Layer{Top, Top})
	for _, pair := range d.picture(true) {
		feed(&s, pair[:]...)
	}
	key := d.picture(true)
	feed(&s, key[0][:]...)
	feed(&s, key[2][:]...)
	feed(&s, key[1][:]...) // the frame with which S1 begins is late
	s.SetTarget(0, Layer{1, Top})
	for sp, pair := range d.picture(false) {
		if sent := feed(&s, pair[:]...); sent != (sp == 2) {
			t.Fatalf("a frame of S%d: forwarded %v", sp, sent)
		}
	}
	if _, waiting := s.Waiting(); !waiting {
		t.Fatal("S1 waits for no keyframe")
	}
}

// TestBeginsWithFirstPacket: the output begins with the first packet of a frame, as what
// comes before where it begins can never be sent.
func TestBeginsWithFirstPacket(t *testing.T) {
	t.Parallel()
	begin := func() (*directed, *Selector, [][2]Packet) {
		d := &directed{t: t, stream: descriptortest.New(descriptortest.Mode{Spatial: 2, Temporal: 1, Simulcast: true}, 65534, 0)}
		s := &Selector{}
		s.SetTarget(0, Layer{Top, Top})
		key := d.picture(true)
		feed(s, key[0][:]...)
		if feed(s, key[1][1]) {
			t.Fatal("begins in the middle of a frame")
		}
		return d, s, key
	}
	d, s, _ := begin()
	if _, waiting := s.Waiting(); !waiting {
		t.Fatal("waits for no keyframe")
	}
	for sp, pair := range d.picture(false) {
		if feed(s, pair[:]...) {
			t.Fatalf("a frame of S%d is forwarded without its keyframe", sp)
		}
	}
	d, s, key := begin()
	if got := s.Select(key[1][0]); got != Switch {
		t.Fatalf("the first packet, late: %v", got)
	}
	if got := s.Select(key[1][1]); got != Forward {
		t.Fatalf("the second packet, again: %v", got)
	}
	if !feed(s, d.picture(false)[1][:]...) {
		t.Fatal("does not go on")
	}
}

// TestNothingActive: active targets that the structure does not have are as good as none.
func TestNothingActive(t *testing.T) {
	t.Parallel()
	var s Selector
	s.SetTarget(0, Layer{Top, Top})
	p := newPlain().frame(0, 0, true, false)
	p.Frame.Active = 1 << 9
	if got := s.Select(p); got != Switch {
		t.Fatalf("a keyframe: %v", got)
	}
}

// TestKeyframeOfAnOldFrame: a keyframe whose first packet comes after the next frame, of a stream
// without frame numbers, is nothing to begin with; another one is waited for.
func TestKeyframeOfAnOldFrame(t *testing.T) {
	t.Parallel()
	var s Selector
	pl := newPlain()
	s.SetTarget(0, Layer{Top, Top})
	s.Select(pl.frame(0, 0, true, false))
	s.SetTarget(1, Layer{Top, Top})
	old := pl.frame(1, 0, true, false)
	old.Frame.Number = 0
	if got := s.Select(old); got != Drop {
		t.Fatalf("the keyframe: %v", got)
	}
	if got := s.Select(pl.frame(0, 0, false, false)); got != Forward {
		t.Fatalf("the encoding before: %v", got)
	}
	if encoding, waiting := s.Waiting(); !waiting || encoding != 1 {
		t.Fatal("waits for no keyframe")
	}
	if got := s.Select(pl.frame(1, 0, true, false)); got != Switch {
		t.Fatalf("the next keyframe: %v", got)
	}
}
