package packager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	parser "github.com/bluenviron/gohlslib/v2/pkg/playlist"
	mp4 "github.com/bluenviron/mediacommon/v2/pkg/formats/fmp4"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
	"github.com/amphi-sfu/amphi/hls/playlist"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// source feeds the clip into a packager tick by tick, audio in step with video.
type source struct {
	t     testing.TB
	p     *packager.Packager
	clip  *hlstest.Clip
	audio int64 // next sample
}

func newSource(t testing.TB, cfg packager.Config) *source {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Variants == nil {
		cfg.Variants = []packager.Variant{{Name: "720p", Bitrate: 300_000}, {Name: "360p", Bitrate: 300_000}}
	}
	cfg.Start, cfg.Epoch = start, 42
	p, err := packager.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetAudioConfig(hlstest.AudioConfig()); err != nil {
		t.Fatal(err)
	}
	return &source{t: t, p: p, clip: clip}
}

func (s *source) begin(tick int64) {
	s.t.Helper()
	if err := s.p.Begin(tick); err != nil {
		s.t.Fatal(err)
	}
	s.audio = tick * 1600
}

// video sends ticks from..to-1 of all variants. An IDR begins the run and each GOP.
func (s *source) video(from, to int64) {
	s.t.Helper()
	for tick := from; tick < to; tick++ {
		i := tick % 60
		if tick == from {
			i = 0
		}
		for v := range s.p.Config().Variants {
			if err := s.p.WriteVideo(v, tick, s.clip.Video[i]); err != nil {
				s.t.Fatalf("tick %d: %v", tick, err)
			}
		}
	}
}

// sound sends audio until a tick.
func (s *source) sound(to int64) {
	s.t.Helper()
	for ; s.audio < to*1600; s.audio += 1024 {
		if err := s.p.WriteAudio(s.audio, s.clip.Audio[s.audio/1024%int64(len(s.clip.Audio))]); err != nil {
			s.t.Fatalf("sample %d: %v", s.audio, err)
		}
	}
}

// play sends both, in slices of a part.
func (s *source) play(from, to int64) {
	s.t.Helper()
	for at := from; at < to; at++ {
		for v := range s.p.Config().Variants {
			i := at % 60
			if at == from {
				i = 0
			}
			if err := s.p.WriteVideo(v, at, s.clip.Video[i]); err != nil {
				s.t.Fatalf("tick %d: %v", at, err)
			}
		}
		s.sound(at + 1)
	}
}

func (s *source) media(name string) *packager.Media {
	s.t.Helper()
	m, ok := s.p.Media(name)
	if !ok {
		s.t.Fatalf("no playlist %s", name)
	}
	return m
}

func (s *source) full(name string) string {
	return string(s.media(name).Published().Form(playlist.SkipNone).Bytes())
}

func (s *source) parsed(name string) *parser.Media {
	s.t.Helper()
	m := new(parser.Media)
	if err := m.Unmarshal([]byte(s.full(name))); err != nil {
		s.t.Fatalf("%v in\n%s", err, s.full(name))
	}
	return m
}

func (s *source) object(name, object string) []byte {
	s.t.Helper()
	n, ok := packager.ParseName(object)
	if !ok {
		s.t.Fatalf("%q is no name", object)
	}
	o, ok := s.media(name).Object(n)
	if !ok {
		s.t.Fatalf("%s/%s is not there", name, object)
	}
	var b []byte
	for _, c := range o.Chunks {
		b = append(b, c...)
	}
	if len(b) != o.Size {
		s.t.Fatalf("%s/%s: %d bytes, said %d", name, object, len(b), o.Size)
	}
	return b
}

var names = []string{"720p", "360p", "audio"}

