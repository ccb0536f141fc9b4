package webm

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// material is 2 s of VP8 and Opus that ffmpeg made, read from IVF and Ogg.
func material(t testing.TB) (tracks []Track, blocks []Block) {
	t.Helper()
	ivf := ffmpeg(t, "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30:d=2", "-c:v", "libvpx", "-g", "30", "-b:v", "200k", "-f", "ivf", "-")
	n := int64(0)
	for b := ivf[32:]; len(b) > 12; n++ {
		size := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		data := b[12 : 12+size]
		blocks = append(blocks, Block{Track: 0, Time: n * 1000 / 30, Key: data[0]&1 == 0, Data: data})
		b = b[12+size:]
	}
	return []Track{{Codec: VP8, Width: 320, Height: 180}}, blocks
}

func ffmpeg(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-v", "error"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, &stderr)
	}
	return out
}

// write makes a file with a cluster for each keyframe.
func write(t testing.TB, tracks []Track, blocks []Block) []byte {
	t.Helper()
	b := Header(tracks, time.Unix(1_800_000_000, 0))
	var open []Block
	var err error
	for _, k := range blocks {
		if k.Key && len(open) > 0 {
			if b, err = AppendCluster(b, open); err != nil {
				t.Fatal(err)
			}
			open = nil
		}
		open = append(open, k)
	}
	if b, err = AppendCluster(b, open); err != nil {
		t.Fatal(err)
	}
	return b
}

func finish(t testing.TB, b []byte) (string, Summary) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.webm")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := Finish(f, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != s.Size {
		t.Errorf("%d bytes, the summary says %d", info.Size(), s.Size)
	}
	return path, s
}

func decodes(t *testing.T, path string, args ...string) {
	t.Helper()
	cmd := exec.Command("ffmpeg", append(append([]string{"-v", "warning", "-xerror"}, args...), "-i", path, "-f", "null", "-")...)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("ffmpeg: %v\n%s", err, out)
	}
}

func probe(t *testing.T, path, show string) string {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", show, "-of", "json", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe: %v\n%s", err, out)
	}
	return string(out)
}

func TestFile(t *testing.T) {
	t.Parallel()
	tracks, blocks := material(t)
	b := write(t, tracks, blocks)
	raw := filepath.Join(t.TempDir(), "raw.webm")
	if err := os.WriteFile(raw, b, 0o600); err != nil {
		t.Fatal(err)
	}
	decodes(t, raw) // as it is while it is written
	path, s := finish(t, b)
	if s.Duration < 1990 || s.Duration > 2010 || s.Blocks != 60 || s.Clusters != 2 {
		t.Errorf("%+v", s)
	}
	decodes(t, path)
	decodes(t, path, "-ss", "1.5") // by the index
	var p struct {
		Format  struct{ Duration string }
		Streams []struct {
			CodecName string `json:"codec_name"`
			Width     int
		}
		Frames []struct {
			Time string `json:"pts_time"`
		}
	}
	if err := json.Unmarshal([]byte(probe(t, path, "format=duration:stream=codec_name,width:frame=pts_time")), &p); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(p.Format.Duration, "2.00") && !strings.HasPrefix(p.Format.Duration, "1.99") || p.Streams[0].CodecName != "vp8" || p.Streams[0].Width != 320 ||
		len(p.Frames) != 60 || p.Frames[30].Time != "1.000000" {
		t.Errorf("%+v", p.Format)
	}
}

// A file that is cut anywhere is completed up to the last whole cluster, and again with the same result.
func TestACutFileIsCompleted(t *testing.T) {
	t.Parallel()
	tracks, blocks := material(t)
	head := len(Header(tracks, time.Time{}))
	b := write(t, tracks, blocks)
	for _, cut := range []int{head, head + 5, len(b) / 3, len(b) - 1} {
		path, s := finish(t, b[:cut])
		if s.Clusters > 1 || s.Size > int64(cut)+64 {
			t.Errorf("cut at %d: %+v", cut, s)
		}
		once, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		again, s2 := finish(t, once)
		twice, _ := os.ReadFile(again)
		if s2 != s || !bytes.Equal(once, twice) {
			t.Errorf("again: %+v instead of %+v", s2, s)
		}
		if s.Clusters > 0 {
			decodes(t, path)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b[:head-1]); err != nil {
		t.Fatal(err)
	}
	if _, err := Finish(f, int64(head-1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("half a head: %v", err)
	}
}

func TestClustersAreChecked(t *testing.T) {
	t.Parallel()
	for _, blocks := range [][]Block{
		{{Time: 5}, {Time: 4}}, {{Time: 0}, {Time: MaxSpan + 1}}, {{Time: -1}}, {{Track: -1}},
	} {
		if b, err := AppendCluster(nil, blocks); err == nil || len(b) > 0 {
			t.Errorf("%+v: %d bytes, %v", blocks, len(b), err)
		}
	}
}

// memory is a File.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, at) }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if need := int(at) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[at:], p), nil
}

func (m *memory) Truncate(size int64) error { m.b = m.b[:size]; return nil }

func FuzzFinish(f *testing.F) {
	tracks := []Track{{Codec: VP8, Width: 2, Height: 2}, {Codec: Opus, Private: OpusHead(2), Channels: 2}}
	b := Header(tracks, time.Time{})
	for i := range int64(2) {
		b, _ = AppendCluster(b, []Block{{Time: i * 100, Key: true, Data: []byte("a")}, {Track: 1, Time: i*100 + 20, Key: true, Data: []byte("b")}})
	}
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &memory{bytes.Clone(b)}
		s, err := Finish(m, int64(len(b)))
		if err != nil {
			return
		}
		again, err := Finish(m, int64(len(m.b)))
		if err != nil || again.Blocks != s.Blocks || again.Size != s.Size {
			t.Fatalf("%+v, then %+v, %v", s, again, err)
		}
	})
}
