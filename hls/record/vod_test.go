package record

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/movie"
)

// Another file is another encoding, behind a discontinuity and with a map of its own; where the wall clock jumps there is a date.
func TestVODPlaylist(t *testing.T) {
	t.Parallel()
	wall := time.Date(2026, 11, 28, 5, 0, 0, 250e6, time.UTC)
	v := &vod{name: "720p", files: []string{"720p.0.mp4", "720p.1.mp4"}, heads: []int64{700, 701}, video: movie.Track{Width: 1280, Height: 720}}
	for i, file := range []int{0, 0, 0, 1} {
		at := time.Duration(i) * 2 * time.Second
		s := segment{file: file, offset: 700 + int64(i)*1000, size: 1000 + int64(i), at: at, length: 2 * time.Second, wall: wall.Add(at), jump: i == 2}
		v.segments = append(v.segments, s)
	}
	const want = `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:2
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI="720p.0.mp4",BYTERANGE="700@0"
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T05:00:00.250Z
#EXTINF:2.00000,
#EXT-X-BYTERANGE:1000@700
720p.0.mp4
#EXTINF:2.00000,
#EXT-X-BYTERANGE:1001@1700
720p.0.mp4
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T05:00:04.250Z
#EXTINF:2.00000,
#EXT-X-BYTERANGE:1002@2700
720p.0.mp4
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="720p.1.mp4",BYTERANGE="701@0"
#EXTINF:2.00000,
#EXT-X-BYTERANGE:1003@3700
720p.1.mp4
#EXT-X-ENDLIST
`
	if got := string(v.render()); got != want {
		t.Errorf("got:\n%s", got)
	}
	if peak, average := v.bandwidth(); peak != 4012 || average != 4006 {
		t.Errorf("%d and %d bit/s", peak, average)
	}
}

// A variant may be called as the playlist over all.
func TestVariantCalledIndex(t *testing.T) {
	t.Parallel()
	p := newProgram(t, "index")
	s := &states{}
	r, _ := run(t, Config{Source: p}, s)
	if err := r.Start(request); err != nil {
		t.Fatal(err)
	}
	p.play(90)
	written(t, r, "rec1", 2*time.Second)
	if err := r.Stop("rec1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end", func() bool { return s.last().Phase == Stopped })
	decodes(t, filepath.Join(r.Dir("rec1"), indexName))
}