func TestGrid(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{FirstMSN: 1000})
	s.begin(30) // mid-segment: 30 of 60
	s.play(30, 30+30+60*9+20)
	for _, name := range names {
		p := s.parsed(name)
		if p.MediaSequence != 1000 || len(p.Segments) != 10 {
			t.Errorf("%s: from %d, %d segments", name, p.MediaSequence, len(p.Segments))
		}
		for i, seg := range p.Segments {
			want := 2 * time.Second
			if i == 0 {
				want = time.Second
			}
			if d := seg.Duration - want; name == "audio" && d.Abs() > 22*time.Millisecond || name != "audio" && d != 0 {
				t.Errorf("%s: segment %d lasts %v", name, i, seg.Duration)
			}
			date := start.Add(time.Second)
			if i > 0 {
				date = start.Add(time.Duration(2*i) * time.Second)
			}
			if d := seg.DateTime.Sub(date); d.Abs() > 22*time.Millisecond {
				t.Errorf("%s: segment %d begins at %v, want %v", name, i, seg.DateTime, date)
			}
			var read mp4.Parts
			if err := read.Unmarshal(s.object(name, seg.URI)); err != nil || len(read) != len(s.parsed(name).Segments[i].Parts) && len(seg.Parts) > 0 {
				t.Errorf("%s: segment %d: %d parts inside, %v", name, i, len(read), err)
			}
		}
		if !strings.Contains(s.full(name), `#EXT-X-MAP:URI="42-init0.mp4"`) || strings.Contains(s.full(name), "DISCONTINUITY\n") {
			t.Errorf("%s:\n%s", name, s.full(name))
		}
		s.object(name, "42-init0.mp4")
	}
	if !strings.Contains(s.full("720p"), `#EXT-X-PART:DURATION=0.50000,URI="42-1010.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="42-1010.1.m4s"
#EXT-X-RENDITION-REPORT:URI="../360p/index.m3u8",LAST-MSN=1009,LAST-PART=3
#EXT-X-RENDITION-REPORT:URI="../audio/index.m3u8",LAST-MSN=1009,LAST-PART=3
`) {
		t.Errorf("tail of\n%s", s.full("720p"))
	}
}

// The decode times of consecutive segments join without a hole or an overlap.
func TestTimesJoin(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{})
	s.begin(0)
	s.play(0, 60*8)
	for _, name := range names {
		var next uint64
		for _, seg := range s.parsed(name).Segments {
			var parts mp4.Parts
			if err := parts.Unmarshal(s.object(name, seg.URI)); err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				if p.Tracks[0].BaseTime != next {
					t.Fatalf("%s: part at %d, want %d", name, p.Tracks[0].BaseTime, next)
				}
				for _, x := range p.Tracks[0].Samples {
					next += uint64(x.Duration)
				}
			}
		}
		if next == 0 {
			t.Errorf("%s: nothing", name)
		}
	}
}

func TestRespawn(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{FirstMSN: 7})
	s.begin(0)
	s.play(0, 130)
	s.video(130, 200) // audio lags: it has nothing of segment 10
	before := s.media("720p").Published()
	if err := s.p.Cut(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-before.Next():
	default:
		t.Error("a cut wakes nobody")
	}
	if got := s.p.NextTick(start, 0); got != 210 {
		t.Errorf("next tick %d, want 210: the part from 195 on was begun", got)
	}
	if err := s.p.Begin(180); !errors.Is(err, packager.ErrAnnounced) {
		t.Errorf("beginning inside the past: %v", err)
	}
	s.begin(255)
	s.play(255, 400)
	for _, name := range names {
		p := s.parsed(name)
		msn := -1
		for i, seg := range p.Segments {
			if seg.Discontinuity {
				msn = p.MediaSequence + i
			}
		}
		if msn != 11 {
			t.Errorf("%s: discontinuity at %d, want 11\n%s", name, msn, s.full(name))
		}
		seg := p.Segments[msn-p.MediaSequence]
		if d := seg.DateTime.Sub(start.Add(8500 * time.Millisecond)); d.Abs() > 22*time.Millisecond {
			t.Errorf("%s: goes on at %v", name, seg.DateTime)
		}
	}
	v, a := s.parsed("720p").Segments[3].Duration, s.parsed("audio").Segments[3].Duration
	if want := 20 * time.Second / 30; (v-want).Abs() > 10*time.Microsecond || (a-want).Abs() > 43*time.Millisecond || strings.Contains(s.full("audio"), "GAP") {
		t.Errorf("segment 10 has %v of video and %v of audio in\n%s", v, a, s.full("audio"))
	}
	if !strings.Contains(s.full("720p"), "#EXT-X-PART:DURATION=0.16667,URI=\"42-10.1.m4s\"\n#EXTINF:0.66667") {
		t.Errorf("no short last part in\n%s", s.full("720p"))
	}
	// A compositor that dies before it delivers leaves no trace.
	list := s.full("720p")
	if err := errors.Join(s.p.Cut(), s.p.Begin(900), s.p.Cut()); err != nil {
		t.Fatal(err)
	}
	s.begin(990)
	s.play(990, 1020)
	if n := strings.Count(s.full("720p"), "#EXT-X-DISCONTINUITY\n") - strings.Count(list, "#EXT-X-DISCONTINUITY\n"); n != 1 {
		t.Errorf("%d discontinuities more", n)
	}
}

