package descriptor_test

import (
	"testing"

	"github.com/amphi-sfu/amphi/media/descriptor"
	"github.com/amphi-sfu/amphi/media/descriptor/descriptortest"
)

// TestLateAcrossRepeatedStructure: after the structure changed once and was repeated since, a
// packet from before the repetition still means the one that was repeated.
func TestLateAcrossRepeatedStructure(t *testing.T) {
	t.Parallel()
	for _, number := range []uint16{3, 65533, 65535} {
		var s descriptor.State
		var f descriptor.Frame
		parse := func(raw []byte) {
			t.Helper()
			if err := s.Parse(raw, &f); err != nil {
				t.Fatalf("number %d: %v", number, err)
			}
		}
		before := descriptortest.New(descriptortest.Mode{Spatial: 1, Temporal: 3}, number-1, 0)
		parse(before.Picture(true)[0].Descriptor(true, true, true, false))
		stream := descriptortest.New(descriptortest.Mode{Spatial: 1, Temporal: 2}, number, 20)
		parse(stream.Picture(true)[0].Descriptor(true, true, true, false))
		structure := f.Structure
		late, key := stream.Picture(false), stream.Picture(true)
		parse(key[0].Descriptor(true, true, true, false))
		parse(late[0].Descriptor(true, true, false, false))
		if f.Structure != structure || f.Temporal != 1 {
			t.Fatalf("number %d: a frame of T%d, structure with offset %d", number, f.Temporal, f.Structure.Offset())
		}
	}
}

// TestActiveOfAnotherStructure: which targets of the structure before were active says nothing
// about those of a new one, in whatever order that was told.
func TestActiveOfAnotherStructure(t *testing.T) {
	t.Parallel()
	var s descriptor.State
	var f descriptor.Frame
	parse := func(raw []byte) {
		t.Helper()
		if err := s.Parse(raw, &f); err != nil {
			t.Fatal(err)
		}
	}
	nine := descriptortest.New(descriptortest.Mode{Spatial: 3, Temporal: 3}, 10, 0)
	parse(nine.Picture(true)[0].Descriptor(true, true, true, false))
	// The mask of active targets alone: the highest of nine, at frame 21.
	parse([]byte{0xc0, 0, 21, 0x44, 0x00})
	if s.Active() != 1<<8 {
		t.Fatalf("active %b", s.Active())
	}
	one := descriptortest.New(descriptortest.Mode{Spatial: 1, Temporal: 1}, 20, 0)
	parse(one.Picture(true)[0].Descriptor(true, true, true, false))
	if f.Active != 1 || s.Active() != 1 {
		t.Fatalf("active %b of the frame, %b of the stream", f.Active, s.Active())
	}
}
