package media

import (
	"testing"

	"github.com/amphi-sfu/amphi/media/descriptor/descriptortest"
	"github.com/amphi-sfu/amphi/media/layer"
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
