package movie_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/hls/fmp4"
	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/movie"
)

const (
	tick    = 3000 // of 90 kHz
	perAU   = 1024
	samples = 1600 // of 48 kHz in a tick
)

type material struct {
	tracks []movie.Track
	video  []movie.Sample
	data   [][]byte
	audio  [][]byte
}

// load makes tracks and samples of the clip.
func load(t testing.TB) *material {
	t.Helper()
	c, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	m := &material{audio: c.Audio}
	for i, b := range c.Video {
		au, err := fmp4.ParseAnnexB(b)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			m.tracks = append(m.tracks, track(t, func() (fmp4.Init, error) { return fmp4.VideoInit(au.SPS, au.PPS, 90000, 1000) }, 1))
		}
		m.video = append(m.video, movie.Sample{Size: uint32(len(au.Data)), Duration: tick, Key: au.Key})
		m.data = append(m.data, au.Data)
	}
	m.tracks = append(m.tracks, track(t, func() (fmp4.Init, error) { return fmp4.AudioInit(hlstest.AudioConfig(), 1000) }, 2))
	return m
}

func track(t testing.TB, make func() (fmp4.Init, error), id uint32) movie.Track {
	t.Helper()
	init, err := make()
	if err != nil {
		t.Fatal(err)
	}
	tracks, err := movie.ParseInit(init.Data)
	if err != nil || len(tracks) != 1 {
		t.Fatalf("%d tracks, %v", len(tracks), err)
	}
	tracks[0].ID = id
	return tracks[0]
}

// fragment is 15 pictures from the clip's k·15th on, and the audio of that time, beginning at tick at.
func (m *material) fragment(b []byte, k int, at int64) []byte {
	video := movie.Run{Track: 1, Base: at * tick, Samples: m.video[k*15 : k*15+15], Data: bytes.Join(m.data[k*15:k*15+15], nil)}
	audio := movie.Run{Track: 2, Base: (at*samples + perAU - 1) / perAU * perAU}
	for i := audio.Base; i < (at+15)*samples; i += perAU {
		au := m.audio[i/perAU%90]
		audio.Samples = append(audio.Samples, movie.Sample{Size: uint32(len(au)), Duration: perAU, Key: true})
		audio.Data = append(audio.Data, au...)
	}
	return movie.AppendFragment(b, uint32(k+1), []movie.Run{video, audio})
}

func (m *material) file(from int64, fragments int) []byte {
	b := movie.AppendHeader(nil, m.tracks)
	for k := range fragments {
		b = m.fragment(b, k%4, from+int64(k)*15)
	}
	return b
}

func source(b []byte) movie.Source { return movie.Source{R: bytes.NewReader(b), Size: int64(len(b))} }

func progressive(t testing.TB, sources ...movie.Source) ([]byte, movie.Summary) {
	t.Helper()
	m, err := movie.NewMovie(sources)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.WriteTo(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), m.Summary()
}

func TestTracksAreRead(t *testing.T) {
	t.Parallel()
	m := load(t)
	v, a := m.tracks[0], m.tracks[1]
	if !v.Video || v.Timescale != 90000 || v.Width != hlstest.Width || v.Height != hlstest.Height || string(v.Entry[4:8]) != "avc1" {
		t.Errorf("video %+v", v)
	}
	if a.Video || a.Timescale != 48000 || string(a.Entry[4:8]) != "mp4a" {
		t.Errorf("audio %+v", a)
	}
	again, err := movie.ParseInit(movie.AppendHeader(nil, m.tracks))
	if err != nil || len(again) != 2 || again[0].Width != v.Width || !bytes.Equal(again[1].Entry, a.Entry) {
		t.Errorf("own header: %+v, %v", again, err)
	}
	if d := v.Duration(v.Units(100 * time.Hour)); d != 100*time.Hour {
		t.Errorf("100 hours are %v", d)
	}
}

// Other writers' parts are read: the packager's.
func TestPartsAreRead(t *testing.T) {
	t.Parallel()
	data := []fmp4.Sample{{Data: []byte("abc"), Duration: 3, Key: true}, {Data: []byte("de"), Duration: 4}}
	b, err := fmp4.Part(1, 77, data)
	if err != nil {
		t.Fatal(err)
	}
	runs, err := movie.ParseChunk(append([]byte("\x00\x00\x00\x0cemsg1234"), b...))
	if err != nil || len(runs) != 1 || runs[0].Base != 77 || len(runs[0].Samples) != 2 || runs[0].Length() != 7 {
		t.Fatalf("%+v, %v", runs, err)
	}
	for i, s := range runs[0].Samples {
		at := s.Offset - 12
		if got := b[at : at+int64(s.Size)]; string(got) != string(data[i].Data) || s.Key != data[i].Key {
			t.Errorf("sample %d: %q, key %v", i, got, s.Key)
		}
	}
}