// Audio that never comes does not keep the next run from beginning.
func TestAudioFarBehind(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Window: 6})
	s.begin(0)
	s.sound(30)
	s.video(0, 60*20+7)
	if err := s.p.Cut(); err != nil {
		t.Fatal(err)
	}
	s.begin(60 * 21)
	s.play(60*21, 60*22)
	v, a := s.parsed("720p"), s.parsed("audio")
	if end := v.MediaSequence + len(v.Segments); end != a.MediaSequence+len(a.Segments) {
		t.Errorf("video ends at %d, audio at %d", end, a.MediaSequence+len(a.Segments))
	}
	if !a.Segments[len(a.Segments)-1].Discontinuity || !v.Segments[len(v.Segments)-1].Discontinuity {
		t.Errorf("no discontinuity in\n%s", s.full("audio"))
	}
}

func TestNewParameterSets(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Variants: []packager.Variant{{Name: "v", Bitrate: 300_000}}})
	s.begin(0)
	s.play(0, 60)
	// The same SPS with another level: a new encoder.
	key := append([]byte(nil), s.clip.Video[0]...)
	i := strings.Index(string(key), "\x00\x00\x01\x67")
	key[i+6]++
	s.clip.Video[0] = key
	if err := s.p.Cut(); err != nil {
		t.Fatal(err)
	}
	s.begin(90)
	s.play(90, 120)
	if l := s.full("v"); !strings.Contains(l, "#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"42-init1.mp4\"") {
		t.Errorf("no new init section in\n%s", l)
	}
	s.object("v", "42-init0.mp4")
	s.object("v", "42-init1.mp4")
}

func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{})
	if err := s.p.WriteVideo(0, 0, s.clip.Video[0]); !errors.Is(err, packager.ErrNoRun) {
		t.Errorf("before a run: %v", err)
	}
	if err := s.p.Begin(7); err == nil {
		t.Error("begins off the grid")
	}
	s.begin(60)
	if err := s.p.WriteVideo(9, 60, s.clip.Video[0]); !errors.Is(err, packager.ErrVariant) {
		t.Errorf("variant 9: %v", err)
	}
	if err := s.p.WriteVideo(0, 60, s.clip.Video[1]); err != nil { // no keyframe: dropped
		t.Error(err)
	}
	if err := s.p.WriteVideo(0, 60, s.clip.Video[0]); err != nil {
		t.Error(err)
	}
	for _, tick := range []int64{60, 59, 0, -5} {
		if err := s.p.WriteVideo(0, tick, s.clip.Video[1]); !errors.Is(err, packager.ErrLate) {
			t.Errorf("tick %d: %v", tick, err)
		}
	}
	if err := s.p.WriteVideo(0, 1<<40, s.clip.Video[1]); err == nil {
		t.Error("takes a picture of next century")
	}
	if err := s.p.WriteVideo(0, 61, []byte("rubbish")); err == nil {
		t.Error("takes rubbish")
	}
	if err := s.p.WriteVideo(0, 61, make([]byte, 3<<20)); !errors.Is(err, packager.ErrTooLong) {
		t.Errorf("3 MB picture: %v", err)
	}
	want := map[packager.Drop]int64{
		packager.DropNoRun: 1, packager.DropNoKey: 1, packager.DropLate: 4, packager.DropMalformed: 2, packager.DropTooLong: 1,
	}
	if got := s.p.Stats().Drops; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("drops %v, want %v", got, want)
	}
}

func TestEndAndContinue(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{FirstMSN: 5})
	s.begin(0)
	s.play(0, 200)
	if err := errors.Join(s.p.End(), s.p.End()); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if p := s.parsed(name); !p.Endlist || p.PreloadHint != nil || p.MediaSequence+len(p.Segments) != 9 {
			t.Errorf("%s:\n%s", name, s.full(name))
		}
	}
	if err := s.p.WriteVideo(0, 200, s.clip.Video[0]); !errors.Is(err, packager.ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
	st := s.p.Stats()
	next := newSource(t, packager.Config{FirstMSN: st.NextMSN, FirstDiscontinuity: st.Discontinuity, Continues: true})
	next.begin(0)
	next.play(0, 60)
	for _, name := range names {
		if p := next.parsed(name); p.MediaSequence != 9 || !p.Segments[0].Discontinuity {
			t.Errorf("%s:\n%s", name, next.full(name))
		}
	}
}

func TestReadyAndMultivariant(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{})
	s.begin(0)
	s.video(0, 20)
	if _, ok := s.p.Multivariant(); ok {
		t.Error("ready without audio")
	}
	s.sound(20)
	<-s.p.Ready()
	b, ok := s.p.Multivariant()
	if !ok {
		t.Fatal("not ready")
	}
	p, err := parser.Unmarshal(b)
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	v := p.(*parser.Multivariant).Variants
	if len(v) != 2 || v[0].Resolution != "320x180" || strings.Join(v[0].Codecs, ",") != "avc1.64000d,mp4a.40.2" || v[1].URI != "360p/index.m3u8" {
		t.Errorf("%s", b)
	}
}

