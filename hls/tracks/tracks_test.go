package tracks

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphi-sfu/amphi/media/codec"
	"github.com/amphi-sfu/amphi/media/packet"
)

var begin = time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)

// show is a peer's camera and microphone; what a test does to their packets.
type show struct {
	t      *testing.T
	pool   packet.Pool
	dir    string
	rec    *Recording
	asks   atomic.Int64
	stop   func() ([]File, error)
	inputs map[codec.Kind]*Input
}

func newShow(t *testing.T, kinds ...codec.Kind) *show {
	t.Helper()
	s := &show{t: t, dir: t.TempDir(), inputs: map[codec.Kind]*Input{}}
	var err error
	s.rec, err = New(Config{Dir: s.dir, Name: "peer", Queue: 100_000, Now: func() time.Time { return begin }}, kinds, func() { s.asks.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range kinds {
		s.inputs[k] = s.rec.Input(i)
	}
	ctx, cancel := context.WithCancel(context.Background())
	type result struct {
		files []File
		err   error
	}
	ended := make(chan result, 1)
	go func() {
		files, err := s.rec.Run(ctx)
		ended <- result{files, err}
	}()
	s.stop = func() ([]File, error) {
		cancel()
		r := <-ended
		if n := s.pool.Live(); n != 0 {
			t.Errorf("%d packets were not released", n)
		}
		return r.files, r.err
	}
	return s
}

// play gives packets in the order of their arrival; change may take some away or make them late.
func (s *show) play(list []*packet.Packet) {
	slices.SortStableFunc(list, func(a, b *packet.Packet) int { return int(a.ArrivalNS - b.ArrivalNS) })
	for _, p := range list {
		kind := codec.Video
		if p.PayloadType == 111 {
			kind = codec.Audio
		}
		s.inputs[kind].WriteRTP(p)
		p.Release()
	}
}

// all packets of units that are so far apart, the first of them sampled at from.
func all(p *publisher, units [][]byte, from, every time.Duration) (list []*packet.Packet) {
	for i, u := range units {
		list = append(list, p.packets(u, from+time.Duration(i)*every)...)
	}
	return list
}

const (
	frameTime = time.Second / 30
	soundTime = 20 * time.Millisecond
)

// Every codec in its file, with sound, out of order and with packets that come a second time late; the picture begins 500 ms after the sound, takes 300 ms
// longer, and stands where it belongs.
func TestCodecs(t *testing.T) {
	t.Parallel()
	for name, want := range map[codec.Name]string{codec.VP8: "vp8", codec.VP9: "vp9", codec.AV1: "av1", codec.H264: "h264"} {
		t.Run(name.String(), func(t *testing.T) {
			t.Parallel()
			s := newShow(t, codec.Audio, codec.Video)
			video, audio := newPublisher(t, &s.pool, name, begin), newPublisher(t, &s.pool, codec.Opus, begin)
			video.latency = 300 * time.Millisecond
			units, sounds := encoded(t, name, "320x180"), encoded(t, codec.Opus, "")
			list := append(all(video, units, 500*time.Millisecond, frameTime), all(audio, sounds, 0, soundTime)...)
			for i, p := range list {
				if i < 5 || p.PayloadType == 111 && i < len(list)-len(sounds)+5 {
					continue
				}
				p.ArrivalNS += rand.Int64N(int64(80 * time.Millisecond)) // reorders
				if rand.IntN(20) == 0 {
					p.ArrivalNS += int64(400 * time.Millisecond) // lost, and sent again
				}
			}
			s.inputs[codec.Audio].WriteSenderReport(audio.report(0))
			s.inputs[codec.Video].WriteSenderReport(video.report(time.Second))
			s.play(list)
			files, err := s.stop()
			if err != nil || len(files) != 1 {
				t.Fatalf("%+v, %v, %+v", files, err, s.rec.Stats())
			}
			path := filepath.Join(s.dir, files[0].Name)
			got := probe(t, path)
			if len(got.video) != len(units) || len(got.audio) != len(sounds) || got.width != 320 || !slices.Contains(got.codecs, want) || !slices.Contains(got.codecs, "opus") {
				t.Errorf("%d pictures of %d, %d sounds of %d, %v: %+v", len(got.video), len(units), len(got.audio), len(sounds), got.codecs, s.rec.Stats())
			}
			if d := files[0].Duration.Seconds(); math.Abs(d-4.5) > 0.1 || math.Abs(got.length-4.5) > 0.1 {
				t.Errorf("it lasts %v, or %v", d, got.length)
			}
			for i, at := range got.video {
				if want := 0.5 + float64(i)/30; math.Abs(at-got.audio[0]-want) > 0.003 {
					t.Fatalf("picture %d is at %v behind the sound's beginning, instead of %v", i, at-got.audio[0], want)
				}
			}
			decodes(t, path)
			if st := s.rec.Stats(); st.Missing != 0 || st.Left != 0 || st.Overflow != 0 || st.Failure != "" {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Packets that never come cost the pictures up to the next keyframe, which is asked for; what is there decodes and keeps its time.
func TestLoss(t *testing.T) {
	t.Parallel()
	for _, name := range []codec.Name{codec.VP8, codec.H264} {
		t.Run(name.String(), func(t *testing.T) {
			t.Parallel()
			s := newShow(t, codec.Video)
			video := newPublisher(t, &s.pool, name, begin)
			units := encoded(t, name, "320x180")
			var list []*packet.Packet
			for i, u := range units {
				for _, p := range video.packets(u, time.Duration(i)*frameTime) {
					if i == 40 && p.Marker || i == 75 && p.StartOfFrame {
						p.Release()
						continue
					}
					list = append(list, p)
				}
			}
			s.inputs[codec.Video].WriteSenderReport(video.report(0))
			s.play(list)
			files, err := s.stop()
			if err != nil || len(files) != 1 {
				t.Fatalf("%+v, %v", files, err)
			}
			path := filepath.Join(s.dir, files[0].Name)
			decodes(t, path)
			got := probe(t, path)
			if len(got.video) != len(units)-20-15 { // 40–59, 75–89
				t.Errorf("%d pictures of %d", len(got.video), len(units))
			}
			if len(got.video) > 45 && math.Abs(got.video[40]-got.video[39]-21.0/30) > 0.003 {
				t.Errorf("from %v to %v", got.video[39], got.video[40])
			}
			if s.asks.Load() == 0 || s.rec.Stats().Missing == 0 {
				t.Errorf("%d keyframes asked for, %+v", s.asks.Load(), s.rec.Stats())
			}
		})
	}
}

// A publisher that probes with empty packets, which sinks do not see, loses nothing (VP8, whose pictures are counted).
func TestProbesAreNoLoss(t *testing.T) {
	t.Parallel()
	s := newShow(t, codec.Video)
	video := newPublisher(t, &s.pool, codec.VP8, begin)
	units := encoded(t, codec.VP8, "320x180")
	var list []*packet.Packet
	for i, u := range units {
		list = append(list, video.packets(u, time.Duration(i)*frameTime)...)
		if i%30 == 7 {
			video.ext += 5
		}
	}
	s.play(list)
	files, err := s.stop()
	if err != nil || len(files) != 1 {
		t.Fatalf("%+v, %v", files, err)
	}
	if got := probe(t, filepath.Join(s.dir, files[0].Name)); len(got.video) != len(units) {
		t.Errorf("%d pictures of %d", len(got.video), len(units))
	}
}

// Another size of picture is no other file; another codec is, and so is a camera that comes later.
func TestChanges(t *testing.T) {
	t.Parallel()
	for name, sizes := range map[codec.Name]int{codec.VP8: 1, codec.H264: 1} {
		t.Run(name.String(), func(t *testing.T) {
			t.Parallel()
			s := newShow(t, codec.Video)
			video := newPublisher(t, &s.pool, name, begin)
			first, second := encoded(t, name, "320x180"), encoded(t, name, "640x360")
			list := all(video, first, 0, frameTime)
			s.play(append(list, all(video, second, 4*time.Second, frameTime)...))
			files, err := s.stop()
			if err != nil || len(files) != sizes {
				t.Fatalf("%+v, %v", files, err)
			}
			path := filepath.Join(s.dir, files[0].Name)
			if got := probe(t, path); len(got.video) != len(first)+len(second) {
				t.Errorf("%d pictures of %d", len(got.video), len(first)+len(second))
			}
			decodes(t, path)
		})
	}
	s := newShow(t, codec.Audio, codec.Video)
	audio, vp8, h264 := newPublisher(t, &s.pool, codec.Opus, begin), newPublisher(t, &s.pool, codec.VP8, begin), newPublisher(t, &s.pool, codec.H264, begin)
	h264.ext = vp8.ext + 100_000
	sounds := encoded(t, codec.Opus, "")
	var long [][]byte
	for range 4 {
		long = append(long, sounds[:200]...)
	}
	list := all(audio, long, 0, soundTime)                                                          // 16 s
	list = append(list, all(vp8, encoded(t, codec.VP8, "320x180"), 7*time.Second, frameTime)...)    // 7–11 s
	list = append(list, all(h264, encoded(t, codec.H264, "320x180"), 12*time.Second, frameTime)...) // 12–16 s
	s.play(list)
	files, err := s.stop()
	if err != nil || len(files) != 3 || files[0].ContentType != "video/webm" || files[2].ContentType != "video/mp4" {
		t.Fatalf("%+v, %v", files, err)
	}
	sum := 0
	for i, f := range files {
		path := filepath.Join(s.dir, f.Name)
		got := probe(t, path)
		sum += len(got.audio)
		if want := []int{0, 120, 120}[i]; len(got.video) != want {
			t.Errorf("file %d: %d pictures instead of %d", i, len(got.video), want)
		}
		decodes(t, path)
	}
	if sum < len(long)-60 { // sound in front of the first picture of the MP4 may be missing
		t.Errorf("%d sounds of %d", sum, len(long))
	}
}

// What a killed process leaves is completed.
func TestCompleteAfterKill(t *testing.T) {
	t.Parallel()
	for _, name := range []codec.Name{codec.VP8, codec.H264} {
		s := newShow(t, codec.Video)
		video := newPublisher(t, &s.pool, name, begin)
		s.inputs[codec.Video].WriteSenderReport(video.report(0))
		s.play(all(video, encoded(t, name, "320x180"), 0, frameTime))
		raw, row := filepath.Join(s.dir, webmName("peer", 0)), "\x1f\x43\xb6\x75" // a cluster
		if name == codec.H264 {
			raw, row = filepath.Join(s.dir, rawName("peer", 0, 0)), "moof"
		}
		var b []byte
		eventually(t, "a whole row", func() bool { b, _ = os.ReadFile(raw); return bytes.Count(b, []byte(row)) > 1 })
		killed := t.TempDir()
		if err := os.WriteFile(filepath.Join(killed, filepath.Base(raw)), b[:len(b)-7], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.stop(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			files, err := Complete(killed, "peer")
			if err != nil || len(files) != 1 || files[0].Size == 0 || files[0].Checksum == "" {
				t.Fatalf("%+v, %v", files, err)
			}
			decodes(t, filepath.Join(killed, files[0].Name))
		}
	}
	if files, err := Complete(t.TempDir(), "peer"); err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not in time", what)
		}
	}
}

// A microphone that comes late begins another file, in which the pictures begin with a keyframe that is asked for: nothing else is missing.
func TestMicrophoneComesLate(t *testing.T) {
	t.Parallel()
	s := newShow(t, codec.Audio, codec.Video)
	video, audio := newPublisher(t, &s.pool, codec.VP8, begin), newPublisher(t, &s.pool, codec.Opus, begin)
	units, sounds := encoded(t, codec.VP8, "320x180"), encoded(t, codec.Opus, "")
	var pictures [][]byte
	for i := range 12 * 30 { // keyframes at 0 and at 8.5 s
		k := i % 30
		if k == 0 && i > 0 {
			k = 1
		}
		if i == 255 {
			k = 0
		}
		pictures = append(pictures, units[k])
	}
	var long [][]byte
	for range 2 {
		long = append(long, sounds[:200]...)
	}
	s.play(append(all(video, pictures, 0, frameTime), all(audio, long, 6*time.Second+10*time.Millisecond, soundTime)...)) // 6–14 s
	files, err := s.stop()
	if err != nil || len(files) != 2 {
		t.Fatalf("%+v, %v, %+v", files, err, s.rec.Stats())
	}
	for i, f := range files {
		got := probe(t, filepath.Join(s.dir, f.Name))
		wantVideo, wantAudio := []int{181, 360 - 255}[i], []int{0, len(long)}[i]
		if n := len(got.video) - wantVideo; n < 0 || n > 5*(1-i) || len(got.audio) != wantAudio { // the first sound waits 100 ms for earlier ones
			t.Errorf("file %d: %d pictures instead of %d, %d sounds instead of %d: %+v", i, len(got.video), wantVideo, len(got.audio), wantAudio, s.rec.Stats())
		}
	}
	if n := s.asks.Load(); n < 3 { // the first one, and in 2.5 s without pictures
		t.Errorf("%d keyframes asked for", n)
	}
}

// A file that cannot be begun in the middle, where parameter sets change, is a failure that is told, and the next keyframe tries again.
func TestDiskFailsWhereSizesChange(t *testing.T) {
	t.Parallel()
	s := newShow(t, codec.Video)
	video := newPublisher(t, &s.pool, codec.H264, begin)
	small, large := encoded(t, codec.H264, "320x180"), encoded(t, codec.H264, "640x360")
	blocked := filepath.Join(s.dir, rawName("peer", 0, 1))
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	s.inputs[codec.Video].WriteSenderReport(video.report(0))
	s.play(append(all(video, small, 0, frameTime), all(video, large[:60], 4*time.Second, frameTime)...))
	eventually(t, "a failure", func() bool { return s.rec.Stats().Failure != "" })
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	s.play(all(video, large[60:], 6*time.Second, frameTime))
	files, err := s.stop()
	if err != nil || len(files) != 1 {
		t.Fatalf("%+v, %v", files, err)
	}
	if got := probe(t, filepath.Join(s.dir, files[0].Name)); len(got.video) < 120+60 || len(got.video) > 120+61 {
		t.Errorf("%d pictures: %+v", len(got.video), s.rec.Stats())
	}
	decodes(t, filepath.Join(s.dir, files[0].Name))
}