// A fragmented file that is cut anywhere is read up to the last whole fragment.
func TestACutFileIsReadToItsLastFragment(t *testing.T) {
	t.Parallel()
	m := load(t)
	head := len(movie.AppendHeader(nil, m.tracks))
	whole := m.file(0, 4)
	ends := []int{head}
	for k := 1; k <= 4; k++ {
		ends = append(ends, len(m.file(0, k)))
	}
	for cut := head; cut <= len(whole); cut += 997 {
		want := 0
		for ends[min(want+1, 4)] <= cut && want < 4 {
			want++
		}
		n := 0
		h, err := movie.Scan(bytes.NewReader(whole[:cut]), int64(cut), nil, func(*movie.Fragment) error { n++; return nil })
		if err != nil || n != want || h.Whole != int64(ends[want]) {
			t.Fatalf("cut at %d: %d fragments up to %d, %v; want %d up to %d", cut, n, h.Whole, err, want, ends[want])
		}
	}
	if _, err := movie.Scan(bytes.NewReader(whole[:head-1]), int64(head-1), nil, nil); !errors.Is(err, movie.ErrMalformed) {
		t.Errorf("half a head: %v", err)
	}
}

func TestProgressive(t *testing.T) {
	t.Parallel()
	m := load(t)
	// Two files of 2 s, the first broken off, and one whose audio begins later than its pictures.
	first := m.file(0, 4)
	first = append(first, m.fragment(nil, 0, 60)[:3000]...)
	b, sum := progressive(t, source(first), source(m.file(60, 4)))
	if sum.Samples[0] != 120 || sum.Duration < 4*time.Second || sum.Duration > 4*time.Second+30*time.Millisecond {
		t.Errorf("%+v", sum)
	}
	if at := bytes.Index(b, []byte("moov")); at < 0 || at > bytes.Index(b, []byte("mdat")) {
		t.Error("the index is not in front")
	}
	out := probe(t, b)
	if n := strings.Count(out, "frame,video,"); n != 120 || !strings.Contains(out, "frame,video,3.966667,I") && !strings.Contains(out, "frame,video,3.966667,P") {
		t.Errorf("%d frames:\n%s", n, out)
	}
	decodes(t, b)
}

// A hole in one track makes the sample before it longer; a track that begins late begins late.
func TestHolesAndLateTracks(t *testing.T) {
	t.Parallel()
	m := load(t)
	silent := movie.AppendHeader(nil, m.tracks[:1])
	silent = movie.AppendFragment(silent, 1, []movie.Run{{Track: 1, Base: 0, Samples: m.video[:15], Data: bytes.Join(m.data[:15], nil)}})
	b, sum := progressive(t, source(silent), source(m.file(30, 2)))
	if sum.Duration < 2*time.Second || sum.Duration > 2*time.Second+30*time.Millisecond {
		t.Errorf("%+v", sum)
	}
	out := probe(t, b)
	if !strings.Contains(out, "frame,video,0.466667") || !strings.Contains(out, "frame,video,1.000000") || strings.Contains(out, "frame,video,0.5") {
		t.Errorf("no hole in the picture:\n%s", out)
	}
	firstAudio := out[strings.Index(out, "frame,audio,"):]
	if !strings.HasPrefix(firstAudio, "frame,audio,1.00") && !strings.HasPrefix(firstAudio, "frame,audio,1.01") {
		t.Errorf("audio begins: %.30s", firstAudio)
	}
	decodes(t, b)
}

func TestNothingMakesNoMovie(t *testing.T) {
	t.Parallel()
	m := load(t)
	if _, err := movie.NewMovie([]movie.Source{source(m.file(0, 0))}); !errors.Is(err, movie.ErrEmpty) {
		t.Errorf("a head alone: %v", err)
	}
	other := m.tracks[0]
	other.Timescale = 1000
	if _, err := movie.NewMovie([]movie.Source{source(m.file(0, 1)), source(movie.AppendHeader(nil, []movie.Track{other}))}); !errors.Is(err, movie.ErrMalformed) {
		t.Errorf("another timescale: %v", err)
	}
}

