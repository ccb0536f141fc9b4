package descriptortest

import (
	"testing"

	"github.com/amphi-sfu/amphi/media/descriptor"
)

// TestStreams: what is made reads as what was meant.
func TestStreams(t *testing.T) {
	t.Parallel()
	for _, m := range Modes() {
		stream := New(m, 65530, 60)
		var state descriptor.State
		for i := range 30 {
			for _, f := range stream.Picture(i%13 == 0) {
				var got descriptor.Frame
				structure := f.Key && f.Spatial == 0
				if err := state.Parse(f.Descriptor(true, i%2 == 0, structure, i%3 == 1), &got); err != nil {
					t.Fatalf("%v, picture %d: %v", m, i, err)
				}
				if uint16(got.Number) != f.Number || int(got.Spatial) != f.Spatial || int(got.Temporal) != f.Temporal ||
					int(got.Count) != len(f.Needs) || got.HasStructure() != structure || got.Last != (i%2 == 0) {
					t.Fatalf("%v, picture %d: %+v, want %+v", m, i, got, f)
				}
				for n, d := range f.Targets {
					bit := uint32(1) << n
					if (got.Present&bit != 0) != (d != '-') || (got.Switch&bit != 0) != (d == 'S') || (got.Required&bit != 0) != (d == 'S' || d == 'R') {
						t.Fatalf("%v, picture %d: target %d of %s: %+v", m, i, n, f.Targets, got)
					}
				}
			}
		}
		st := state.Structure()
		if len(st.Targets) != stream.Targets() || st.Sizes[m.Spatial-1].Width != 1280 || int(st.Spatial) != m.Spatial {
			t.Fatalf("%v: %+v", m, st)
		}
		for i, target := range st.Targets {
			if int(target.Spatial) != i/m.Temporal || int(target.Temporal) != i%m.Temporal {
				t.Fatalf("%v: target %d is %+v", m, i, target)
			}
		}
	}
}