// Memory is bounded, and what any listed playlist names can be fetched.
func TestMemory(t *testing.T) {
	t.Parallel()
	s := newSource(t, packager.Config{Window: 8})
	s.begin(0)
	var most int
	old := map[string]string{} // URI → last seen in that round
	for i := range int64(60) {
		s.play(60*i, 60*(i+1))
		for _, name := range names {
			for _, seg := range s.parsed(name).Segments {
				old[name+" "+seg.URI] = seg.URI
				s.object(name, seg.URI)
			}
			for line := range strings.Lines(s.full(name)) {
				if _, uri, ok := strings.Cut(line, `#EXT-X-PART:`); ok {
					_, uri, _ = strings.Cut(uri, `URI="`)
					uri, _, _ = strings.Cut(uri, `"`)
					s.object(name, uri)
				}
			}
		}
		if i > 20 {
			if most == 0 {
				most = s.p.Stats().Objects
			}
			if n := s.p.Stats().Objects; n > most {
				t.Fatalf("round %d: %d objects, were %d", i, n, most)
			}
		}
	}
	if most > 3*(17+4*6+1) {
		t.Errorf("%d objects", most)
	}
	if _, ok := s.media("720p").Object(packager.Name{Epoch: 42, MSN: 3, Part: -1, Init: -1}); ok {
		t.Error("segment 3 is still there")
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	ok := packager.Config{Start: start, Variants: []packager.Variant{{Name: "v", Bitrate: 1}}}
	for name, change := range map[string]func(*packager.Config){
		"no start":       func(c *packager.Config) { c.Start = time.Time{} },
		"no variants":    func(c *packager.Config) { c.Variants = nil },
		"fps":            func(c *packager.Config) { c.FPS = 7 },
		"grid":           func(c *packager.Config) { c.PartTicks, c.SegmentTicks = 15, 40 },
		"audio's name":   func(c *packager.Config) { c.Variants = []packager.Variant{{Name: "audio", Bitrate: 1}} },
		"name with path": func(c *packager.Config) { c.Variants = []packager.Variant{{Name: "../x", Bitrate: 1}} },
		"no bit rate":    func(c *packager.Config) { c.Variants = []packager.Variant{{Name: "v"}} },
	} {
		c := ok
		change(&c)
		if _, err := packager.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := packager.New(ok); err != nil {
		t.Error(err)
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"42-init0.mp4", "42-7.m4s", "42-7.3.m4s", "42--7.m4s", "042-7.m4s", "1-2.3.4.m4s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := packager.ParseName(s); ok && n.String() != s {
			t.Fatalf("%q reads as %q", s, n)
		}
	})
}

// Whatever order and times a broken compositor sends, playlists stay readable and
// their numbers never go back.
func FuzzWrite(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 200, 201, 16, 17, 18})
	f.Add([]byte{255, 0, 254, 7, 128, 64, 32})
	f.Fuzz(func(t *testing.T, script []byte) {
		s := newSource(t, packager.Config{Variants: []packager.Variant{{Name: "v", Bitrate: 300_000}}})
		var tick, sample int64
		var msn uint64
		for _, b := range script[:min(len(script), 300)] {
			switch step := int64(b & 15); b >> 4 {
			case 0: // any error is fine here, and below: the packager must only stay sound
				_ = s.p.Begin(s.p.NextTick(start, time.Duration(step)*time.Second))
				tick = s.p.NextTick(start, 0)
				sample = tick * 1600
			case 1:
				_ = s.p.Cut()
			case 2:
				_ = s.p.WriteVideo(0, tick-step, s.clip.Video[0])
			case 3:
				tick += step * 10
			case 4:
				sample += step * 10_000
			case 5:
				_ = s.p.WriteAudio(sample-step*300, s.clip.Audio[0])
			default:
				for range step {
					_ = s.p.WriteVideo(0, tick, s.clip.Video[tick%60])
					_ = s.p.WriteAudio(sample, s.clip.Audio[0])
					tick++
					sample += 1024
				}
			}
			for _, name := range []string{"v", "audio"} {
				p := s.media(name).Published()
				if name == "v" {
					if p.OpenMSN < msn {
						t.Fatalf("sequence went from %d back to %d", msn, p.OpenMSN)
					}
					msn = p.OpenMSN
				}
				if strings.Contains(string(p.Form(playlist.SkipNone).Bytes()), "#EXTINF") {
					s.parsed(name)
				}
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	s := newSource(b, packager.Config{})
	s.begin(0)
	tick := int64(0)
	b.ReportAllocs()
	for b.Loop() { // one segment of two variants and audio
		s.play(tick, tick+60)
		tick += 60
	}
}
