//go:build cgo

package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts/codecs"

	"github.com/amphi-sfu/amphi/cmd/amphi-compositor/internal/av"
	"github.com/amphi-sfu/amphi/hls/compose"
	"github.com/amphi-sfu/amphi/hls/wire"
)

// published is what an encoder sends: in the order of sending.
type published struct {
	video bool
	key   bool
	at    time.Duration
	data  []byte
}

// publisher is 4 s as OBS sends it: High profile, B-pictures, 44.1 kHz mono. Each second begins with a flash and a beep.
func publisher(t *testing.T) (units []published, config []byte) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	var out, stderr bytes.Buffer
	cmd := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", `testsrc2=size=640x360:rate=25,lutyuv=y=val/4,drawbox=c=white:t=fill:enable=lt(mod(t\,1)\,0.1)`,
		"-f", "lavfi", "-i", `aevalsrc=0.5*sin(2*PI*1000*t)*lt(mod(t\,1)\,0.1):s=44100`, "-t", "4", "-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-bf", "2", "-g", "50", "-c:a", "aac", "-ac", "1", "-f", "mpegts", "-")
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	r := &mpegts.Reader{R: &out}
	if err := r.Initialize(); err != nil {
		t.Fatal(err)
	}
	clock := func(pts int64) time.Duration { return time.Duration(pts) * time.Second / 90000 }
	for _, track := range r.Tracks() {
		switch c := track.Codec.(type) {
		case *codecs.H264:
			r.OnDataH264(track, func(pts, _ int64, au [][]byte) error {
				b, err := h264.AnnexB(au).Marshal()
				units = append(units, published{video: true, key: h264.IsRandomAccess(au), at: clock(pts), data: b})
				return err
			})
		case *codecs.MPEG4Audio:
			var err error
			if config, err = c.Config.Marshal(); err != nil {
				t.Fatal(err)
			}
			r.OnDataMPEG4Audio(track, func(pts int64, aus [][]byte) error {
				for i, au := range aus {
					units = append(units, published{at: clock(pts) + time.Duration(i)*1024*time.Second/44100, data: bytes.Clone(au)})
				}
				return nil
			})
		}
	}
	for {
		if err := r.Read(); err != nil {
			break
		}
	}
	if len(units) < 200 || config == nil {
		t.Fatalf("%d units", len(units))
	}
	return units, config
}

// made collects what a transcoder makes.
type made struct {
	mu     sync.Mutex
	video  []wire.Unit
	audio  []wire.Unit
	stream bytes.Buffer
	came   []time.Time // of video
	log    journal
}

func (m *made) take(typ wire.Type, u wire.Unit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u.Data = bytes.Clone(u.Data)
	if typ == wire.TypeTargetVideo {
		m.video = append(m.video, u)
		m.stream.Write(u.Data)
		m.came = append(m.came, time.Now())
		return
	}
	m.audio = append(m.audio, u)
}

func (m *made) counts() (video, audio int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.video), len(m.audio)
}

// journal is a log that a test reads in the end.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// transcoding runs a transcoder, whose process must not end before the test does.
func transcoding(t *testing.T, cfg wire.Transcode, m *made) *compose.Transcoder {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&m.log, nil))
	tr, err := compose.NewTranscoder(compose.TranscodeConfig{Logger: log, Path: path, Env: []string{childEnv + "=1"}, Transcode: cfg, OnUnit: m.take})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if log := m.log.String(); strings.Contains(log, "transcoder ended") {
			t.Error(log)
		}
	})
	return tr
}

// ahead is how many pictures publish has under way at most: two or three of them wait for others in the decoder, and the transcoder
// leaves some out when more than 8 wait for it.
const ahead = 9

// publish sends in real time, as far as the machine keeps up.
func publish(t *testing.T, tr *compose.Transcoder, units []published, m *made, deadline time.Time) (zero time.Time) {
	t.Helper()
	sent := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	first := units[0].at
	began := time.Now()
	for _, u := range units {
		for v, _ := m.counts(); time.Since(began) < u.at-first || u.video && sent-v >= ahead; v, _ = m.counts() {
			if time.Now().After(deadline) {
				t.Fatalf("%d pictures of %d came", v, sent)
			}
			<-tick.C
		}
		if u.video {
			sent++
			tr.WriteVideo(u.at, u.key, u.data)
		} else {
			tr.WriteAudio(u.at, u.data)
		}
	}
	return began.Add(-first)
}

