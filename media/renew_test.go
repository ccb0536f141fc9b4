package media

import (
	"testing"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/descriptor/descriptortest"
	"github.com/amphi-sfu/amphi/media/layer"
	"github.com/amphi-sfu/amphi/media/negotiate"
)

// TestEncoderBeginsAnew: an encoder that begins again with another structure, and numbers its frames
// from anywhere, goes on with its keyframe; what the client gets is one stream.
func TestEncoderBeginsAnew(t *testing.T) {
	t.Parallel()
	e, sink := newLayeredEngine(t)
	before, after := descriptortest.Mode{Spatial: 2, Temporal: 2, Key: true}, descriptortest.Mode{Spatial: 1, Temporal: 3}
	for name, number := range map[string]uint16{
		"a bit back": 65490, "back": 60000, "far back": 40000, "half": 65500 - 32768, "ahead": 20000, "over the wrap": 3,
	} {
		f := newLayered(t, e, sink, name, []descriptortest.Mode{before})
		f.aim(layer.Layer{Spatial: layer.Top, Temporal: layer.Top})
		v := &receiver{}
		two, never := func() int { return 2 }, func() bool { return false }
		for i := range 5 {
			f.picture(f.sources[0], i == 0, two, never)
		}
		v.check(t, f.receive(t), true)
		f.sources[0].stream = descriptortest.New(after, number, 30)
		shown := v.shown
		for i := range 9 {
			f.picture(f.sources[0], i == 0, two, never)
		}
		v.check(t, f.receive(t), true)
		if got := v.shown - shown; got != 9 {
			t.Errorf("%s: %d frames of 9 are shown", name, got)
		}
		if st := v.state.Structure(); len(st.Targets) != 3 {
			t.Errorf("%s: a structure of %d targets", name, len(st.Targets))
		}
	}
}

// TestStreamChangesItsForm: a publisher that changes the codec, or whether it sends descriptors,
// is followed from its next keyframe on, however many frames came before.
func TestStreamChangesItsForm(t *testing.T) {
	t.Parallel()
	vp8, _ := codec.Match("VP8", 90000, "")
	h264, _ := codec.Match("H264", 90000, "packetization-mode=1;profile-level-id=42e01f")
	form := func(c codec.Codec, key bool) []byte {
		switch {
		case c == vp8 && key:
			return []byte{0x10, 0, 0, 0, 0x9d, 1, 0x2a, 64, 1, 64, 1, 0}
		case c == vp8:
			return []byte{0x10, 1, 0, 0}
		case key:
			return []byte{0x65, 1, 2, 3}
		}
		return []byte{0x61, 1, 2, 3}
	}
	for name, c := range map[string]struct {
		before, after          codec.Codec
		describedB, describedA bool
	}{
		"codec": {vp8, h264, false, false}, "codec back": {h264, vp8, false, false},
		"descriptors end": {vp8, vp8, true, false}, "descriptors begin": {vp8, vp8, false, true},
		"all": {vp8, h264, true, false},
	} {
		f := newPath(t, 1)
		for o := range f.e.workers[0].endpoints {
			o.tracks[0].formats = append(o.tracks[0].formats, negotiate.Format{PayloadType: 102, Codec: h264})
		}
		s, ts := uint16(f.enc.numbers.Highest()), uint32(1<<31)
		stream := descriptortest.New(descriptortest.Mode{Spatial: 1, Temporal: 1}, 65500, 0)
		write := func(c codec.Codec, s uint16, key, described bool) {
			p := f.e.pool.Get()
			defer p.Release()
			p.Payload = p.Buffer()[:copy(p.Buffer(), form(c, key))]
			p.Timestamp, p.Marker, p.ArrivalNS = ts, true, f.e.now()
			if described {
				p.Descriptor = stream.Picture(key)[0].Descriptor(true, true, key, false)
			}
			f.enc.write(p, s, c, false)
			f.e.workers[0].process()
		}
		frames := func(n int, c codec.Codec, described bool) uint64 {
			sent := f.e.Stats().Socket.SendDatagrams
			for i := range n {
				s, ts = s+1, ts+3000
				write(c, s, i == 0, described)
			}
			return f.e.Stats().Socket.SendDatagrams - sent
		}
		ts = f.src.ts
		frames(50, c.before, c.describedB)
		if got := frames(10, c.after, c.describedA); got != 10 {
			t.Errorf("%s: %d frames of 10 are forwarded", name, got)
		}
		if c.before != c.after {
			restarts := f.enc.counts.restarts
			write(c.before, s-12, false, c.describedB) // a late packet of the stream before changes nothing
			if f.enc.Codec() != c.after || f.enc.counts.restarts != restarts {
				t.Errorf("%s: a late packet brings the codec back", name)
			}
		}
		if got := frames(10, c.after, c.describedA); got != 10 {
			t.Errorf("%s: later %d frames of 10 are forwarded", name, got)
		}
	}
}

