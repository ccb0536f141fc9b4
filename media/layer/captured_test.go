package layer

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/amphi-sfu/amphi/media/descriptor"
)

// TestChromiumStreams: of what Chromium sends, all that belongs to the highest active target is
// forwarded, through layers that begin late.
func TestChromiumStreams(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../descriptor/testdata/chromium/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var s Selector
		s.SetTarget(0, Layer{Top, Top})
		var state descriptor.State
		number, gap := "", false
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			raw, err := hex.DecodeString(f[3])
			if err != nil {
				t.Fatal(err)
			}
			ts, _ := strconv.ParseUint(f[1], 10, 32)
			var d descriptor.Frame
			if err := state.Parse(raw, &d); err != nil {
				t.Fatal(err)
			}
			key := d.First && d.Independent() && d.HasStructure()
			got := s.Select(Packet{Keyframe: key, Timestamp: uint32(ts), Frame: &d})
			a, _ := strconv.Atoi(number)
			b, _ := strconv.Atoi(f[0])
			number = f[0]
			gap = (gap || b != a+1 && b != 0) && !key // the recording leaves out what is between its parts
			best := d.Structure.Best(d.Active, Top, Top)
			if want := d.Present&(1<<best) != 0; want && got != Forward && got != Switch && got != Turn && !gap {
				t.Errorf("%s: packet %s, frame %d S%d T%d of %b: %v", filepath.Base(path), f[0], d.Number&0xffff, d.Spatial, d.Temporal, d.Active, got)
			}
		}
	}
}
