package record

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/amphi-sfu/amphi/hls/durable"
	"github.com/amphi-sfu/amphi/hls/movie"
)

// vod is a tape as a VOD playlist lists it: its files' fragments, from keyframe to keyframe.
type vod struct {
	name     string
	files    []string
	heads    []int64        // sizes of the files' heads
	tracks   []*movie.Track // pictures, by file
	video    movie.Track    // the largest
	codecs   []string
	segments []segment
}

// segment is a row of fragments of one file that begins with a keyframe.
type segment struct {
	file         int
	offset, size int64
	at, length   time.Duration
	key          movie.Sample
	wall         time.Time
	jump         bool // the wall clock does not go on from the segment before
}

// readVOD reads the fragments of a tape's files.
func readVOD(t *raw) (*vod, error) {
	v := &vod{name: t.name, files: t.files}
	for i, s := range t.sources {
		var video *movie.Track
		head, err := movie.Scan(s.R, s.Size, func(tracks []movie.Track) error {
			for k := range tracks {
				if c := tracks[k].Codecs(); c != "" && !slices.Contains(v.codecs, c) {
					v.codecs = append(v.codecs, c)
				}
				if tracks[k].Video {
					video = &tracks[k]
				}
			}
			return nil
		}, func(f *movie.Fragment) error {
			v.add(i, f, video)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", t.files[i], err)
		}
		v.heads, v.tracks = append(v.heads, head.Size), append(v.tracks, video)
		if video != nil && video.Width*video.Height > v.video.Width*v.video.Height {
			v.video = *video
		}
	}
	return v, nil
}

func (v *vod) add(file int, f *movie.Fragment, video *movie.Track) {
	for i := range f.Runs {
		r := &f.Runs[i]
		if video == nil || r.Track != video.ID || len(r.Samples) == 0 {
			continue
		}
		at, length := video.Duration(r.Base), video.Duration(r.Length())
		n := len(v.segments)
		if r.Samples[0].Key || n == 0 || v.segments[n-1].file != file {
			s := segment{file: file, offset: f.Offset, size: f.Size, at: at, length: length, key: r.Samples[0], wall: f.Wall}
			if n > 0 {
				last := &v.segments[n-1]
				s.jump = last.wall.Add(last.length).Sub(s.wall).Abs() > 50*time.Millisecond
			}
			v.segments = append(v.segments, s)
			continue
		}
		s := &v.segments[n-1]
		s.size, s.length = f.Offset+f.Size-s.offset, at+length-s.at
	}
}

func (v *vod) started() time.Time {
	if len(v.segments) == 0 {
		return time.Time{}
	}
	return v.segments[0].wall
}

// render makes the media playlist (RFC 8216bis section 4). A file's head is its map; another file is another encoding, so it stands behind a discontinuity.
func (v *vod) render() []byte {
	var b bytes.Buffer
	longest := time.Duration(0)
	for _, s := range v.segments {
		longest = max(longest, s.length)
	}
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:%d\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n", max(1, int(math.Round(longest.Seconds()))))
	for i, s := range v.segments {
		if i == 0 || s.file != v.segments[i-1].file {
			if i > 0 {
				b.WriteString("#EXT-X-DISCONTINUITY\n")
			}
			fmt.Fprintf(&b, "#EXT-X-MAP:URI=%q,BYTERANGE=\"%d@0\"\n", v.files[s.file], v.heads[s.file])
		}
		if (i == 0 || s.jump) && !s.wall.IsZero() {
			fmt.Fprintf(&b, "#EXT-X-PROGRAM-DATE-TIME:%s\n", s.wall.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
		fmt.Fprintf(&b, "#EXTINF:%.5f,\n#EXT-X-BYTERANGE:%d@%d\n%s\n", s.length.Seconds(), s.size, s.offset, v.files[s.file])
	}
	b.WriteString("#EXT-X-ENDLIST\n")
	return b.Bytes()
}

// bandwidth is the bit rate of the largest segment, and of all.
func (v *vod) bandwidth() (peak, average int) {
	var bits, seconds float64
	for _, s := range v.segments {
		if s.length <= 0 {
			continue
		}
		bits += float64(s.size) * 8
		seconds += s.length.Seconds()
		peak = max(peak, int(math.Ceil(float64(s.size)*8/s.length.Seconds())))
	}
	if seconds > 0 {
		average = int(math.Ceil(bits / seconds))
	}
	return peak, average
}

const indexName = "index.m3u8"

// makePlaylists writes a media playlist for each tape and a multivariant playlist over them.
func (c *recording) makePlaylists(vods []*vod) (Asset, error) {
	order := slices.Clone(vods)
	slices.SortStableFunc(order, func(a, b *vod) int { return b.video.Width*b.video.Height - a.video.Width*a.video.Height })
	var index strings.Builder
	index.WriteString("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	var with []string
	var length time.Duration
	for _, v := range order {
		name := v.name + ".m3u8"
		if name == indexName {
			name = v.name + ".media.m3u8"
		}
		if err := c.write(name, v.render()); err != nil {
			return Asset{}, err
		}
		peak, average := v.bandwidth()
		fmt.Fprintf(&index, "#EXT-X-STREAM-INF:BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d,CODECS=%q,RESOLUTION=%dx%d\n%s\n",
			peak, average, strings.Join(v.codecs, ","), v.video.Width, v.video.Height, name)
		with = append(append(with, name), v.files...)
		if n := len(v.segments); n > 0 {
			length = max(length, v.segments[n-1].at+v.segments[n-1].length)
		}
	}
	if err := c.write(indexName, []byte(index.String())); err != nil {
		return Asset{}, err
	}
	a, err := c.asset(Playlist, indexName, with...)
	a.Duration, a.Started = length, order[0].started()
	a.Width, a.Height = order[0].video.Width, order[0].video.Height
	return a, err
}

func (c *recording) write(name string, b []byte) error {
	return durable.Replace(filepath.Join(c.dir, name), func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}
