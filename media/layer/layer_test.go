package layer

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSpatialSwitchWaitsForKeyframe(t *testing.T) {
	t.Parallel()
	var s Selector
	if got := s.Select(Frame{Keyframe: true, Start: true}); got != Drop {
		t.Fatalf("without a target: %v", got)
	}
	s.SetTarget(Layer{0, Top})
	steps := []struct {
		name string
		do   func()
		in   Frame
		want Action
	}{
		{"no keyframe yet", nil, Frame{Start: true}, Drop},
		{"other encoding", nil, Frame{Spatial: 1, Keyframe: true, Start: true}, Drop},
		{"starts", nil, Frame{Keyframe: true, Start: true}, Switch},
		{"goes on", nil, Frame{Temporal: 2, Start: true}, Forward},
		{"up: keeps the old one", func() { s.SetTarget(Layer{1, Top}) }, Frame{Start: true}, Forward},
		{"up: not a keyframe", nil, Frame{Spatial: 1, Start: true}, Drop},
		{"up: keyframe", nil, Frame{Spatial: 1, Keyframe: true, Start: true}, Switch},
		{"old one ends", nil, Frame{Start: true}, Drop},
		{"pause", func() { s.SetTarget(None()) }, Frame{Spatial: 1, Start: true}, Drop},
		{"resume needs a keyframe", func() { s.SetTarget(Layer{1, Top}) }, Frame{Spatial: 1, Start: true}, Drop},
		{"resumed", nil, Frame{Spatial: 1, Keyframe: true, Start: true}, Switch},
		{"reset", func() { s.Reset() }, Frame{Spatial: 1, Start: true}, Drop},
	}
	for _, st := range steps {
		if st.do != nil {
			st.do()
		}
		if got := s.Select(st.in); got != st.want {
			t.Fatalf("%s: %v, want %v", st.name, got, st.want)
		}
	}
	if enc, waiting := s.Waiting(); !waiting || enc != 1 {
		t.Fatalf("waiting %d, %v", enc, waiting)
	}
}

func TestTemporalSteps(t *testing.T) {
	t.Parallel()
	var s Selector
	s.SetTarget(Layer{0, Top})
	s.Select(Frame{Keyframe: true, Start: true})
	s.SetTarget(Layer{0, 0})
	if got := s.Select(Frame{Temporal: 1}); got != Forward {
		t.Fatalf("the rest of a frame under way: %v", got)
	}
	if got := s.Select(Frame{Temporal: 1, Start: true}); got != Skip {
		t.Fatalf("down: %v", got)
	}
	s.SetTarget(Layer{0, 2})
	if got := s.Select(Frame{Temporal: 2, Start: true}); got != Skip {
		t.Fatalf("up without a switching point: %v", got)
	}
	if got := s.Select(Frame{Temporal: 1, Start: true, SwitchUp: true}); got != Forward {
		t.Fatalf("up by one: %v", got)
	}
	if got := s.Select(Frame{Temporal: 2, Start: true}); got != Skip {
		t.Fatalf("two steps at once: %v", got)
	}
	if got := s.Select(Frame{Keyframe: true, Start: true}); got != Forward || s.Current().Temporal != 2 {
		t.Fatalf("keyframe: %v, %+v", got, s.Current())
	}
}

// TestNeverForwardsWhatCannotBeDecoded: an encoding begins with a keyframe, and no
// packet of another one comes before a new keyframe.
func TestNeverForwardsWhatCannotBeDecoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s Selector
		current := int8(-1)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			if rapid.IntRange(0, 4).Draw(t, "retarget") == 0 {
				l := Layer{int8(rapid.IntRange(-1, 2).Draw(t, "s")), int8(rapid.IntRange(0, 2).Draw(t, "t"))}
				s.SetTarget(l)
				if l.Spatial < 0 {
					current = -1
				}
			}
			f := Frame{
				Spatial:  int8(rapid.IntRange(0, 2).Draw(t, "spatial")),
				Temporal: uint8(rapid.IntRange(0, 2).Draw(t, "temporal")),
				Start:    true,
				Keyframe: rapid.IntRange(0, 5).Draw(t, "key") == 0,
			}
			switch s.Select(f) {
			case Switch:
				if !f.Keyframe || f.Spatial != s.Target().Spatial {
					t.Fatalf("switched at %+v", f)
				}
				current = f.Spatial
			case Forward, Skip:
				if f.Spatial != current {
					t.Fatalf("forwarded %+v while at %d", f, current)
				}
			}
		}
	})
}