// TestRestartBeforeTheSwitch: an encoding that begins anew after a subscriber took its keyframe, and
// before there was a frame to switch at, is switched to at its next keyframe.
func TestRestartBeforeTheSwitch(t *testing.T) {
	t.Parallel()
	e, sink := newLayeredEngine(t)
	m := descriptortest.Mode{Spatial: 2, Temporal: 1, Simulcast: true}
	f := newLayered(t, e, sink, "room", []descriptortest.Mode{m, m})
	low, high := f.sources[0], f.sources[1]
	one, never := func() int { return 1 }, func() bool { return false }
	f.aim(layer.Layer{Spatial: 0, Temporal: layer.Top})
	f.picture(low, true, one, never)
	f.aim(layer.Layer{Spatial: 1, Temporal: layer.Top})
	frames := 0
	split := func() int { // the frame of S1, at which to switch, has no packet
		frames++
		return frames % 2
	}
	f.picture(high, true, split, never)
	if current, _ := f.dt.sel.Current(); current != 1 || f.dt.source != low.enc {
		t.Fatalf("at encoding %d", current)
	}
	high.enc.mu.Lock()
	high.enc.restart()
	high.enc.mu.Unlock()
	e.workers[0].process()
	high.inspect = codec.Inspector{}
	high.stream = descriptortest.New(m, 7, 0)
	f.picture(high, true, one, never)
	if f.dt.source != high.enc {
		t.Fatal("does not switch")
	}
}

// TestUnreadableForLong: when descriptors stay unreadable a keyframe is asked for, also where lost
// packets are not sent again.
func TestUnreadableForLong(t *testing.T) {
	t.Parallel()
	f := newPath(t, 0)
	vp8, _ := codec.Match("VP8", 90000, "")
	s := uint16(f.enc.numbers.Highest())
	write := func(raw []byte) {
		p := f.e.pool.Get()
		defer p.Release()
		s++
		p.Payload = p.Buffer()[:copy(p.Buffer(), []byte{0x10, 1, 0, 0})]
		p.Timestamp, p.ArrivalNS, p.Descriptor = f.src.ts, f.e.now(), raw
		f.enc.write(p, s, vp8, false)
	}
	stream := descriptortest.New(descriptortest.Mode{Spatial: 1, Temporal: 1}, 65535, 0)
	write(stream.Picture(true)[0].Descriptor(true, true, true, false))
	f.enc.lostTooMuch.Store(false)
	unknown := []byte{0xc0 | 60, 0, 0}
	for range maxUnread - 1 {
		write(unknown)
	}
	if f.enc.lostTooMuch.Load() {
		t.Fatal("a keyframe is asked for at once")
	}
	f.enc.lostTooMuch.Store(true) // for another reason
	write(stream.Picture(false)[0].Descriptor(true, true, false, false))
	write(unknown)
	if !f.enc.lostTooMuch.Swap(false) {
		t.Fatal("what another reason asked for is forgotten")
	}
	for range maxUnread {
		write(unknown)
	}
	if !f.enc.lostTooMuch.Load() {
		t.Fatal("no keyframe is asked for")
	}
}
