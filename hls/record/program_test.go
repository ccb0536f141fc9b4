package record

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/amphi-sfu/amphi/hls/hlstest"
	"github.com/amphi-sfu/amphi/hls/packager"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// program is a running program of the clip, in as much time as it takes to package it.
type program struct {
	t    testing.TB
	pack *packager.Packager
	clip *hlstest.Clip
	tick int64
	from int64 // clip's first picture, by tick
}

var start = time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)

func newProgram(t testing.TB, variants ...string) *program {
	t.Helper()
	clip, err := hlstest.Load()
	if err != nil {
		t.Fatal(err)
	}
	cfg := packager.Config{Epoch: 1, Start: start, FPS: hlstest.FPS}
	for _, v := range variants {
		cfg.Variants = append(cfg.Variants, packager.Variant{Name: v, Width: hlstest.Width, Height: hlstest.Height, Bitrate: 300_000})
	}
	pack, err := packager.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, pack: pack, clip: clip}
	if err := pack.SetAudioConfig(hlstest.AudioConfig()); err != nil {
		t.Fatal(err)
	}
	p.begin(60)
	return p
}

var errNoStream = errors.New("no such stream")

// TapParts implements Source.
func (p *program) TapParts(_, stream string, takes func(string, int) bool, f func(*packager.Part)) (func(), error) {
	if stream != "main" {
		return nil, errNoStream
	}
	return p.pack.Tap(takes, f), nil
}

// begin has another compositor deliver from a tick on.
func (p *program) begin(tick int64) {
	p.t.Helper()
	p.tick, p.from = tick, tick
	if err := p.pack.Begin(tick); err != nil {
		p.t.Fatal(err)
	}
}

// play delivers ticks of pictures and their sound.
func (p *program) play(ticks int) {
	p.t.Helper()
	for range ticks {
		for v := range p.pack.Config().Variants {
			if err := p.pack.WriteVideo(v, p.tick, p.clip.Video[(p.tick-p.from)%hlstest.Frames]); err != nil {
				p.t.Fatal(err)
			}
		}
		const perTick = packager.AudioRate / hlstest.FPS
		for at := (p.tick*perTick + 1023) / 1024 * 1024; at < (p.tick+1)*perTick; at += 1024 {
			if err := p.pack.WriteAudio(at, p.clip.Audio[at/1024%90]); err != nil {
				p.t.Fatal(err)
			}
		}
		p.tick++
	}
}

// states notes what a recorder tells.
type states struct {
	mu     sync.Mutex // guards the fields below
	list   []State
	assets []Asset
}

func (s *states) onState(_ string, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, state)
}

func (s *states) onAsset(a Asset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assets = append(s.assets, a)
}

func (s *states) last() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return State{}
	}
	return s.list[len(s.list)-1]
}

func (s *states) asset(of Type, variant string) (Asset, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.assets {
		if a.Type == of && (variant == "" || a.Variant == variant) {
			return a, true
		}
	}
	return Asset{}, false
}

// run makes a recorder that runs until the test ends, or stop is called.
func run(t *testing.T, cfg Config, s *states) (r *Recorder, stop func()) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.OnState, cfg.OnAsset = s.onState, s.onAsset
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	ctx, cancel := newContext()
	go func() {
		defer close(ended)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return r, stop
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not in time", what)
		}
	}
}

// written waits until the recording has so much on the disk.
func written(t *testing.T, r *Recorder, id string, length time.Duration) {
	t.Helper()
	eventually(t, "recording", func() bool {
		s, err := r.State(id)
		return err == nil && s.Length >= length
	})
}

// frames has ffprobe list the frames of a file or playlist.
func frames(t *testing.T, path string) (video, audio []string) {
	t.Helper()
	cmd := exec.Command("ffprobe", "-v", "error", "-allowed_extensions", "ALL", "-show_entries", "frame=media_type,pts_time", "-of", "csv", filepath.Base(path))
	if !strings.HasSuffix(path, ".m3u8") {
		cmd = exec.Command("ffprobe", "-v", "error", "-show_entries", "frame=media_type,pts_time", "-of", "csv", filepath.Base(path))
	}
	cmd.Dir = filepath.Dir(path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("ffprobe %s: %v\n%s", filepath.Base(path), err, &stderr)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		switch {
		case len(fields) < 3:
		case fields[1] == "video":
			video = append(video, fields[2])
		case fields[1] == "audio":
			audio = append(audio, fields[2])
		}
	}
	return video, audio
}

// decodes has ffmpeg decode everything, without a word of complaint.
func decodes(t *testing.T, path string) {
	t.Helper()
	args := []string{"-v", "warning", "-xerror"}
	if strings.HasSuffix(path, ".m3u8") {
		args = append(args, "-allowed_extensions", "ALL")
	}
	cmd := exec.Command("ffmpeg", append(args, "-i", filepath.Base(path), "-f", "null", "-")...)
	cmd.Dir = filepath.Dir(path)
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("ffmpeg %s: %v\n%s", filepath.Base(path), err, out)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
