package codec

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/amphi-sfu/amphi/media/packet"
)

// TestFramesAreNumbered: whatever is lost and comes again, all packets of a frame have one number, and numbers rise from frame
// to frame.
func TestFramesAreNumbered(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type sent struct {
			ext     uint64
			picture int
			at      int // when it comes
		}
		var all []sent
		for picture := range rapid.IntRange(1, 60).Draw(t, "pictures") {
			for range rapid.IntRange(1, 4).Draw(t, "packets") {
				at := picture
				if rapid.IntRange(0, 5).Draw(t, "lost") == 0 {
					at += rapid.IntRange(0, 12).Draw(t, "back")
				}
				all = append(all, sent{uint64(100 + len(all)), picture, at})
			}
		}
		slices.SortStableFunc(all, func(a, b sent) int { return a.at - b.at })
		var c frameCount
		numbers := map[int]uint64{}
		for _, s := range all {
			n := c.take(&packet.Packet{ExtSeq: s.ext, Timestamp: uint32(s.picture * 3000)}, 0)
			if was, ok := numbers[s.picture]; ok && was != n || n == 0 {
				t.Fatalf("packet %d of picture %d has number %d, others of it have %d", s.ext, s.picture, n, was)
			}
			numbers[s.picture] = n
		}
		for picture, n := range numbers {
			if before, ok := numbers[picture-1]; ok && before >= n {
				t.Fatalf("picture %d has number %d, the one before it %d", picture, n, before)
			}
		}
	})
}

// TestFrameOfLongAgo has no number any more.
func TestFrameOfLongAgo(t *testing.T) {
	t.Parallel()
	var c frameCount
	for i := range uint64(recentFrames) {
		c.take(&packet.Packet{ExtSeq: 100 + i, Timestamp: uint32(100 + i)}, 0)
	}
	if n := c.take(&packet.Packet{ExtSeq: 99, Timestamp: 99}, 0); n != 0 {
		t.Errorf("number %d", n)
	}
	if n := c.take(&packet.Packet{ExtSeq: 100, Timestamp: 100}, 0); n != firstFrame {
		t.Errorf("the oldest that is known has number %d", n)
	}
}