// Beyond 4 GiB offsets have 64 bits; the file is sparse.
func TestLargeMovie(t *testing.T) {
	t.Parallel()
	m := load(t)
	name := filepath.Join(t.TempDir(), "large.mp4")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(movie.AppendHeader(nil, m.tracks[:1])); err != nil {
		t.Fatal(err)
	}
	size, _ := f.Seek(0, 1)
	for k := range 5 { // fragments of 1 GiB each, of zeros
		b := movie.AppendFragment(nil, uint32(k), []movie.Run{{Track: 1, Base: int64(k) * tick, Samples: []movie.Sample{{Size: 1 << 30, Duration: tick}}}})
		copy(b[len(b)-8:], []byte{0x40, 0, 0, 8})
		if _, err := f.WriteAt(b, size); err != nil {
			t.Fatal(err)
		}
		size += int64(len(b)) + 1<<30
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	large, err := movie.NewMovie([]movie.Source{{R: f, Size: size}})
	if err != nil {
		t.Fatal(err)
	}
	var w headOnly
	if err := large.WriteTo(t.Context(), &w); !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if !bytes.Contains(w.b, []byte("co64")) || bytes.Contains(w.b, []byte("stco")) {
		t.Errorf("offsets of 32 bits: %q", w.b[:min(200, len(w.b))])
	}
}

var errEnough = errors.New("enough")

type headOnly struct{ b []byte }

func (h *headOnly) Write(b []byte) (int, error) {
	if h.b != nil {
		return 0, errEnough
	}
	h.b = bytes.Clone(b)
	return len(b), nil
}

func onDisk(t *testing.T, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "movie.mp4")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func probe(t *testing.T, b []byte) string {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "frame=media_type,pts_time,pict_type", "-of", "csv", onDisk(t, b)).CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe: %v\n%s", err, out)
	}
	return string(out)
}

// decodes has everything decoded.
func decodes(t *testing.T, b []byte) {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-v", "warning", "-xerror", "-i", onDisk(t, b), "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("ffmpeg: %v\n%s", err, out)
	}
}

// small is a file of few bytes: fuzzing is quicker with those.
func (m *material) small(fragments int) []byte {
	b := movie.AppendHeader(nil, m.tracks)
	for k := range fragments {
		b = movie.AppendFragment(b, uint32(k+1), []movie.Run{
			{Track: 1, Base: int64(k) * tick, Samples: []movie.Sample{{Size: 2, Duration: tick, Key: true}}, Data: []byte("ab")},
			{Track: 2, Base: int64(k) * samples, Samples: []movie.Sample{{Size: 1, Duration: perAU, Key: true}, {Size: 1, Duration: 9}}, Data: []byte("cd")},
		})
	}
	return b
}

func FuzzScan(f *testing.F) {
	m := load(f)
	f.Add(m.small(2))
	f.Add(m.small(1)[:1500])
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		h, err := movie.Scan(bytes.NewReader(b), int64(len(b)), nil, func(fr *movie.Fragment) error {
			n++
			for _, r := range fr.Runs {
				for _, s := range r.Samples {
					if s.Offset < fr.Offset || s.Offset+int64(s.Size) > fr.Offset+fr.Size {
						t.Fatal("a sample outside of its fragment")
					}
				}
			}
			return nil
		})
		if err == nil && (h.Whole < h.Size || h.Whole > int64(len(b))) {
			t.Fatalf("whole up to %d of %d", h.Whole, len(b))
		}
		mv, err := movie.NewMovie([]movie.Source{source(b)})
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := mv.WriteTo(t.Context(), &out); err != nil {
			t.Fatalf("%d bytes, %v", out.Len(), err)
		}
	})
}

func FuzzParseChunk(f *testing.F) {
	m := load(f)
	f.Add(m.small(2)[len(movie.AppendHeader(nil, m.tracks)):])
	f.Fuzz(func(t *testing.T, b []byte) {
		runs, err := movie.ParseChunk(b)
		if err != nil {
			return
		}
		for _, r := range runs {
			for _, s := range r.Samples {
				if s.Offset < 0 || s.Offset+int64(s.Size) > int64(len(b)) {
					t.Fatal("a sample outside")
				}
			}
		}
	})
}

func BenchmarkMovie(b *testing.B) {
	m := load(b)
	file := m.file(0, 240) // 2 minutes
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		mv, err := movie.NewMovie([]movie.Source{source(file)})
		if err != nil {
			b.Fatal(err)
		}
		var sink bytes.Buffer
		sink.Grow(len(file) + 1<<20)
		if err := mv.WriteTo(b.Context(), &sink); err != nil {
			b.Fatal(err)
		}
	}
}