func TestTranscode(t *testing.T) {
	t.Parallel()
	units, config := publisher(t)
	cfg := wire.Transcode{Video: true, MaxWidth: 480, MaxHeight: 480, FPS: 30, Bitrate: 800_000, KeyframeEvery: time.Second,
		AudioConfig: config, AudioBitrate: 64_000}
	var m made
	tr := transcoding(t, cfg, &m)
	deadline := time.Now().Add(60 * time.Second)
	zero := publish(t, tr, units, &m, deadline)
	if n := tr.Dropped(); n != 0 {
		t.Errorf("%d units dropped", n)
	}
	for {
		if v, a := m.counts(); v >= 95 && a >= 195 {
			break
		}
		if time.Now().After(deadline) {
			v, a := m.counts()
			t.Fatalf("%d pictures, %d packets", v, a)
		}
		<-time.After(10 * time.Millisecond)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := 0
	for i, u := range m.video {
		if i > 0 && u.Time <= m.video[i-1].Time {
			t.Errorf("picture %d at %v after one at %v", i, u.Time, m.video[i-1].Time)
		}
		if u.Key {
			keys++
		}
	}
	if keys < 4 || !m.video[0].Key {
		t.Errorf("%d keyframes", keys)
	}
	var au h264.AnnexB
	if err := au.Unmarshal(m.video[0].Data); err != nil {
		t.Fatal(err)
	}
	for _, n := range au {
		if n[0]&0x1f == 7 && (n[1] != 66 || n[2]&0x40 == 0) {
			t.Errorf("profile %d, constraints %x", n[1], n[2])
		}
	}
	for i, u := range m.audio {
		if i > 0 && u.Time-m.audio[i-1].Time != 20*time.Millisecond {
			t.Errorf("packet %d at %v after one at %v", i, u.Time, m.audio[i-1].Time)
		}
	}
	flashes, beeps := flashesOf(t, m.video), beepsOf(t, m.audio)
	if len(flashes) < 3 || len(beeps) < 3 {
		t.Fatalf("flashes %v, beeps %v", flashes, beeps)
	}
	for i := range min(len(flashes), len(beeps)) {
		if d := beeps[i] - flashes[i]; d < -45*time.Millisecond || d > 45*time.Millisecond {
			t.Errorf("beep %d is %v after its flash", i, d)
		}
	}
	var delays []time.Duration
	for i, u := range m.video {
		delays = append(delays, m.came[i].Sub(zero.Add(u.Time)))
	}
	slices.Sort(delays)
	t.Logf("flashes %v, beeps %v; pictures come %v after their time p50, %v p95", flashes, beeps, delays[len(delays)/2], delays[len(delays)*95/100])
	t.Logf("%d pictures, %d keyframes, %d packets", len(m.video), keys, len(m.audio))
	file := filepath.Join(t.TempDir(), "out.h264")
	if err := os.WriteFile(file, m.stream.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=width,height,nb_read_frames,has_b_frames", "-of", "csv=p=0", file).CombinedOutput()
	if err != nil || !bytes.HasPrefix(out, []byte("480,270,0,")) {
		t.Errorf("%v: %s", err, out)
	}
}

// flashesOf are the times at which the picture becomes white.
func flashesOf(t *testing.T, units []wire.Unit) (times []time.Duration) {
	t.Helper()
	d, err := av.NewDecoder("h264")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	was := true // the first one may have begun before
	for _, u := range units {
		f, err := d.Decode(u.Data, u.Time)
		if err != nil || f == nil {
			t.Fatalf("decoding: %v", err)
		}
		w, h := f.Size()
		white := f.At(w/2, h/2).Y > 180 && f.At(w/4, h/4).Y > 180
		if white && !was {
			times = append(times, f.Due())
		}
		was = white
		f.Free()
	}
	return times
}

// beepsOf are the times at which a tone begins.
func beepsOf(t *testing.T, units []wire.Unit) (times []time.Duration) {
	t.Helper()
	opus, err := av.NewOpus()
	if err != nil {
		t.Fatal(err)
	}
	defer opus.Close()
	const lookahead = 312 // samples by which libopus delays
	samples := make([]float32, 2*av.MaxOpusSamples)
	quiet := 0
	for i, u := range units {
		n, err := opus.Decode(u.Data, samples)
		if err != nil || n != av.OpusFrame {
			t.Fatalf("packet %d: %d, %v", i, n, err)
		}
		loud := false
		for k := range n {
			if v := samples[2*k]; v < 0.1 && v > -0.1 {
				quiet++
				continue
			}
			if quiet > 20_000 {
				times = append(times, u.Time+time.Duration(k-lookahead)*time.Second/48_000)
			}
			quiet, loud = 0, true
		}
		if loud && u.Level > 30 || !loud && quiet > 2*n && u.Level < 40 {
			t.Errorf("level of packet %d is %d, loud %v", i, u.Level, loud)
		}
	}
	return times
}

// TestTranscodeGarbage: bytes that are no media neither end the process nor come out.
func TestTranscodeGarbage(t *testing.T) {
	t.Parallel()
	var m made
	tr := transcoding(t, wire.Transcode{Video: true, MaxWidth: 480, MaxHeight: 480, FPS: 30, Bitrate: 800_000, KeyframeEvery: time.Second,
		AudioConfig: []byte{0x11, 0x90}, AudioBitrate: 64_000}, &m)
	garbage := append([]byte{0, 0, 0, 1, 0x65}, bytes.Repeat([]byte{0xa5, 0x3c}, 500)...)
	for i := range 300 {
		tr.WriteVideo(time.Duration(i)*time.Millisecond*33, true, garbage)
		tr.WriteAudio(time.Duration(i)*time.Millisecond*21, garbage)
		<-time.After(5 * time.Millisecond)
	}
	if v, _ := m.counts(); v != 0 {
		t.Errorf("%d pictures", v)
	}
	units, _ := publisher(t)
	deadline := time.Now().Add(30 * time.Second)
	for i := 0; ; i++ { // good ones are taken afterwards
		u := units[i%len(units)]
		if v, _ := m.counts(); v > 5 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no pictures of good ones")
		}
		if u.video {
			tr.WriteVideo(10*time.Second+time.Duration(i)*10*time.Millisecond, u.key, u.data)
			<-time.After(5 * time.Millisecond)
		}
	}
}

func TestTranscoderThatDoesNotLive(t *testing.T) {
	t.Parallel()
	tr, err := compose.NewTranscoder(compose.TranscodeConfig{Path: "/bin/false", OnUnit: new(made).take, Transcode: wire.Transcode{Video: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Run(t.Context()); !errors.Is(err, compose.ErrTranscoder) {
		t.Error(err)
	}
}
